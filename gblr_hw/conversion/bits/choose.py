"""Tiles, ranks and bits of all layers chosen together: what loses least within one budget of the network."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from gblr_hw.conversion.bits.around import OnGrid, as_lowered, tiles_and_ranks
from gblr_hw.conversion.fit.fit_problem import Fit, FitProblem
from gblr_hw.conversion.fit.fit_weights import lattice_weights
from gblr_hw.weights.bits.grid import plain_grid, round_nearest
from gblr_hw.weights.stored import LatticeWeights
from gblr_hw.weights.structure import Structure
from simulator.base.errors import InputError

Network = Mapping[str, LatticeWeights]
Measure = Callable[[Network], float]
_HALF_TILES = (1, 2, 3, 4, 6, 8, 12, 16)  # of ranks beside a chunk of codes: a half costs the cycles of a whole one
_TRIES = 12  # at what single layers may cost, so that all together meet the limit


@dataclass(frozen=True, eq=False)
class Choice:
    """One way to hold a layer: its relative squared error, and what it costs alone."""

    weights: LatticeWeights
    error: float
    cost: float


def stored_on_grid(problem: FitProblem, made: OnGrid, family: str) -> LatticeWeights:
    """A fit with its grids as stored weights."""
    weights = lattice_weights(made.structure, made.fit, problem.rows, problem.cols, family)
    if made.rank_grid is not None:
        # The ranks' scale is theirs already.
        u, v = (torch.from_numpy(part.astype(np.float32)) for part in (made.fit.u, made.fit.v))
        weights = replace(weights, u=u, v=v, rank_grid=made.rank_grid)
    return replace(weights, grid=made.grid)


def menu(problem: FitProblem, bits: int) -> list[LatticeWeights]:
    """A layer dense as it is and dense on a grid, alone and with ranks beside it, in halves of tiles."""
    (outputs, inputs), rows, cols = problem.matrix.shape, problem.rows, problem.cols
    full = Structure.full(outputs, inputs, 0, rows, cols, dense=True)
    nothing = Fit(np.zeros((outputs, 0)), np.zeros((0, inputs)), problem.matrix)
    found = [lattice_weights(full, nothing, rows, cols, "block_sparse")]
    for ranks in (0, *(min(rows, cols) * halves // 2 for halves in _HALF_TILES)):
        # Ranks of more weights than half the matrix cost more than the bits that they make up for.
        if 2 * ranks * (outputs + inputs) <= outputs * inputs:
            family = "lattice" if ranks else "block_sparse"
            found.append(stored_on_grid(problem, tiles_and_ranks(problem, bits, ranks, structure_first=True), family))
    return found


def held_error(problem: FitProblem, weights: LatticeWeights, weight_bits: int) -> float:
    """Relative squared error as the machine holds it: a dense layer without a grid counts as rounded to weight_bits, a
    step an output, and ranks of few bits as lowering rounds them. Ranks and tiles of weight_bits are taken as they are.
    """
    if weights.grid is None and bool(weights.tiles.all()) and not weights.u.shape[1]:
        rounded = round_nearest(problem.matrix, plain_grid(problem.matrix, weight_bits))
        return problem.squared_norm(problem.matrix - rounded.matrix()) / max(problem.energy, 1e-300)
    return problem.squared_error(as_lowered(problem, weights)) / max(problem.energy, 1e-300)


def choose_within(
    problems: Mapping[str, FitProblem],
    bits: int,
    weight_bits: int,
    limit: float,
    measure: Measure,
    singles: Iterable[Network],
    unit: str,
) -> dict[str, LatticeWeights]:
    """The network of least summed relative squared error that is found within the limit.

    singles: networks of one structure each, all layers at the same share; none of those within the limit is better than
    the result, nor is any layer by layer mixture that costs what its layers cost alone. Raises InputError if nothing
    meets the limit.
    """
    singles = list(singles)
    ways = {name: _ways(name, problem, bits, weight_bits, measure, singles) for name, problem in problems.items()}

    def error(network: Network) -> float:
        return sum(held_error(problems[name], weights, weight_bits) for name, weights in network.items())

    candidates = [one for one in singles if measure(one) <= limit]
    same = min(len(some) for some in ways.values())
    candidates += [
        one for index in range(same)
        if measure(one := {name: some[index].weights for name, some in ways.items()}) <= limit
    ]  # fmt: skip
    allowed = limit
    for _ in range(_TRIES):
        mixture = _cheapest(ways, allowed)
        if mixture is None:
            break
        cost = measure(mixture)
        if cost <= limit:
            candidates.append(mixture)
            break
        # Layers together may cost more than one by one: what goes from one to the next, say.
        allowed *= min(0.995, limit / cost)
    if not candidates:
        least = measure({name: min(some, key=lambda one: one.cost).weights for name, some in ways.items()})
        raise InputError(
            "budget",
            f"{limit:g} {unit}",
            f"the least that was found takes {least:g} {unit}",
            "Raise the budget, or leave layers out.",
        )
    best: Network = min(candidates, key=error)
    return dict(best)


def _ways(
    name: str, problem: FitProblem, bits: int, weight_bits: int, measure: Measure, singles: Sequence[Network]
) -> list[Choice]:
    """What there is for one layer, in the same order for each, singles' last."""
    some = [*menu(problem, bits), *(one[name] for one in singles)]
    return [Choice(one, held_error(problem, one, weight_bits), measure({name: one})) for one in some]


def _cheapest(ways: Mapping[str, Sequence[Choice]], limit: float) -> dict[str, LatticeWeights] | None:
    """One way for each layer whose costs sum to the limit at most: from the cheapest ones on, the step that saves most
    error for its cost, as long as there is one; None if even the cheapest cost too much.
    """
    chosen = {name: min(some, key=lambda one: (one.cost, one.error)) for name, some in ways.items()}
    if sum(one.cost for one in chosen.values()) > limit:
        return None
    while True:
        slack = limit - sum(one.cost for one in chosen.values())
        steps = [
            ((chosen[name].error - one.error) / max(one.cost - chosen[name].cost, 1e-9), -index, name, one)
            for name, some in ways.items()
            for index, one in enumerate(some)
            if one.error < chosen[name].error and one.cost - chosen[name].cost <= slack
        ]
        if not steps:
            return {name: one.weights for name, one in chosen.items()}
        _, _, name, one = max(steps, key=lambda step: step[:2])
        chosen[name] = one
