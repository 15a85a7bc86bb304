"""Approximate one matrix by ranks with chunk sets and dense tiles at an exact tile budget."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from gblr_hw.conversion.fit.accelerate import refit
from gblr_hw.conversion.fit.choose_chunks import (
    choose_reads,
    choose_writes,
    closed,
    expand_curves,
    reduce_curves,
    share_tiles,
)
from gblr_hw.conversion.fit.fit_problem import Fit, FitProblem
from gblr_hw.conversion.fit.refit import solve_gram
from gblr_hw.projection.projection import Importance, project
from gblr_hw.weights.structure import BoolArray, Structure, channel_mask, dense_tile_count
from simulator.base.arithmetic import ceil_div

FloatArray = npt.NDArray[np.float64]

_NEAR = 1.25  # times the squared error of ranks alone
_STANDS_OUT = 4.0  # times the median


@dataclass(frozen=True)
class Schedule:
    """How conversion goes from truncated SVD to the budget.

    ranks: ranks at the start, as a multiple of those that low rank would have at the budget (below 1.5 the structure
    has no choice; far above 2 costs time for nothing). steps: choices of chunks while the budget falls, each followed
    by `sweeps` refits; final_steps: choices at the budget itself, where chunks may still change hands; final_sweeps:
    refits of the last structure.
    """

    ranks: float = 1.8
    steps: int = 6
    sweeps: int = 5
    final_steps: int = 6
    final_sweeps: int = 30


# For networks of hundreds of layers: a quarter of the time, errors a tenth higher.
QUICK = Schedule(steps=3, sweeps=2, final_steps=2, final_sweeps=8)

# (problem, budget, schedule, dense tiles to begin with) -> structure within the budget, and its fit
Search = Callable[[FitProblem, int, Schedule, BoolArray], tuple[Structure, Fit]]


def fit_layer(
    problem: FitProblem, budget: int, schedule: Schedule, *, intervals_only: bool = False, dense_tiles: bool = True
) -> tuple[Structure, Fit]:
    """The best approximation found that takes at most `budget` tiles (at least 1, and 2 without dense tiles).

    Candidates: ranks chosen chunk by chunk; the same with dense tiles beside them, where block sparse alone comes near;
    truncated SVD in whole tiles; block sparse; the matrix itself when the budget holds it. The best one by measured
    error is returned, so none of these is ever better. With `intervals_only` every rank's chunk sets are cyclic runs.
    """
    return best_candidate(problem, budget, schedule, _best_runs if intervals_only else _choose, dense_tiles)


def best_candidate(
    problem: FitProblem, budget: int, schedule: Schedule, search: Search, dense_tiles: bool
) -> tuple[Structure, Fit]:
    """The best of what `search` finds, alone and beside dense tiles, and of everything simpler (see `fit_layer`)."""
    outputs, inputs = problem.matrix.shape
    all_tiles = np.ones((problem.chunks_out, problem.chunks_in), bool)
    if dense_tiles and budget >= dense_tile_count(outputs, inputs, problem.rows, problem.cols):
        return _dense_only(problem, all_tiles)
    if budget < 2:
        return block_sparse_layer(problem, budget)
    candidates = [truncated_layer(problem, budget), search(problem, budget, schedule, all_tiles & False)]
    if dense_tiles:
        sparse = block_sparse_layer(problem, budget)
        candidates.append(sparse)
        starts = _tile_starts(problem, budget, candidates[0][1], sparse if _near(problem, candidates) else None)
        candidates += [search(problem, budget, schedule, tiles) for tiles in starts]
    structure, fit = min(candidates, key=lambda candidate: problem.squared_error(candidate[1]))
    return _filled(problem, budget, structure, fit) if dense_tiles else (structure, fit)


def _filled(problem: FitProblem, budget: int, structure: Structure, fit: Fit) -> tuple[Structure, Fit]:
    """Spend tiles that are left over on the dense tiles that save most."""
    left = problem.matrix - fit.matrix()
    worth = np.where(structure.tiles, 0.0, problem.tile_worth(left))
    slack = budget - structure.tile_count(problem.rows, problem.cols)
    best = np.argsort(-worth, axis=None, kind="stable")[:slack]
    added = np.zeros(worth.shape, bool)
    added.ravel()[best] = worth.ravel()[best] > 0
    if not added.any():
        return structure, fit
    dense = problem.best_tiles(left, added) + (0.0 if fit.dense is None else fit.dense)
    return Structure(structure.tiles | added, structure.reads, structure.writes), Fit(fit.u, fit.v, dense)


def _near(problem: FitProblem, candidates: list[tuple[Structure, Fit]]) -> bool:
    """Is block sparse, the last candidate, nearly as good as the ranks, the second one?"""
    ranks, sparse = (problem.squared_error(candidates[index][1]) for index in (1, -1))
    return sparse < _NEAR * ranks


def _tile_starts(
    problem: FitProblem, budget: int, low_rank: Fit, near: tuple[Structure, Fit] | None
) -> list[BoolArray]:
    """Sets of dense tiles that a search with tiles beside ranks begins from. Each takes as long as the ranks alone.

    They only help where dense tiles are nearly as good as ranks, or where some tiles stand out in what low rank leaves.
    """
    worth = problem.tile_worth(problem.matrix - low_rank.matrix())
    out = worth > _STANDS_OUT * np.median(worth)
    starts = [near[0].tiles] if near is not None else []
    if 0 < out.sum() < budget:
        starts.append(np.asarray(out))
    return starts


def _choose(problem: FitProblem, budget: int, schedule: Schedule, tiles: BoolArray) -> tuple[Structure, Fit]:
    """Ranks with any chunk sets, from truncated SVD beside the dense tiles."""
    return choose(problem, budget, schedule, tiles, start_fit(problem, _ranks(problem, budget, schedule), tiles))


def choose(
    problem: FitProblem, budget: int, schedule: Schedule, tiles: BoolArray, fit: Fit, *, grouped: bool = False
) -> tuple[Structure, Fit]:
    """Choose writes, choose reads, refit, while the budget falls geometrically from a fit with more ranks.

    tiles (R, C): the dense tiles to begin with; with none there stay none. grouped: ranks share their chunks P at a
    time.
    """
    hybrid = bool(tiles.any())
    start = max(budget, full_tiles(problem, len(fit.v)) + int(tiles.sum()))
    total = schedule.steps + schedule.final_steps
    reduce_losses = [curve.losses for curve in reduce_curves(problem, fit, grouped)]
    for step in range(1, total + 1):
        share = min(1.0, step / schedule.steps)
        wanted = max(budget, round(start ** (1 - share) * budget**share))
        curves = expand_curves(problem, fit, grouped)
        losses = [*(curve.losses for curve in curves), *reduce_losses]
        worth = problem.tile_worth(problem.matrix - fit.u @ fit.v).ravel() if hybrid else np.zeros(0)
        counts = share_tiles([*losses, *(np.array([value, 0.0]) for value in worth)], wanted)
        if hybrid:
            tiles = np.array(counts[len(losses) :], bool).reshape(tiles.shape)
            fit = Fit(fit.u, fit.v, problem.best_tiles(problem.matrix - fit.u @ fit.v, tiles))
        writes, fit = choose_writes(problem, fit, curves, counts[: len(curves)])
        curves = reduce_curves(problem, fit, grouped)
        reduce_losses = [curve.losses for curve in curves]
        left = wanted - int(tiles.sum()) - sum(counts[: problem.chunks_out])
        reads, fit = choose_reads(problem, fit, curves, share_tiles(reduce_losses, left))
        structure = closed(reads, writes, tiles)
        sweeps = schedule.final_sweeps if step == total else schedule.sweeps
        fit = refit(problem, structure, fit, sweeps)
    return structure, fit


def _best_runs(problem: FitProblem, budget: int, schedule: Schedule, tiles: BoolArray) -> tuple[Structure, Fit]:
    """Ranks whose chunk sets stay cyclic runs, by the better of two importances: neither always wins."""
    found = [_shrink_runs(problem, budget, schedule, tiles, worth) for worth in (run_importance, _settled_importance)]
    return min(found, key=lambda candidate: problem.squared_error(candidate[1]))


def _shrink_runs(
    problem: FitProblem,
    budget: int,
    schedule: Schedule,
    tiles: BoolArray,
    importance: Callable[[FitProblem, Fit], Importance],
) -> tuple[Structure, Fit]:
    """Projections that cut the ends of runs, with refits in between."""
    fit = start_fit(problem, _ranks(problem, budget, schedule), tiles)
    full = _full(problem, len(fit.v))
    structure = Structure(tiles, full.reads, full.writes)
    start = structure.tile_count(problem.rows, problem.cols)
    steps = schedule.steps + schedule.final_steps
    for step in range(1, steps + 1):
        share = step / steps
        wanted = max(budget, round(start ** (1 - share) * budget**share))
        worth = importance(problem, fit)
        structure = project(structure, worth, wanted, problem.rows, problem.cols, intervals_only=True)
        reads = channel_mask(structure.reads, problem.rows, problem.matrix.shape[1])
        dense = None if fit.dense is None else fit.dense * _entries(problem, structure.tiles)
        sweeps = schedule.final_sweeps if step == steps else schedule.sweeps
        fit = refit(problem, structure, Fit(fit.u, fit.v * reads, dense), sweeps)
    return structure, fit


def run_importance(problem: FitProblem, fit: Fit) -> Importance:
    """Squared error of dropping a rank's write of a chunk, its read of a chunk, or a dense tile, the rest as it is."""
    u, v = fit.u, fit.v
    out_energy, in_energy = np.square(u).sum(axis=0), (problem.weigh(v) * v).sum(axis=1)
    writes = np.add.reduceat(np.square(u), np.arange(0, len(u), problem.cols), axis=0).T
    reads = np.empty((len(v), problem.chunks_in))
    for chunk in range(problem.chunks_in):
        part = v[:, chunk * problem.rows : (chunk + 1) * problem.rows]
        part = part if problem.moments is None else part @ problem.roots[chunk]
        reads[:, chunk] = np.square(part).sum(axis=1)
    tiles = np.zeros((problem.chunks_out, problem.chunks_in))
    if fit.dense is not None:
        tiles = np.maximum(problem.tile_worth(fit.dense), 0)
    return Importance(tiles, reads * out_energy[:, None], writes * np.maximum(in_energy, 0)[:, None])


