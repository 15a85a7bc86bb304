"""The whole loop: search, settle, share among layers, and what came of it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gblr_hw.codesign.front import Comparison, area_levels, error_levels, fastest, plain_against_scatter, unbeaten
from gblr_hw.codesign.measure import Measurements
from gblr_hw.codesign.problem import Pair, Problem
from gblr_hw.codesign.search import search
from gblr_hw.codesign.settle import settle
from gblr_hw.codesign.share_layers import Moved, share_layers
from gblr_hw.codesign.space import has_shares
from gblr_hw.jobs.executors import Workers

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Outcome:
    """pairs: all within the bounds. front: those that none beats. comparisons: plain against scatter, by area and
    error.

    measured: pairs simulated or looked up. refused: trials over the area, over the energy, and on machines that cannot
    hold the network. moved: pairs that win an area and error level for their family and became faster with their tiles
    moved between layers; winners: pairs for which that was tried.
    """

    pairs: tuple[Pair, ...]
    front: tuple[Pair, ...]
    comparisons: tuple[Comparison, ...]
    measured: int
    refused: tuple[int, int, int]
    moved: tuple[Moved, ...]
    winners: int


def codesign(
    problem: Problem,
    known: Measurements,
    trials: int = 200,
    seed: int = 0,
    progress: Progress = lambda done, of, what: None,
    jobs: int = 1,
    scheduler: str | None = None,
) -> Outcome:
    """Search machines and networks together, and compare the two kinds of machine at equal area and error.

    jobs: processes that fit and simulate. scheduler: address of a Dask scheduler, in their place.

    The same problem, trials and seed give the same outcome, whatever ``known`` holds already, and wherever the work is
    done. Raises InputError for bounds that cannot be met, and as `search` and `Workers` say.
    """
    with Workers(jobs, scheduler) as workers:
        found = search(problem, known, trials, seed, progress, workers)
        areas, errors = area_levels(found.pairs, problem.bounds.max_area_mm2), error_levels(found.pairs)
        pairs = settle(problem, known, found.pairs, areas, errors, progress, workers)
        winners = _winners(problem, pairs, areas, errors)
        try:
            tried = share_layers(winners, problem, known, progress, workers)
        finally:
            known.save()
    moved = [one for one in tried if one.after is not one.before]
    pairs = list(dict.fromkeys([*pairs, *(one.after for one in moved)]))
    return Outcome(
        pairs=tuple(pairs),
        front=tuple(unbeaten(pairs, problem.bounds.objectives)),
        comparisons=tuple(plain_against_scatter(pairs, areas, errors)),
        measured=len(known),
        refused=(found.over_area, found.over_energy, found.unfit),
        moved=tuple(moved),
        winners=len(winners),
    )


def _winners(
    problem: Problem, pairs: Sequence[Pair], areas: Sequence[float], errors: Sequence[float]
) -> list[tuple[Pair, float]]:
    """Distinct pairs that are the fastest of their kind and family within an area and error level, with that level.

    The families behind the winner are among them: their shares lie elsewhere between the levels.
    """
    found: dict[tuple[Pair, float], None] = {}
    for family in problem.space.families:
        own = [pair for pair in pairs if pair.network.family == family]
        for area, error, scatter in itertools.product(areas, errors, problem.space.scatter):
            pair = fastest(own, area, error, scatter)
            if pair is not None and has_shares(family):
                found.setdefault((pair, error))
    return list(found)
