"""Chains of ranks: which ranks' values are added to which others', and what follows from that.

A layer's mixes are edges from source to target rank with a value: target's value gets value x source's value added.
Ranks that read inputs begin chains, ranks that write outputs end them. Arrays in, arrays out; no factors.
"""

from __future__ import annotations

from typing import NamedTuple

import numba as nb
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from simulator.base.columns import kernel_input
from simulator.base.errors import InputError

Ints = NDArray[np.int64]


class Mixes(NamedTuple):
    """Edges sorted by target, then source, (E,) each."""

    source: Ints
    target: Ints
    value: NDArray[np.float64]

    @staticmethod
    def of(source: np.ndarray, target: np.ndarray, value: np.ndarray) -> Mixes:
        """From edges in any order; values of equal pairs are added up."""
        pairs, place = np.unique(np.stack([target, source]), axis=1, return_inverse=True)
        summed = np.bincount(place.ravel(), weights=value, minlength=pairs.shape[1])
        return Mixes(pairs[1].astype(np.int64), pairs[0].astype(np.int64), summed.astype(np.float64))

    def kept(self, alive: np.ndarray) -> Mixes:
        """The edges between ranks of ``alive`` (K,), which are numbered anew."""
        number = np.cumsum(alive) - 1
        edges = alive[self.source] & alive[self.target]
        return Mixes(number[self.source[edges]], number[self.target[edges]], self.value[edges])


def check_mixes(ranks: int, source: np.ndarray, target: np.ndarray, value: np.ndarray) -> None:
    """Raise InputError unless the edges are sorted, unique, finite, between ``ranks`` ranks, and without a circle."""
    remedy = "Build it with evaluate()."
    if not len(source) == len(target) == len(value):
        found = f"{len(source)} sources, {len(target)} targets and {len(value)} values"
        raise InputError("factors field 'mix_source'", found, "mixes are columns of one length", remedy)
    for name, column in (("mix_source", source), ("mix_target", target)):
        if len(column) and (column.min() < 0 or column.max() >= ranks):
            raise InputError(f"factors field '{name}'", str(int(column.max())), f"ranks are 0 to {ranks - 1}", remedy)
    place = target * max(ranks, 1) + source
    if (np.diff(place) <= 0).any():
        at = int(np.argmax(np.diff(place) <= 0)) + 1
        pair = f"{source[at]} into {target[at]} behind {source[at - 1]} into {target[at - 1]}"
        raise InputError("factors field 'mix_source'", pair, "mixes are sorted by target, then source, once", remedy)
    if not np.isfinite(value).all():
        raise InputError("factors field 'mix_value'", "NaN or infinity", "every value is finite", remedy)
    mix_levels(ranks, source, target)


def mix_levels(ranks: int, source: np.ndarray, target: np.ndarray) -> Ints:
    """How many mixes the longest chain to each rank has, (K,). Raises InputError where ranks are mixed in a circle."""
    level = np.zeros(ranks, dtype=np.int64)
    if len(source) == 0:
        return level
    graph = coo_array((np.ones(len(source), np.int8), (source, target)), shape=(ranks, ranks)).tocsr()
    circles, circle = connected_components(graph, directed=True, connection="strong")
    if circles < ranks or (source == target).any():
        of_many = np.bincount(circle)[circle[source]] > 1
        raise InputError(
            "factors field 'mix_target'",
            f"a circle through rank {int(source[np.argmax(of_many | (source == target))])}",
            "no rank is mixed into itself, by whatever way",
            "Build it with evaluate().",
        )
    while True:
        risen = level.copy()
        np.maximum.at(risen, target, level[source] + 1)
        if np.array_equal(risen, level):
            return level
        level = risen


def carried(values: np.ndarray, mixes: Mixes) -> NDArray[np.float64]:
    """Rows (K, n) of what enters ranks by itself -> rows of all that enters them: each target's gets value x its
    sources' rows added, along chains.
    """
    rows = np.array(values, dtype=np.float64)
    order = np.argsort(mix_levels(len(rows), mixes.source, mixes.target)[mixes.target], kind="stable")
    _carry(rows, *_ordered(mixes, order))
    return rows


def carried_back(values: np.ndarray, mixes: Mixes) -> NDArray[np.float64]:
    """Rows (K, m) of what ranks give by themselves -> rows of all that they give, through the ranks they are mixed
    into.
    """
    rows = np.array(values, dtype=np.float64)
    order = np.argsort(-mix_levels(len(rows), mixes.source, mixes.target)[mixes.source], kind="stable")
    source, target, value = _ordered(mixes, order)
    _carry(rows, target, source, value)
    return rows


def _ordered(mixes: Mixes, order: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    source, target = (kernel_input(column[order], np.int64) for column in (mixes.source, mixes.target))
    return source, target, kernel_input(mixes.value[order], np.float64)


@nb.njit(cache=True, nogil=True)
def _carry(rows, source, target, value):
    """Add value x the source's row to the target's, edge by edge."""
    for e in range(source.shape[0]):
        s, t, x = source[e], target[e], value[e]
        for j in range(rows.shape[1]):
            rows[t, j] += x * rows[s, j]


def in_use(reads: np.ndarray, writes: np.ndarray, source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Ranks, (K,) bool, that some input reaches and that reach some output. reads (K, n), writes (K, m) bool."""
    fed, used = np.asarray(reads.any(axis=1)), np.asarray(writes.any(axis=1))
    for flags, begin, end in ((fed, source, target), (used, target, source)):
        while _spread(flags, begin, end):
            pass
    return fed & used


def _spread(flags: np.ndarray, begin: np.ndarray, end: np.ndarray) -> bool:
    """Pass flags along edges once; whether that changed any."""
    fresh = end[flags[begin] & ~flags[end]]
    flags[fresh] = True
    return bool(len(fresh))


def composed(into: Mixes, out: Mixes) -> Mixes:
    """One edge for each pair of an edge into a rank and one out of it, their values multiplied."""
    order = np.argsort(into.target, kind="stable")
    begin = np.searchsorted(into.target[order], out.source, side="left")
    counts = np.searchsorted(into.target[order], out.source, side="right") - begin
    behind = np.repeat(np.arange(len(out.source)), counts)
    along = np.arange(len(behind)) - np.repeat(np.cumsum(counts) - counts, counts)
    before = order[np.repeat(begin, counts) + along]
    return Mixes(into.source[before], out.target[behind], into.value[before] * out.value[behind])


def joined(*parts: Mixes) -> Mixes:
    """All edges of some parts, sorted, equal pairs added up."""
    return Mixes.of(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))