def _settled_importance(problem: FitProblem, fit: Fit) -> Importance:
    """The same once the other ranks are refitted to the loss, as if they had all chunks (optimal brain surgeon)."""
    worth = run_importance(problem, fit)
    grams = (fit.u.T @ fit.u, problem.weigh(fit.v) @ fit.v.T)
    # How much of a rank the others cannot take over: 1 where it is orthogonal to them, near 0 where it is one of them.
    reads, writes = (
        np.maximum(np.diag(solve_gram(gram, np.eye(len(gram)))) * np.diag(gram), 1.0)[:, None] for gram in grams
    )
    return Importance(worth.tiles, worth.reads / reads, worth.writes / writes)


def _ranks(problem: FitProblem, budget: int, schedule: Schedule) -> int:
    """Ranks to start from: `schedule.ranks` times those that low rank has at the budget."""
    per_rank = problem.chunks_in / problem.cols + problem.chunks_out / problem.rows
    return max(round(schedule.ranks * budget / per_rank), 1)


def start_fit(problem: FitProblem, ranks: int, tiles: BoolArray, multiple: int = 1) -> Fit:
    """Truncated SVD of what the dense tiles leave: `ranks` of it, or all there are, and zeros up to a `multiple`."""
    ranks = min(ranks, ceil_div(min(problem.matrix.shape), multiple) * multiple)
    dense = problem.best_tiles(problem.matrix, tiles) if tiles.any() else None
    start = truncated_svd(problem, problem.matrix if dense is None else problem.matrix - dense, ranks)
    missing = ranks - len(start.v)
    if not missing:
        return replace(start, dense=dense)
    return Fit(np.pad(start.u, ((0, 0), (0, missing))), np.pad(start.v, ((0, missing), (0, 0))), dense)


