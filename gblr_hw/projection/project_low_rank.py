"""Project low-rank layers onto a tile budget: ranks go in the groups that empty a tile in every chunk."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from gblr_hw.projection.projection import Importance, InfeasibleBudgetError
from gblr_hw.weights.structure import Structure
from simulator.base.arithmetic import ceil_div


def project_low_rank(
    layers: Mapping[str, tuple[Structure, Importance]], budget: float, rows: int, cols: int
) -> dict[str, Structure]:
    """Keep the most important whole ranks of each layer so that all layers together take at most `budget` tiles.

    Every living rank of the given structures reads and writes every chunk, and so does every rank kept; dense tiles
    stay, and count. Groups go in the order of importance lost per tile saved. The budget is met from below: a group
    takes a tile in every chunk at once.

    Raises
    ------
    InputError: a budget below one group of ranks per layer (the message names that total).
    """
    order = {name: _ranks_by_worth(*layer) for name, layer in layers.items()}
    kept = {name: len(ranks) for name, (ranks, _) in order.items()}
    shapes = {name: (structure.reads.shape[1], structure.writes.shape[1]) for name, (structure, _) in layers.items()}

    def tiles(name: str, ranks: int) -> int:
        chunks_in, chunks_out = shapes[name]
        return chunks_in * ceil_div(ranks, cols) + chunks_out * ceil_div(ranks, rows)

    def loss_per_tile(name: str) -> float:
        fewer = _next_group(kept[name], rows, cols)
        if fewer <= 0:
            return float("inf")
        return float(order[name][1][fewer : kept[name]].sum()) / (tiles(name, kept[name]) - tiles(name, fewer))

    dense = sum(int(structure.tiles.sum()) for structure, _ in layers.values())
    while (total := dense + sum(tiles(name, ranks) for name, ranks in kept.items())) > budget:
        name = min(kept, key=loss_per_tile)
        if not np.isfinite(loss_per_tile(name)):
            raise InfeasibleBudgetError(
                "tile budget",
                f"{budget:g}",
                f"low rank needs a group of ranks in every layer, {total} tiles in all",
                "Raise the budget, or choose another family.",
            )
        kept[name] = _next_group(kept[name], rows, cols)
    return {name: _keep(structure, order[name][0][: kept[name]]) for name, (structure, _) in layers.items()}


def _next_group(ranks: int, rows: int, cols: int) -> int:
    """The most ranks that take fewer tiles than `ranks` do."""
    return max((ranks - 1) // rows * rows, (ranks - 1) // cols * cols)


def _ranks_by_worth(
    structure: Structure, importance: Importance
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float64]]:
    """Living ranks, the most important first, and their importances in that order."""
    worth = importance.reads.sum(axis=1) + importance.writes.sum(axis=1)
    alive = np.flatnonzero(structure.reads.any(axis=1))
    ranks = alive[np.argsort(-worth[alive], kind="stable")]
    return ranks, worth[ranks]


def _keep(structure: Structure, ranks: npt.NDArray[np.intp]) -> Structure:
    chosen = np.zeros((len(structure.reads), 1), bool)
    chosen[ranks] = True
    return Structure(structure.tiles, structure.reads & chosen, structure.writes & chosen)
