"""``gblr-hw train``: one network, trained towards a latency target."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gblr_hw.cli.shared.options import JsonOption, MachineOption, check_output, console, print_json, progress_bar
from simulator.base.errors import InputError
from simulator.machine.machine import Machine

if TYPE_CHECKING:
    from gblr_hw.cost.target import Target


class FamilyName(StrEnum):
    """What is trained; ``width`` and ``hardware`` are the two penalties on GBLR."""

    dense = "dense"
    width = "width"
    hardware = "hardware"
    block_sparse = "block_sparse"
    low_rank = "low_rank"
    block_low_rank = "block_low_rank"
    lattice = "lattice"
    learned = "learned"


def train_command(
    output: Annotated[Path, typer.Option("--output", "-o", help="Checkpoint to write (.safetensors).")],
    family: Annotated[
        FamilyName,
        typer.Option(
            "--family",
            help="dense; width: GBLR with the authors' width shrinkage; hardware: GBLR with the hardware cost, then "
            "projection; block_sparse, low_rank, block_low_rank, lattice: projection from the dense weights; learned: "
            "dense tiles, whole ranks or ranks by chunk, whichever a short trial favours.",
        ),
    ] = FamilyName.hardware,
    target_latency: Annotated[
        str | None,
        typer.Option(
            "--target-latency",
            help="0.6x-dense, 50000cycles or 0.05ms on the machine; every family but dense needs this or an energy.",
        ),
    ] = None,
    target_energy: Annotated[
        str | None, typer.Option("--target-energy", help="0.6x-dense, 80uJ or 0.08mJ on the machine.")
    ] = None,
    whole_network: Annotated[
        bool,
        typer.Option("--whole-network", help="The target is for the whole network, not only for its linear layers."),
    ] = False,
    machine: MachineOption = "mid-32",
    images: Annotated[
        int, typer.Option("--images", help="Images that the machine works on at a time (16 rows each).", min=1)
    ] = 16,
    epochs: Annotated[int, typer.Option("--epochs", help="Epochs after the dense start.", min=1)] = 12,
    seed: Annotated[int, typer.Option("--seed")] = 0,
    distil: Annotated[
        float,
        typer.Option("--distil", help="Part of the objective that is the dense start's outputs.", min=0.0, max=1.0),
    ] = 0.0,
    checkpoint: Annotated[
        Path | None,
        typer.Option("--checkpoint", help="File to keep the run in after every epoch; if it is there, go on from it."),
    ] = None,
    device: Annotated[str, typer.Option("--device", help="A torch device: cpu or cuda.")] = "cpu",
    as_json: JsonOption = False,
) -> None:
    """Train a small vision transformer on scikit-learn's digits, so that it meets a latency or an energy on a machine.

    Every family starts from the same dense network. The penalty's weight is found while training; nobody sets it.
    """
    from gblr_hw.demo.single import train_single
    from gblr_hw.files.checkpoint import save_checkpoint

    check_output(output)
    loaded = Machine.load(machine)
    target = _target(family, target_latency, target_energy)
    with progress_bar(as_json) as progress:
        network, dense = train_single(
            family.value,
            loaded,
            target,
            energy=target_energy is not None,
            whole_network=whole_network,
            images=images,
            epochs=epochs,
            seed=seed,
            device=device,
            distil_weight=distil,
            checkpoint=checkpoint,
            progress=progress,
        )
    save_checkpoint(network.model, output)
    measure, unit = ("latency_cycles", "cycles") if target_energy is None else ("energy_pj", "pJ")
    summary = {
        "checkpoint": str(output),
        "family": family.value,
        "kind": network.kind,
        "machine": loaded.name,
        "measured": "whole network" if whole_network else "linear layers",
        "accuracy": network.accuracy,
        measure: round(network.reached),
        f"dense_{measure}": round(dense),
        f"target_{unit.lower()}": None if network.target is None else round(network.target),
        "diverged": network.diverged,
    }
    if as_json:
        print_json(summary)
        return
    share = network.reached / dense
    stopped = "; stopped at the last good epoch, as the loss was no longer finite" if network.diverged else ""
    console.print(
        f"{family.value}: accuracy {network.accuracy:.1%}, {network.reached:,.0f} {unit} on {loaded.name} "
        f"({share:.3f} of dense); written to {output}{stopped}",
        highlight=False,
        soft_wrap=True,
    )


def _target(family: FamilyName, target_latency: str | None, target_energy: str | None) -> Target | None:
    """The one target, of either kind; None for a dense network that has none."""
    from gblr_hw.cost.target import parse_energy_target, parse_target

    if family is not FamilyName.dense and target_latency is None and target_energy is None:
        raise InputError(
            "--target-latency", "nothing", f"the family '{family}' is trained towards a latency", "Give 0.6x-dense."
        )
    if target_latency is not None and target_energy is not None:
        raise InputError(
            "--target-energy",
            repr(target_energy),
            "a run has one target, and --target-latency is given",
            "Leave one out.",
        )
    if target_energy is not None:
        return parse_energy_target(target_energy)
    return None if target_latency is None else parse_target(target_latency)
