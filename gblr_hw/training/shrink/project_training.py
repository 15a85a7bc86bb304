"""Projection while training: structures shrink along a schedule until a target is met, then stay."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
from torch import nn

from gblr_hw.cost.target import UnreachableTargetError
from gblr_hw.layers.lattice_linear import LatticeLinear
from gblr_hw.projection.by_unit import project_by_unit
from gblr_hw.projection.projection import InfeasibleBudgetError
from gblr_hw.training.loop.loop import QuietHook
from gblr_hw.training.shrink.importance import GroupScores
from gblr_hw.training.shrink.regrow import OpenGradients, regrow

Measure = Callable[[nn.Module], float]


class ProjectionSchedule(QuietHook):
    """A training hook that projects every LatticeLinear of the model onto a shrinking budget.

    Parameters
    ----------
    target: latency in cycles that the whole model must reach, or energy in pJ.
    measure: exact latency (or energy) of the model as it stands; the last projection meets the target in this measure,
        with less than a tile to spare where tiles go one by one.
    estimate: the same, quicker, for the projections on the way (measure itself if None).
    tile_cost: what one tile costs in that unit.
    rows, cols: P and Q of the array.
    start, end: part of the run over which the measure falls, geometrically, in `steps` projections; after `end` the
        structure is fixed and only its weights are trained.
    intervals_only: keep cyclic runs (GBLR) instead of any chunk sets.
    regrow: share of the budget that each projection exchanges on the way, falling to nothing at the last: so much more
        is dropped, and the tiles with the largest gradients come back (see `regrow`); 0 for shrinking only.

    Importance is first order, over the training steps since the last projection (see `GroupScores`). What layers lose
    at a time is the unit of their family; a model whose layers lose whole ranks, or chunks of rank groups, has no
    others. After the last projection the layers are packed. Raises UnreachableTargetError when the target cannot be
    reached.
    """

    def __init__(
        self,
        target: float,
        measure: Measure,
        tile_cost: float,
        rows: int,
        cols: int,
        *,
        estimate: Measure | None = None,
        start: float = 0.05,
        end: float = 0.6,
        steps: int = 10,
        intervals_only: bool = False,
        regrow: float = 0.0,
    ) -> None:
        self.target, self.measure, self.tile_cost = target, measure, tile_cost
        self.estimate = estimate or measure
        self.rows, self.cols, self.intervals_only = rows, cols, intervals_only
        self.start, self.end, self.steps = start, end, steps
        self.regrow = regrow
        self.done = 0
        self.start_value: float | None = None
        self.scores, self.gradients = GroupScores(), OpenGradients()

    def begin(self, model: nn.Module) -> None:
        self._set_modes(model)

    def before_step(self, model: nn.Module, progress: float) -> None:
        if self.done < self.steps:
            for name, layer in lattice_layers(model).items():
                self.scores.add(name, layer)
                if layer.open_gradients:
                    self.gradients.take(name, layer)

    def _set_modes(self, model: nn.Module) -> None:
        """Gradients of absent parts while structures may still regrow; packed layers once they are fixed."""
        fixed = self.done == self.steps
        for layer in lattice_layers(model).values():
            layer.open_gradients = self.regrow > 0 and not fixed
            layer.pack(fixed)

    def after_step(self, model: nn.Module, progress: float, learning_rate: float) -> None:
        passed = (progress - self.start) / max(self.end - self.start, 1e-9)
        if self.done >= self.steps or passed * self.steps < self.done:
            return
        if self.start_value is None:
            self.start_value = self.estimate(model)
        # A short run has fewer training steps than projections: then some are skipped.
        self.done = min(max(self.done, int(passed * self.steps)) + 1, self.steps)
        share = self.done / self.steps
        wanted = self.start_value ** (1 - share) * self.target**share
        if self.done == self.steps:
            self.project(model, self.target, self.measure, closely=True)
        else:
            wanted = max(min(wanted, self.start_value), self.target)
            exchanged = self.regrow * (1 - share) * (wanted - self.estimate_of_rest(model))
            exchanged = min(exchanged, wanted - self.target)
            self.project(model, wanted - exchanged, self.estimate, closely=False)
            if exchanged > 0:
                regrow(lattice_layers(model), self.gradients, int(exchanged / self.tile_cost))
        self.scores.clear()
        self.gradients = OpenGradients()
        self._set_modes(model)

    def estimate_of_rest(self, model: nn.Module) -> float:
        """What the estimate holds beside the tiles of lattice layers."""
        layers = lattice_layers(model).values()
        tiles = sum(layer.structure.tile_count(self.rows, self.cols) for layer in layers)
        return max(0.0, self.estimate(model) - tiles * self.tile_cost)

    def finish(self, model: nn.Module) -> None:
        """Project onto the target whatever is left: a run too short for the schedule meets it all the same."""
        self.project(model, self.target, self.measure, closely=True)

    def project(self, model: nn.Module, limit: float, measure: Measure, *, closely: bool) -> None:
        """Project all lattice layers so that what is measured is at most `limit`.

        The measure also holds what is not a tile, and lowering may run ranks as dense tiles where that is quicker, so
        the budget is searched for: each measurement says by how many tiles it is off. With `closely` the search goes on
        to the largest budget that fits, else it takes the first.
        """
        latency = measure(model)
        if latency <= limit:
            return
        trial = _Trial(self, model)
        budget = fails = trial.tiles()
        low, best = 0, None
        while fails - low > 1 and (closely or best is None):
            guess = budget + int(np.floor((limit - latency) / self.tile_cost + 1e-6))
            budget = min(max(guess, low + 1), fails - 1)
            if not trial.apply(budget):
                low, budget = budget, (budget + fails) // 2
            elif (latency := measure(model)) <= limit:
                low = best = budget
            else:
                # A family that loses tiles by the group leaves some of the budget unused.
                fails = min(budget, trial.tiles())
        if best is None:
            raise UnreachableTargetError(
                "target", f"{limit:.0f}",
                f"{fails} tiles in replaced layers still take {latency:.0f}, and no fewer would leave all layers alive",
                "Raise the target, or replace more of the layers."
            )  # fmt: skip
        trial.apply(best)

    def notes(self) -> dict[str, float]:
        return {"projections": float(self.done)}

    def state_dict(self) -> dict[str, Any]:
        sums = {key: {k: v.clone() for k, v in held.sums.items()} for key, held in self._sums().items()}
        return {"done": self.done, "start_value": self.start_value, **sums}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.done, self.start_value = state["done"], state["start_value"]
        for key, held in self._sums().items():
            held.sums = dict(state[key])

    def _sums(self) -> dict[str, GroupScores | OpenGradients]:
        return {"scores": self.scores, "gradients": self.gradients}


class _Trial:
    """Projections of the same layers onto one budget after another, each from the structures of the start."""

    def __init__(self, schedule: ProjectionSchedule, model: nn.Module) -> None:
        self.schedule, self.layers = schedule, lattice_layers(model)
        self.states = {name: copy.deepcopy(layer.state_dict()) for name, layer in self.layers.items()}
        self.problem = {n: (layer.structure, schedule.scores.importance(n, layer)) for n, layer in self.layers.items()}
        self.units = {layer.unit for layer in self.layers.values()}

    def tiles(self) -> int:
        """Tiles of the structures in force."""
        rows, cols = self.schedule.rows, self.schedule.cols
        return sum(layer.structure.tile_count(rows, cols) for layer in self.layers.values())

    def apply(self, budget: int) -> bool:
        """Put the projection onto `budget` tiles in force; False, with nothing changed, if that empties a layer."""
        rows, cols, only = self.schedule.rows, self.schedule.cols, self.schedule.intervals_only
        try:
            chosen = project_by_unit(self.units, self.problem, budget, rows, cols, intervals_only=only)
        except InfeasibleBudgetError:
            return False
        for name, structure in chosen.items():
            self.layers[name].load_state_dict(self.states[name])
            self.layers[name].set_structure(structure)
        return True


def lattice_layers(model: nn.Module) -> dict[str, LatticeLinear]:
    """The model's lattice layers by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, LatticeLinear)}