def truncated_svd(problem: FitProblem, matrix: FloatArray, ranks: int) -> Fit:
    """The best factors of full ranks in the problem's norm, u (m, K) and v (K, n)."""
    if problem.moments is None:
        left, values, right = np.linalg.svd(matrix, full_matrices=False)
    else:
        root = np.linalg.cholesky(problem.moments)
        left, values, right = np.linalg.svd(matrix @ root, full_matrices=False)
        right = np.linalg.solve(root.T, right.T).T
    scale = np.sqrt(values[:ranks])
    return Fit(left[:, :ranks] * scale, right[:ranks] * scale[:, None])


def truncated_layer(problem: FitProblem, budget: int) -> tuple[Structure, Fit]:
    """Low rank in whole tiles: as many ranks as fit."""
    ranks = 0
    while ranks < min(problem.matrix.shape) and full_tiles(problem, ranks + 1) <= budget:
        ranks += 1
    return _full(problem, ranks), truncated_svd(problem, problem.matrix, ranks)


def _full(problem: FitProblem, ranks: int) -> Structure:
    outputs, inputs = problem.matrix.shape
    return Structure.full(outputs, inputs, ranks, problem.rows, problem.cols)


def full_tiles(problem: FitProblem, ranks: int) -> int:
    """Tiles of so many ranks that read and write every chunk."""
    return problem.chunks_in * ceil_div(ranks, problem.cols) + problem.chunks_out * ceil_div(ranks, problem.rows)


