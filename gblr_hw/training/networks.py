"""Recipes for every family of network, and the one function that trains any of them from a shared dense start."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar

import torch
from torch import nn
from torch.utils.data import Dataset

from gblr_hw.cost.target import TargetController, UnreachableTargetError
from gblr_hw.layers.linear import GBLRLinear
from gblr_hw.training.gblr_start import gblr_from_linear
from gblr_hw.training.loop.distil import Distillation
from gblr_hw.training.loop.loop import (
    EpochRecord,
    Example,
    Hook,
    LoopSettings,
    LoopState,
    Objective,
    Progress,
    accuracy,
    train,
)
from gblr_hw.training.loop.processes import world
from gblr_hw.training.loop.run_state import RunState, load_run
from gblr_hw.training.measure.hardware import Hardware
from gblr_hw.training.shrink.penalties import HardwarePenalty, WidthPenalty
from gblr_hw.training.shrink.project_training import ProjectionSchedule
from gblr_hw.training.swap import Start, lattice_from_factors, lattice_from_linear, linear_names, set_module
from gblr_hw.weights.factors import evaluate
from simulator.base.errors import InputError

Name = TypeVar("Name", bound=str)
Family = Literal["dense", "width", "hardware", "block_sparse", "low_rank", "block_low_rank", "lattice", "learned"]
_START: dict[Family, Start] = {
    "block_sparse": "block_sparse",
    "low_rank": "low_rank",
    "block_low_rank": "block_low_rank",
    "lattice": "lattice",
}
FAMILIES: tuple[Family, ...] = ("dense", "width", "hardware", *_START, "learned")
# What the learned family chooses between, with and without a permutation network; the first wins a tie.
_KINDS: tuple[Family, ...] = ("block_sparse", "low_rank", "lattice")
_PLAIN_KINDS: tuple[Family, ...] = ("block_sparse", "low_rank", "block_low_rank")


@dataclass(frozen=True)
class Recipe:
    """How one network is made. The defaults are the demo's, the same for all families.

    family: dense; width (GBLR, the authors' width shrinkage); hardware (GBLR, hardware penalty, then projection);
        block_sparse, low_rank, block_low_rank, lattice (projection from the dense weights: tiles only, whole ranks, any
        chunk set of P ranks at a time, any chunk set of each rank);
        learned (block_sparse, low_rank or lattice, block_low_rank in its place without a permutation network: whichever
        reaches the lowest loss in a short trial of the whole schedule).
    epochs: after the dense start, in all phases together; the learned family's trials come on top, each with
        `trial_share` of them.
    layers: regular expression for the linear layers that are replaced.
    geometry_rate: widths and locations learn at this multiple of the learning rate.
    penalty_fraction, penalty_share: the hardware family's penalty aims at this fraction of the dense latency (or at the
        target, if that is more) over this share of the epochs; the projection does the rest.
    project_end: part of its phase over which a projection shrinks the structure. width_end: the same for the width
        penalty's path. gblr_width: mean width of the intervals that a GBLR network starts from.
    intervals_only: projections keep cyclic runs. regrow: see ProjectionSchedule. distil_weight, temperature: how much
        of the objective is the dense start's logits (see Distillation); 0 for labels only.
    device, bfloat16: where it trains, and whether under autocast.
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
    regrow: float = 0.0
    trial_share: float = 0.25
    distil_weight: float = 0.0
    temperature: float = 2.0
    device: str = "cpu"
    bfloat16: bool = False

    @property
    def trial_epochs(self) -> int:
        """Epochs of a trial."""
        return max(1, round(self.trial_share * self.epochs))

    def __post_init__(self) -> None:
        if self.family not in FAMILIES:
            raise InputError(
                "recipe family", repr(self.family), f"it must be one of {', '.join(FAMILIES)}", "Choose one."
            )
        if self.epochs < 1:
            raise InputError("recipe epochs", str(self.epochs), "it must be at least 1", "Try 12.")


@dataclass(frozen=True)
class TrainedNetwork:
    """A trained model (evaluation mode, on the CPU), its test accuracy, the epochs of all phases.

    target, reached: wanted and exact latency in cycles, or energy in pJ, as the hardware measures. kind: the family in
    the end, which the learned one has chosen.
    """

    recipe: Recipe
    model: nn.Module
    accuracy: float
    history: tuple[EpochRecord, ...]
    target: float | None
    reached: float
    diverged: bool
    kind: Family


