"""``gblr-hw train``: one network, trained towards a latency target."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gblr_hw.cli.shared.acting import ALWAYS, check_acting
from gblr_hw.cli.shared.options import JsonOption, MachineOption, SeedOption, print_json, progress_bar, say
from gblr_hw.cli.shared.outputs import Output, check_outputs, machine_file
from gblr_hw.cli.sources.lower_source import model_file
from gblr_hw.weights.family import Family, family_named, told, trained
from simulator.base.errors import InputError
from simulator.machine.machine import Machine

if TYPE_CHECKING:
    from gblr_hw.cost.target import Target


_TRAINED, _DENSE = "a family that is trained towards a target", "the family 'dense'"
_FROM_DENSE = "a family that starts from the dense network"
_OWN, _BUILT_IN = "--model", "the small vision transformer"
_ACTS_WITH = {
    "output": ALWAYS,
    "family": ALWAYS,
    "target_latency": (_TRAINED, _OWN),
    "target_energy": (_TRAINED,),
    **dict.fromkeys(("model", "machine", "data", "epochs", "seed", "checkpoint", "as_json"), ALWAYS),
    "distil": (_FROM_DENSE,),
    **dict.fromkeys(("whole_network", "images", "device"), (_BUILT_IN,)),
    "learning_rate": (_OWN,),
}


def train_command(
    context: typer.Context,
    output: Annotated[Path, typer.Option("--output", "-o", help="Checkpoint to write (.safetensors).")],
    family: Annotated[
        str | None,
        typer.Option(
            "--family", help=f"What is trained: hardware, or lattice with --model, if not given. {told(trained())}"
        ),
    ] = None,
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
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            help="Train a model of your own: a function that returns (module, example inputs). The latency is of the "
            "whole program.",
            metavar="FILE.py:FUNCTION",
        ),
    ] = None,
    data: Annotated[
        str,
        typer.Option(
            "--data",
            help="digits; fashion-mnist, where Debian's dataset-fashion-mnist puts it; or fashion-mnist:FOLDER. With "
            "--model FILE.py:FUNCTION, which returns (batches to train on, held-out batches).",
            metavar="NAME[:FOLDER]",
        ),
    ] = "digits",
    images: Annotated[
        int, typer.Option("--images", help="Images that the machine works on at a time (16 rows each).", min=1)
    ] = 16,
    epochs: Annotated[int, typer.Option("--epochs", help="Epochs after the dense start.", min=1)] = 12,
    seed: SeedOption = 0,
    learning_rate: Annotated[
        float, typer.Option("--learning-rate", help="Of AdamW at its highest, with --model.", min=1e-9, max=10.0)
    ] = 2e-3,
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
    """Train a small vision transformer on images, or a model of your own, so that it meets a latency (or an energy) on
    a machine.

    Families start from the same dense network, or, where they say from scratch, have its epochs for their own.
    The penalty's weight is found while training; nobody sets it.
    """
    from gblr_hw.demo.data_sets import data_set
    from gblr_hw.demo.single import check_images, dense_run, train_single
    from gblr_hw.files.checkpoint import save_checkpoint

    if model is not None:
        check_acting(context, [_OWN], _ACTS_WITH)
        _train_own(
            output, model, data, family, target_latency, machine, epochs, seed, learning_rate, checkpoint, as_json
        )
        return
    kind = family_named(family or "hardware", trained(), "--family")
    check_acting(context, _about(kind), _ACTS_WITH)
    loaded, chosen = Machine.load(machine), data_set(data)
    target = _target(kind, target_latency, target_energy)
    check_outputs(
        [
            Output("--output", output),
            Output("--checkpoint", checkpoint),
            Output("--checkpoint's dense start", dense_run(checkpoint)),
        ],
        inputs={"--machine": machine_file(machine)},
    )
    check_images(images, chosen)
    _check_device(device)
    with progress_bar(as_json) as progress:
        network, dense = train_single(
            kind.name,
            loaded,
            target,
            energy=target_energy is not None,
            whole_network=whole_network,
            data=chosen,
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
        "family": kind.name,
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
    say(
        f"{kind.name}: accuracy {network.accuracy:.1%}, {network.reached:,.0f} {unit} on {loaded.name} "
        f"({share:.3f} of dense); written to {output}{stopped}"
    )


def _about(family: Family) -> list[str]:
    """What a call for a family of the demo's network is about."""
    trained_towards = [_TRAINED] if family.needs_target else [_DENSE]
    if family.needs_target and family.from_scratch:
        trained_towards = [f"the family '{family.name}', which is trained from scratch", _TRAINED]
    return [*trained_towards, *([] if family.from_scratch else [_FROM_DENSE]), _BUILT_IN]


