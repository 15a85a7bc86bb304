"""Which pairs none beats, and which kind of machine is the faster one at an error within an area."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from analysis.tables.pareto import pareto_front
from gblr_hw.codesign.problem import Pair
from gblr_hw.codesign.space import has_shares

_MOST_LEVELS = 8
EVEN = 0.005  # relative difference of latencies below which pairs are as fast
_STEP = 0.05  # of the error levels
_SPEED = ("latency_s", "error")


@dataclass(frozen=True)
class Comparison:
    """At one error level and within one area: the fastest plain pair and the fastest one with scatter, where there is
    one.
    """

    max_area_mm2: float
    max_error: float
    plain: Pair | None
    scatter: Pair | None

    @property
    def speedup(self) -> float | None:
        """Plain latency over latency with scatter: above 1 scatter wins."""
        if self.plain is None or self.scatter is None:
            return None
        return self.plain.latency_s / self.scatter.latency_s

    @property
    def speedup_per_area(self) -> float | None:
        """The same of latency times area: above 1 scatter gives more speed per mm2."""
        if self.plain is None or self.scatter is None:
            return None
        return self.plain.latency_s * self.plain.area_mm2 / (self.scatter.latency_s * self.scatter.area_mm2)


def unbeaten(pairs: Sequence[Pair], objectives: Sequence[str]) -> list[Pair]:
    """Pairs that no other beats in the objectives (fields of `Pair`, minimised), fastest first; of equal ones the
    first.
    """
    if not pairs:
        return []
    values = np.array([[getattr(pair, name) for name in objectives] for pair in pairs], np.float64)
    found: dict[tuple[float, ...], Pair] = {}
    for index in pareto_front(values, ("min",) * len(objectives)):
        found.setdefault(tuple(values[index]), pairs[int(index)])
    return sorted(found.values(), key=speed)


def plain_against_scatter(pairs: Sequence[Pair], areas: Iterable[float], errors: Iterable[float]) -> list[Comparison]:
    """The fastest pair of each kind for every area and error level that one of them reaches."""
    levels = tuple(errors)
    found = [
        Comparison(area, level, fastest(pairs, area, level, False), fastest(pairs, area, level, True))
        for area in areas
        for level in levels
    ]
    return [row for row in found if row.plain is not None or row.scatter is not None]


def area_levels(pairs: Sequence[Pair], bound: float | None) -> tuple[float, ...]:
    """The bound; without one, areas that double from a little above the least pair's until every fast one is within."""
    if bound is not None:
        return (bound,)
    least = min(pair.area_mm2 for pair in pairs)
    most = max(pair.area_mm2 for pair in unbeaten(pairs, _SPEED))
    first = _two_digits(1.25 * least)
    return tuple(first * 2**k for k in range(1 + max(0, math.ceil(math.log2(most / first)))))


def error_levels(pairs: Sequence[Pair]) -> tuple[float, ...]:
    """Eight round errors at most, from the least that both kinds of machine reach without a dense network."""
    reached = [
        min((pair.error for pair in pairs if pair.scatter == scatter and has_shares(pair.network.family)), default=0.0)
        for scatter in (False, True)
    ]
    first = math.ceil(max(reached) / _STEP - 1e-9)
    last = math.ceil(max(pair.error for pair in unbeaten(pairs, _SPEED)) / _STEP - 1e-9)
    return tuple(round(k * _STEP, 10) for k in range(first, max(first, last) + 1))[:_MOST_LEVELS]


def fastest(pairs: Sequence[Pair], area: float, error: float, scatter: bool) -> Pair | None:
    """The fastest pair of a kind within an area and an error; of those as fast within half a per cent the smallest."""
    allowed = [p for p in pairs if p.scatter == scatter and p.area_mm2 <= area and p.error <= error]
    if not allowed:
        return None
    least = min(pair.latency_s for pair in allowed)
    even = [pair for pair in allowed if pair.latency_s <= least * (1 + EVEN)]
    return min(even, key=lambda pair: (pair.area_mm2, *speed(pair)))


def speed(pair: Pair) -> tuple[float, float, float, str]:
    """What pairs are ordered by: latency, then area, then error."""
    return pair.latency_s, pair.area_mm2, pair.error, pair.machine.name


def _two_digits(value: float) -> float:
    scale = 10.0 ** (math.floor(math.log10(value)) - 1)
    return math.ceil(value / scale) * scale
