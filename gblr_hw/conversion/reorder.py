"""Reorder hidden channels so that alike ones share a chunk: the network computes the same, its matrices fit better."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import scipy.linalg

from simulator.base.arithmetic import ceil_div
from simulator.base.errors import InputError

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
_SWAPS = 64  # swaps that may improve one cut


def order_hidden(producer: FloatArray, consumer: FloatArray, chunk: int) -> IntArray:
    """An order of hidden channels in which those of a chunk are alike.

    producer (h, n) writes the hidden channels, consumer (m, h) reads them, and what lies between treats every channel
    alike (an activation function, not a normalisation over groups). Reordering rows of one, its bias, and columns of
    the other by the result (h,) leaves the network's function as it is. Two channels are alike when the producer's rows
    and the consumer's columns point the same way, or the opposite one: then the same ranks serve both. Recursive
    spectral bisection of that likeness (Shi & Malik, 2000), each cut improved by swaps.
    """
    likeness = _squared_cosines(producer) + _squared_cosines(consumer.T)
    return np.concatenate(_bisect(likeness, np.arange(len(producer)), chunk))


def check_pairs(pairs: Mapping[str, str], shapes: Mapping[str, tuple[int, int]]) -> None:
    """Raise InputError unless each producer's outputs can be its consumer's inputs, and no layer has two orders."""
    for producer, consumer in pairs.items():
        where = f"hidden channels of '{producer}' and '{consumer}'"
        missing = [name for name in (producer, consumer) if name not in shapes]
        if missing:
            raise InputError(where, f"no layer '{missing[0]}'", "both layers must be converted", "Check the names.")
        if shapes[producer][0] != shapes[consumer][1]:
            raise InputError(
                where,
                f"{shapes[producer][0]} outputs and {shapes[consumer][1]} inputs",
                "what one layer writes, the other reads",
                "Pair the layers that share hidden channels.",
            )
    if len(set(pairs.values())) < len(pairs):
        raise InputError("hidden channels", "one consumer of two producers", "an order has one producer", "Drop one.")


def _squared_cosines(rows: FloatArray) -> FloatArray:
    unit = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-300)
    return np.square(unit @ unit.T)


def _bisect(likeness: FloatArray, members: IntArray, chunk: int) -> list[IntArray]:
    chunks = ceil_div(len(members), chunk)
    if chunks <= 1:
        return [members]
    first = _cut(likeness[np.ix_(members, members)], chunks // 2 * chunk)
    return [*_bisect(likeness, members[first], chunk), *_bisect(likeness, members[~first], chunk)]


def _cut(likeness: FloatArray, size: int) -> npt.NDArray[np.bool_]:
    """`size` members that are more like each other than like the rest: (N,) bool."""
    count, degree = len(likeness), likeness.sum(axis=1)
    root = np.sqrt(np.maximum(degree, 1e-300))
    _, vectors = scipy.linalg.eigh(likeness / np.outer(root, root), subset_by_index=[count - 2, count - 1])
    vector = vectors[:, 0] / root
    # An eigenvector's sign is arbitrary: fix it, so that equal input gives equal output everywhere.
    vector *= 1.0 if vector[np.argmax(np.abs(vector))] > 0 else -1.0
    first = np.zeros(count, bool)
    first[np.argsort(vector, kind="stable")[:size]] = True
    for _ in range(_SWAPS):
        inside = likeness @ first
        gain = np.where(first, degree - 2 * inside, 2 * inside - degree) + np.where(first, 1, -1) * np.diag(likeness)
        leaves = int(np.argmax(np.where(first, gain, -np.inf)))
        joins = int(np.argmax(np.where(first, -np.inf, gain)))
        if gain[leaves] + gain[joins] - 2 * likeness[leaves, joins] <= 1e-9:
            break
        first[leaves], first[joins] = False, True
    return first
