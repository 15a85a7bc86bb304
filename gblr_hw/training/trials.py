"""Choosing by trial: short runs of the whole schedule, the lowest training loss wins."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TypeVar

from gblr_hw.cost.target import UnreachableTargetError
from gblr_hw.training.recipe import TrainedNetwork
from gblr_hw.weights.family import FAMILIES, Family, on_machine

Name = TypeVar("Name", bound=str)


def candidates(family: Family, scatter: bool) -> tuple[str, ...]:
    """Families that trials choose between, on a machine with a permutation network or without one."""
    return tuple(on_machine(FAMILIES[name], scatter).name for name in family.candidates)


def lowest_loss(trials: Mapping[Name, Callable[[], TrainedNetwork]]) -> Name:
    """The trial that ends with the lowest training loss, the first of equals; those that cannot reach their target are
    left out. Raises the last UnreachableTargetError when that is all of them.

    First-order importances of tiles and of ranks are in one unit, but say nothing of how well what is left will learn:
    chosen together by them, tiles lose to ranks where they should not. A trial of a quarter of the epochs does say it.
    """
    losses: dict[Name, float] = {}
    refusals = []
    for name, trial in trials.items():
        try:
            history = trial().history
        except UnreachableTargetError as error:
            refusals.append(error)
            continue
        losses[name] = history[-1].loss if history else math.inf
    if not losses:
        raise refusals[-1]
    return min(losses, key=lambda name: losses[name])
