"""The whole loop: search, settle, share among layers, and what came of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gblr_hw.codesign.front import Comparison, area_levels, compare, error_levels, front_of
from gblr_hw.codesign.measure import Measurements
from gblr_hw.codesign.problem import Pair, Problem
from gblr_hw.codesign.search import search
from gblr_hw.codesign.settle import settle
from gblr_hw.codesign.share_layers import Moved, share_layers

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Outcome:
    """pairs: all within the bounds. front: those that none beats. comparisons: plain against scatter, by area and
    error.

    measured: pairs simulated or looked up. refused: trials over the area, over the energy, and on machines that cannot
    hold the network. moved: pairs that win an area and error level and became faster with their tiles moved between
    layers; winners: pairs for which that was tried.
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
) -> Outcome:
    """Search machines and networks together, and compare the two kinds of machine at equal area and error.

    The same problem, trials and seed give the same outcome, whatever ``known`` holds already. Raises InputError for
    bounds that cannot be met and as `search` says.
    """
    found = search(problem, known, trials, seed, progress)
    areas, errors = area_levels(found.pairs, problem.bounds.max_area_mm2), error_levels(found.pairs)
    pairs = settle(problem, known, found.pairs, areas, errors, progress)
    moved: list[Moved] = []
    winners = _winners(compare(pairs, areas, errors))
    try:
        for number, (pair, error) in enumerate(winners):
            progress(number, len(winners), "moving tiles between layers")
            tried = share_layers(pair, error, problem, known)
            if tried.after is not pair:
                moved.append(tried)
    finally:
        known.save()
    pairs = list(dict.fromkeys([*pairs, *(tried.after for tried in moved)]))
    return Outcome(
        pairs=tuple(pairs),
        front=tuple(front_of(pairs, problem.bounds.objectives)),
        comparisons=tuple(compare(pairs, areas, errors)),
        measured=len(known),
        refused=(found.over_area, found.over_energy, found.unfit),
        moved=tuple(moved),
        winners=len(winners),
    )


def _winners(comparisons: list[Comparison]) -> list[tuple[Pair, float]]:
    """Distinct pairs that win for their kind, with the error level that they win at."""
    found = [(pair, row.max_error) for row in comparisons for pair in (row.plain, row.scatter) if pair is not None]
    return list(dict.fromkeys(found))
