"""The search: Optuna's multi-objective TPE over machine and network, one study for machines with scatter and one
without.

Both kinds get the same number of trials, so that which is better does not hang on where the sampler looked. Studies
live in memory: the same seed asks for the same pairs again, and what was measured before is only looked up. That is
how an interrupted search goes on, and why it ends as an uninterrupted one does.

What a study asks for before it looks at any result is measured many at a time, and later one pair of each kind: the
studies do not know of each other.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gblr_hw.codesign.ahead import Point, measure_ahead
from gblr_hw.codesign.measure import Measurements, pair_of
from gblr_hw.codesign.problem import Pair, Problem
from gblr_hw.codesign.space import MachineChoice, Space
from gblr_hw.jobs.executors import Workers
from simulator.base.errors import InputError
from simulator.machine.area import area_mm2

if TYPE_CHECKING:
    from optuna import Study, Trial

Progress = Callable[[int, int, str], None]
_REFUSED = 1e9  # an objective of a pair that may not be built: only how far it is from the constraints counts
_SAVE_EVERY = 50  # trials
_STARTUP = 20  # trials of a study that are drawn without a look at the results of others
_BLIND = _STARTUP  # trials that are asked for together: no more than that


@dataclass(frozen=True)
class Found:
    """Distinct pairs within the bounds, in the order they were met, and what was refused; least_energy_pj: of any
    pair.
    """

    pairs: tuple[Pair, ...]
    over_area: int
    over_energy: int
    unfit: int


def search(
    problem: Problem,
    known: Measurements,
    trials: int,
    seed: int,
    progress: Progress = lambda done, of, what: None,
    workers: Workers | None = None,
) -> Found:
    """Ask for ``trials`` pairs in all, half of them with scatter, and measure them: in the workers, here without any.

    Raises InputError without the package optuna, for layers that a family of the space cannot have, for bounds that no
    pair meets (the message names the least reachable area or energy), and for less than one trial a kind of machine.
    """
    check_bounds(problem)
    for family, side in itertools.product(problem.space.families, problem.space.sides):
        problem.networks.check(family, side)
    kinds = problem.space.scatter
    if trials < len(kinds):
        raise InputError("trials", str(trials), f"there are {len(kinds)} kinds of machine", "Give more.")
    asked = [_Asked(problem, known, scatter, seed + index) for index, scatter in enumerate(kinds)]
    workers, told = workers or Workers(), 0
    try:
        while told < trials:
            most = len(kinds) * (_BLIND if told == 0 else 1)
            batch = [asked[number % len(kinds)].ask() for number in range(told, min(trials, told + most))]
            measure_ahead(problem, [one.point for one in batch if one.excess <= 0], known, workers)
            for one in batch:
                progress(told, trials, "searching")
                asked[told % len(kinds)].tell(one)
                told += 1
                if told % _SAVE_EVERY == 0:
                    known.save()
    finally:
        known.save()
    pairs = list(dict.fromkeys(pair for kind in asked for pair in kind.measured))
    within = tuple(pair for pair in pairs if problem.bounds.hold(pair))
    if not within:
        _refuse(problem, pairs)
    over_area, unfit = (sum(getattr(kind, count) for kind in asked) for count in ("over_area", "unfit"))
    return Found(within, over_area, len(pairs) - len(within), unfit)


def check_bounds(problem: Problem) -> None:
    """Raises InputError for bounds that are not positive and finite, and an area below the smallest machine's."""
    for name, value in vars(problem.bounds).items():
        if value is not None and not 0 < value < math.inf:
            raise InputError(
                name, f"{value:g}", "a bound is positive and finite", "Give a positive number or leave it out."
            )
    most = problem.bounds.max_area_mm2
    if most is None:
        return
    areas = ((area_mm2(problem.space.machine(c, problem.base)).total.mm2, c) for c in problem.space.machines())
    least, choice = min(areas, key=lambda item: item[0])
    if least > most:
        name = problem.space.machine(choice, problem.base).name
        raise InputError(
            "max area",
            f"{most:g} mm2",
            f"the smallest machine of the space, {name}, takes {least:.1f} mm2",
            "Raise the area, or give a space with smaller machines.",
        )


