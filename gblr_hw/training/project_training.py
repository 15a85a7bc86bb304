"""Projection while training: structures shrink along a schedule until a latency target is met, then stay."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gblr_hw.lattice_linear import LatticeLinear
from gblr_hw.project_low_rank import project_low_rank
from gblr_hw.projection import Importance, project_jointly
from gblr_hw.training.loop import QuietHook

Measure = Callable[[nn.Module], float]


class ProjectionSchedule(QuietHook):
    """A training hook that projects every LatticeLinear of the model onto a shrinking budget.

    Parameters
    ----------
    target_cycles: latency that the whole model must reach.
    measure: latency of the model as it stands, in cycles (a simulator, or the tile count times cycles per tile).
    tile_cycles: cycles that one tile costs; turns cycles into tiles.
    rows, cols: P and Q of the array.
    start, end: part of the run over which the latency falls, geometrically, in `steps` projections; after `end` the
        structure is fixed and only its weights are trained.
    intervals_only: keep cyclic runs (GBLR) instead of any chunk sets.

    Importance is first order: (gradient times weight) squared, summed over the entries of a rank in a chunk (or of a
    dense tile), and over the training steps since the last projection (design brief, section 4). Layers whose family is
    "low_rank" lose whole ranks. Raises InputError from the projection when the target cannot be reached.
    """

    def __init__(
        self,
        target_cycles: float,
        measure: Measure,
        tile_cycles: float,
        rows: int,
        cols: int,
        *,
        start: float = 0.05,
        end: float = 0.6,
        steps: int = 10,
        intervals_only: bool = False,
    ) -> None:
        self.target_cycles, self.measure, self.tile_cycles = target_cycles, measure, tile_cycles
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
            self.start_cycles = self.measure(model)
        # A short run has fewer training steps than projections: then some are skipped.
        self.done = min(max(self.done, int(passed * self.steps)) + 1, self.steps)
        share = self.done / self.steps
        wanted = self.start_cycles ** (1 - share) * self.target_cycles**share
        self.project(model, max(min(wanted, self.start_cycles), self.target_cycles))
        self.sums.clear()

    def finish(self, model: nn.Module) -> None:
        """Project onto the target whatever is left: a run too short for the schedule meets it all the same."""
        self.project(model, self.target_cycles)

    @torch.no_grad()
    def _accumulate(self, name: str, layer: LatticeLinear) -> None:
        for part in ("u", "v", "dense"):
            parameter = getattr(layer, part)
            if parameter is not None and parameter.grad is not None:
                score = (parameter.grad * parameter).square()
                key = f"{name}:{part}"
                self.sums[key] = self.sums[key] + score if key in self.sums else score

    def project(self, model: nn.Module, cycles: float) -> None:
        """Project all lattice layers so that the measured latency is at most `cycles`."""
        layers = lattice_layers(model)
        problem = {name: (layer.structure, self._importance(name, layer)) for name, layer in layers.items()}
        free = {name: layer for name, layer in problem.items() if layers[name].family != "low_rank"}
        whole = {name: layer for name, layer in problem.items() if layers[name].family == "low_rank"}
        # The measured latency also holds what is not a tile and moves a little with the tiles, hence the repeats. Each
        # takes a tile at least, so they end: at the target, or in the projection's error.
        while (measured := self.measure(model)) > cycles:
            tiles = sum(layer.structure.tile_count(self.rows, self.cols) for layer in layers.values())
            overhead = measured - tiles * self.tile_cycles
            budget = min(np.floor((cycles - overhead) / self.tile_cycles + 1e-6), tiles - 1)
            if free:
                chosen = project_jointly(free, budget, self.rows, self.cols, intervals_only=self.intervals_only)
            else:
                chosen = project_low_rank(whole, budget, self.rows, self.cols)
            for name, structure in chosen.items():
                layers[name].set_structure(structure)

    def _importance(self, name: str, layer: LatticeLinear) -> Importance:
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


def lattice_layers(model: nn.Module) -> dict[str, LatticeLinear]:
    """The model's lattice layers by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, LatticeLinear)}


def _chunk_sums(scores: Tensor, chunk: int) -> Tensor:
    """Sum (K, channels) over chunks of channels: (K, ceil(channels / chunk))."""
    count = -(-scores.shape[1] // chunk)
    padded = nn.functional.pad(scores, (0, count * chunk - scores.shape[1]))
    return padded.view(scores.shape[0], count, chunk).sum(dim=2)
