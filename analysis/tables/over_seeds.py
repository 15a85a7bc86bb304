"""Measured networks with their seeds together: one mean, and the range that it is the middle of."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from analysis.tables.pareto import pareto_front
from analysis.tables.qualities import QUALITIES, Quality
from analysis.tables.records import NetworkPoint


@dataclass(frozen=True)
class Seeds:
    """A network on a machine, trained with one seed or several: all points have one name, family, target, measure."""

    points: tuple[NetworkPoint, ...]

    @property
    def first(self) -> NetworkPoint:
        """What it is called, and what it is."""
        return self.points[0]

    @property
    def quality(self) -> Quality:
        """What it is measured by."""
        return QUALITIES[self.first.quality]

    @property
    def values(self) -> tuple[float, ...]:
        """The measure, by seed."""
        return tuple(point.value for point in self.points)

    @property
    def value(self) -> float:
        """Its mean."""
        return statistics.fmean(self.values)

    def mean(self, field: str) -> float | None:
        """Mean of a field over seeds; None where one has none."""
        found = [getattr(point, field) for point in self.points]
        return None if None in found else statistics.fmean(found)

    @property
    def cycles(self) -> tuple[float, float, float]:
        """Latency in cycles: the mean, the least and the most."""
        found = [point.latency_cycles for point in self.points]
        return statistics.fmean(found), min(found), max(found)

    def record(self) -> dict[str, Any]:
        """As JSON has it: the point's own fields; of several seeds their means, with the seeds and the range."""
        found = self.first.record()
        if len(self.points) == 1:
            return found
        found.pop("events", None)
        means = {key: self.mean(key) for key in _MEANS if key in found}
        name = self.quality.name
        return {
            **found, **means, "seed": None, "seeds": [point.seed for point in self.points],
            name: self.value, f"{name}_low": min(self.values), f"{name}_high": max(self.values),
        }  # fmt: skip


_MEANS = ("multiplications", "latency_cycles", "latency_s", "energy_pj", "tiles", "dram_bytes")


def over_seeds(points: Iterable[NetworkPoint]) -> list[Seeds]:
    """The seeds of each network together, in the order of first appearance.

    Points that are alike in all but the seed's outcome are one network. Where two of these have one seed they are not
    told apart by what they are called, and each stands by itself; a point that is there twice is there once.
    """
    groups: dict[tuple[str, ...], list[NetworkPoint]] = {}
    for point in dict.fromkeys(points):
        key = (point.name, point.family, point.machine, point.target, point.quality)
        groups.setdefault(key, []).append(point)
    found = []
    for same in groups.values():
        together = len({point.seed for point in same}) == len(same)
        found += [Seeds(tuple(same))] if together else [Seeds((point,)) for point in same]
    return found


def on_front(networks: Sequence[Seeds]) -> list[int]:
    """Indices of networks of one machine that no other beats in mean latency and mean quality, ascending."""
    sense = networks[0].quality.sense
    return pareto_front([(one.cycles[0], one.value) for one in networks], ("min", sense)).tolist()
