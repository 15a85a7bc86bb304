"""Move tiles between the layers of a pair along the gradient of the closed-form cost: faster at the same error.

Errors and counts of each layer are known at the shares of the space; between them errors are interpolated in their
logarithms and counts linearly, so that error and latency are differentiable in where each layer stands. What the
gradient finds is rounded to shares that were fitted, whose errors are known, and only kept if the simulator says that
it is faster.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import minimize
from torch import Tensor
from torch.autograd.functional import jacobian

from gblr_hw.codesign.ahead import fit_ahead, measure_ahead
from gblr_hw.codesign.measure import Measurements, pair_of
from gblr_hw.codesign.networks import NetworkChoice
from gblr_hw.codesign.problem import Pair, Problem
from gblr_hw.codesign.space import has_shares
from gblr_hw.cost.closed_form import MachineCost
from gblr_hw.cost.stored_forms import fixed_counts
from gblr_hw.cost.touches import LayerCounts
from gblr_hw.jobs.executors import Workers
from gblr_hw.weights.factors import evaluate

Progress = Callable[[int, int, str], None]
_STEPS = 30  # of the quadratic programming
_LEAST = 1e-6  # error: an exact layer has no logarithm
_Levels = npt.NDArray[np.int64]
_FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Ladder:
    """Every layer at every share on one machine. errors (L, J); cycles (L, J) by the closed form; counts [L][J];
    sizes (inputs, outputs) of each layer.
    """

    cost: MachineCost
    errors: _FloatArray
    cycles: _FloatArray
    counts: tuple[tuple[LayerCounts, ...], ...]
    sizes: tuple[tuple[int, int], ...]

    def error_at(self, places: Tensor) -> Tensor:
        """Mean error of the layers at places (L,) in [0, J - 1]."""
        low, part = self._between(places)
        rows = torch.arange(len(places))
        logarithms = torch.as_tensor(self.errors, dtype=places.dtype).clamp(min=_LEAST).log()
        return torch.lerp(logarithms[rows, low], logarithms[rows, low + 1], part).exp().mean()

    def latency_at(self, places: Tensor) -> Tensor:
        """Latency in cycles by the closed form, layer after layer."""
        low, part = self._between(places)
        latency = torch.zeros(())
        for index, (counts, size) in enumerate(zip(self.counts, self.sizes, strict=True)):
            ends = counts[int(low[index])], counts[int(low[index]) + 1]
            share = part[index].float()
            first, second = ({f.name: getattr(end, f.name) for f in fields(end)} for end in ends)
            mixed = {name: torch.lerp(first[name], second[name], share) for name in first}
            latency = latency + self.cost.layer(LayerCounts(**mixed), *size).latency_cycles
        return latency

    def _between(self, places: Tensor) -> tuple[Tensor, Tensor]:
        low = places.detach().floor().long().clamp(0, self.errors.shape[1] - 2)
        return low, places - low


@dataclass(frozen=True)
class Moved:
    """A pair, the fastest with its tiles moved between layers, and what lowering shares finds without a gradient."""

    before: Pair
    after: Pair
    without_gradient: Pair


def share_layers(
    winners: Sequence[tuple[Pair, float]],
    problem: Problem,
    known: Measurements,
    progress: Progress = lambda done, of, what: None,
    workers: Workers | None = None,
) -> list[Moved]:
    """Of each pair and largest error the same machine and family, each layer's share its own: faster within the error,
    or the pair itself. Descents are made, and what they find is measured, in the workers, here without any.
    """
    workers = workers or Workers()
    movable = [index for index, (pair, _) in enumerate(winners) if _movable(pair, problem)]
    pairs = dict.fromkeys(winners[index][0] for index in movable)
    fit_ahead(problem, [rung for pair in pairs for rung in _rungs(pair, problem)], workers)
    ladders = {pair: ladder_of(pair, problem) for pair in pairs}
    tasks = [(ladders[pair], _start(pair, problem), error) for pair, error in (winners[index] for index in movable)]
    tried: dict[int, tuple[NetworkChoice, NetworkChoice]] = {}
    for place, ends in workers.results_of(_descended, problem, tasks):
        progress(len(tried), len(winners), "moving tiles between layers")
        family, side = (getattr(winners[movable[place]][0].network, name) for name in ("family", "side"))
        lowered, found = (
            NetworkChoice(family, side, tuple(problem.space.shares[level] for level in levels)) for levels in ends
        )
        tried[movable[place]] = lowered, found
    points = [(winners[index][0].choice, network) for index in movable for network in tried[index]]
    measure_ahead(problem, points, known, workers)
    return [_moved(pair, error, tried.get(index, ()), problem, known) for index, (pair, error) in enumerate(winners)]


def _movable(pair: Pair, problem: Problem) -> bool:
    """Whether its layers have shares, which could be others, and have the same one."""
    several = len(problem.space.shares) > 1
    return has_shares(pair.network.family) and several and len(set(pair.network.shares)) == 1


def _rungs(pair: Pair, problem: Problem) -> list[NetworkChoice]:
    """The pair's network at every share of the space."""
    family, side = pair.network.family, pair.network.side
    return [problem.networks.uniform(family, side, share) for share in problem.space.shares]


