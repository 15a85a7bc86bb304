"""What contributes nothing is dropped: ranks that nothing reaches or that reach nothing, and dense tiles whose weights
are all zero.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from gblr_hw.lowering.passes.plan import LayerPlan
from gblr_hw.weights.factors import Factors
from gblr_hw.weights.mixes import in_use
from gblr_hw.weights.structure import touched


def drop_empty(plan: LayerPlan, keep_zeros: bool = False) -> LayerPlan:
    """Keep only ranks that some input reaches and that reach some output, and dense tiles that hold a weight (all of
    them with ``keep_zeros``). The matrix does not change.
    """
    factors = plan.factors
    alive = in_use(factors.reads, factors.writes, factors.mix_source, factors.mix_target)
    dense, support = factors.dense, factors.dense_support
    if dense is not None and support is not None and not keep_zeros:
        support = support & _tiles_with_weights(dense, plan.machine.rows, plan.machine.cols)
        if not support.any():
            dense, support = None, None
            factors = replace(factors, grid=None)
    return replace(plan, factors=keep_ranks(factors, alive, dense, support))


def keep_ranks(factors: Factors, alive: np.ndarray, dense: np.ndarray | None, support: np.ndarray | None) -> Factors:
    """The same layer with the ranks marked in ``alive`` (K,) and another dense part; blocks are forgotten."""
    if alive.all():
        return replace(factors, dense=dense, dense_support=support, block_sizes=())
    mixes = factors.mixes.kept(alive)
    return replace(
        factors,
        u=np.ascontiguousarray(factors.u[:, alive]),
        v=factors.v[alive],
        rank_grid=None if factors.rank_grid is None else factors.rank_grid.rows(np.flatnonzero(alive)),
        writes=factors.writes[alive],
        reads=factors.reads[alive],
        dense=dense,
        dense_support=support,
        block_sizes=(),
        mix_source=mixes.source,
        mix_target=mixes.target,
        mix_value=mixes.value.astype(np.float32),
    )


def _tiles_with_weights(dense: np.ndarray, rows: int, cols: int) -> np.ndarray:
    """(m, n) bool: entries of those chunk pairs that hold a non-zero weight."""
    m, n = dense.shape
    held = touched(touched(dense != 0, rows).T, cols).T
    return held.repeat(rows, axis=1)[:, :n].repeat(cols, axis=0)[:m]
