"""Rounding in which every weight makes up for the errors of the others, weighted by the inputs' second moments.

Rounding column by column, each error moved to the columns that are still to be rounded, is Frantar et al. (GPTQ, ICLR
2023); after it codes are chosen again one by one, all others fixed, and steps by least squares, as long as that helps.
"""

from __future__ import annotations

import numba as nb
import numpy as np

from gblr_hw.conversion.fit.fit_problem import FitProblem
from gblr_hw.weights.bits.choose_steps import fitting_grid
from gblr_hw.weights.bits.grid import Grid, Rounded, round_nearest
from simulator.base.columns import kernel_input

# Added to the moments' diagonal while errors move, relative to its mean: inputs that are alike would take any error.
_DAMPING = 0.01
_SWEEPS = 12


def round_compensating(problem: FitProblem, bits: int, group: int | None = None, sweeps: int = _SWEEPS) -> Rounded:
    """The matrix on a grid of so many bits, ||(W - W') C^(1/2)|| made small; never worse than rounding to nearest.

    group: as for `fitting_grid`. sweeps: over all codes and steps, at most. Without moments errors have nobody to make
    up for them, and this is rounding to nearest on the best of the grids.
    """
    worth = None if problem.moments is None else np.diag(problem.moments)
    grid = fitting_grid(problem.matrix, bits, group, worth)
    nearest = round_nearest(problem.matrix, grid)
    if problem.moments is None:
        return nearest
    starts = (nearest, _moved(problem, grid))
    found = [_settled(problem, start, sweeps) for start in starts]
    return min(found, key=lambda rounded: problem.squared_norm(problem.matrix - rounded.matrix()))


def _moved(problem: FitProblem, grid: Grid) -> Rounded:
    """Column by column, the error of each moved to those behind it."""
    left = problem.matrix.copy()
    inputs = left.shape[1]
    moments = np.asarray(problem.moments)
    damped = moments + _DAMPING * np.trace(moments) / inputs * np.eye(inputs)
    # Upper Cholesky factor of the inverse: its row j says how the columns behind j make up for an error in j.
    upper = np.linalg.cholesky(np.linalg.inv(damped)).T
    spacing = grid.spacing(inputs)
    codes = np.empty(left.shape, np.int8)
    for j in range(inputs):
        codes[:, j] = np.clip(np.rint(left[:, j] / spacing[:, j]), -grid.limit, grid.limit)
        error = (left[:, j] - codes[:, j] * spacing[:, j]) / upper[j, j]
        left[:, j + 1 :] -= np.outer(error, upper[j, j + 1 :])
    return Rounded(codes, grid)


def _settled(problem: FitProblem, rounded: Rounded, sweeps: int) -> Rounded:
    """Codes one by one, then steps, until neither lowers the error."""
    moments = kernel_input(np.asarray(problem.moments), np.float64)
    best, least = rounded, problem.squared_norm(problem.matrix - rounded.matrix())
    for _ in range(sweeps):
        codes = best.codes.copy()
        spacing = best.grid.spacing(codes.shape[1])
        slope = problem.weigh(problem.matrix - best.matrix())
        _choose_again(codes, spacing, slope, moments, best.grid.limit)
        new = _stepped(problem, Rounded(codes, best.grid))
        error = problem.squared_norm(problem.matrix - new.matrix())
        if not error < least * (1 - 1e-6):
            break
        best, least = new, error
    return best


def _stepped(problem: FitProblem, rounded: Rounded) -> Rounded:
    """The same codes and shifts with the best steps."""
    grid = rounded.grid
    unit = rounded.matrix() / grid.step[:, None]
    power = (problem.weigh(unit) * unit).sum(axis=1)
    wanted = (problem.weighted * unit).sum(axis=1)
    good = (power > 0) & (wanted > 0)
    step = np.where(good, wanted / np.where(good, power, 1.0), grid.step)
    return Rounded(rounded.codes, Grid(step, grid.shift, grid.group, grid.bits))


@nb.njit(cache=True, nogil=True)
def _choose_again(codes, spacing, slope, moments, limit):
    """Each code in turn the best with all others fixed; slope (m, n): what is left, times the moments."""
    rows, inputs = codes.shape
    for i in range(rows):
        for j in range(inputs):
            if moments[j, j] <= 0:
                continue
            wanted = codes[i, j] + slope[i, j] / (moments[j, j] * spacing[i, j])
            code = min(max(np.rint(wanted), -limit), limit)
            change = (code - codes[i, j]) * spacing[i, j]
            if change != 0:
                codes[i, j] = np.int8(code)
                for k in range(inputs):
                    slope[i, k] -= change * moments[j, k]
