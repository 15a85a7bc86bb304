"""Approximate one matrix by a sum of Kronecker products, which is also a tensor train of two cores."""

from __future__ import annotations

import numpy as np

from gblr_hw.conversion.fit.fit_problem import FitProblem, FloatArray
from gblr_hw.conversion.fit.refit import solve_gram


def fit_kronecker(problem: FitProblem, left: tuple[int, int], terms: int, sweeps: int) -> tuple[FloatArray, FloatArray]:
    """Left factors (t, m1, n1) and right ones (t, m2, n2).

    Without moments by truncated SVD of the blocks as rows (Van Loan and Pitsianis, 1993), which nothing improves. With
    them from there on each side in turn by weighted least squares, `sweeps` times.
    """
    (m, n), (m1, n1) = problem.matrix.shape, left
    m2, n2 = m // m1, n // n1
    blocks = problem.matrix.reshape(m1, m2, n1, n2)
    u, values, v = np.linalg.svd(blocks.transpose(0, 2, 1, 3).reshape(m1 * n1, m2 * n2), full_matrices=False)
    kept = min(terms, len(values))
    outer, inner = np.zeros((terms, m1, n1)), np.zeros((terms, m2, n2))
    scale = np.sqrt(values[:kept])
    outer[:kept] = (u[:, :kept] * scale).T.reshape(kept, m1, n1)
    inner[:kept] = (scale[:, None] * v[:kept]).reshape(kept, m2, n2)
    if problem.moments is None:
        return outer, inner
    moments = problem.moments.reshape(n1, n2, n1, n2)
    weighted = problem.weighted.reshape(m1, m2, n1, n2)
    for _ in range(sweeps):
        seen = np.einsum("tab,jbkc->tajkc", inner, moments, optimize=True)
        gram = np.einsum("tajkc,uac->tjuk", seen, inner, optimize=True).reshape(terms * n1, terms * n1)
        cross = np.einsum("iajb,tab->tji", weighted, inner, optimize=True).reshape(terms * n1, m1)
        outer = solve_gram(gram, cross).reshape(terms, n1, m1).transpose(0, 2, 1)
        pairs = np.einsum("tij,uik->tujk", outer, outer, optimize=True)
        gram = np.einsum("tujk,jbkc->tbuc", pairs, moments, optimize=True).reshape(terms * n2, terms * n2)
        cross = np.einsum("iajb,tij->tba", weighted, outer, optimize=True).reshape(terms * n2, m2)
        inner = solve_gram(gram, cross).reshape(terms, n2, m2).transpose(0, 2, 1)
    return outer, inner
