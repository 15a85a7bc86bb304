"""Least-squares refit of factors on fixed supports: half updates in turn, plain or weighted by input moments."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.linalg.lapack import dposv

from gblr_hw.weights.structure import BoolArray

FloatArray = npt.NDArray[np.float64]

# Relative ridge: keeps normal equations of nearly parallel ranks solvable, far below the errors of interest.
_RIDGE = 1e-6


def refit_expand(
    target: FloatArray, v: FloatArray, writes: BoolArray, chunk: int, covariance: FloatArray | None = None
) -> FloatArray:
    """Best expand factors u (m, K) for given v (K, n): minimises ||(target - u v) C^(1/2)||.

    target (m, n); writes (K, ceil(m / chunk)) bool, the output chunks each rank may write; covariance C (n, n),
    identity if None.
    """
    weighted = v if covariance is None else v @ covariance
    return solve_expand(weighted @ v.T, weighted @ target.T, writes, chunk)


def solve_expand(gram: FloatArray, cross: FloatArray, writes: BoolArray, chunk: int) -> FloatArray:
    """The same from gram = v C v^T (K, K) and cross = v C target^T (K, m): output chunks are independent."""
    u = np.zeros((cross.shape[1], len(gram)))
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
    if covariance is None:
        return solve_reduce(gram, u.T @ target, reads, chunk)
    inverses = chunk_inverses(covariance, chunk)
    return descend_reduce(gram, u.T @ (target @ covariance), v, reads, chunk, covariance, inverses)


def solve_reduce(gram: FloatArray, cross: FloatArray, reads: BoolArray, chunk: int) -> FloatArray:
    """Best reduce factors from gram = u^T u (K, K) and cross = u^T target (K, n)."""
    v = np.zeros_like(cross)
    for index in range(reads.shape[1]):
        ranks, span = np.flatnonzero(reads[:, index]), slice(index * chunk, (index + 1) * chunk)
        if len(ranks):
            v[ranks, span] = solve_gram(gram[np.ix_(ranks, ranks)], cross[ranks, span])
    return v


def descend_reduce(
    gram: FloatArray,
    cross: FloatArray,
    v: FloatArray,
    reads: BoolArray,
    chunk: int,
    covariance: FloatArray,
    inverses: list[FloatArray],
) -> FloatArray:
    """Better reduce factors from gram = u^T u (K, K), cross = u^T target C (K, n) and the inverses of C's blocks."""
    v = v.copy()
    for index in range(reads.shape[1]):
        ranks, span = np.flatnonzero(reads[:, index]), slice(index * chunk, (index + 1) * chunk)
        if len(ranks):
            # The slope of this chunk alone: to keep that of all chunks up to date would cost as many times more.
            slope = cross[ranks, span] - gram[ranks] @ (v @ covariance[:, span])
            v[ranks, span] += solve_gram(gram[np.ix_(ranks, ranks)], slope @ inverses[index])
    return v


def chunk_inverses(covariance: FloatArray, chunk: int) -> list[FloatArray]:
    """Inverses of the diagonal blocks of C that belong to each input chunk, slightly ridged."""
    starts = range(0, len(covariance), chunk)
    blocks = [covariance[start : start + chunk, start : start + chunk] for start in starts]
    return [solve_gram(block, np.eye(len(block))) for block in blocks]


def solve_gram(gram: FloatArray, right: FloatArray) -> FloatArray:
    """Solve a symmetric positive semi-definite system, slightly ridged."""
    ridge = _RIDGE * float(np.trace(gram)) / len(gram)
    if ridge <= 0:
        return np.zeros_like(right)
    ridged = gram + ridge * np.eye(len(gram))
    _, solved, failed = dposv(ridged, right)
    # Rounding may leave a Gram matrix with eigenvalues a little below zero, further than the ridge reaches.
    return np.asarray(np.linalg.solve(ridged, right) if failed else solved, np.float64)
