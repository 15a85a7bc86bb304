"""Alternating least squares on a fixed structure, accelerated: Anderson mixing over the sweeps (Walker & Ni, 2011)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gblr_hw.conversion.fit.fit_problem import Fit, FitProblem
from gblr_hw.conversion.fit.refit import descend_reduce, solve_expand, solve_reduce
from gblr_hw.weights.structure import Structure, channel_mask

FloatArray = npt.NDArray[np.float64]
_MEMORY = 5  # sweeps that are mixed


def refit(problem: FitProblem, structure: Structure, fit: Fit, sweeps: int) -> Fit:
    """Factors of the lowest error met in `sweeps` sweeps from `fit`, whose v and dense lie inside the structure.

    A sweep solves u, then v, then the dense tiles, each with the others fixed, so it never raises the error; a mixed
    step that does is taken back. The result is never worse than the first sweep's start with its best u.
    """
    free = _Free(problem, structure)
    point = free.pack(fit)
    best, best_error = fit, np.inf
    points: list[FloatArray] = []
    moves: list[FloatArray] = []
    plain: FloatArray | None = None
    for _ in range(sweeps + 1):
        u, image, error = _sweep(problem, structure, free, point)
        if error > best_error and plain is not None:
            points, moves, point, plain = [], [], plain, None
            continue
        if error < best_error:
            best, best_error = free.unpack(u, point), error
        points, moves = [*points, point][-_MEMORY:], [*moves, image - point][-_MEMORY:]
        plain, point = image, _mixed(points, moves)
    return best


class _Free:
    """What is free to change besides u: v inside its chunks and the entries of dense tiles, as one vector."""

    def __init__(self, problem: FitProblem, structure: Structure) -> None:
        (outputs, inputs), rows, cols = problem.matrix.shape, problem.rows, problem.cols
        self.v = channel_mask(structure.reads, rows, inputs)
        kept = channel_mask(channel_mask(structure.tiles, rows, inputs).T, cols, outputs).T
        self.dense = kept if structure.tiles.any() else None
        self.split = int(self.v.sum())

    def pack(self, fit: Fit) -> FloatArray:
        if self.dense is None:
            return fit.v[self.v]
        held = np.zeros(int(self.dense.sum())) if fit.dense is None else fit.dense[self.dense]
        return np.concatenate([fit.v[self.v], held])

    def unpack(self, u: FloatArray, point: FloatArray) -> Fit:
        v = np.zeros(self.v.shape)
        v[self.v] = point[: self.split]
        if self.dense is None:
            return Fit(u, v)
        dense = np.zeros(self.dense.shape)
        dense[self.dense] = point[self.split :]
        return Fit(u, v, dense)


def _sweep(
    problem: FitProblem, structure: Structure, free: _Free, point: FloatArray
) -> tuple[FloatArray, FloatArray, float]:
    """Best u at a point, the point after one sweep, and the squared error of that u at the first point."""
    start = free.unpack(np.zeros((len(problem.matrix), 0)), point)
    v, dense = start.v, start.dense
    left = problem.weighted if dense is None else problem.weighted - problem.weigh(dense)
    gram, cross = problem.weigh(v) @ v.T, v @ left.T
    u = solve_expand(gram, cross, structure.writes, problem.cols)
    held = 0.0 if dense is None else float(((problem.weighted + left) * dense).sum())
    error = problem.energy - held - float((2 * u * cross.T - (u @ gram) * u).sum())
    gram, cross = u.T @ u, u.T @ left
    if problem.moments is None:
        v = solve_reduce(gram, cross, structure.reads, problem.rows)
    else:
        v = descend_reduce(gram, cross, v, structure.reads, problem.rows, problem.moments, problem.inverses)
    if dense is not None:
        # A pass from the tiles as they are: only what they do not hold yet is left to them.
        change = problem.best_tiles(problem.matrix - u @ v - dense, structure.tiles)
        dense = dense + change
    return u, free.pack(Fit(u, v, dense)), error


def _mixed(points: list[FloatArray], moves: list[FloatArray]) -> FloatArray:
    """The point whose move would be smallest if moves were linear between the points remembered."""
    if len(points) == 1:
        return points[-1] + moves[-1]
    turns = np.stack([moves[-1] - move for move in moves[:-1]])
    steps = np.stack([points[-1] - point for point in points[:-1]])
    gram = turns @ turns.T
    ridge = 1e-10 * float(np.trace(gram))
    if ridge <= 0:
        return points[-1] + moves[-1]
    share = np.linalg.solve(gram + ridge * np.eye(len(gram)), turns @ moves[-1])
    return np.asarray(points[-1] + moves[-1] - share @ (steps + turns))
