"""Least-squares refit of factors on fixed supports: half updates in turn, plain or weighted by input covariance."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gblr_hw.lattice import BoolArray

FloatArray = npt.NDArray[np.float64]

# Relative ridge: keeps normal equations of nearly parallel ranks solvable, far below the errors of interest.
_RIDGE = 1e-6


def refit_expand(
    target: FloatArray, v: FloatArray, writes: BoolArray, chunk: int, covariance: FloatArray | None = None
) -> FloatArray:
    """Best expand factors u (m, K) for given v (K, n): minimises ||(target - u v) C^(1/2)|| output chunk by output
    chunk.

    target (m, n); writes (K, ceil(m / chunk)) bool, the output chunks each rank may write; covariance C (n, n),
    identity if None.
    """
    weighted = v if covariance is None else v @ covariance
    gram, cross = weighted @ v.T, weighted @ target.T
    u = np.zeros((target.shape[0], len(v)))
    for index in range(writes.shape[1]):
        ranks, span = np.flatnonzero(writes[:, index]), slice(index * chunk, (index + 1) * chunk)
        if len(ranks):
            u[span, ranks] = solve_gram(gram[np.ix_(ranks, ranks)], cross[ranks, span]).T
    return u


def refit_reduce(
    target: FloatArray,
    u: FloatArray,
    v: FloatArray,
    reads: BoolArray,
    chunk: int,
    covariance: FloatArray | None = None,
) -> FloatArray:
    """Better reduce factors v (K, n) for given u (m, K): one pass over the input chunks.

    Without a covariance the chunks are independent and the result is the best one. With one, each chunk is solved with
    the covariance's diagonal block, the other chunks' current contribution subtracted (block coordinate descent).
    """
    gram = u.T @ u
    v = v.copy()
    error = None if covariance is None else (target - u @ v) @ covariance
    for index in range(reads.shape[1]):
        ranks, span = np.flatnonzero(reads[:, index]), slice(index * chunk, (index + 1) * chunk)
        if not len(ranks):
            continue
        if covariance is None or error is None:
            v[ranks, span] = solve_gram(gram[np.ix_(ranks, ranks)], u[:, ranks].T @ target[:, span])
            continue
        block = covariance[span, span]
        wanted = solve_gram(block, error[:, span].T).T
        change = solve_gram(gram[np.ix_(ranks, ranks)], u[:, ranks].T @ wanted)
        v[ranks, span] += change
        error -= (u[:, ranks] @ change) @ covariance[span]
    return v


def solve_gram(gram: FloatArray, right: FloatArray) -> FloatArray:
    """Solve a symmetric positive semi-definite system, slightly ridged."""
    ridge = _RIDGE * float(np.trace(gram)) / len(gram)
    if ridge <= 0:
        return np.zeros_like(right)
    return np.asarray(np.linalg.solve(gram + ridge * np.eye(len(gram)), right), np.float64)
