"""Projection while training: structures shrink along a schedule until a latency target is met, then stay."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gblr_hw.lattice_linear import LatticeLinear
from gblr_hw.project_low_rank import project_low_rank
from gblr_hw.projection import Importance, InfeasibleBudgetError, project_jointly
from gblr_hw.training.loop import QuietHook
from simulator.errors import InputError

Measure = Callable[[nn.Module], float]


class ProjectionSchedule(QuietHook):
    """A training hook that projects every LatticeLinear of the model onto a shrinking budget.

    Parameters
    ----------
    target_cycles: latency that the whole model must reach.
    measure: exact latency of the model as it stands, in cycles; the last projection meets the target in this measure,
        with less than a tile to spare where tiles go one by one.
    estimate: the same, quicker, for the projections on the way (measure itself if None).
    tile_cycles: cycles that one tile costs; turns cycles into tiles.
    rows, cols: P and Q of the array.
    start, end: part of the run over which the latency falls, geometrically, in `steps` projections; after `end` the
        structure is fixed and only its weights are trained.
    intervals_only: keep cyclic runs (GBLR) instead of any chunk sets.

    Importance is first order: (gradient times weight) squared, summed over the entries of a rank in a chunk (or of a
    dense tile), and over the training steps since the last projection (design brief, section 4). Layers whose family is
    "low_rank" lose whole ranks; a model is all of that family or none of it. Raises InputError when the target
    cannot be reached.
    """

    def __init__(
        self,
        target_cycles: float,
        measure: Measure,
        tile_cycles: float,
        rows: int,
        cols: int,
        *,
        estimate: Measure | None = None,
        start: float = 0.05,
        end: float = 0.6,
        steps: int = 10,
        intervals_only: bool = False,
    ) -> None:
        self.target_cycles, self.measure, self.tile_cycles = target_cycles, measure, tile_cycles
        self.estimate = estimate or measure
        self.rows, self.cols, self.intervals_only = rows, cols, intervals_only
        self.start, self.end, self.steps = start, end, steps
        self.done = 0
        self.start_cycles: float | None = None
        self.sums: dict[str, Tensor] = {}

    def before_step(self, model: nn.Module, progress: float) -> None:
        if self.done < self.steps:
            for name, layer in lattice_layers(model).items():
                self._accumulate(name, layer)

    def after_step(self, model: nn.Module, progress: float, learning_rate: float) -> None:
        passed = (progress - self.start) / max(self.end - self.start, 1e-9)
        if self.done >= self.steps or passed * self.steps < self.done:
            return
        if self.start_cycles is None:
            self.start_cycles = self.estimate(model)
        # A short run has fewer training steps than projections: then some are skipped.
        self.done = min(max(self.done, int(passed * self.steps)) + 1, self.steps)
        share = self.done / self.steps
        wanted = self.start_cycles ** (1 - share) * self.target_cycles**share
        if self.done == self.steps:
            self.project(model, self.target_cycles, self.measure, closely=True)
        else:
            self.project(model, max(min(wanted, self.start_cycles), self.target_cycles), self.estimate, closely=False)
        self.sums.clear()

    def finish(self, model: nn.Module) -> None:
        """Project onto the target whatever is left: a run too short for the schedule meets it all the same."""
        self.project(model, self.target_cycles, self.measure, closely=True)

    @torch.no_grad()
    def _accumulate(self, name: str, layer: LatticeLinear) -> None:
        for part in ("u", "v", "dense"):
            parameter = getattr(layer, part)
            if parameter is not None and parameter.grad is not None:
                score = (parameter.grad * parameter).square()
                key = f"{name}:{part}"
                self.sums[key] = self.sums[key] + score if key in self.sums else score

    def project(self, model: nn.Module, cycles: float, measure: Measure, *, closely: bool) -> None:
        """Project all lattice layers so that the measured latency is at most `cycles`.

        The latency also holds what is not a tile, and lowering may run ranks as dense tiles where that is quicker, so
        the budget is searched for: each measurement says by how many tiles it is off. With `closely` the search goes on
        to the largest budget that fits, else it takes the first.
        """
        latency = measure(model)
        if latency <= cycles:
            return
        trial = _Trial(self, model)
        budget = fails = trial.tiles()
        low, best = 0, None
        while fails - low > 1 and (closely or best is None):
            guess = budget + int(np.floor((cycles - latency) / self.tile_cycles + 1e-6))
            budget = min(max(guess, low + 1), fails - 1)
            if not trial.apply(budget):
                low, budget = budget, (budget + fails) // 2
            elif (latency := measure(model)) <= cycles:
                low = best = budget
            else:
                # A family that loses tiles by the group leaves some of the budget unused.
                fails = min(budget, trial.tiles())
        if best is None:
            raise InputError(
                "target latency", f"{cycles:.0f} cycles",
                f"{fails} tiles in replaced layers still take {latency:.0f}, and no fewer would leave all layers alive",
                "Raise the target, or replace more of the layers."
            )  # fmt: skip
        trial.apply(best)

    def importance(self, name: str, layer: LatticeLinear) -> Importance:
        """What each part of a layer is worth by the training steps since the last projection."""

        def scores(part: str, like: Tensor) -> Tensor:
            return self.sums.get(f"{name}:{part}", torch.zeros_like(like)).double().cpu()

        v = _chunk_sums(scores("v", layer.v), layer.chunk_in)
        u = _chunk_sums(scores("u", layer.u).T, layer.chunk_out)
        tiles = _chunk_sums(_chunk_sums(scores("dense", layer.dense_mask), layer.chunk_in).T, layer.chunk_out).T
        return Importance(tiles.numpy(), v.numpy(), u.numpy())

    def notes(self) -> dict[str, float]:
        return {"projections": float(self.done)}

    def state_dict(self) -> dict[str, Any]:
        sums = {key: value.clone() for key, value in self.sums.items()}
        return {"done": self.done, "start_cycles": self.start_cycles, "sums": sums}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.done, self.start_cycles, self.sums = state["done"], state["start_cycles"], dict(state["sums"])


class _Trial:
    """Projections of the same layers onto one budget after another, each from the structures of the start."""

    def __init__(self, schedule: ProjectionSchedule, model: nn.Module) -> None:
        self.schedule, self.layers = schedule, lattice_layers(model)
        self.states = {name: copy.deepcopy(layer.state_dict()) for name, layer in self.layers.items()}
        self.problem = {n: (layer.structure, schedule.importance(n, layer)) for n, layer in self.layers.items()}
        self.low_rank = all(layer.family == "low_rank" for layer in self.layers.values())

    def tiles(self) -> int:
        """Tiles of the structures in force."""
        rows, cols = self.schedule.rows, self.schedule.cols
        return sum(layer.structure.tile_count(rows, cols) for layer in self.layers.values())

    def apply(self, budget: int) -> bool:
        """Put the projection onto `budget` tiles in force; False, with nothing changed, if that empties a layer."""
        rows, cols = self.schedule.rows, self.schedule.cols
        try:
            if self.low_rank:
                chosen = project_low_rank(self.problem, budget, rows, cols)
            else:
                only = self.schedule.intervals_only
                chosen = project_jointly(self.problem, budget, rows, cols, intervals_only=only)
        except InfeasibleBudgetError:
            return False
        for name, structure in chosen.items():
            self.layers[name].load_state_dict(self.states[name])
            self.layers[name].set_structure(structure)
        return True


def lattice_layers(model: nn.Module) -> dict[str, LatticeLinear]:
    """The model's lattice layers by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, LatticeLinear)}


def _chunk_sums(scores: Tensor, chunk: int) -> Tensor:
    """Sum (K, channels) over chunks of channels: (K, ceil(channels / chunk))."""
    count = -(-scores.shape[1] // chunk)
    padded = nn.functional.pad(scores, (0, count * chunk - scores.shape[1]))
    return padded.view(scores.shape[0], count, chunk).sum(dim=2)