def _refuse(problem: Problem, pairs: list[Pair]) -> None:
    if not pairs:
        raise InputError(
            "space", "no pair measured", "a machine within the area must hold the network", "Allow larger memories."
        )
    least = min(pairs, key=lambda pair: pair.energy_pj)
    reached = f"{least.energy_pj / 1e6:.4g} uJ, by {least.network.family} on {least.machine.name}"
    raise InputError(
        "max energy",
        f"{(problem.bounds.max_energy_pj or 0) / 1e6:g} uJ",
        f"the least that was reached is {reached}",
        "Raise the energy, allow smaller shares, or search longer.",
    )


@dataclass(frozen=True, eq=False)
class _Trial:
    """A pair that was asked for, and by which part its machine is above the largest area."""

    trial: Trial
    point: Point
    excess: float


class _Asked:
    """One kind of machine: its study, and what it has measured."""

    def __init__(self, problem: Problem, known: Measurements, scatter: bool, seed: int) -> None:
        self.problem, self.known, self.scatter = problem, known, scatter
        self.measured: list[Pair] = []
        self.over_area = self.unfit = 0
        self._study = _study(len(problem.bounds.objectives), seed)
        space = problem.space
        middle = {name: len(values) // 2 for name, values in _ladders(space).items()}
        for index in range(len(space.sides)):
            for family in space.families_of(scatter):
                self._study.enqueue_trial({**middle, "sides": index, "family": family})

    def ask(self) -> _Trial:
        """The next pair of the study."""
        trial = self._study.ask()
        point = self._suggested(trial)
        most = self.problem.bounds.max_area_mm2
        area = area_mm2(self.problem.space.machine(point[0], self.problem.base)).total.mm2
        return _Trial(trial, point, 0.0 if most is None else area / most - 1)

    def tell(self, asked: _Trial) -> None:
        """Measure a pair and tell the study."""
        bounds, pair = self.problem.bounds, None
        if asked.excess > 0:
            self.over_area += 1
        else:
            pair = pair_of(self.problem, *asked.point, self.known)
            self.unfit += pair is None
        asked.trial.set_constraint("area", asked.excess)
        asked.trial.set_constraint("fits", float(pair is None))
        if pair is None:
            asked.trial.set_constraint("energy", 0.0)
            self._study.tell(asked.trial, [_REFUSED] * len(bounds.objectives))
            return
        most = bounds.max_energy_pj
        asked.trial.set_constraint("energy", 0.0 if most is None else pair.energy_pj / most - 1)
        self.measured.append(pair)
        self._study.tell(asked.trial, [getattr(pair, name) for name in bounds.objectives])

    def _suggested(self, trial: Trial) -> Point:
        space = self.problem.space
        at = {name: values[trial.suggest_int(name, 0, len(values) - 1)] for name, values in _ladders(space).items()}
        family: Any = trial.suggest_categorical("family", space.families_of(self.scatter))
        choice = MachineChoice(
            side=at["sides"],
            scatter=self.scatter,
            banks_per_lane=at["banks_per_lane"] if self.scatter else 1.0,
            scratchpad_kib_per_lane=at["scratchpad_kib_per_lane"],
            accumulator_kib_per_lane=at["accumulator_kib_per_lane"],
            rank_kib_per_bank=at["rank_kib_per_bank"],
            weight_tiles=at["weight_tiles"],
            gb_per_s=at["gb_per_s"],
        )
        return choice, self.problem.networks.uniform(family, choice.side, at["shares"])


def _ladders(space: Space) -> dict[str, tuple[Any, ...]]:
    """Quantities whose values are in order, so that the sampler may take near ones for alike."""
    names = (
        "sides", "banks_per_lane", "scratchpad_kib_per_lane", "accumulator_kib_per_lane", "rank_kib_per_bank",
        "weight_tiles", "gb_per_s", "shares",
    )  # fmt: skip
    return {name: getattr(space, name) for name in names}


def _study(objectives: int, seed: int) -> Study:
    try:
        import optuna
    except ImportError as error:
        raise InputError(
            "codesign", "no package 'optuna'", "the search needs it", "pip install 'gblr-hw[codesign]'"
        ) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=_STARTUP, multivariate=True)
    return optuna.create_study(directions=["minimize"] * objectives, sampler=sampler)
