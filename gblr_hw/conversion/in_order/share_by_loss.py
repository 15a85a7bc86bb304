"""Share a tile budget among layers by what the model's output would lose: sensitive layers stay dense."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from gblr_hw.conversion.allocate import dense_tiles
from gblr_hw.conversion.fit.choose_chunks import share_tiles
from gblr_hw.conversion.fit.fit_problem import FitProblem
from simulator.base.errors import InputError

FloatArray = npt.NDArray[np.float64]


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
    for all chunks, or nothing; else they buy in proportion. Raises InputError for a budget below the sum of the least.
    """
    if budget < sum(least.values()):
        raise InputError(
            "tile budget",
            f"{budget} tiles for {len(problems)} layers",
            f"no layer may be empty, and the smallest reachable total is {sum(least.values())}",
            "Raise the budget, or leave layers dense (`--exclude`).",
        )
    curves = [
        loss_by_tiles(replace(problem, moments=known.inputs[name]), known.outputs[name], whole_ranks=whole_ranks)[
            least[name] :
        ]
        for name, problem in problems.items()
    ]
    extra = share_tiles(curves, budget - sum(least.values()))
    return {name: least[name] + more for name, more in zip(problems, extra, strict=True)}


def loss_by_tiles(problem: FitProblem, outputs: FloatArray, *, whole_ranks: bool) -> FloatArray:
    """Half of tr(B E C E^T) at every number of tiles, 0 .. all: E is what truncated SVD in the inputs' norm leaves, and
    nothing when the matrix is kept dense.
    """
    losses = _loss_by_ranks(problem, outputs)
    counts = np.arange(dense_tiles(problem) + 1, dtype=np.float64)
    if whole_ranks:
        ranks = counts // (problem.chunks_in + problem.chunks_out) * problem.rows
    else:
        ranks = counts / (problem.chunks_in / problem.cols + problem.chunks_out / problem.rows)
    found = np.interp(ranks, np.arange(len(losses)), losses)
    found[-1] = 0.0
    return np.asarray(found, np.float64)


def _loss_by_ranks(problem: FitProblem, outputs: FloatArray) -> FloatArray:
    """The same by ranks kept, 0 .. all."""
    outer = problem.matrix.shape
    root = np.eye(outer[1]) if problem.moments is None else np.linalg.cholesky(problem.moments)
    seen = problem.matrix @ root
    # Eigenvectors of the smaller product are ten times quicker than singular vectors, and only squares are needed.
    if outer[0] <= outer[1]:
        squares, left = np.linalg.eigh(seen @ seen.T)
        left = left * np.sqrt(np.maximum(squares, 0.0))
    else:
        left = seen @ np.linalg.eigh(seen.T @ seen)[1]
    each = 0.5 * ((outputs @ left) * left).sum(axis=0)  # smallest singular values first
    return np.append(np.cumsum(each)[::-1], 0.0)
