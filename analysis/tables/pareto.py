"""Pareto front and hypervolume in float64, for any mix of objectives to minimise and to maximise.

Values are only compared, never scaled, so objectives of 1e-12 and 1e12 stand beside each other without loss.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from simulator.base.errors import InputError

SENSES = ("min", "max")


def pareto_front(values: ArrayLike, senses: Sequence[str]) -> NDArray[np.intp]:
    """Indices of the rows that no other row dominates, ascending.

    ``values`` is (N, D), ``senses`` has D entries, each ``"min"`` or ``"max"``. A row dominates another if it is no
    worse in any objective and better in one; equal rows do not dominate each other, so duplicates stay or go together.
    O(N log N) for D <= 2, else O(N x front). Raises ``InputError`` for NaN, infinities and wrong shapes.
    """
    costs = _as_costs(values, senses, "pareto_front: values")
    if len(costs) == 0:
        return np.zeros(0, np.intp)
    distinct, member_of = np.unique(costs, axis=0, return_inverse=True)
    # ``distinct`` is in lexicographic order: only an earlier row can dominate a later one.
    kept = _front_of_two(distinct) if distinct.shape[1] <= 2 else _front_of_many(distinct)
    return np.flatnonzero(kept[member_of.reshape(-1)])


def hypervolume(values: ArrayLike, senses: Sequence[str], reference: ArrayLike) -> float:
    """Volume between ``reference`` (D,) and the front of ``values`` (N, D): what the points dominate and it does not.

    Rows that are not strictly better than the reference in every objective add nothing. Slicing by objectives
    (While et al., "A faster algorithm for calculating hypervolume", 2006): O(N log N) for D = 2,
    O(N^(D-1) log N) beyond. Raises ``InputError`` for NaN, infinities, wrong shapes and a volume beyond float64.
    """
    costs = _as_costs(values, senses, "hypervolume: values")
    corner = np.asarray(reference, np.float64)
    if corner.shape != (costs.shape[1],):
        raise InputError(
            "hypervolume: reference",
            f"shape {corner.shape}",
            f"it needs one value for each of {costs.shape[1]} objectives",
            "Give the worst point of interest.",
        )
    corner = _as_costs(corner[None, :], senses, "hypervolume: reference")[0]
    inside = costs[np.all(costs < corner, axis=1)]
    with np.errstate(over="ignore"):
        volume = _sliced_volume(inside, corner)
    if not math.isfinite(volume):
        raise InputError(
            "hypervolume: values",
            "a volume above 1.8e308",
            "the volume must fit into float64",
            "Rescale the objectives.",
        )
    return volume


def _as_costs(values: ArrayLike, senses: Sequence[str], where: str) -> NDArray[np.float64]:
    """(N, D) float64 in which smaller is better."""
    array = np.asarray(values, np.float64)
    if array.size == 0 and array.ndim <= 1:
        array = array.reshape(0, len(senses))
    if array.ndim != 2 or array.shape[1] != len(senses) or len(senses) == 0:
        raise InputError(
            where,
            f"shape {array.shape}",
            f"the shape must be (points, {len(senses)}), a column for each sense",
            "Give one row for each point and at least one objective.",
        )
    for sense in senses:
        if sense not in SENSES:
            raise InputError(
                "senses", repr(sense), 'a sense is "min" or "max"', "Give one of the two for each objective."
            )
    bad = np.argwhere(~np.isfinite(array))
    if len(bad):
        row, column = bad[0]
        raise InputError(
            f"{where}[{row}, {column}]",
            str(array[row, column]),
            "objectives must be finite",
            "Leave out points that were not measured.",
        )
    return array * np.array([1.0 if s == "min" else -1.0 for s in senses])


def _front_of_two(ordered: NDArray[np.float64]) -> NDArray[np.bool_]:
    last = ordered[:, -1]
    if ordered.shape[1] == 1:
        return last == last[0]
    best_before = np.concatenate(([np.inf], np.minimum.accumulate(last)[:-1]))
    return last < best_before


def _front_of_many(ordered: NDArray[np.float64]) -> NDArray[np.bool_]:
    kept = np.zeros(len(ordered), np.bool_)
    front = np.empty_like(ordered)
    size = 0
    for index, row in enumerate(ordered):
        if not np.any(np.all(front[:size] <= row, axis=1)):
            front[size] = row
            size += 1
            kept[index] = True
    return kept


def _sliced_volume(costs: NDArray[np.float64], corner: NDArray[np.float64]) -> float:
    if len(costs) == 0:
        return 0.0
    if costs.shape[1] == 1:
        return float(corner[0] - costs[:, 0].min())
    ordered = costs[np.lexsort(costs.T[::-1])]
    edges = np.append(ordered[:, 0], corner[0])
    depths = np.diff(edges)
    if costs.shape[1] == 2:
        heights = corner[1] - np.minimum.accumulate(ordered[:, 1])
        return _exact_sum(depths * heights)
    areas = [_sliced_volume(ordered[: i + 1, 1:], corner[1:]) if d > 0 else 0.0 for i, d in enumerate(depths)]
    return _exact_sum(depths * np.array(areas))


def _exact_sum(terms: NDArray[np.float64]) -> float:
    # The terms of one front may span 24 orders of magnitude; fsum rounds only once.
    return math.fsum(terms.tolist()) if np.all(np.isfinite(terms)) else math.inf
