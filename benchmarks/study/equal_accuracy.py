"""What accuracy costs: the cheapest setting that keeps an accuracy, and the cost of an accuracy along a front."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from analysis.tables.pareto import hypervolume, pareto_front
from benchmarks.study.bootstrap import Interval, drawn, mean_interval, percentiles, seed_draws
from benchmarks.study.settings import Quantity, Setting, Study

# Accuracies are means of a few fractions: an equal one may come out a rounding error below.
_ROUNDING = 1e-12


def cheapest(settings: Iterable[Setting], accuracy: float, quantity: Quantity, machine: str) -> Setting | None:
    """The setting of least mean cost on a machine whose mean accuracy is at least ``accuracy``, ties to the more
    accurate one; None where there is none. Settings that some seed cannot reach do not count.
    """
    enough = [s for s in settings if s.reached and s.accuracy >= accuracy - _ROUNDING]
    return min(enough, key=lambda s: (s.cost(quantity, machine), -s.accuracy), default=None)


@dataclass(frozen=True)
class Cost:
    """Cost at an accuracy. at_most: the cheapest point has more accuracy than that, so the true cost may be lower."""

    value: float
    at_most: bool = False


def cost_at(points: Sequence[tuple[float, float]], accuracy: float) -> Cost | None:
    """The least cost of an accuracy along the front of ``points`` (cost, accuracy), straight between its neighbours.

    None where no point is accurate enough.
    """
    front = sorted({points[i] for i in pareto_front(points, ("min", "max"))})
    for index, (value, reached) in enumerate(front):
        if reached < accuracy - _ROUNDING:
            continue
        if index == 0:
            return Cost(value, at_most=reached > accuracy + _ROUNDING)
        before, short = front[index - 1]
        share = min(1.0, (accuracy - short) / (reached - short))
        return Cost(before + share * (value - before))
    return None


def mean_points(settings: Iterable[Setting], quantity: Quantity, machine: str) -> list[tuple[float, float]]:
    """(mean cost, mean accuracy) of every setting that all its seeds reach."""
    return [(s.cost(quantity, machine), s.accuracy) for s in settings if s.reached]


def seed_points(settings: Iterable[Setting], seed: int, quantity: Quantity, machine: str) -> list[tuple[float, float]]:
    """(cost, accuracy) of one seed's networks."""
    return [(s.runs[seed].cost(quantity, machine), s.runs[seed].accuracy) for s in settings if seed in s.runs]


@dataclass(frozen=True)
class Volume:
    """Hypervolume of the front of mean points, and of each seed's own front."""

    mean: float
    seeds: tuple[float, ...]


def front_volume(study: Study, part: str, family: str, quantity: Quantity, machine: str, floor: float) -> Volume | None:
    """Area between the front of a family's settings and the reference point (the dense network's cost, ``floor``), in
    units of dense's cost times accuracy. None without a dense network or without settings.
    """
    dense, settings = study.dense(part), study.of(part, family)
    if dense is None or not any(setting.reached for setting in settings):
        return None
    unit = dense.cost(quantity, machine)

    def area(points: Sequence[tuple[float, float]]) -> float:
        return hypervolume([(cost / unit, accuracy) for cost, accuracy in points], ("min", "max"), (1.0, floor))

    seeds = sorted({seed for setting in settings for seed in setting.runs})
    own = tuple(area(seed_points(settings, seed, quantity, machine)) for seed in seeds)
    return Volume(area(mean_points(settings, quantity, machine)), own)


def share_interval(
    settings: Sequence[Setting], dense: Setting, margin: float, quantity: Quantity, machine: str
) -> Interval:
    """Of the least cost within `margin` of dense's accuracy, as a share of dense's: both over the same drawn seeds."""
    shares = []
    for draw in seed_draws(sorted(dense.runs)):
        reference = drawn(dense, draw)
        found = cheapest([drawn(s, draw) for s in settings], reference.accuracy - margin, quantity, machine)
        unit = reference.cost(quantity, machine)
        shares.append(math.inf if found is None else found.cost(quantity, machine) / unit)
    return percentiles(shares)


@dataclass(frozen=True)
class Paired:
    """Difference of two settings over the seeds that both have: mean, and interval (None for one seed of which it is
    not known which examples are right).
    """

    mean: float
    interval: Interval | None
    seeds: int

    @property
    def verdict(self) -> str:
        """win or loss where the interval leaves out zero, tie where it holds it, "one seed" without one."""
        if self.interval is None:
            return "one seed"
        if self.interval.low <= _ROUNDING and self.interval.high >= -_ROUNDING:
            return "tie"
        return "win" if self.mean > 0 else "loss"


def paired(ours: Setting, theirs: Setting) -> Paired | None:
    """Accuracy of ``ours`` less that of ``theirs``, seed by seed; the interval is over examples too, where all runs
    have the same number of them. None where no seed has both.
    """
    both = sorted(set(ours.runs) & set(theirs.runs))
    if not both:
        return None
    differences = [ours.runs[seed].accuracy - theirs.runs[seed].accuracy for seed in both]
    return Paired(statistics.fmean(differences), _interval(ours, theirs, both), len(both))


def _interval(ours: Setting, theirs: Setting, seeds: Sequence[int]) -> Interval | None:
    sides = [[setting.runs[seed].right for seed in seeds] for setting in (ours, theirs)]
    lengths = {len(right) for side in sides for right in side}
    if len(lengths) == 1 and lengths != {0}:
        mine, other = (np.array(side, dtype=np.float64) for side in sides)
        return mean_interval(mine - other)
    if len(seeds) < 2:
        return None
    differences = {seed: ours.runs[seed].accuracy - theirs.runs[seed].accuracy for seed in seeds}
    return percentiles(statistics.fmean(differences[seed] for seed in draw) for draw in seed_draws(seeds))
