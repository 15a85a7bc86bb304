"""Recipes for every family of network, and the one function that trains any of them from a shared dense start."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import nn
from torch.utils.data import Dataset

from gblr_hw.factors import evaluate
from gblr_hw.linear import GBLRLinear
from gblr_hw.training.gblr_start import gblr_from_linear
from gblr_hw.training.hardware import Hardware
from gblr_hw.training.loop import EpochRecord, Example, Hook, LoopSettings, Progress, accuracy, train
from gblr_hw.training.penalties import HardwarePenalty, WidthPenalty
from gblr_hw.training.project_training import ProjectionSchedule
from gblr_hw.training.swap import Start, lattice_from_factors, lattice_from_linear, linear_names, set_module
from gblr_hw.training.target import TargetController
from simulator.errors import InputError

Family = Literal["dense", "width", "hardware", "block_sparse", "low_rank", "lattice"]
_START: dict[Family, Start] = {"block_sparse": "block_sparse", "low_rank": "low_rank", "lattice": "lattice"}
FAMILIES: tuple[Family, ...] = ("dense", "width", "hardware", "block_sparse", "low_rank", "lattice")


@dataclass(frozen=True)
class Recipe:
    """How one network is made. The defaults are the demo's, the same for all families.

    family: dense; width (GBLR, the authors' width shrinkage); hardware (GBLR, hardware penalty, then projection);
        block_sparse, low_rank, lattice (projection from the dense weights: tiles only, whole ranks, any chunk set).
    epochs: after the dense start, in all phases together.
    layers: regular expression for the linear layers that are replaced.
    geometry_rate: widths and locations learn at this multiple of the learning rate.
    penalty_fraction, penalty_share: the hardware family's penalty aims at this fraction of the dense latency (or at the
        target, if that is more) over this share of the epochs; the projection does the rest.
    project_end: part of its phase over which a projection shrinks the structure. width_end: the same for the width
        penalty's path. gblr_width: mean width of the intervals that a GBLR network starts from.
    intervals_only: projections keep cyclic runs. device, bfloat16: where it trains, and whether under autocast.
    """

    family: Family
    epochs: int = 12
    learning_rate: float = 2e-3
    batch_size: int = 64
    weight_decay: float = 0.01
    seed: int = 0
    layers: str = r"blocks\..*"
    geometry_rate: float = 2.0
    penalty_fraction: float = 0.9
    penalty_share: float = 0.25
    project_end: float = 0.6
    width_end: float = 0.7
    gblr_width: float = 0.5
    intervals_only: bool = False
    device: str = "cpu"
    bfloat16: bool = False

    def __post_init__(self) -> None:
        if self.family not in FAMILIES:
            raise InputError(
                "recipe family", repr(self.family), f"it must be one of {', '.join(FAMILIES)}", "Choose one."
            )
        if self.epochs < 1:
            raise InputError("recipe epochs", str(self.epochs), "it must be at least 1", "Try 12.")


@dataclass(frozen=True)
class TrainedNetwork:
    """A trained model (evaluation mode, on the CPU), its test accuracy, the epochs of all phases, its exact latency."""

    recipe: Recipe
    model: nn.Module
    accuracy: float
    history: tuple[EpochRecord, ...]
    target_cycles: float | None
    latency_cycles: float
    diverged: bool


def train_network(
    recipe: Recipe,
    model: nn.Module,
    train_set: Dataset[Example],
    test_set: Dataset[Example],
    hardware: Hardware,
    target_cycles: float | None = None,
    progress: Progress | None = None,
) -> TrainedNetwork:
    """Train one network. `model` is copied: an untrained network for "dense", the dense start for every other family.

    Every family but dense needs `target_cycles`; all but width and low_rank meet it with no tile to spare, low_rank in
    steps of whole ranks, width in steps of whole widths, and none exceeds it. Deterministic for a recipe on one machine
    and thread count.

    Raises
    ------
    InputError: no target where one is needed, no hardware cost for the hardware family, or a target that the family
        cannot reach.
    """
    model = copy.deepcopy(model)
    torch.manual_seed(recipe.seed)
    if recipe.family == "dense":
        phases = [_Phase(lambda: [], recipe.epochs)]
    elif target_cycles is None:
        raise InputError(
            f"recipe '{recipe.family}'", "no target", "every family but dense needs a latency", "Give a target."
        )
    else:
        phases = _phases(recipe, model, hardware, target_cycles)
    records: list[EpochRecord] = []
    diverged = False
    for phase in phases:
        model.cpu()
        hooks = phase.prepare()
        history = train(
            model, train_set, test_set, _settings(recipe, phase.epochs), hooks, _shifted(progress, records, recipe)
        )
        records += [replace(r, epoch=r.epoch + len(records), epochs=recipe.epochs) for r in history.epochs]
        diverged = diverged or history.diverged
    model.cpu().eval()
    latency = hardware.measure(model)
    if target_cycles is not None and latency > target_cycles and not diverged:
        raise InputError(
            f"target latency of recipe '{recipe.family}'",
            f"{target_cycles:.0f} cycles",
            f"with everything shrunk away the network still takes {latency:.0f}: the layers left dense are not touched",
            "Raise the target, or let `layers` name more of them.",
        )
    return TrainedNetwork(recipe, model, accuracy(model, test_set), tuple(records), target_cycles, latency, diverged)


@dataclass(frozen=True)
class _Phase:
    """A part of the training: what to change in the model, which hooks to run, for how many epochs."""

    prepare: Callable[[], list[Hook]]
    epochs: int


def _settings(recipe: Recipe, epochs: int) -> LoopSettings:
    return LoopSettings(
        epochs,
        recipe.batch_size,
        recipe.learning_rate,
        recipe.weight_decay,
        seed=recipe.seed,
        geometry_rate=recipe.geometry_rate,
        device=recipe.device,
        bfloat16=recipe.bfloat16,
    )


def _phases(recipe: Recipe, model: nn.Module, hardware: Hardware, target: float) -> list[_Phase]:
    names = linear_names(model, recipe.layers)
    dense_cycles = hardware.measure(model)

    def project() -> list[Hook]:
        return [
            ProjectionSchedule(
                target,
                hardware.measure,
                hardware.tile_cycles,
                hardware.rows,
                hardware.cols,
                estimate=hardware.quick,
                end=recipe.project_end,
                intervals_only=recipe.intervals_only,
            )
        ]

    def from_dense() -> list[Hook]:
        for name in names:
            layer = lattice_from_linear(_linear(model, name), _START[recipe.family], hardware.rows, hardware.cols)
            set_module(model, name, layer)
        return project()

    def shrink_widths() -> list[Hook]:
        _to_gblr(model, names, recipe)
        return [WidthPenalty(TargetController(target, end=recipe.width_end), hardware.measure, hardware.quick)]

    def shrink_hardware() -> list[Hook]:
        _to_gblr(model, names, recipe)
        if hardware.cost is None:
            raise InputError("hardware cost", "None", "the hardware family descends on it", "Give Hardware(cost=...).")
        aim = max(recipe.penalty_fraction * dense_cycles, target)
        estimate = None if hardware.cost_estimates else hardware.quick
        return [HardwarePenalty(TargetController(aim, end=0.9), hardware.cost, estimate)]

    def from_gblr() -> list[Hook]:
        for name in names:
            layer = model.get_submodule(name)
            assert isinstance(layer, GBLRLinear)
            set_module(model, name, lattice_from_factors(evaluate(layer.weights()), hardware.rows, hardware.cols))
        return project()

    if recipe.family == "width":
        return [_Phase(shrink_widths, recipe.epochs)]
    if recipe.family == "hardware":
        first = max(1, round(recipe.epochs * recipe.penalty_share))
        return [_Phase(shrink_hardware, first), _Phase(from_gblr, max(1, recipe.epochs - first))]
    return [_Phase(from_dense, recipe.epochs)]


def _to_gblr(model: nn.Module, names: list[str], recipe: Recipe) -> None:
    for index, name in enumerate(names):
        layer = gblr_from_linear(_linear(model, name), width=recipe.gblr_width, seed=recipe.seed * 1009 + index)
        set_module(model, name, layer)


def _linear(model: nn.Module, name: str) -> nn.Linear:
    layer = model.get_submodule(name)
    assert isinstance(layer, nn.Linear)
    return layer


def _shifted(progress: Progress | None, before: list[EpochRecord], recipe: Recipe) -> Progress | None:
    """Count epochs over all phases."""
    if progress is None:
        return None
    done, report = len(before), progress
    return lambda record: report(replace(record, epoch=record.epoch + done, epochs=recipe.epochs))