def block_sparse_layer(problem: FitProblem, budget: int) -> tuple[Structure, Fit]:
    """The dense tiles worth most, refitted where there are moments: the better of two orders.

    With moments tiles of a row share what they explain, and which ones to keep is no longer a matter of each alone.
    """
    found = []
    for worth in (problem.tile_worth(problem.matrix), replace(problem, moments=None).tile_worth(problem.matrix)):
        tiles = np.zeros(worth.shape, bool)
        tiles.ravel()[np.argsort(-worth, axis=None, kind="stable")[:budget]] = True
        found.append(_dense_only(problem, tiles))
    return min(found, key=lambda candidate: problem.squared_error(candidate[1]))


def _dense_only(problem: FitProblem, tiles: BoolArray) -> tuple[Structure, Fit]:
    structure = Structure(tiles, np.zeros((0, tiles.shape[1]), bool), np.zeros((0, tiles.shape[0]), bool))
    outputs, inputs = problem.matrix.shape
    if tiles.all():
        return structure, Fit(np.zeros((outputs, 0)), np.zeros((0, inputs)), problem.matrix.copy())
    dense = problem.best_tiles(problem.matrix, tiles)
    if problem.moments is not None:
        # Rows are independent problems: solve each output chunk over all the inputs its tiles hold.
        for row in np.flatnonzero(tiles.any(axis=1)):
            rows = slice(row * problem.cols, (row + 1) * problem.cols)
            held = np.repeat(tiles[row], problem.rows)[:inputs]
            block = problem.moments[np.ix_(held, held)]
            dense[rows, held] = solve_gram(block, problem.weighted[rows, held].T).T
    return structure, Fit(np.zeros((outputs, 0)), np.zeros((0, inputs)), dense)


def _entries(problem: FitProblem, tiles: BoolArray) -> BoolArray:
    outputs, inputs = problem.matrix.shape
    return channel_mask(channel_mask(tiles, problem.rows, inputs).T, problem.cols, outputs).T
