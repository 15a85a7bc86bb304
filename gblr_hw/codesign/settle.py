"""From the best pairs of a search to pairs that no single change improves, for both kinds of machine alike.

A sampler leaves luck behind: one kind of machine may lack a pair that the other has. Here each kind starts from its
own winner and from the other's, and goes to the better neighbour until there is none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from gblr_hw.codesign.ahead import Point, fit_ahead, measure_ahead
from gblr_hw.codesign.front import fastest, speed
from gblr_hw.codesign.measure import Measurements, mean_error, pair_of
from gblr_hw.codesign.problem import Pair, Problem
from gblr_hw.codesign.space import has_shares
from gblr_hw.jobs.executors import Workers
from simulator.machine.area import area_mm2

Progress = Callable[[int, int, str], None]
_LADDERS = ("scratchpad_kib_per_lane", "accumulator_kib_per_lane", "rank_kib_per_bank", "weight_tiles", "gb_per_s")


def settle(
    problem: Problem,
    known: Measurements,
    pairs: Sequence[Pair],
    areas: Sequence[float],
    errors: Sequence[float],
    progress: Progress = lambda done, of, what: None,
    workers: Workers | None = None,
) -> list[Pair]:
    """The pairs, and for every area, error level and kind of machine the fastest one that is found from the best of
    them.

    Fastest first, then smallest; all are within the problem's bounds, and never slower than what was given. Neighbours
    are measured in the workers, here without any.
    """
    workers = workers or Workers()
    found = dict.fromkeys(pairs)
    cells = [(area, error) for area in areas for error in errors]
    try:
        for number, (area, error) in enumerate(cells):
            progress(number, len(cells), "settling")
            for scatter in problem.space.scatter:
                starts = list(_starts(problem, list(found), area, error, scatter))
                first = _measured(problem, known, starts, area, error, workers)
                for start, pair in zip(starts, first, strict=True):
                    best = _climb(problem, known, start, pair, area, error, workers)
                    if best is not None:
                        found.setdefault(best)
    finally:
        known.save()
    return list(found)


def _starts(problem: Problem, pairs: Sequence[Pair], area: float, error: float, scatter: bool) -> Iterator[Point]:
    """The kind's own best pair, and the other kind's as this kind would be built."""
    for kind in problem.space.scatter:
        pair = fastest(pairs, area, error, kind)
        if pair is None or pair.network.family not in problem.space.families_of(scatter):
            continue
        for banks in (pair.choice.banks_per_lane,) if kind == scatter else _banks(problem, scatter):
            yield replace(pair.choice, scatter=scatter, banks_per_lane=banks), pair.network


def _climb(
    problem: Problem, known: Measurements, start: Point, best: Pair | None, area: float, error: float,
    workers: Workers,
) -> Pair | None:  # fmt: skip
    """The fastest pair reached by single steps that each make it faster, or smaller at the same speed. best: the
    start's.
    """
    point = start
    while True:
        beside = list(_neighbours(problem, point))
        steps = zip(beside, _measured(problem, known, beside, area, error, workers), strict=True)
        allowed = [(near, pair) for near, pair in steps if pair is not None]
        near, pair = min(allowed, key=lambda item: speed(item[1]), default=(point, None))
        if pair is None or (best is not None and speed(pair) >= speed(best)):
            return best
        point, best = near, pair


def _measured(
    problem: Problem, known: Measurements, points: Sequence[Point], area: float, error: float, workers: Workers
) -> list[Pair | None]:
    """The pairs of the points that are allowed; what can be told without simulation is told first."""
    small = [at for at in points if area_mm2(problem.space.machine(at[0], problem.base)).total.mm2 <= area]
    fit_ahead(problem, [network for _, network in small], workers)
    close = [at for at in small if mean_error(problem, at[1]) <= error]
    measure_ahead(problem, close, known, workers)
    pairs = {at: pair_of(problem, *at, known) for at in close}
    held = {at: pair for at, pair in pairs.items() if pair is not None and problem.bounds.hold(pair)}
    return [held.get(at) for at in points]


def _neighbours(problem: Problem, point: Point) -> Iterator[Point]:
    """Points that differ in one quantity by one step, or in the family."""
    (choice, network), space = point, problem.space
    for banks in _beside(_banks(problem, choice.scatter), choice.banks_per_lane):
        yield replace(choice, banks_per_lane=banks), network
    for name in _LADDERS:
        for value in _beside(getattr(space, name), getattr(choice, name)):
            yield replace(choice, **{name: value}), network
    if len(set(network.shares)) > 1:
        return
    share = network.shares[0]
    for family in space.families_of(choice.scatter):
        if family != network.family:
            yield (
                choice,
                problem.networks.uniform(family, choice.side, share if share in space.shares else space.shares[-1]),
            )
    if has_shares(network.family):
        for other in _beside(space.shares, share):
            yield choice, problem.networks.uniform(network.family, choice.side, other)
    for side in _beside(space.sides, choice.side):
        yield replace(choice, side=side), problem.networks.uniform(network.family, side, share)


def _banks(problem: Problem, scatter: bool) -> tuple[float, ...]:
    return problem.space.banks_per_lane if scatter else (1.0,)


def _beside(values: Sequence[float], value: float) -> list:
    at = list(values).index(value)
    return [values[i] for i in (at - 1, at + 1) if 0 <= i < len(values)]
