"""The one function that trains a network of any family from a shared dense start."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import Dataset

from gblr_hw.cost.target import UnreachableTargetError
from gblr_hw.training.loop.distil import Distillation
from gblr_hw.training.loop.loop import (
    EpochProgress,
    EpochRecord,
    Example,
    LoopSettings,
    LoopState,
    Objective,
    accuracy,
    train,
)
from gblr_hw.training.loop.processes import OrderedBatches, world
from gblr_hw.training.loop.run_state import RunState, load_run
from gblr_hw.training.measure.hardware import Hardware
from gblr_hw.training.phases import Phase, phases_of
from gblr_hw.training.recipe import Recipe, TrainedNetwork
from gblr_hw.training.trials import candidates, lowest_loss


def train_network(
    recipe: Recipe,
    model: nn.Module,
    train_set: Dataset[Example],
    test_set: Dataset[Example],
    hardware: Hardware,
    target: float | None = None,
    progress: EpochProgress | None = None,
    checkpoint: Path | None = None,
) -> TrainedNetwork:
    """Train one network. `model` is copied: an untrained network for families that are trained from scratch (dense, and
    whatever else the registry says), the dense start for every other one.

    Every family but dense needs `target`; all but GBLR and low_rank meet it with no tile to spare, low_rank (also as
    what learned chose) in steps of whole ranks, GBLR in steps of whole widths, and none exceeds it. Deterministic for
    a recipe on one machine and thread count.

    checkpoint: a file that is written after every epoch; where it exists the run goes on from it, to the same bits.
    The learned family's trials are repeated. When the loss is not finite training stops, and the network is that of the
    last good epoch (`diverged`).

    Raises
    ------
    InputError: no target where one is needed, no hardware cost for the hardware family.
    UnreachableTargetError: a target that the family cannot reach.
    """
    if recipe.entry.training == "trials" and target is not None:

        def trial(kind: str) -> TrainedNetwork:
            short = replace(recipe, family=kind, epochs=recipe.trial_epochs)
            return train_network(short, model, train_set, test_set, hardware, target)

        kinds = candidates(recipe.entry, hardware.scatter)
        chosen = replace(recipe, family=lowest_loss({kind: partial(trial, kind) for kind in kinds}))
        network = train_network(chosen, model, train_set, test_set, hardware, target, progress, checkpoint)
        return replace(network, recipe=recipe)
    teacher = copy.deepcopy(model)
    objective = Distillation(teacher, recipe.distil_weight, recipe.temperature) if recipe.distil_weight else None
    model = copy.deepcopy(model)
    torch.manual_seed(recipe.seed)
    steps = len(OrderedBatches(len(train_set), recipe.batch_size, recipe.seed))  # type: ignore[arg-type]
    phases = phases_of(recipe, model, hardware, target, steps)
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
        recipe, model, accuracy(model, test_set), tuple(state.records), target, reached, diverged, recipe.family
    )


def _settings(recipe: Recipe, phase: Phase) -> LoopSettings:
    return LoopSettings(
        phase.epochs,
        recipe.batch_size,
        recipe.learning_rate,
        recipe.weight_decay,
        seed=recipe.seed,
        geometry_rate=recipe.geometry_rate,
        geometry_beta1=phase.geometry_beta1,
        device=recipe.device,
        bfloat16=recipe.bfloat16,
    )


@dataclass(frozen=True)
class _Reports:
    """Where epochs are kept and told: the run's state, the caller's progress, a file."""

    state: RunState
    progress: EpochProgress | None
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
    phases: list[Phase],
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
        hooks, settings = phase.prepare(), _settings(recipe, phase)
        history = train(
            model, train_set, test_set, settings, hooks,
            lambda one: reports.record(one, recipe.epochs), state.loop, reports.save, objective,
        )  # fmt: skip
        diverged = diverged or history.diverged
        state.phase, state.loop = index + 1, None
    return diverged
