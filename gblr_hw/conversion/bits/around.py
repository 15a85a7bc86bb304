"""Dense tiles on a grid of few bits, and ranks of more bits that take up what these leave.

Structure comes first: which tiles and ranks there are stays. Then bits and ranks take turns: tiles are rounded to what
the ranks leave, by error compensation, and the ranks are fitted to what the codes leave.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gblr_hw.conversion.bits.compensate import round_compensating
from gblr_hw.conversion.fit.accelerate import refit
from gblr_hw.conversion.fit.fit_layer import truncated_svd
from gblr_hw.conversion.fit.fit_problem import Fit, FitProblem
from gblr_hw.conversion.fit.fit_weights import fit_of
from gblr_hw.conversion.fit.refit import solve_expand
from gblr_hw.weights.bits.choose_steps import fitting_grid
from gblr_hw.weights.bits.grid import FloatArray, Grid, Rounded, round_nearest
from gblr_hw.weights.stored import LatticeWeights
from gblr_hw.weights.structure import BoolArray, Structure
from simulator.base.arithmetic import ceil_div

_TURNS, _SWEEPS = 4, 10


@dataclass(frozen=True, eq=False)
class OnGrid:
    """A fit whose dense part, or v, is on a grid; None where it is not. What is on one is exact in float32."""

    structure: Structure
    fit: Fit
    grid: Grid | None = None
    rank_grid: Grid | None = None


def rounded_tiles(problem: FitProblem, structure: Structure, fit: Fit, bits: int, turns: int = _TURNS) -> OnGrid:
    """The fit with its dense tiles on the best grid found, a step an output and shifts for each tile, and its ranks
    fitted again. turns: of rounding and fitting; the best of them is taken.
    """
    if not structure.tiles.any():
        return OnGrid(structure, fit)
    alone = Structure(structure.tiles & False, structure.reads, structure.writes)
    best: OnGrid | None = None
    least = np.inf
    for _ in range(turns if structure.reads.any() else 1):
        left_over = problem.matrix - fit.u @ fit.v
        rounded = _on_chunks(problem, structure.tiles, left_over, bits, problem.cols).stored()
        dense = rounded.matrix()
        if structure.reads.any():
            left = FitProblem(problem.matrix - dense, problem.moments, problem.rows, problem.cols)
            fit = refit(left, alone, Fit(fit.u, fit.v), _SWEEPS)
        error = problem.squared_norm(problem.matrix - dense - fit.u @ fit.v)
        if error < least:
            best, least = OnGrid(structure, Fit(fit.u, fit.v, dense), rounded.grid), error
    assert best is not None
    return best


def rounded_ranks(problem: FitProblem, made: OnGrid, bits: int) -> OnGrid:
    """The same with v on a grid, each rank rounded for itself on the inputs that it reads, and u fitted to what that
    leaves; u is to be rounded when it is lowered. Ranks that nothing reads are gone.
    """
    alive = made.structure.reads.any(axis=1)
    reads, writes = made.structure.reads[alive], made.structure.writes[alive]
    structure = Structure(made.structure.tiles, reads, writes)
    u, v = made.fit.u[:, alive], made.fit.v[alive]
    if not alive.any():
        return OnGrid(structure, Fit(u, v, made.fit.dense), made.grid)
    # Of one size to whoever multiplies by u: its weights are rounded at one step an output.
    size = np.sqrt(np.maximum((problem.weigh(v) * v).sum(axis=1), 1e-300))
    rounded = _on_chunks(problem, reads, v / size[:, None], bits, 1).stored()
    v = rounded.matrix()
    left = problem.matrix if made.fit.dense is None else problem.matrix - made.fit.dense
    weighted = problem.weigh(v)
    u = solve_expand(weighted @ v.T, weighted @ left.T, writes, problem.cols)
    return OnGrid(structure, Fit(u, v, made.fit.dense), made.grid, rounded.grid)


def as_lowered(problem: FitProblem, weights: LatticeWeights) -> Fit:
    """The factors of a layer with u about as lowering will round it, where v is on a grid: to nearest, with ranks in
    codes of one size.
    """
    fit = fit_of(weights)
    if weights.rank_grid is None or not fit.u.shape[1]:
        return fit
    size = np.sqrt(np.maximum((problem.weigh(fit.v) * fit.v).sum(axis=1), 1e-300))
    grid = fitting_grid(fit.u * size, weights.rank_grid.bits, problem.rows)
    return Fit(round_nearest(fit.u * size, grid).matrix() / size, fit.v, fit.dense)


def tiles_and_ranks(
    problem: FitProblem, bits: int, ranks: int, turns: int = _TURNS, *, structure_first: bool = False
) -> OnGrid:
    """All tiles on a grid, and ranks on all chunks that take up the rest: they take turns, codes first unless
    structure_first. Without ranks it is the dense layer in so many bits.
    """
    (outputs, inputs), rows, cols = problem.matrix.shape, problem.rows, problem.cols
    ranks = min(ranks, outputs, inputs)
    full = Structure.full(outputs, inputs, ranks, rows, cols)
    structure = Structure(np.ones((problem.chunks_out, problem.chunks_in), bool), full.reads, full.writes)
    fit = Fit(np.zeros((outputs, ranks)), np.zeros((ranks, inputs)))
    if structure_first and ranks:
        fit = truncated_svd(problem, problem.matrix, ranks)
    best: OnGrid | None = None
    least = np.inf
    for _ in range(turns if ranks else 1):
        left = FitProblem(problem.matrix - fit.u @ fit.v, problem.moments, rows, cols)
        rounded = round_compensating(left, bits, rows).stored()
        dense = rounded.matrix()
        if ranks:
            fit = truncated_svd(problem, problem.matrix - dense, ranks)
        error = problem.squared_norm(problem.matrix - dense - fit.u @ fit.v)
        if error < least:
            best, least = OnGrid(structure, Fit(fit.u, fit.v, dense), rounded.grid), error
    assert best is not None
    return best


def _on_chunks(problem: FitProblem, chunks: BoolArray, wanted: FloatArray, bits: int, alike: int) -> Rounded:
    """``wanted`` (m, n) on a grid, zero beside ``chunks`` (ceil(m / alike), C) of inputs, those of each run of so many
    rows: rows with the same chunks together, each by what its best weights on these inputs would be.
    """
    (outputs, inputs), rows, cols = wanted.shape, problem.rows, problem.cols
    groups = ceil_div(inputs, rows)
    codes, shift = np.zeros(wanted.shape, np.int8), np.zeros((outputs, groups), np.int64)
    step = np.ones(outputs)
    patterns, which = np.unique(chunks, axis=0, return_inverse=True)
    for index, pattern in enumerate(patterns):
        mine = np.repeat(which.ravel() == index, alike)[:outputs]
        held = np.repeat(pattern, rows)[:inputs]
        if not pattern.any():
            continue
        target, moments = wanted[np.ix_(mine, held)], problem.moments
        if moments is not None:
            moments = moments[np.ix_(held, held)]
            if not pattern.all():
                target = np.linalg.solve(moments, (wanted[mine] @ np.asarray(problem.moments)[:, held]).T).T
        found = round_compensating(FitProblem(target, moments, rows, cols), bits, rows)
        codes[np.ix_(mine, held)], step[mine] = found.codes, found.grid.step
        shift[np.ix_(mine, pattern)] = found.grid.shift
    return Rounded(codes, Grid(step, shift, rows, bits))
