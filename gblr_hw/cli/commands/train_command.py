"""``gblr-hw train``: one network, trained towards a latency target."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from gblr_hw.cli.options.taking import takes
from gblr_hw.cli.options.train_options import TrainOptions
from gblr_hw.cli.shared.acting import ALWAYS, check_acting
from gblr_hw.cli.shared.outputs import Output, check_outputs, machine_file
from gblr_hw.cli.shared.telling import print_json, progress_bar, say
from gblr_hw.cli.sources.lower_source import model_file
from gblr_hw.weights.family import Family, family_named, trained
from simulator.base.errors import InputError
from simulator.machine.machine import Machine

if TYPE_CHECKING:
    from gblr_hw.cost.target import Target
    from gblr_hw.training.recipe import TrainedNetwork


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


@takes(TrainOptions)
def train_command(context: typer.Context, options: TrainOptions) -> None:
    """Train a small vision transformer on images, or a model of your own, so that it meets a latency (or an energy) on
    a machine.

    Families start from the same dense network, or, where they say from scratch, have its epochs for their own.
    The penalty's weight is found while training; nobody sets it.
    """
    if options.model is not None:
        check_acting(context, [_OWN], _ACTS_WITH)
        _train_own(options.model, options)
        return
    family = family_named(options.family or "hardware", trained(), "--family")
    check_acting(context, _about(family), _ACTS_WITH)
    _train_built_in(family, options)


def _train_built_in(family: Family, options: TrainOptions) -> None:
    """Train the small vision transformer, and write it."""
    from gblr_hw.demo.data_sets import data_set
    from gblr_hw.demo.single import check_images, dense_run, train_single
    from gblr_hw.files.checkpoint import save_checkpoint

    machine, data = Machine.load(options.machine), data_set(options.data)
    target = _target(family, options.target_latency, options.target_energy)
    check_outputs(
        [
            Output("--output", options.output),
            Output("--checkpoint", options.checkpoint),
            Output("--checkpoint's dense start", dense_run(options.checkpoint)),
        ],
        inputs={"--machine": machine_file(options.machine)},
    )
    check_images(options.images, data)
    _check_device(options.device)
    with progress_bar(options.as_json) as progress:
        network, dense = train_single(
            family.name,
            machine,
            target,
            energy=options.target_energy is not None,
            whole_network=options.whole_network,
            data=data,
            images=options.images,
            epochs=options.epochs,
            seed=options.seed,
            device=options.device,
            distil_weight=options.distil,
            checkpoint=options.checkpoint,
            progress=progress,
        )
    save_checkpoint(network.model, options.output)
    _tell_built_in(family, options, machine, network, dense)


def _tell_built_in(
    family: Family, options: TrainOptions, machine: Machine, network: TrainedNetwork, dense: float
) -> None:
    measure, unit = ("latency_cycles", "cycles") if options.target_energy is None else ("energy_pj", "pJ")
    if options.as_json:
        summary = {
            "checkpoint": str(options.output),
            "family": family.name,
            "kind": network.kind,
            "machine": machine.name,
            "measured": "whole network" if options.whole_network else "linear layers",
            "accuracy": network.accuracy,
            measure: round(network.reached),
            f"dense_{measure}": round(dense),
            f"target_{unit.lower()}": None if network.target is None else round(network.target),
            "diverged": network.diverged,
        }
        print_json(summary)
        return
    share = network.reached / dense
    stopped = "; stopped at the last good epoch, as the loss was no longer finite" if network.diverged else ""
    say(
        f"{family.name}: accuracy {network.accuracy:.1%}, {network.reached:,.0f} {unit} on {machine.name} "
        f"({share:.3f} of dense); written to {options.output}{stopped}"
    )


def _about(family: Family) -> list[str]:
    """What a call for a family of the demo's network is about."""
    trained_towards = [_TRAINED] if family.needs_target else [_DENSE]
    if family.needs_target and family.from_scratch:
        trained_towards = [f"the family '{family.name}', which is trained from scratch", _TRAINED]
    return [*trained_towards, *([] if family.from_scratch else [_FROM_DENSE]), _BUILT_IN]


def _train_own(model: str, options: TrainOptions) -> None:
    """Train the user's own model on the user's own batches, and write it."""
    from gblr_hw.cli.sources.train_source import train_own
    from gblr_hw.files.checkpoint import save_checkpoint

    machine, family, target = Machine.load(options.machine), options.family or "lattice", options.target_latency
    if target is None:
        raise InputError("--target-latency", "nothing", "a model is trained towards a latency", "Give 0.6x-dense.")
    check_outputs(
        [Output("--output", options.output), Output("--checkpoint", options.checkpoint)],
        inputs={
            "--machine": machine_file(options.machine), "--model": model_file(model),
            "--data": model_file(options.data),
        },
    )  # fmt: skip
    with progress_bar(options.as_json) as progress:
        fitted, before, after = train_own(
            model, options.data, machine, target, family, options.epochs, options.seed, options.learning_rate,
            options.checkpoint, progress,
        )  # fmt: skip
    save_checkpoint(fitted.model, options.output)
    if options.as_json:
        summary = {
            "checkpoint": str(options.output),
            "family": family,
            "machine": machine.name,
            "measured": "whole network",
            "layers": list(fitted.layers),
            "latency_cycles": round(fitted.latency_cycles),
            "dense_latency_cycles": round(fitted.dense_cycles),
            "target_cycles": round(fitted.target_cycles),
            "training_losses": list(fitted.losses),
            "held_out": after.record(),
            "held_out_before": before.record(),
        }
        print_json(summary)
        return
    say(f"held out: {after.told()} (before: {before.told()})")
    say(
        f"{len(fitted.layers)} layers, {fitted.latency_cycles:,.0f} cycles on {machine.name} "
        f"({fitted.of_dense:.3f} of dense {fitted.dense_cycles:,.0f}); written to {options.output}"
    )
    say(f"lower it with: gblr-hw lower {options.output} --model {model} -m {options.machine}")


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
