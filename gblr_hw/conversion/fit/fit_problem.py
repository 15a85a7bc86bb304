"""One layer's approximation problem: matrix, norm of the error, array, and what every step needs of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from gblr_hw.conversion.fit.refit import chunk_inverses
from gblr_hw.weights.structure import BoolArray
from simulator.base.arithmetic import ceil_div

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Fit:
    """Factors of an approximation u v + dense: u (m, K), v (K, n), dense (m, n) or None when no tile is kept."""

    u: FloatArray
    v: FloatArray
    dense: FloatArray | None = None

    def matrix(self) -> FloatArray:
        product = self.u @ self.v
        return product if self.dense is None else product + self.dense


@dataclass(frozen=True, eq=False)
class FitProblem:
    """Approximate `matrix` (m, n) on an array of `rows` (P) x `cols` (Q): minimise ||(W - W') C^(1/2)||.

    moments: C (n, n), symmetric and positive definite; identity if None.
    """

    matrix: FloatArray
    moments: FloatArray | None
    rows: int
    cols: int

    @property
    def chunks_in(self) -> int:
        return ceil_div(self.matrix.shape[1], self.rows)

    @property
    def chunks_out(self) -> int:
        return ceil_div(self.matrix.shape[0], self.cols)

    @cached_property
    def weighted(self) -> FloatArray:
        """W C, (m, n)."""
        return self.matrix if self.moments is None else self.matrix @ self.moments

    @cached_property
    def energy(self) -> float:
        """Squared norm of the matrix."""
        return float((self.weighted * self.matrix).sum())

    @cached_property
    def inverses(self) -> list[FloatArray]:
        """Inverses of C's diagonal blocks by input chunk."""
        return [] if self.moments is None else chunk_inverses(self.moments, self.rows)

    @cached_property
    def roots(self) -> list[FloatArray]:
        """Lower Cholesky factors L of C's diagonal blocks: C_cc = L L^T."""
        if self.moments is None:
            return []
        spans = (slice(c * self.rows, (c + 1) * self.rows) for c in range(self.chunks_in))
        return [np.asarray(np.linalg.cholesky(self.moments[span, span]), np.float64) for span in spans]

    def weigh(self, values: FloatArray) -> FloatArray:
        """values (..., n) times C."""
        return values if self.moments is None else values @ self.moments

    def squared_error(self, fit: Fit) -> float:
        """Squared norm of W - W'."""
        return self.squared_norm(self.matrix - fit.matrix())

    def squared_norm(self, left: FloatArray) -> float:
        """||L C^(1/2)|| squared, of any L (m, n)."""
        return float((self.weigh(left) * left).sum())

    def tile_worth(self, left: FloatArray) -> FloatArray:
        """What each dense tile would save if it were added to an approximation that leaves `left` (m, n): (R, C)."""
        slope = self.weigh(left)
        saved = np.square(left) if self.moments is None else slope * self._solved(slope)
        by_input = np.add.reduceat(saved, np.arange(0, left.shape[1], self.rows), axis=1)
        return np.asarray(np.add.reduceat(by_input, np.arange(0, left.shape[0], self.cols), axis=0))

    def best_tiles(self, left: FloatArray, kept: BoolArray) -> FloatArray:
        """Dense tiles `kept` (R, C) that take most from `left` (m, n), by one pass over the input chunks: (m, n)."""
        dense, slope = np.zeros_like(left), None if self.moments is None else self.weigh(left)
        for chunk in np.flatnonzero(kept.any(axis=0)):
            span = slice(chunk * self.rows, (chunk + 1) * self.rows)
            held = np.repeat(kept[:, chunk], self.cols)[: len(left)]
            if slope is None or self.moments is None:
                dense[held, span] = left[held, span]
                continue
            change = slope[held, span] @ self.inverses[chunk]
            dense[held, span] = change
            slope[held] -= change @ self.moments[span]
        return dense

    def _solved(self, slope: FloatArray) -> FloatArray:
        solved = np.empty_like(slope)
        for chunk, inverse in enumerate(self.inverses):
            span = slice(chunk * self.rows, (chunk + 1) * self.rows)
            solved[:, span] = slope[:, span] @ inverse
        return solved
