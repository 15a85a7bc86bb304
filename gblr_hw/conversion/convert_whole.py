"""Meet a latency or an energy with layers that are chosen whole: the most tiles that the machine runs within it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from torch import Tensor

from gblr_hw.conversion.allocate import dense_tiles, share_evenly
from gblr_hw.conversion.fit.fit_problem import FitProblem
from gblr_hw.conversion.fit.fit_whole import FINAL_SWEEPS, Sizes, Whole, best_sizes, sizes_of
from gblr_hw.conversion.fit_to_limit import Limit, resolve
from gblr_hw.cost.target import UnreachableTargetError

Progress = Callable[[int, int, str], None]


def whole_to_limit(
    problems: Mapping[str, FitProblem],
    family: str,
    limit: Limit,
    biases: Mapping[str, Tensor | None],
    progress: Progress | None = None,
    sweeps: int = FINAL_SWEEPS,
) -> dict[str, Whole]:
    """All layers as the family's, tiles shared evenly, within a limit on the machine.

    sweeps: of the fit. Raises UnreachableTargetError for a limit below the least that the family takes, and InputError
    for layers that no blocks divide.
    """
    limit, dense_cost = resolve(problems, limit)
    sizes = {name: sizes_of(family, problem, f"layer '{name}'") for name, problem in problems.items()}
    smallest = {name: min(some, key=lambda one: one.tiles(1)) for name, some in sizes.items()}
    # Blocks are chosen where the budget will be, about; if they cannot meet the limit, those are taken that need least.
    share = round(sum(map(dense_tiles, problems.values())) * min(1.0, limit.value / dense_cost))
    least = {name: one.tiles(1) for name, one in smallest.items()}
    begin = share_evenly(problems, max(sum(least.values()), share), least)
    blocks = {name: best_sizes(problem, sizes[name], begin[name]) for name, problem in problems.items()}
    ranks = _ranks_within(problems, blocks, limit)
    if ranks is None:
        blocks, ranks = smallest, _ranks_within(problems, smallest, limit)
    if ranks is None:
        raise UnreachableTargetError(
            "budget",
            f"{limit.value:g} {limit.unit}",
            f"the least that '{family}' takes is {_cost(blocks, dict.fromkeys(blocks, 1), limit):g} {limit.unit}",
            "Raise the budget, or leave layers out.",
        )
    found = {}
    for index, (name, problem) in enumerate(problems.items()):
        if progress is not None:
            progress(index, len(problems), name)
        found[name] = replace(blocks[name].fit(problem, ranks[name], sweeps), bias=biases[name])
    return found


def _ranks_within(
    problems: Mapping[str, FitProblem], blocks: Mapping[str, Sizes], limit: Limit
) -> dict[str, int] | None:
    """Ranks of every layer, tiles shared evenly, at the most tiles that meet the limit; None if the least do not."""
    least = {name: one.tiles(1) for name, one in blocks.items()}

    fewest = sum(least.values())

    def at(tiles: int) -> dict[str, int]:
        ranks = {n: blocks[n].rank(share) for n, share in share_evenly(problems, max(tiles, fewest), least).items()}
        # Fewer tiles there are not, but fewer ranks in them.
        return ranks if tiles >= fewest else {name: max(1, rank * tiles // fewest) for name, rank in ranks.items()}

    low, high = 0, sum(map(dense_tiles, problems.values()))
    if _cost(blocks, at(low), limit) > limit.value:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _cost(blocks, at(middle), limit) <= limit.value else (low, middle)
    return at(low)


def _cost(blocks: Mapping[str, Sizes], ranks: Mapping[str, int], limit: Limit) -> float:
    """Cost follows from sizes alone."""
    return limit.measure({name: one.example(ranks[name]) for name, one in blocks.items()})
