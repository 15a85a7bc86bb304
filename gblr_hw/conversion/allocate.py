"""Share a tile budget among layers: evenly, or by what each layer's error would lose."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from gblr_hw.conversion.fit.choose_chunks import share_tiles
from gblr_hw.conversion.fit.fit_layer import full_tiles
from gblr_hw.conversion.fit.fit_problem import FitProblem
from gblr_hw.weights.family import Family
from gblr_hw.weights.structure import dense_tile_count
from simulator.base.errors import InputError

FloatArray = npt.NDArray[np.float64]
# How far a layer's share may leave the even one: beyond, the model of its error is not to be trusted.
_LEAST, _MOST = 0.7, 1.5


def total_tiles(problems: Mapping[str, FitProblem], share: float) -> int:
    """Whole tiles in a fraction of all the dense layers' tiles."""
    return int(np.floor(share * sum(dense_tiles(problem) for problem in problems.values()) + 1e-9))


def dense_tiles(problem: FitProblem) -> int:
    """Tiles of the layer kept dense."""
    outputs, inputs = problem.matrix.shape
    return dense_tile_count(outputs, inputs, problem.rows, problem.cols)


def share_evenly(problems: Mapping[str, FitProblem], budget: int, least: Mapping[str, int]) -> dict[str, int]:
    """Tiles by layer, in proportion to the dense tiles and summing to the budget: largest remainders get one more.

    least: by layer, the tiles that it cannot do without, at most its dense ones. A budget of all dense tiles or more
    keeps every layer dense. Raises InputError for a budget that cannot give each layer its least; the message names
    what can.
    """
    dense = {name: dense_tiles(problem) for name, problem in problems.items()}
    if budget < sum(least.values()):
        raise InputError(
            "tile budget",
            f"{budget} tiles for {len(dense)} layers",
            f"no layer may be empty, and the smallest reachable total is {sum(least.values())}",
            "Raise the budget, or leave layers dense (`--exclude`).",
        )
    budget = min(budget, sum(dense.values()))
    exact = {name: budget * count / sum(dense.values()) for name, count in dense.items()}
    shares = {name: max(least[name], int(exact[name] + 1e-9)) for name in dense}
    while (missing := budget - sum(shares.values())) != 0:
        step = 1 if missing > 0 else -1
        movable = [n for n in dense if (shares[n] < dense[n] if step > 0 else shares[n] > least[n])]
        name = max(movable, key=lambda n: step * (exact[n] - shares[n]))
        shares[name] += step
    return shares


def share_by_error(
    problems: Mapping[str, FitProblem],
    tiles: Mapping[str, int],
    errors: Mapping[str, float],
    least: Mapping[str, int],
) -> dict[str, int]:
    """Move tiles between layers to lower the sum of their relative squared errors, all tiles kept.

    tiles, errors: tiles of each layer now, and the squared error it has with them; least: those it cannot do without. A
    layer's error at other tiles is taken from its spectrum: k tiles are worth as many ranks as leave the error
    measured, and others in proportion.
    """
    lowest = {n: max(least[n], min(2, tiles[n]), int(_LEAST * tiles[n])) for n in tiles}
    highest = {n: max(tiles[n], min(dense_tiles(problems[n]), int(_MOST * tiles[n]))) for n in tiles}
    curves = []
    for name, problem in problems.items():
        counts = np.arange(lowest[name], highest[name] + 1)
        curves.append(_expected(problem, tiles[name], errors[name], counts) / max(problem.energy, 1e-300))
    extra = share_tiles(curves, sum(tiles.values()) - sum(lowest.values()))
    return {name: lowest[name] + more for name, more in zip(problems, extra, strict=True)}


def in_steps_of(
    family: Family, problems: Mapping[str, FitProblem], shares: dict[str, int], *, dense: bool
) -> dict[str, int]:
    """Tiles by layer as the family can take them. dense: as `_whole_ranks` has it."""
    return _whole_ranks(problems, shares, dense=dense) if family.unit == "rank" else shares


def _whole_ranks(problems: Mapping[str, FitProblem], shares: Mapping[str, int], *, dense: bool) -> dict[str, int]:
    """The same tiles where layers take whole ranks only, which buy a tile of every chunk for as many ranks as a tile
    holds: what such steps leave of the shares goes, step by step, to the layer whose relative squared error falls most
    for a tile, until no layer's next step fits.

    dense: whether a layer that can have all of its dense tiles keeps its matrix.
    """
    curves = {name: _error_by_tiles(problem, dense=dense) for name, problem in problems.items()}
    # A layer whose share is below its first step is of dense tiles, which all count.
    found = {n: min(int(np.flatnonzero(curves[n] == curves[n][k])[0]) or k, k) for n, k in shares.items()}
    left = sum(shares.values()) - sum(found.values())
    while True:
        steps = {}
        for name, curve in curves.items():
            ahead = np.flatnonzero(curve[found[name] :] < curve[found[name]])
            if len(ahead) and ahead[0] <= left:
                steps[name] = int(ahead[0])
        if not steps:
            return found
        gains = {n: (curves[n][found[n]] - curves[n][found[n] + step]) / step for n, step in steps.items()}
        best = max(gains, key=lambda name: gains[name])
        found[best] += steps[best]
        left -= steps[best]


def _error_by_tiles(problem: FitProblem, *, dense: bool) -> FloatArray:
    """Relative squared error of whole ranks at every number of tiles, 0 .. all: what truncated SVD leaves."""
    tail = _tail(problem)
    tiles = np.array([full_tiles(problem, ranks) for ranks in range(len(tail))])
    counts = np.arange(dense_tiles(problem) + 1)
    found = tail[np.searchsorted(tiles, counts, side="right") - 1] / max(tail[0], 1e-300)
    if dense:
        found[-1] = 0.0
    return np.asarray(found, np.float64)


def _tail(problem: FitProblem) -> FloatArray:
    """Squared error that truncated SVD in the problem's norm leaves, by ranks kept, 0 .. all."""
    root = np.eye(len(problem.matrix[0])) if problem.moments is None else np.linalg.cholesky(problem.moments)
    squares = np.square(np.linalg.svd(problem.matrix @ root, compute_uv=False))
    return np.append(np.cumsum(squares[::-1])[::-1], 0.0)


def _expected(problem: FitProblem, tiles: int, error: float, counts: npt.NDArray[np.int64]) -> FloatArray:
    """Squared error at other numbers of tiles, from the spectrum scaled to the one error measured."""
    tail = _tail(problem)
    ranks = np.arange(len(tail), dtype=np.float64)
    equal = float(np.interp(-error, -tail, ranks))
    return np.asarray(np.interp(counts * equal / tiles, ranks, tail))
