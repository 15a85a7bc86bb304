"""Share a tile budget among layers by what the model's output would lose: sensitive layers stay dense."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from gblr_hw.conversion.allocate import dense_tiles
from gblr_hw.conversion.fit.choose_chunks import share_tiles
from gblr_hw.conversion.fit.fit_problem import FitProblem
from simulator.base.errors import InputError

FloatArray = npt.NDArray[np.float64]

# Relative error of a layer from which on it came out badly.
BADLY = 0.5
# No layer is left worse than the first of these that the budget can keep for all.
_BOUNDS = (BADLY, 0.6, 0.7, 0.8, 0.9)


@dataclass(frozen=True, eq=False)
class Sensitivity:
    """What a dense model says of its layers, by name.

    outputs: gradients' second moments (m, m) by the layer's output (`sensitivity.output_moments`). inputs: second
    moments (n, n) of its input, positive definite.
    """

    outputs: Mapping[str, FloatArray]
    inputs: Mapping[str, FloatArray]


def share_by_loss(
    problems: Mapping[str, FitProblem],
    known: Sensitivity,
    budget: int,
    least: Mapping[str, int],
    *,
    whole_ranks: bool,
) -> dict[str, int]:
    """Tiles by layer, at most the budget, that make the sum of the layers' expected losses small.

    least: by layer, the tiles that it cannot do without. whole_ranks: tiles buy as many ranks as the array has rows,
    for all chunks, or nothing; else they buy in proportion. An expected loss is of small errors, and a layer of which
    half is gone, of an attention's queries say, does more harm than that: where the budget allows it, none comes out
    badly. Raises InputError for a budget below the sum of the least.
    """
    if budget < sum(least.values()):
        raise InputError(
            "tile budget",
            f"{budget} tiles for {len(problems)} layers",
            f"no layer may be empty, and the smallest reachable total is {sum(least.values())}",
            "Raise the budget, or leave layers dense (`--exclude`).",
        )
    losses, errors = [], []
    for name, problem in problems.items():
        weighted = replace(problem, moments=known.inputs[name])
        directions = _directions(weighted)
        losses.append(_by_tiles(weighted, _loss_by_ranks(directions, known.outputs[name]), whole_ranks=whole_ranks))
        errors.append(np.sqrt(_by_tiles(weighted, _squares_by_ranks(directions), whole_ranks=whole_ranks)))
    first = _first_tiles(errors, budget, list(least.values()))
    curves = [curve[count:] for curve, count in zip(losses, first, strict=True)]
    extra = share_tiles(curves, budget - sum(first))
    return {name: count + more for name, count, more in zip(problems, first, extra, strict=True)}


def _first_tiles(errors: Sequence[FloatArray], budget: int, least: Sequence[int]) -> list[int]:
    """What each layer gets before losses are compared: the least, and as many as keep its error within a bound."""
    for bound in _BOUNDS:
        first = [max(count, int(np.argmax(curve <= bound))) for curve, count in zip(errors, least, strict=True)]
        if sum(first) <= budget:
            return first
    return list(least)


def loss_by_tiles(problem: FitProblem, outputs: FloatArray, *, whole_ranks: bool) -> FloatArray:
    """Half of tr(B E C E^T) at every number of tiles, 0 .. all: E is what truncated SVD in the inputs' norm leaves, and
    nothing when the matrix is kept dense.
    """
    return _by_tiles(problem, _loss_by_ranks(_directions(problem), outputs), whole_ranks=whole_ranks)


def _by_tiles(problem: FitProblem, by_ranks: FloatArray, *, whole_ranks: bool) -> FloatArray:
    """A curve by ranks as one by tiles, 0 .. all."""
    counts = np.arange(dense_tiles(problem) + 1, dtype=np.float64)
    if whole_ranks:
        ranks = counts // (problem.chunks_in + problem.chunks_out) * problem.rows
    else:
        ranks = counts / (problem.chunks_in / problem.cols + problem.chunks_out / problem.rows)
    found = np.interp(ranks, np.arange(len(by_ranks)), by_ranks)
    found[-1] = 0.0
    return np.asarray(found, np.float64)


def _directions(problem: FitProblem) -> FloatArray:
    """Left singular vectors of W C^(1/2) times their singular values, the smallest first: (m, ranks)."""
    outer = problem.matrix.shape
    root = np.eye(outer[1]) if problem.moments is None else np.linalg.cholesky(problem.moments)
    seen = problem.matrix @ root
    # Eigenvectors of the smaller product are ten times quicker than singular vectors, and only squares are needed.
    if outer[0] <= outer[1]:
        squares, left = np.linalg.eigh(seen @ seen.T)
        return np.asarray(left * np.sqrt(np.maximum(squares, 0.0)), np.float64)
    return np.asarray(seen @ np.linalg.eigh(seen.T @ seen)[1], np.float64)


def _loss_by_ranks(directions: FloatArray, outputs: FloatArray) -> FloatArray:
    """Half of tr(B E C E^T) by ranks kept, 0 .. all."""
    each = 0.5 * ((outputs @ directions) * directions).sum(axis=0)
    return np.append(np.cumsum(each)[::-1], 0.0)


def _squares_by_ranks(directions: FloatArray) -> FloatArray:
    """||E C^(1/2)||^2 / ||W C^(1/2)||^2 by ranks kept, 0 .. all."""
    each = np.square(directions).sum(axis=0)
    return np.append(np.cumsum(each)[::-1], 0.0) / max(float(each.sum()), np.finfo(np.float64).tiny)
