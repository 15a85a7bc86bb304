"""Chains of ranks with some of their links multiplied together: candidates for a layer with mixes.

A rank's level is the number of mixes before it. To merge a level is to do without its ranks: what they read, their
targets read; what they write, their sources write; and what they are mixed from is mixed into what they are mixed
into. A rank that both reads and writes stays: without it there would be a dense part.
"""

from __future__ import annotations

from dataclasses import replace

import numba as nb
import numpy as np

from gblr_hw.weights.factors import Factors
from gblr_hw.weights.mixes import Mixes, composed, joined, mix_levels
from simulator.base.columns import kernel_input

Merge = frozenset[int]
NO_MERGE: Merge = frozenset()


def possible_merges(factors: Factors) -> tuple[Merge, ...]:
    """Nothing merged; each level by itself; all levels but one."""
    if len(factors.mix_source) == 0:
        return (NO_MERGE,)
    levels = range(int(mix_levels(factors.ranks, factors.mix_source, factors.mix_target).max()) + 1)
    single = [frozenset({level}) for level in levels]
    rest = [frozenset(levels) - one for one in single]
    return tuple(dict.fromkeys([NO_MERGE, *single, *rest]))


def merged(factors: Factors, merge: Merge, *, values: bool) -> Factors:
    """The same layer without the ranks of the levels in ``merge``. Without ``values`` its numbers are placeholders of
    zeros, its supports are not.
    """
    level = mix_levels(factors.ranks, factors.mix_source, factors.mix_target)
    reads, writes = factors.reads.copy(), factors.writes.copy()
    v, ut = (factors.v.astype(np.float64), factors.u.T.astype(np.float64)) if values else (None, None)
    mixes, alive = factors.mixes, np.ones(factors.ranks, dtype=bool)
    for one in sorted(merge):
        gone = (level == one) & ~(reads.any(axis=1) & writes.any(axis=1))
        alive &= ~gone
        into, out = gone[mixes.target], gone[mixes.source]
        before, behind = (Mixes(*(column[edges] for column in mixes)) for edges in (into, out))
        _spread(reads, v, behind)
        _spread(writes, ut, Mixes(before.target, before.source, before.value))
        rest = Mixes(*(column[~into & ~out] for column in mixes))
        mixes = joined(rest, composed(before, behind))
    mixes = mixes.kept(alive)
    nothing = np.zeros((), np.float32)
    ranks = int(alive.sum())
    return replace(
        factors,
        u=np.broadcast_to(nothing, (factors.out_features, ranks)) if ut is None else _float32(ut[alive].T),
        v=np.broadcast_to(nothing, (ranks, factors.in_features)) if v is None else _float32(v[alive]),
        reads=reads[alive],
        writes=writes[alive],
        block_sizes=(),
        mix_source=mixes.source,
        mix_target=mixes.target,
        mix_value=mixes.value.astype(np.float32),
    )


def _float32(values: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(values, dtype=np.float32)


def _spread(support: np.ndarray, values: np.ndarray | None, edges: Mixes) -> None:
    """Add value x the source's row to the target's, and its support to the target's."""
    source, target = (kernel_input(column, np.int64) for column in (edges.source, edges.target))
    numbers = np.zeros((len(support), 0)) if values is None else values
    _spread_rows(support, numbers, source, target, kernel_input(edges.value, np.float64))


@nb.njit(cache=True, nogil=True)
def _spread_rows(support, values, source, target, weight):
    for e in range(source.shape[0]):
        s, t = source[e], target[e]
        for j in range(support.shape[1]):
            support[t, j] |= support[s, j]
        for j in range(values.shape[1]):
            values[t, j] += weight[e] * values[s, j]
