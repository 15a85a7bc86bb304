"""Choose which chunks each rank reads and writes at a tile budget, by what least squares loses without them."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gblr_hw.conversion.fit.eliminate import elimination_curve
from gblr_hw.conversion.fit.fit_problem import Fit, FitProblem
from gblr_hw.conversion.fit.refit import solve_expand, solve_gram, solve_reduce
from gblr_hw.weights.structure import BoolArray, Structure

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Curve:
    """One chunk's choice: ranks in the order in which they leave (K,), and losses by tiles kept (T + 1,)."""

    order: IntArray
    losses: FloatArray

    def kept(self, seats: int, tiles: int) -> IntArray:
        """The ranks that stay in `tiles` tiles."""
        return np.sort(self.order[max(0, len(self.order) - seats * tiles) :]) if tiles else self.order[:0]


def expand_curves(problem: FitProblem, fit: Fit, grouped: bool = False) -> list[Curve]:
    """What each output chunk loses with its ranks, v fixed and u refitted: exact but for the order being greedy.

    grouped: ranks leave P at a time (`eliminate.elimination_curve`).
    """
    gram, cross = _expand_system(problem, fit)
    inverse = _inverse(gram)
    solution = inverse @ cross
    spans = (slice(r * problem.cols, (r + 1) * problem.cols) for r in range(problem.chunks_out))
    return [Curve(*elimination_curve(inverse, solution[:, span], problem.rows, grouped)) for span in spans]


def reduce_curves(problem: FitProblem, fit: Fit, grouped: bool = False) -> list[Curve]:
    """The same for input chunks, u fixed. With moments, other chunks keep what they hold."""
    gram, cross = _reduce_system(problem, fit)
    inverse = _inverse(gram)
    curves = []
    for chunk in range(problem.chunks_in):
        span = slice(chunk * problem.rows, (chunk + 1) * problem.rows)
        # Coordinates in which the block's norm is the Euclidean one.
        solution = inverse @ cross[:, span] + (fit.v[:, span] if problem.moments is not None else 0.0)
        solution = solution if problem.moments is None else solution @ problem.roots[chunk]
        curves.append(Curve(*elimination_curve(inverse, solution, problem.cols, grouped)))
    return curves


def choose_writes(
    problem: FitProblem, fit: Fit, curves: Sequence[Curve], tiles: Sequence[int]
) -> tuple[BoolArray, Fit]:
    """Writes (K, R) that keep `tiles` of each output chunk, and the fit with u solved on them."""
    writes = _membership(curves, tiles, problem.rows)
    gram, cross = _expand_system(problem, fit)
    return writes, Fit(solve_expand(gram, cross, writes, problem.cols), fit.v, fit.dense)


def choose_reads(problem: FitProblem, fit: Fit, curves: Sequence[Curve], tiles: Sequence[int]) -> tuple[BoolArray, Fit]:
    """Reads (K, C) that keep `tiles` of each input chunk, and the fit with v solved on them, chunk by chunk."""
    reads = _membership(curves, tiles, problem.cols)
    gram = fit.u.T @ fit.u
    if problem.moments is None:
        left = problem.matrix if fit.dense is None else problem.matrix - fit.dense
        return reads, Fit(fit.u, solve_reduce(gram, fit.u.T @ left, reads, problem.rows), fit.dense)
    left = problem.weighted if fit.dense is None else problem.weighted - problem.weigh(fit.dense)
    cross, v = fit.u.T @ left, fit.v.copy()
    for chunk, inverse in enumerate(problem.inverses):
        span = slice(chunk * problem.rows, (chunk + 1) * problem.rows)
        ranks = np.flatnonzero(reads[:, chunk])
        slope = cross[ranks, span] - gram[ranks] @ (v @ problem.moments[:, span])
        wanted = slope @ inverse + gram[ranks] @ v[:, span]
        v[:, span] = 0.0
        if len(ranks):
            v[ranks, span] = solve_gram(gram[np.ix_(ranks, ranks)], wanted)
    return reads, Fit(fit.u, v, fit.dense)


def share_tiles(losses: Sequence[FloatArray], budget: int) -> list[int]:
    """Tiles for each curve so that `budget` tiles in all lose little: the steepest mean descent goes first."""
    tiles = [0] * len(losses)
    queue: list[tuple[float, int, int]] = []

    def offer(index: int) -> None:
        ahead = losses[index][tiles[index]] - losses[index][tiles[index] + 1 :]
        if len(ahead):
            slopes = ahead / np.arange(1, len(ahead) + 1)
            steps = int(np.argmax(slopes))
            heapq.heappush(queue, (-float(slopes[steps]), index, steps + 1))

    for index in range(len(losses)):
        offer(index)
    while queue and budget > 0:
        _, index, steps = heapq.heappop(queue)
        steps = min(steps, budget)
        tiles[index] += steps
        budget -= steps
        offer(index)
    return tiles


def closed(reads: BoolArray, writes: BoolArray, tiles: BoolArray) -> Structure:
    """The structure without ranks that have one side only."""
    alive = np.asarray(reads.any(axis=1) & writes.any(axis=1))[:, None]
    return Structure(tiles, reads & alive, writes & alive)


def _membership(curves: Sequence[Curve], tiles: Sequence[int], seats: int) -> BoolArray:
    member = np.zeros((len(curves[0].order), len(curves)), bool)
    for index, (curve, count) in enumerate(zip(curves, tiles, strict=True)):
        member[curve.kept(seats, count), index] = True
    return member


def _inverse(gram: FloatArray) -> FloatArray:
    # Where nothing is left to fit, any order of the ranks will do.
    return solve_gram(gram, np.eye(len(gram))) if np.trace(gram) > 0 else np.eye(len(gram))


def _expand_system(problem: FitProblem, fit: Fit) -> tuple[FloatArray, FloatArray]:
    left = problem.weighted if fit.dense is None else problem.weighted - problem.weigh(fit.dense)
    return problem.weigh(fit.v) @ fit.v.T, fit.v @ left.T


def _slope(problem: FitProblem, fit: Fit) -> FloatArray:
    """u^T (W - W') C, (K, n)."""
    left = problem.weighted if fit.dense is None else problem.weighted - problem.weigh(fit.dense)
    return fit.u.T @ left - (fit.u.T @ fit.u) @ problem.weigh(fit.v)


def _reduce_system(problem: FitProblem, fit: Fit) -> tuple[FloatArray, FloatArray]:
    """u^T u and, per input chunk, the right side: u^T W plainly; with moments what is left, by the block's inverse."""
    gram = fit.u.T @ fit.u
    if problem.moments is None:
        left = problem.matrix if fit.dense is None else problem.matrix - fit.dense
        return gram, fit.u.T @ left
    slope = _slope(problem, fit)
    for chunk, inverse in enumerate(problem.inverses):
        span = slice(chunk * problem.rows, (chunk + 1) * problem.rows)
        slope[:, span] = slope[:, span] @ inverse
    return gram, slope
