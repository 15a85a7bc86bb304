"""Passes 5 and 6 for plain machines: without a permutation network, ranks are read and written in groups that share a
row.

A group runs a tile for every chunk that any of its ranks touches. Finding the groups with the fewest tiles is a
clustering problem: start from the best of several orders, cut in groups, then swap ranks between groups while that
saves tiles.
"""

from __future__ import annotations

from dataclasses import replace

import numba as nb
import numpy as np

from gblr_hw.lowering.plan import LayerPlan, RankTile
from simulator.isa import Op

_SWEEPS = 6
# Pairs of ranks times chunks above which the quadratic searches are left out: a few seconds of them.
_MOST_WORK = 3e8


def group_ranks(plan: LayerPlan) -> LayerPlan:
    """Fill in places (bank = lane, slot = group) and one REDUCE or EXPAND tile for each chunk of each group."""
    structure = plan.structure
    size = plan.machine.group_size
    touch = np.concatenate([structure.reads, structure.writes], axis=1)
    group = group_numbers(touch, size)
    order = np.argsort(group, kind="stable")
    bank = np.empty(len(group), dtype=np.int64)
    bank[order] = np.arange(len(group)) - np.searchsorted(group[order], group[order], side="left")
    tiles = []
    for op, members in ((Op.REDUCE, structure.reads), (Op.EXPAND, structure.writes)):
        for chunk in range(members.shape[1]):
            touching = np.flatnonzero(members[:, chunk])
            for number in np.unique(group[touching]):
                tiles.append(RankTile(op, chunk, tuple(touching[group[touching] == number].tolist())))
    return replace(plan, rank_bank=bank, rank_slot=group.astype(np.int64), rank_tiles=tuple(tiles))


def group_numbers(touch: np.ndarray, size: int) -> np.ndarray:
    """Group number of each rank, (K,), groups of at most ``size``."""
    ranks = len(touch)
    if ranks == 0:
        return np.zeros(0, dtype=np.int64)
    starts = touch.argmax(axis=1)
    center = (touch * np.arange(touch.shape[1])).sum(axis=1) / np.maximum(touch.sum(axis=1), 1)
    orders = [np.arange(ranks), np.lexsort((center, starts)), np.lexsort(touch.T[::-1])]
    work = ranks * touch.size
    if work <= _MOST_WORK:
        orders.append(_greedy_order(touch, size))
    sweeps = int(min(_SWEEPS, _MOST_WORK // work))
    best, fewest = np.zeros(ranks, dtype=np.int64), None
    for order in orders:
        group = np.empty(ranks, dtype=np.int64)
        group[order] = np.arange(ranks) // size
        tiles = _improve(touch, group, -(-ranks // size), sweeps)
        if fewest is None or tiles < fewest:
            best, fewest = group, tiles
    return best


@nb.njit(cache=True)
def _greedy_order(touch, size):
    """Fill one group after another: begin with the widest rank left, then always add the rank that widens the union
    least.
    """
    ranks, chunks = touch.shape
    width = np.zeros(ranks, dtype=np.int64)
    for k in range(ranks):
        width[k] = touch[k].sum()
    taken = np.zeros(ranks, dtype=np.bool_)
    order = np.empty(ranks, dtype=np.int64)
    union = np.zeros(chunks, dtype=np.bool_)
    for position in range(ranks):
        if position % size == 0:
            union[:] = False
        best, best_growth, best_width = -1, 0, 0
        for k in range(ranks):
            if taken[k]:
                continue
            growth = 0
            if position % size:
                for c in range(chunks):
                    growth += touch[k, c] and not union[c]
            if best < 0 or growth < best_growth or (growth == best_growth and width[k] > best_width):
                best, best_growth, best_width = k, growth, width[k]
        taken[best] = True
        order[position] = best
        for c in range(chunks):
            union[c] = union[c] or touch[best, c]
    return order


@nb.njit(cache=True)
def _improve(touch, group, groups, sweeps):
    """Swap pairs of ranks between groups while that lowers the number of (group, chunk) pairs; returns that number."""
    ranks, chunks = touch.shape
    count = np.zeros((groups, chunks), dtype=np.int64)
    for k in range(ranks):
        for c in range(chunks):
            count[group[k], c] += touch[k, c]
    for _ in range(sweeps):
        changed = False
        for a in range(ranks):
            for b in range(a + 1, ranks):
                if group[a] == group[b]:
                    continue
                gain = 0
                for c in range(chunks):
                    if touch[a, c] == touch[b, c]:
                        continue
                    leaves, joins = (group[a], group[b]) if touch[a, c] else (group[b], group[a])
                    gain += (count[leaves, c] == 1) - (count[joins, c] == 0)
                if gain > 0:
                    for c in range(chunks):
                        step = np.int64(touch[a, c]) - np.int64(touch[b, c])
                        count[group[a], c] -= step
                        count[group[b], c] += step
                    group[a], group[b] = group[b], group[a]
                    changed = True
        if not changed:
            break
    tiles = 0
    for g in range(groups):
        for c in range(chunks):
            tiles += count[g, c] > 0
    return tiles
