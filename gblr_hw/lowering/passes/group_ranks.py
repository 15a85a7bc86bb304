"""Plain machines, in place of banks and packed ranks: without a permutation network, ranks are read and written in
groups that share a row.

A group runs a tile for every chunk that any of its ranks touches. Finding the groups with the fewest tiles is a
clustering problem: start from the best of several orders, cut in groups, then swap ranks between groups while that
saves tiles.
"""

from __future__ import annotations

from collections.abc import Callable

import numba as nb
import numpy as np

from gblr_hw.lowering.passes.plan import LayerPlan, RankTiles, filled
from gblr_hw.weights.structure import Structure
from simulator.base.kernels import ceil_div
from simulator.program.operations import Op

Grouping = Callable[[Structure, int], np.ndarray]

_SWEEPS = 6
# Pairs of ranks times chunks above which the quadratic searches are left out: a few seconds of them.
_MOST_WORK = 3e8
# Constants of the bit count; mixed with signed integers, uint64 would become float.
_ONE, _TWO, _FOUR, _TOP = np.uint64(1), np.uint64(2), np.uint64(4), np.uint64(56)
_PAIRS, _FOURS = np.uint64(0x5555555555555555), np.uint64(0x3333333333333333)
_BYTES, _SUM = np.uint64(0x0F0F0F0F0F0F0F0F), np.uint64(0x0101010101010101)


def group_ranks(plan: LayerPlan, grouping: Grouping | None = None) -> LayerPlan:
    """Fill in places (bank = lane, slot = group) and one REDUCE or EXPAND tile for each chunk of each group.

    grouping: the structure and the ranks that a group may hold -> group of each rank, (K,), numbered from 0 without
    gaps; that of ``group_numbers`` if None.
    """
    structure, size = plan.structure, plan.machine.group_size
    if grouping is None:
        group = group_numbers(np.concatenate([structure.reads, structure.writes], axis=1), size)
    else:
        group = grouping(structure, size)
    order = np.argsort(group, kind="stable")
    bank = np.empty(len(group), dtype=np.int64)
    bank[order] = np.arange(len(group)) - np.searchsorted(group[order], group[order], side="left")
    tiles = RankTiles.joined([_cut(Op.REDUCE, structure.reads, group), _cut(Op.EXPAND, structure.writes, group)])
    return filled(plan, rank_bank=bank, rank_slot=group.astype(np.int64), rank_tiles=tiles)


def _cut(op: Op, members: np.ndarray, group: np.ndarray) -> RankTiles:
    """A tile for every chunk and group that have ranks in common. members: (K, chunks) bool."""
    chunk, rank = np.nonzero(members.T)
    order = np.lexsort((rank, group[rank], chunk))
    chunk, rank = chunk[order], rank[order]
    return RankTiles.grouped(op, chunk, chunk * (int(group.max(initial=0)) + 1) + group[rank], rank)