def train_network(
    recipe: Recipe,
    model: nn.Module,
    train_set: Dataset[Example],
    test_set: Dataset[Example],
    hardware: Hardware,
    target: float | None = None,
    progress: Progress | None = None,
    checkpoint: Path | None = None,
) -> TrainedNetwork:
    """Train one network. `model` is copied: an untrained network for "dense", the dense start for every other family.

    Every family but dense needs `target`; all but width and low_rank meet it with no tile to spare, low_rank (also as
    what learned chose) in steps of whole ranks, width in steps of whole widths, and none exceeds it. Deterministic for
    a recipe on one machine and thread count.

    checkpoint: a file that is written after every epoch; where it exists the run goes on from it, to the same bits.
    The learned family's trials are repeated. When the loss is not finite training stops, and the network is that of the
    last good epoch (`diverged`).

    Raises
    ------
    InputError: no target where one is needed, no hardware cost for the hardware family.
    UnreachableTargetError: a target that the family cannot reach.
    """
    kind = recipe.family
    if kind == "learned" and target is not None:
        kind = _favoured_kind(recipe, model, train_set, test_set, hardware, target)
        chosen = replace(recipe, family=kind)
        network = train_network(chosen, model, train_set, test_set, hardware, target, progress, checkpoint)
        return replace(network, recipe=recipe)
    teacher = copy.deepcopy(model)
    objective = Distillation(teacher, recipe.distil_weight, recipe.temperature) if recipe.distil_weight else None
    model = copy.deepcopy(model)
    torch.manual_seed(recipe.seed)
    if recipe.family == "dense":
        phases = [_Phase(lambda: [], recipe.epochs)]
    elif target is None:
        raise InputError(
            f"recipe '{recipe.family}'", "no target", "every family but dense needs a latency", "Give a target."
        )
    else:
        phases = _phases(recipe, model, hardware, target)
    state = load_run(checkpoint, f"{recipe} towards {target}")
    reports = _Reports(state, progress, checkpoint)
    diverged = _run_phases(phases, recipe, model, train_set, test_set, reports, objective)
    model.cpu().eval()
    reached = hardware.measure(model)
    if target is not None and reached > target and not diverged:
        raise UnreachableTargetError(
            f"target of recipe '{recipe.family}'",
            f"{target:.0f} {hardware.unit}",
            f"with everything shrunk away the network still takes {reached:.0f}: the layers left dense are not touched",
            "Raise the target, or let `layers` name more of them.",
        )
    return TrainedNetwork(
        recipe, model, accuracy(model, test_set), tuple(state.records), target, reached, diverged, kind
    )


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
    dense_value = hardware.measure(model)

    def project() -> list[Hook]:
        return [
            ProjectionSchedule(
                target,
                hardware.measure,
                hardware.tile_cost,
                hardware.rows,
                hardware.cols,
                estimate=hardware.quick,
                end=recipe.project_end,
                intervals_only=recipe.intervals_only,
                regrow=recipe.regrow,
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
        aim = max(recipe.penalty_fraction * dense_value, target)
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


@dataclass(frozen=True)
class _Reports:
    """Where epochs are kept and told: the run's state, the caller's progress, a file."""

    state: RunState
    progress: Progress | None
    checkpoint: Path | None

    def record(self, one: EpochRecord, epochs: int) -> None:
        """Keep an epoch's record, counted over all phases, and report it."""
        self.state.records.append(replace(one, epoch=len(self.state.records) + 1, epochs=epochs))
        if self.progress is not None:
            self.progress(self.state.records[-1])

    def save(self, loop: LoopState) -> None:
        self.state.loop = loop
        if self.checkpoint is not None and world()[0] == 0:
            self.state.save(self.checkpoint)


def _run_phases(
    phases: list[_Phase],
    recipe: Recipe,
    model: nn.Module,
    train_set: Dataset[Example],
    test_set: Dataset[Example],
    reports: _Reports,
    objective: Objective | None,
) -> bool:
    """Train through all phases, from where the run's state stands. Whether a loss was not finite."""
    state, diverged = reports.state, False
    for index, phase in enumerate(phases):
        model.cpu()
        if index < state.phase:
            # Its layers are made again, so that the state of the next phase's start fits.
            model.load_state_dict(state.starts[index])
            phase.prepare()
            continue
        if len(state.starts) <= index:
            state.starts.append(copy.deepcopy(model.state_dict()))
        model.load_state_dict(state.starts[index])
        hooks, settings = phase.prepare(), _settings(recipe, phase.epochs)
        history = train(
            model, train_set, test_set, settings, hooks,
            lambda one: reports.record(one, recipe.epochs), state.loop, reports.save, objective,
        )  # fmt: skip
        diverged = diverged or history.diverged
        state.phase, state.loop = index + 1, None
    return diverged


def _favoured_kind(
    recipe: Recipe,
    model: nn.Module,
    train_set: Dataset[Example],
    test_set: Dataset[Example],
    hardware: Hardware,
    target: float,
) -> Family:
    """The kind of structure that ends a short run of the whole schedule with the lowest training loss.

    First-order importances of tiles and of ranks are in one unit, but say nothing of how well what is left will learn:
    chosen together by them, tiles lose to ranks where they should not. A trial of a quarter of the epochs does say it.
    """
    trial = replace(recipe, epochs=recipe.trial_epochs)
    kinds = _KINDS if hardware.scatter else _PLAIN_KINDS

    def run(kind: Family) -> TrainedNetwork:
        return train_network(replace(trial, family=kind), model, train_set, test_set, hardware, target)

    return lowest_loss({kind: partial(run, kind) for kind in kinds})


def lowest_loss(trials: Mapping[Name, Callable[[], TrainedNetwork]]) -> Name:
    """The trial that ends with the lowest training loss, the first of equals; those that cannot reach their target are
    left out. Raises the last UnreachableTargetError when that is all of them.
    """
    losses: dict[Name, float] = {}
    refusals = []
    for name, trial in trials.items():
        try:
            history = trial().history
        except UnreachableTargetError as error:
            refusals.append(error)
            continue
        losses[name] = history[-1].loss if history else math.inf
    if not losses:
        raise refusals[-1]
    return min(losses, key=lambda name: losses[name])
