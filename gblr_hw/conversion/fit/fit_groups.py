"""Approximate one matrix by rank groups: P ranks that share their chunks, as an array without scatter runs them."""

from __future__ import annotations

from gblr_hw.conversion.fit.fit_layer import Schedule, best_candidate, choose, start_fit
from gblr_hw.conversion.fit.fit_problem import Fit, FitProblem
from gblr_hw.weights.structure import BoolArray, Structure, check_square

# Groups at the start: as a multiple of what low rank has at the budget, and more than that by at least so many. Whole
# groups leave a chunk at once, so far more of them, as single ranks start from, go wrong more often than they help.
_STARTS = ((1.2, 1), (1.5, 2))


def fit_groups(
    problem: FitProblem, budget: int, schedule: Schedule, *, dense_tiles: bool = True
) -> tuple[Structure, Fit]:
    """The best approximation found by rank groups that takes at most `budget` tiles (2 at least without dense tiles).

    Ranks 0 .. P-1 are the first group, and so on; a group reads and writes whole chunks with all its ranks, each for
    one tile, so packing has nothing to do and a plain array takes as many tiles as one with scatter. Candidates and
    choices are those of `fit_layer`, with groups in the place of ranks: low rank in whole tiles and block sparse are
    never better; `schedule.ranks` is not used. Raises InputError for an array that is not square.
    """
    check_square(problem.rows, problem.cols)
    return best_candidate(problem, budget, schedule, _choose_groups, dense_tiles)


def _choose_groups(problem: FitProblem, budget: int, schedule: Schedule, tiles: BoolArray) -> tuple[Structure, Fit]:
    """The best of the starts."""
    held = budget / (problem.chunks_in + problem.chunks_out)
    counts = {max(int(held) + extra, round(times * held)) for times, extra in _STARTS}
    found = [
        choose(
            problem,
            budget,
            schedule,
            tiles,
            start_fit(problem, count * problem.rows, tiles, problem.rows),
            grouped=True,
        )
        for count in sorted(counts)
    ]
    return min(found, key=lambda candidate: problem.squared_error(candidate[1]))