def _start(pair: Pair, problem: Problem) -> _Levels:
    shares = pair.network.shares
    return np.full(len(shares), problem.space.shares.index(shares[0]))


def _descended(problem: Problem, ladder: Ladder, start: _Levels, max_error: float) -> tuple[_Levels, _Levels]:
    """Levels of the layers that lowering them finds from the start, and those that the gradient finds."""
    lowered = rounded(ladder, start.astype(np.float64), max_error)
    return lowered, rounded(ladder, descend(ladder, start, max_error), max_error)


def _moved(
    pair: Pair, max_error: float, networks: Sequence[NetworkChoice], problem: Problem, known: Measurements
) -> Moved:
    """The better of a lowered network and of the one that the gradient found, where they are better than the pair's."""

    def better(network: NetworkChoice) -> Pair:
        moved = pair_of(problem, pair.choice, network, known)
        if moved is None or moved.error > max_error or not problem.bounds.hold(moved):
            return pair
        return moved if moved.latency_s < pair.latency_s else pair

    lowered, found = map(better, networks) if networks else (pair, pair)
    return Moved(pair, min(lowered, found, key=lambda moved: moved.latency_s), lowered)


def ladder_of(pair: Pair, problem: Problem) -> Ladder:
    """The pair's layers, in its family, at every share of the space."""
    cost = MachineCost(pair.machine, problem.tokens)
    by_share = [list(problem.networks.layers(rung).values()) for rung in _rungs(pair, problem)]
    layers = tuple(zip(*by_share, strict=True))
    counts = tuple(tuple(fixed_counts(evaluate(at.weights), pair.machine) for at in row) for row in layers)
    sizes = tuple((row[0].weights.in_features, row[0].weights.out_features) for row in layers)
    cycles = [
        [float(cost.layer(at, *size).latency_cycles) for at in row] for row, size in zip(counts, sizes, strict=True)
    ]
    return Ladder(cost, np.array([[at.error for at in row] for row in layers]), np.array(cycles), counts, sizes)


def descend(ladder: Ladder, start: _Levels, max_error: float) -> _FloatArray:
    """Places of the layers on the ladder, (L,) in [0, J - 1], of least closed-form latency within the mean error.

    Sequential quadratic programming on the gradients of both.
    """
    scale = float(ladder.cycles[np.arange(len(start)), start].sum())

    def latency(places: Tensor) -> Tensor:
        return ladder.latency_at(places) / scale

    def room(places: Tensor) -> Tensor:
        return 1 - ladder.error_at(places) / max_error

    found = minimize(
        lambda x: float(latency(torch.as_tensor(x))),
        start.astype(np.float64),
        jac=lambda x: _gradient(latency, x),
        bounds=[(0, ladder.errors.shape[1] - 1)] * len(start),
        constraints={
            "type": "ineq",
            "fun": lambda x: float(room(torch.as_tensor(x))),
            "jac": lambda x: _gradient(room, x),
        },
        method="SLSQP",
        options={"maxiter": _STEPS},
    )
    return np.asarray(found.x, np.float64)


def rounded(ladder: Ladder, places: _FloatArray, max_error: float) -> _Levels:
    """Whole levels near the places within the mean error: rounded up, then lowered where that saves most cycles for its
    error, as long as the error allows it.
    """
    top = ladder.errors.shape[1] - 1
    levels = np.minimum(np.ceil(places - 1e-3), top).astype(np.int64)
    rows = np.arange(len(levels))
    while True:
        lower = np.maximum(levels - 1, 0)
        saved = ladder.cycles[rows, levels] - ladder.cycles[rows, lower]
        lost = ladder.errors[rows, lower] - ladder.errors[rows, levels]
        allowed = (saved > 0) & (ladder.errors[rows, levels].mean() + lost / len(levels) <= max_error)
        if not allowed.any():
            return levels
        worth = np.where(allowed, saved / np.maximum(lost, _LEAST), -np.inf)
        levels[int(np.argmax(worth))] -= 1


def _gradient(of: Callable[[Tensor], Tensor], places: _FloatArray) -> _FloatArray:
    slope = jacobian(of, torch.as_tensor(places))
    return np.asarray(slope.double().numpy(), np.float64)
