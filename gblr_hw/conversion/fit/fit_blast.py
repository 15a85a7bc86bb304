"""Approximate one matrix by BLAST: shared bases of input and output blocks, and a diagonal for each pair.

Output bases, diagonals and input bases in turn, each by weighted least squares with the others fixed; so the error
never rises. It begins with truncated SVD, which is BLAST with diagonals of ones, and with random factors.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gblr_hw.conversion.fit.fit_layer import truncated_svd
from gblr_hw.conversion.fit.fit_problem import FitProblem, FloatArray
from gblr_hw.conversion.fit.refit import solve_gram

# Unknowns of an output block's diagonals up to which they are solved together; beyond, input block by input block.
_MOST_TOGETHER = 256
_TRIAL_SWEEPS = 4
# How far beyond a sweep's result the next one begins, at first, and how that grows while it pays.
_STEP, _GROWTH = 0.5, 1.2


@dataclass(frozen=True, eq=False)
class Blast:
    """B (b_out, p, r), C (b_in, r, q), D (b_out, b_in, r)."""

    B: FloatArray
    C: FloatArray
    D: FloatArray

    def matrix(self) -> FloatArray:
        """(b_out p, b_in q)."""
        blocks = np.einsum("ipr,ijr,jrq->ipjq", self.B, self.D, self.C, optimize=True)
        return blocks.reshape(self.B.shape[0] * self.B.shape[1], -1)


def fit_blast(problem: FitProblem, blocks: tuple[int, int], rank: int, sweeps: int, seed: int = 0) -> Blast:
    """The best of the starts after `sweeps` sweeps. blocks: of outputs and of inputs, which divide the matrix."""
    starts = [_from_low_rank(problem, blocks, rank), _random(problem, blocks, rank, seed)]
    tried = [_swept(problem, start, min(sweeps, _TRIAL_SWEEPS)) for start in starts]
    best = min(tried, key=lambda fit: _squared_error(problem, fit))
    return _swept(problem, best, sweeps - _TRIAL_SWEEPS)


def _from_low_rank(problem: FitProblem, blocks: tuple[int, int], rank: int) -> Blast:
    (m, n), (b_out, b_in) = problem.matrix.shape, blocks
    fit = truncated_svd(problem, problem.matrix, rank)
    kept = len(fit.v)
    u, v = np.zeros((m, rank)), np.zeros((rank, n))
    u[:, :kept], v[:kept] = fit.u, fit.v
    C = v.reshape(rank, b_in, n // b_in).transpose(1, 0, 2)
    return Blast(u.reshape(b_out, m // b_out, rank), np.ascontiguousarray(C), np.ones((b_out, b_in, rank)))


def _random(problem: FitProblem, blocks: tuple[int, int], rank: int, seed: int) -> Blast:
    (m, n), (b_out, b_in), rng = problem.matrix.shape, blocks, np.random.default_rng(seed)
    C = rng.normal(size=(b_in, rank, n // b_in)) / np.sqrt(n // b_in)
    return Blast(np.zeros((b_out, m // b_out, rank)), C, rng.normal(size=(b_out, b_in, rank)))


def _squared_error(problem: FitProblem, fit: Blast) -> float:
    return problem.squared_norm(problem.matrix - fit.matrix())


def _swept(problem: FitProblem, fit: Blast, sweeps: int) -> Blast:
    """Sweeps from points a little further along the last step, as long as that pays."""
    best, error, step = fit, _squared_error(problem, fit), _STEP
    ahead = fit
    for _ in range(sweeps):
        new = _sweep(problem, ahead)
        new_error = _squared_error(problem, new)
        if not new_error <= error:
            # Too far: once more from the best point, which cannot fail.
            step, ahead = _STEP, best
            continue
        ahead = Blast(*(now + step * (now - old) for now, old in ((getattr(new, k), getattr(best, k)) for k in "BCD")))
        best, error, step = new, new_error, step * _GROWTH
    return best


def _sweep(problem: FitProblem, fit: Blast) -> Blast:
    B, D = _outputs_and_diagonals(problem, fit)
    return _balanced(Blast(B, _inputs(problem, B, fit.C, D), D))


def _balanced(fit: Blast) -> Blast:
    """The same matrix with columns of bases of norm one: scales would drift apart from sweep to sweep."""
    outer, inner = np.linalg.norm(fit.B, axis=1), np.linalg.norm(fit.C, axis=2)
    outer, inner = np.where(outer > 0, outer, 1.0), np.where(inner > 0, inner, 1.0)
    return Blast(fit.B / outer[:, None], fit.C / inner[..., None], fit.D * outer[:, None] * inner[None])


def _outputs_and_diagonals(problem: FitProblem, fit: Blast) -> tuple[FloatArray, FloatArray]:
    """Output blocks are independent: the best bases for the diagonals, then the best diagonals for those."""
    C, D = fit.C, fit.D.copy()
    (b_in, rank, q), (b_out, p, _) = C.shape, fit.B.shape
    weighed = np.concatenate([problem.weigh(_wide(C, j, b_in * q)) for j in range(b_in)])
    grams = np.concatenate(
        [weighed[:, j * q : (j + 1) * q] @ C[j].T for j in range(b_in)], axis=1
    ).reshape(b_in, rank, b_in, rank)  # fmt: skip
    cross = (problem.matrix @ weighed.T).reshape(b_out, p, b_in, rank)
    B = np.empty((b_out, p, rank))
    for i in range(b_out):
        gram = np.einsum("jk,jklm,lm->km", D[i], grams, D[i], optimize=True)
        B[i] = solve_gram(gram, np.einsum("pjk,jk->kp", cross[i], D[i])).T
        D[i] = _diagonals(B[i], grams, cross[i], D[i])
    return B, D


def _wide(C: FloatArray, block: int, inputs: int) -> FloatArray:
    wide = np.zeros((C.shape[1], inputs))
    wide[:, block * C.shape[2] : (block + 1) * C.shape[2]] = C[block]
    return wide


def _diagonals(basis: FloatArray, grams: FloatArray, cross: FloatArray, now: FloatArray) -> FloatArray:
    """Diagonals (b_in, r) of one output block."""
    b_in, rank = now.shape
    wanted = np.einsum("pk,pjk->jk", basis, cross)
    outer = basis.T @ basis
    if b_in * rank <= _MOST_TOGETHER:
        system = (outer[None, :, None, :] * grams).reshape(b_in * rank, b_in * rank)
        return solve_gram(system, wanted.reshape(-1, 1)).reshape(b_in, rank)
    found = now.copy()
    for j in range(b_in):
        others = np.einsum("km,klm,lm->k", outer, grams[j], found, optimize=True)
        own = outer * grams[j, :, j]
        found[j] = solve_gram(own, (wanted[j] - others + own @ found[j])[:, None])[:, 0]
    return found


def _inputs(problem: FitProblem, B: FloatArray, C: FloatArray, D: FloatArray) -> FloatArray:
    """Better input bases: block after block, what the others leave of the slope solved for."""
    C, q = C.copy(), C.shape[2]
    left = problem.matrix - Blast(B, C, D).matrix()
    for j in range(len(C)):
        span = slice(j * q, (j + 1) * q)
        basis = (B * D[:, None, j]).reshape(len(left), -1)
        if problem.moments is None:
            change = solve_gram(basis.T @ basis, basis.T @ left[:, span])
        else:
            slope = basis.T @ (left @ problem.moments[:, span])
            change = solve_gram(basis.T @ basis, solve_gram(problem.moments[span, span], slope.T).T)
        C[j] += change
        left[:, span] -= basis @ change
    return C
