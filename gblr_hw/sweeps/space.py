"""The points that axes span, and those of them that are measured where not all are."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gblr_hw.sweeps.axes import DENSE, Axis, Settings
from simulator.base.errors import InputError

_MOST_POINTS = 1_000_000
_MOST_DRAWN_FROM = 2**31


@dataclass(frozen=True)
class Space:
    """All points. choices: what may be set, axis by axis; a point takes one of each, the last changing fastest."""

    choices: tuple[tuple[Settings, ...], ...]

    @classmethod
    def of(cls, axes: Sequence[Axis]) -> Space:
        """The product of axes, but that a dense network, which takes no budget, is one point instead of one a budget:
        family and budget are one choice, in the place of the first of them.

        Raises InputError for a field that two axes set, and for a family without a budget or a budget without one.
        """
        fields = [field for axis in axes for field in axis.fields]
        for field in fields:
            if fields.count(field) > 1:
                raise InputError(f"--set {field}", "it twice", "each field is set once", "Put all its values into one.")
        _check_structures(axes)
        structured = [axis for axis in axes if {"family", "budget"} & set(axis.fields)]
        found = []
        for axis in axes:
            if axis not in structured:
                found.append(_choices(axis))
            elif axis is structured[0]:
                found.append(_structures([_choices(one) for one in structured]))
        return cls(tuple(found))

    @property
    def count(self) -> int:
        """Points in all."""
        return math.prod(map(len, self.choices))

    @property
    def fields(self) -> tuple[str, ...]:
        """Everything that points set, in the order of the axes."""
        return tuple(field for choice in self.choices for field in choice[0])

    def at(self, places: Sequence[int]) -> Settings:
        """The point with these of the choices."""
        return {
            field: value
            for choice, place in zip(self.choices, places, strict=True)
            for field, value in choice[place].items()
        }

    def index(self, places: Sequence[int]) -> int:
        """A point's place in the product."""
        found = 0
        for choice, place in zip(self.choices, places, strict=True):
            found = found * len(choice) + place
        return found

    def places(self, index: int) -> tuple[int, ...]:
        """The other way round."""
        found = []
        for choice in reversed(self.choices):
            index, place = divmod(index, len(choice))
            found.append(place)
        return tuple(reversed(found))

    def all(self) -> list[Settings]:
        """Every point. InputError for more than a million."""
        if self.count > _MOST_POINTS:
            found, rule = f"{self.count} points", f"at most {_MOST_POINTS:,} are run"
            raise InputError("--set", found, rule, "Draw some with --sample.")
        return [self.at(places) for places in itertools.product(*(range(len(choice)) for choice in self.choices))]

    def check_sample(self, sample: int) -> None:
        """Raise InputError for more points than there are, and a product that nothing is drawn of."""
        if not 1 <= sample <= self.count:
            rule = f"1 to the {self.count} points of the product"
            raise InputError("--sample", str(sample), rule, "Leave it out for all.")
        if self.count >= _MOST_DRAWN_FROM:
            rule = "a sample is drawn of fewer than two billion"
            raise InputError("--set", f"{self.count} points", rule, "Set less.")

    def drawn(self, sample: int, seed: int) -> list[int]:
        """Places in the product of so many points, drawn at random without replacement, in ascending order."""
        self.check_sample(sample)
        return [int(one) for one in np.sort(np.random.default_rng(seed).choice(self.count, sample, replace=False))]


def _check_structures(axes: Sequence[Axis]) -> None:
    given = {field: axis.values for axis in axes for field in axis.fields}
    converts = any(family != DENSE for family in given.get("family", ()))
    if "budget" in given and not converts:
        rule = "a budget is that of a family other than dense, which has all of the tiles"
        raise InputError("--set budget", "no family that takes one", rule, "Add --set family=dense,lattice.")
    if converts and "budget" not in given:
        rule = "it is made of the dense layers at a budget of their tiles"
        raise InputError("--set family", "no budget", rule, "Add --set budget=0.3,0.5.")


def _choices(axis: Axis) -> tuple[Settings, ...]:
    return tuple(dict.fromkeys(axis.fields, value) for value in axis.values)


def _structures(choices: Sequence[Sequence[Settings]]) -> tuple[Settings, ...]:
    """Families with their budgets, dense without one and once."""
    found: list[Settings] = []
    for parts in itertools.product(*choices):
        one = {field: value for part in parts for field, value in part.items()}
        if one["family"] == DENSE and "budget" in one:
            one["budget"] = None
        found += [] if one in found else [one]
    return tuple(found)