def group_numbers(touch: np.ndarray, size: int) -> np.ndarray:
    """Group number of each rank, (K,), groups of at most ``size``."""
    ranks = len(touch)
    if ranks == 0:
        return np.zeros(0, dtype=np.int64)
    starts = touch.argmax(axis=1)
    center = (touch * np.arange(touch.shape[1])).sum(axis=1) / np.maximum(touch.sum(axis=1), 1)
    bits = _packed(touch)
    orders = [np.arange(ranks), np.lexsort((center, starts)), np.lexsort(touch.T[::-1])]
    work = ranks * touch.size
    if work <= _MOST_WORK:
        orders.append(_greedy_order(bits, size))
    sweeps = int(min(_SWEEPS, _MOST_WORK // work))
    best, fewest = np.zeros(ranks, dtype=np.int64), None
    for order in orders:
        group = np.empty(ranks, dtype=np.int64)
        group[order] = np.arange(ranks) // size
        tiles = _improve(bits, touch.shape[1], group, ceil_div(ranks, size), sweeps)
        if fewest is None or tiles < fewest:
            best, fewest = group, tiles
    return best


def _packed(touch: np.ndarray) -> np.ndarray:
    """Chunk sets as bits: (K, chunks) bool to (K, words) uint64, chunk c in bit c mod 64 of word c // 64."""
    words = ceil_div(touch.shape[1], 64)
    packed = np.zeros((len(touch), 8 * words), dtype=np.uint8)
    filled_bytes = np.packbits(touch, axis=1, bitorder="little")
    packed[:, : filled_bytes.shape[1]] = filled_bytes
    return packed.view(np.dtype("<u8")).astype(np.uint64)


@nb.njit(cache=True, nogil=True)
def _ones(word):
    """Number of bits that are set in a uint64."""
    word = word - ((word >> _ONE) & _PAIRS)
    word = (word & _FOURS) + ((word >> _TWO) & _FOURS)
    return np.int64((((word + (word >> _FOUR)) & _BYTES) * _SUM) >> _TOP)


@nb.njit(cache=True, nogil=True)
def _greedy_order(bits, size):
    """Fill one group after another: begin with the widest rank left, then always add the rank that widens the union
    least.
    """
    ranks, words = bits.shape
    width = np.zeros(ranks, dtype=np.int64)
    for k in range(ranks):
        for w in range(words):
            width[k] += _ones(bits[k, w])
    left = np.arange(ranks)
    order = np.empty(ranks, dtype=np.int64)
    union = np.zeros(words, dtype=np.uint64)
    for position in range(ranks):
        if position % size == 0:
            union[:] = 0
        best, best_growth, best_width = -1, np.int64(0), np.int64(0)
        for at in range(ranks - position):
            k = left[at]
            growth = np.int64(0)
            if position % size:
                for w in range(words):
                    growth += _ones(bits[k, w] & ~union[w])
            if best < 0 or growth < best_growth or (growth == best_growth and width[k] > best_width):
                best, best_growth, best_width = at, growth, width[k]
        order[position] = left[best]
        for w in range(words):
            union[w] |= bits[left[best], w]
        left[best : ranks - position - 1] = left[best + 1 : ranks - position]
    return order


@nb.njit(cache=True, nogil=True)
def _improve(bits, chunks, group, groups, sweeps):
    """Swap pairs of ranks between groups while that lowers the number of (group, chunk) pairs; returns that number."""
    ranks, words = bits.shape
    count = np.zeros((groups, chunks), dtype=np.int64)
    once = np.zeros((groups, words), dtype=np.uint64)  # chunks that one rank of the group touches
    never = np.zeros((groups, words), dtype=np.uint64)  # chunks that none does
    for k in range(ranks):
        _add(count[group[k]], bits[k], 1)
    for g in range(groups):
        _mark(count[g], once[g], never[g])
    for _ in range(sweeps):
        changed = False
        for a in range(ranks):
            for b in range(a + 1, ranks):
                if group[a] == group[b]:
                    continue
                gain = np.int64(0)
                for w in range(words):
                    only_a, only_b = bits[a, w] & ~bits[b, w], bits[b, w] & ~bits[a, w]
                    gain += _ones(only_a & once[group[a], w]) - _ones(only_a & never[group[b], w])
                    gain += _ones(only_b & once[group[b], w]) - _ones(only_b & never[group[a], w])
                if gain > 0:
                    _add(count[group[a]], bits[a], -1)
                    _add(count[group[b]], bits[b], -1)
                    group[a], group[b] = group[b], group[a]
                    for k in (a, b):
                        _add(count[group[k]], bits[k], 1)
                    for k in (a, b):
                        _mark(count[group[k]], once[group[k]], never[group[k]])
                    changed = True
        if not changed:
            break
    return (count > 0).sum()


@nb.njit(cache=True, nogil=True)
def _add(count, bits, step):
    """Add ``step`` to the count of every chunk in a set."""
    for c in range(count.shape[0]):
        if (bits[c >> 6] >> np.uint64(c & 63)) & _ONE:
            count[c] += step


@nb.njit(cache=True, nogil=True)
def _mark(count, once, never):
    """The chunks with a count of one and of none, as bits."""
    once[:] = 0
    never[:] = 0
    for c in range(count.shape[0]):
        if count[c] <= 1:
            marked = once if count[c] == 1 else never
            marked[c >> 6] |= _ONE << np.uint64(c & 63)
