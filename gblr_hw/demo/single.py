"""One network of a family, from its dense start to its target: what ``gblr-hw train`` runs."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from gblr_hw.cost.target import Target, UnreachableTargetError
from gblr_hw.demo.data_sets import DIGITS, DataSet
from gblr_hw.layers.linear import GBLRLinear
from gblr_hw.layers.replace import linear_names, set_module
from gblr_hw.lowering.pipeline import MAX_TOKENS
from gblr_hw.models.vit import ViT
from gblr_hw.training.loop.loop import EpochRecord
from gblr_hw.training.loop.run_state import read_run
from gblr_hw.training.measure.hardware import CostUnit, Hardware, hardware_of
from gblr_hw.training.measure.whole_hardware import whole_hardware_of
from gblr_hw.training.networks import train_network
from gblr_hw.training.recipe import Recipe, TrainedNetwork
from gblr_hw.weights.stored import GBLRWeights
from simulator.base.errors import InputError
from simulator.machine.machine import Machine

DEMO_SHAPE = DIGITS.shape
DENSE_LEARNING_RATE = 3e-3

Progress = Callable[[int, int, str], None]


def check_images(images: int, data: DataSet = DIGITS) -> None:
    """Raise InputError for more images than a program has rows for."""
    most = MAX_TOKENS // data.shape.tokens
    if not 1 <= images <= most:
        raise InputError("images", str(images), f"the machine works on 1 to {most} at a time", "Ask for fewer.")


def dense_run(checkpoint: Path | None) -> Path | None:
    """The file that a run's dense start is kept in, beside the run's own."""
    return None if checkpoint is None else checkpoint.with_name(checkpoint.name + ".dense")


def train_single(
    family: str,
    machine: Machine,
    target: Target | None,
    *,
    energy: bool = False,
    whole_network: bool = False,
    data: DataSet = DIGITS,
    images: int = 16,
    epochs: int = 12,
    seed: int = 0,
    device: str = "cpu",
    distil_weight: float = 0.0,
    checkpoint: Path | None = None,
    progress: Progress | None = None,
) -> tuple[TrainedNetwork, float]:
    """Train a ViT of one family on a data set; returns it and what the dense network takes: cycles, or pJ with
    `energy`, the target then being one in joules; of its linear layers, or of the `whole_network`.

    The dense start is trained for as many epochs as the family gets after it; a family that is trained from scratch
    begins as the dense start did and has the epochs of both, and the dense network is what it is compared with. With a
    `checkpoint` file (CHECKPOINT and CHECKPOINT.dense) both go on where an interrupted run stopped. progress(done, of,
    what) is called after every epoch. Raises InputError for a target that is not below the dense latency or that cannot
    be reached.
    """
    check_images(images, data)
    for kept in (checkpoint, dense_run(checkpoint)):
        read_run(kept)  # a file that holds something else is told before the dense start is trained
    (train_set, test_set), shape = data.load(), data.shape
    base = Recipe("dense", epochs=epochs, learning_rate=DENSE_LEARNING_RATE, seed=seed, device=device)
    recipe = replace(Recipe(family), epochs=epochs, seed=seed, device=device, distil_weight=distil_weight)
    unit: CostUnit = "pJ" if energy else "cycles"
    hardware = hardware_of(machine, images * shape.tokens, unit)

    def hardware_for(model: nn.Module) -> Hardware:
        if not whole_network:
            return hardware
        example = (torch.zeros(images, shape.image, shape.image),)
        return whole_hardware_of(machine, model, example, images * shape.tokens, unit)

    torch.manual_seed(seed)
    start = ViT(shape)

    def report(what: str) -> Callable[[EpochRecord], None]:
        def tell(record: EpochRecord) -> None:
            if progress is not None:
                progress(record.epoch, record.epochs, f"{what}: accuracy {record.accuracy:.1%}")

        return tell

    if recipe.entry.needs_target and target is not None:
        _check_reachable(target, start.eval(), hardware_for(start), machine)
    dense = train_network(
        base, start, train_set, test_set, hardware, progress=report("dense start"), checkpoint=dense_run(checkpoint)
    )
    if whole_network:
        hardware = hardware_for(dense.model)
        dense = replace(dense, reached=hardware.measure(dense.model))
    if not recipe.entry.needs_target:
        return dense, dense.reached
    wanted = None if target is None else _wanted(target, dense.reached, hardware, machine)
    begun = dense.model
    if recipe.entry.from_scratch:
        recipe, begun = replace(recipe, epochs=2 * epochs, learning_rate=DENSE_LEARNING_RATE), start.train()
    network = train_network(recipe, begun, train_set, test_set, hardware, wanted, report(recipe.family), checkpoint)
    return network, dense.reached


def _wanted(target: Target, dense: float, hardware: Hardware, machine: Machine) -> float:
    if hardware.unit == "pJ":
        return target.picojoules(dense)
    return target.cycles(dense, machine.clock_ghz)


def _check_reachable(target: Target, model: nn.Module, hardware: Hardware, machine: Machine) -> None:
    """Raise UnreachableTargetError for a target that the network does not meet with nothing left in any linear layer,
    and InputError for one that is not below the dense network's; neither depends on what the weights are.
    """
    wanted = _wanted(target, hardware.measure(model), hardware, machine)
    emptied = copy.deepcopy(model)
    for name in linear_names(emptied):
        linear = emptied.get_submodule(name)
        assert isinstance(linear, nn.Linear)
        none, one = torch.full((2, 1), -1.0), torch.zeros(1, 1, linear.in_features)
        bias = None if linear.bias is None else linear.bias.detach()
        left = GBLRWeights(none, torch.zeros(2, 1), one, torch.zeros(1, linear.out_features, 1), bias, 1.0, False)
        set_module(emptied, name, GBLRLinear.from_weights(left))
    least = hardware.measure(emptied.eval())
    if wanted < least:
        raise UnreachableTargetError(
            f"target {'energy' if hardware.unit == 'pJ' else 'latency'}",
            f"{target} ({wanted:.3g} {hardware.unit})",
            f"with nothing left in any linear layer the network still takes {least:.0f} {hardware.unit}",
            "Raise the target.",
        )
