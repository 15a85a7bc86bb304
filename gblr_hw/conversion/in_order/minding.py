"""Fits that mind which outputs count: rows weighted by what the model's output makes of errors there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch

from gblr_hw.conversion.fit.fit_problem import FitProblem
from gblr_hw.conversion.fit.fit_weights import Converted, relative_error
from gblr_hw.conversion.in_order.pair_moments import ridged
from gblr_hw.conversion.in_order.share_by_loss import BADLY
from gblr_hw.weights.family import FAMILIES
from gblr_hw.weights.stored import LatticeWeights

FloatArray = npt.NDArray[np.float64]

# Added to the diagonal, relative to its mean: few texts do not show every direction in which an output counts.
_FLOOR = 0.01


def minding(
    outputs: FloatArray | None, family: str, approximate: Callable[[FitProblem], Converted]
) -> Callable[[FitProblem], Converted]:
    """``approximate`` in the norm tr(B E C E^T), with B (m, m) the second moments of the gradients by the outputs.

    Ranks that write every chunk are fitted in all of B, whose root may mix them; where chunks are chosen its diagonal
    stands for it. Families that are chosen whole keep their norm, as everything does without B. So does a layer that
    comes out badly in the diagonal's norm: gradients are of small errors, and those of queries say next to nothing of
    large ones. In all of B such a layer is better as it is (docs/results.md, Speech).
    """
    if outputs is None or FAMILIES[family].whole:
        return approximate
    floored = ridged(outputs, _FLOOR)
    in_all = FAMILIES[family].unit == "rank"
    root = np.asarray(np.linalg.cholesky(floored).T, np.float64) if in_all else np.diag(np.sqrt(np.diag(floored)))

    def weighted(problem: FitProblem) -> Converted:
        found = approximate(replace(problem, matrix=root @ problem.matrix))
        if not isinstance(found, LatticeWeights):
            return found
        dense = _solved(root, found.dense.double().numpy())
        return replace(found, u=_float32(_solved(root, found.u.double().numpy())), dense=_float32(dense))

    def fit(problem: FitProblem) -> Converted:
        found = weighted(problem)
        if in_all or (error := relative_error(problem, found)) <= BADLY:
            return found
        plain = approximate(problem)
        return plain if relative_error(problem, plain) < error else found

    return fit


def _solved(root: FloatArray, values: FloatArray) -> FloatArray:
    """Zero rows of a chunk stay zero: a root that is not diagonal has no chunks."""
    return np.asarray(np.linalg.solve(root, values), np.float64)


def _float32(values: FloatArray) -> torch.Tensor:
    return torch.from_numpy(values.astype(np.float32))
