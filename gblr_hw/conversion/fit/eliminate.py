"""Backward elimination of ranks in least squares: which ranks a chunk should keep at each number of tiles."""

from __future__ import annotations

import numba as nb
import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

# Ranks that leave at once, as a part of those left: singly it would be slower by more than it would be better.
_PART = 16


def elimination_curve(
    inverse: FloatArray, solution: FloatArray, seats: int, grouped: bool = False
) -> tuple[IntArray, FloatArray]:
    """The order in which ranks leave a least-squares problem, and what is lost at each number of tiles.

    inverse (K, K): inverse Gram matrix of the ranks; solution (K, p): the coefficients with all of them. What a set of
    ranks S loses, the others refitted, is trace(x_S^T (inverse_SS)^-1 x_S); the ranks that lose least go first.
    Returns order (K,), the first to go first, and losses (ceil(K / seats) + 1,): the squared error above that of all
    ranks when only seats x t ranks are left, the last of the order.
    grouped: ranks 0 .. seats - 1 leave together, and so on (K is then a multiple of seats).
    """
    if grouped:
        order, losses = _eliminate_groups(np.ascontiguousarray(inverse), np.ascontiguousarray(solution), seats)
        return order, losses
    order, losses = _eliminate(np.ascontiguousarray(inverse), np.ascontiguousarray(solution), seats, _PART)
    return order, losses


@nb.njit(cache=True)
def _eliminate(inverse, solution, seats, part):
    ranks = len(inverse)
    order, losses = np.empty(ranks, np.int64), np.zeros((ranks + seats - 1) // seats + 1)
    ids, done, lost = np.arange(ranks), 0, 0.0
    while done < ranks:
        left = ranks - done
        score = np.empty(left)
        for k in range(left):
            score[k] = (solution[k] ** 2).sum() / inverse[k, k]
        # A batch ends where a tile is empty, as that is where losses are asked for.
        batch = min(max(1, left // part), left - (left - 1) // seats * seats)
        ascending = np.argsort(score)
        go, stay = ascending[:batch], np.sort(ascending[batch:])
        order[done : done + batch] = ids[go]
        rows = np.ascontiguousarray(inverse[:, go])
        weights = np.linalg.solve(rows[go], np.eye(batch))
        gone = solution[go]
        lost += (gone * (weights @ gone)).sum()
        done += batch
        if (ranks - done) % seats == 0:
            losses[(ranks - done) // seats] = lost
        across = rows[stay]
        moved = across @ weights
        solution = solution[stay] - moved @ gone
        inverse = inverse[stay][:, stay] - moved @ np.ascontiguousarray(across.T)
        ids = ids[stay]
    return order, losses


@nb.njit(cache=True)
def _eliminate_groups(inverse, solution, size):
    groups = len(inverse) // size
    order, losses = np.empty(len(inverse), np.int64), np.zeros(groups + 1)
    ids, lost = np.arange(groups), 0.0
    for done in range(groups):
        least, first = np.inf, 0
        for g in range(groups - done):
            span = slice(g * size, (g + 1) * size)
            gone = np.ascontiguousarray(solution[span])
            loss = (gone * np.linalg.solve(np.ascontiguousarray(inverse[span, span]), gone)).sum()
            if loss < least:
                least, first = loss, g
        lost += least
        losses[groups - done - 1] = lost
        start = first * size
        span = slice(start, start + size)
        order[done * size : (done + 1) * size] = np.arange(ids[first] * size, (ids[first] + 1) * size)
        stay = np.concatenate((np.arange(start), np.arange(start + size, len(inverse))))
        across = inverse[stay][:, span]
        moved = np.ascontiguousarray(
            np.linalg.solve(np.ascontiguousarray(inverse[span, span]), np.ascontiguousarray(across.T)).T
        )
        solution = solution[stay] - moved @ np.ascontiguousarray(solution[span])
        inverse = inverse[stay][:, stay] - moved @ np.ascontiguousarray(across.T)
        ids = np.concatenate((ids[:first], ids[first + 1 :]))
    return order, losses
