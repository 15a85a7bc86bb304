"""``gblr-hw train``: one network, trained towards a latency target."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from gblr_hw.cli.options import JsonOption, MachineOption, check_output, console, print_json, progress_bar
from simulator.errors import InputError
from simulator.machine import Machine


class FamilyName(StrEnum):
    """What is trained; ``width`` and ``hardware`` are the two penalties on GBLR."""

    dense = "dense"
    width = "width"
    hardware = "hardware"
    block_sparse = "block_sparse"
    low_rank = "low_rank"
    lattice = "lattice"


def train_command(
    output: Annotated[Path, typer.Option("--output", "-o", help="Checkpoint to write (.safetensors).")],
    family: Annotated[
        FamilyName,
        typer.Option(
            "--family",
            help="dense; width: GBLR with the authors' width shrinkage; hardware: GBLR with the hardware cost, then "
            "projection; block_sparse, low_rank, lattice: projection from the dense weights.",
        ),
    ] = FamilyName.hardware,
    target_latency: Annotated[
        str | None,
        typer.Option(
            "--target-latency",
            help="0.6x-dense, 50000cycles or 0.05ms on the machine; needed by every family but dense.",
        ),
    ] = None,
    machine: MachineOption = "mid-32",
    images: Annotated[
        int, typer.Option("--images", help="Images that the machine works on at a time (16 rows each).", min=1)
    ] = 16,
    epochs: Annotated[int, typer.Option("--epochs", help="Epochs after the dense start.", min=1)] = 12,
    seed: Annotated[int, typer.Option("--seed")] = 0,
    device: Annotated[str, typer.Option("--device", help="A torch device: cpu or cuda.")] = "cpu",
    as_json: JsonOption = False,
) -> None:
    """Train a small vision transformer on scikit-learn's digits, so that it meets a latency on a machine.

    Every family starts from the same dense network. The penalty's weight is found while training; nobody sets it.
    """
    from gblr_hw.checkpoint import save_checkpoint
    from gblr_hw.training.single import train_single
    from gblr_hw.training.target import parse_target

    check_output(output)
    loaded = Machine.load(machine)
    if family is not FamilyName.dense and target_latency is None:
        raise InputError(
            "--target-latency", "nothing", f"the family '{family}' is trained towards a latency", "Give 0.6x-dense."
        )
    target = None if target_latency is None else parse_target(target_latency)
    with progress_bar(as_json) as progress:
        network, dense_cycles = train_single(
            family.value, loaded, target, images=images, epochs=epochs, seed=seed, device=device, progress=progress
        )
    save_checkpoint(network.model, output)
    summary = {
        "checkpoint": str(output),
        "family": family.value,
        "machine": loaded.name,
        "accuracy": network.accuracy,
        "latency_cycles": round(network.latency_cycles),
        "dense_latency_cycles": round(dense_cycles),
        "target_cycles": None if network.target_cycles is None else round(network.target_cycles),
        "diverged": network.diverged,
    }
    if as_json:
        print_json(summary)
        return
    share = network.latency_cycles / dense_cycles
    console.print(
        f"{family.value}: accuracy {network.accuracy:.1%}, {network.latency_cycles:,.0f} cycles on {loaded.name} "
        f"({share:.3f} of dense); written to {output}",
        highlight=False,
        soft_wrap=True,
    )