def _train_own(
    output: Path,
    model: str,
    data: str,
    family: str | None,
    target_latency: str | None,
    machine: str,
    epochs: int,
    seed: int,
    learning_rate: float,
    checkpoint: Path | None,
    as_json: bool,
) -> None:
    """Train the user's own model on the user's own batches, and write it."""
    from gblr_hw.cli.sources.train_source import train_own
    from gblr_hw.files.checkpoint import save_checkpoint

    loaded = Machine.load(machine)
    if target_latency is None:
        raise InputError("--target-latency", "nothing", "a model is trained towards a latency", "Give 0.6x-dense.")
    check_outputs(
        [Output("--output", output), Output("--checkpoint", checkpoint)],
        inputs={
            "--machine": machine_file(machine), "--model": model_file(model), "--data": model_file(data),
        },
    )  # fmt: skip
    with progress_bar(as_json) as progress:
        fitted, before, after = train_own(
            model, data, loaded, target_latency, family or "lattice", epochs, seed, learning_rate, checkpoint, progress
        )
    save_checkpoint(fitted.model, output)
    summary = {
        "checkpoint": str(output),
        "family": family or "lattice",
        "machine": loaded.name,
        "measured": "whole network",
        "layers": list(fitted.layers),
        "latency_cycles": round(fitted.latency_cycles),
        "dense_latency_cycles": round(fitted.dense_cycles),
        "target_cycles": round(fitted.target_cycles),
        "training_losses": list(fitted.losses),
        "held_out": after.record(),
        "held_out_before": before.record(),
    }
    if as_json:
        print_json(summary)
        return
    say(f"held out: {after.told()} (before: {before.told()})")
    say(
        f"{len(fitted.layers)} layers, {fitted.latency_cycles:,.0f} cycles on {loaded.name} "
        f"({fitted.of_dense:.3f} of dense {fitted.dense_cycles:,.0f}); written to {output}"
    )
    say(f"lower it with: gblr-hw lower {output} --model {model} -m {machine}")


def _check_device(device: str) -> None:
    """Raise InputError unless torch can work with numbers there."""
    import torch

    try:
        chosen = torch.device(device)
        if chosen.type == "cpu" and chosen.index not in (None, 0):  # torch takes any number for its one CPU
            raise ValueError("there is one CPU device")
        torch.ones(1, device=chosen).item()
    except Exception as error:  # each backend has its own
        raise InputError(
            "--device",
            f"'{device}' ({(str(error).strip().splitlines() or [type(error).__name__])[0]})",
            "it is a device that torch has here: cpu, or cuda with an NVIDIA GPU and its build of torch",
            "Leave it out to train on the CPU.",
        ) from error


def _target(family: Family, target_latency: str | None, target_energy: str | None) -> Target | None:
    """The one target, of either kind; None for a dense network that has none."""
    from gblr_hw.cost.target import parse_energy_target, parse_target

    if family.needs_target and target_latency is None and target_energy is None:
        raise InputError(
            "--target-latency",
            "nothing",
            f"the family '{family.name}' is trained towards a latency",
            "Give 0.6x-dense.",
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
