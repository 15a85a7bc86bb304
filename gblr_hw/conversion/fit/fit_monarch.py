"""Approximate one matrix by blocks of low rank on a grid, which is Monarch with its blocks side by side."""

from __future__ import annotations

import numpy as np

from gblr_hw.conversion.fit.fit_problem import FitProblem, FloatArray
from gblr_hw.conversion.fit.refit import solve_gram


def fit_monarch(problem: FitProblem, blocks: tuple[int, int], rank: int, sweeps: int) -> tuple[FloatArray, FloatArray]:
    """Left factors (l, k, s, r) and right ones (l, k, r, p) of l x k blocks of rank r: block (i, j) is their product.

    Without moments truncated SVDs of the blocks, which nothing improves. With them those in the norm of a block's own
    inputs, then each block of a row in turn for what the others leave, `sweeps` times.
    """
    (m, n), (l, k) = problem.matrix.shape, blocks  # noqa: E741 - the paper's symbol
    s, p = m // l, n // k
    left, right = np.zeros((l, k, s, rank)), np.zeros((l, k, rank, p))
    roots = [_root(problem, slice(j * p, (j + 1) * p), p) for j in range(k)]
    for i in range(l):
        rows = problem.matrix[i * s : (i + 1) * s]
        rest = rows.copy()
        for _ in range(max(1, sweeps if problem.moments is not None else 1)):
            for j in range(k):
                span = slice(j * p, (j + 1) * p)
                rest[:, span] += left[i, j] @ right[i, j]
                target = rest[:, span] if problem.moments is None else _wanted(problem.moments, rest, span)
                left[i, j], right[i, j] = _truncated(target, roots[j], rank)
                rest[:, span] -= left[i, j] @ right[i, j]
    return left, right


def _root(problem: FitProblem, span: slice, size: int) -> FloatArray:
    """A root of a block's own moments, with a little ridge."""
    if problem.moments is None:
        return np.eye(size)
    own = problem.moments[span, span]
    return np.asarray(np.linalg.cholesky(own + 1e-9 * np.trace(own) / size * np.eye(size)), np.float64)


def _wanted(moments: FloatArray, rest: FloatArray, span: slice) -> FloatArray:
    """The block of full rank that takes most from ``rest``."""
    return solve_gram(moments[span, span], (rest @ moments[:, span]).T).T


def _truncated(target: FloatArray, root: FloatArray, rank: int) -> tuple[FloatArray, FloatArray]:
    u, values, v = np.linalg.svd(target @ root, full_matrices=False)
    kept = min(rank, len(values))
    scale = np.sqrt(values[:kept])
    left, right = np.zeros((len(target), rank)), np.zeros((rank, target.shape[1]))
    left[:, :kept] = u[:, :kept] * scale
    right[:kept] = np.linalg.solve(root.T, (scale[:, None] * v[:kept]).T).T
    return left, right
