"""Intervals by bootstrap: seeds are drawn anew, with replacement, and test examples too where it is known which are
right.

Intervals are percentile intervals of 95 %. Three seeds have 27 draws, and the interval is then the range of the three:
of two families that are equal, one in four such intervals leaves out zero. Read them as what they are.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from benchmarks.study.settings import Setting

_TAIL = 0.025
# All draws of up to so many seeds are made, and so many of more seeds, or of examples.
_ALL_OF, _DRAWS = 5, 4000

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """From low to high; high is infinite where some draws have no value."""

    low: float
    high: float

    def holds(self, value: float) -> bool:
        return self.low <= value <= self.high


def percentiles(values: Iterable[float]) -> Interval:
    """The interval of values that are equally likely: each end is one of them."""
    ordered = sorted(values)
    count = len(ordered)
    return Interval(ordered[math.ceil(_TAIL * count) - 1], ordered[math.ceil((1 - _TAIL) * count) - 1])


def seed_draws(seeds: Sequence[int]) -> list[tuple[int, ...]]:
    """As many seeds as there are, with replacement: all such draws of a few, else some by a fixed generator."""
    if len(seeds) <= _ALL_OF:
        return list(itertools.product(seeds, repeat=len(seeds)))
    random = np.random.default_rng(0)
    return [tuple(int(one) for one in random.choice(seeds, len(seeds))) for _ in range(_DRAWS)]


def drawn(setting: Setting, draw: Sequence[int]) -> Setting:
    """A setting with the runs of drawn seeds, as often as they were drawn; seeds that it lacks are left out."""
    runs = {place: setting.runs[seed] for place, seed in enumerate(draw) if seed in setting.runs}
    return replace(setting, runs=runs, missing=())


def mean_interval(differences: Floats) -> Interval:
    """Of the mean of (seeds, examples) differences, both drawn anew: the same examples for all seeds of a draw."""
    seeds, examples = differences.shape
    random = np.random.default_rng(0)
    times_seed = random.multinomial(seeds, np.full(seeds, 1 / seeds), _DRAWS)
    times_example = random.multinomial(examples, np.full(examples, 1 / examples), _DRAWS)
    sums = np.einsum("ds,se,de->d", times_seed, differences, times_example, optimize=True)
    return percentiles((sums / differences.size).tolist())
