"""Steps of codes: one for all that adds up in one sum, times a power of two for each column of weights.

For each of sixteen fractions of an octave every column takes the octave that it loses least in, of the three from the
one that clips nothing down; the sum takes the fraction that is best over its columns.
"""

from __future__ import annotations

import numba as nb
import numpy as np

from gblr_hw.weights.bits.grid import FloatArray, Grid, largest_code
from simulator.base.arithmetic import ceil_div
from simulator.base.columns import kernel_input
from simulator.machine.machine import MAX_COLUMN_SHIFT

_IN_AN_OCTAVE, _OCTAVES = 16, 3
_NONE = -(2**20)  # the octave of a column of zeros


def fitting_grid(matrix: FloatArray, bits: int, group: int | None = None, worth: FloatArray | None = None) -> Grid:
    """The grid that nearest rounding to it loses least on, of those tried: 16 steps in each octave, an octave a group.

    group: inputs that share a shift; all of them if None, and then there are no shifts. worth (n,): what a squared
    error of each input counts, the diagonal of the inputs' second moments; equal if None.
    """
    outputs, inputs = matrix.shape
    limit, wide = largest_code(bits), inputs if group is None else group
    groups = ceil_div(inputs, wide)
    counts = np.broadcast_to(np.ones(inputs) if worth is None else worth, matrix.shape)
    begins = np.arange(outputs)[:, None] * inputs + np.arange(groups) * wide
    step, shift = np.zeros(outputs), np.zeros(outputs * groups, np.int64)
    choose_steps(
        kernel_input(matrix, np.float64).ravel(), kernel_input(counts, np.float64).ravel(),
        np.append(begins, matrix.size), np.arange(outputs * groups), np.arange(outputs + 1) * groups,
        np.zeros(outputs), limit, step, shift,
    )  # fmt: skip
    return Grid(np.where(step > 0, step, 1.0), shift.reshape(outputs, groups), wide, bits)


@nb.njit(cache=True, nogil=True)
def choose_steps(values, worth, column_ptr, columns, target_ptr, floor, limit, step, shift):
    """The step of each sum that has weights, and the shift of each column; others are left as they are.

    values, worth (W,): weights column after column, and what a squared error of each counts. column_ptr: where columns
    begin. columns: sum after sum, which target_ptr (T + 1,) divides. floor (T,): the least that a step may be.
    """
    largest = _largest(values, column_ptr)
    octave, trial = np.empty(largest.shape[0], np.int64), np.empty(largest.shape[0], np.int64)
    errors = np.empty(largest.shape[0])
    for t in range(step.shape[0]):
        mine = columns[target_ptr[t] : target_ptr[t + 1]]
        least = np.inf
        for part in range(_IN_AN_OCTAVE):
            fraction = 2.0 ** (part / _IN_AN_OCTAVE)
            highest = _best_octaves(values, worth, column_ptr, mine, largest, fraction, limit, octave, errors)
            if highest == _NONE:
                break
            lowest = highest
            for c in mine:
                if octave[c] != _NONE:
                    lowest = min(lowest, octave[c])
            lowest = max(lowest, highest - MAX_COLUMN_SHIFT)
            if floor[t] > 0:
                lowest = max(lowest, np.int64(np.ceil(np.log2(floor[t] / fraction) - 1e-12)))
            lost = 0.0
            for c in mine:
                trial[c] = max(octave[c], lowest) - lowest
                if octave[c] != _NONE:
                    if octave[c] < lowest:
                        run = slice(column_ptr[c], column_ptr[c + 1])
                        lost += squared_error(values[run], worth[run], fraction * 2.0**lowest, limit)
                    else:
                        lost += errors[c]
            if lost < least:
                least = lost
                step[t] = fraction * 2.0**lowest
                for c in mine:
                    shift[c] = trial[c]


@nb.njit(cache=True, nogil=True)
def squared_error(values, worth, step, limit):
    """What rounding to the nearest codes of a step loses."""
    lost = 0.0
    for j in range(len(values)):
        code = min(max(np.rint(values[j] / step), -limit), limit)
        lost += worth[j] * (values[j] - code * step) ** 2
    return lost


@nb.njit(cache=True, nogil=True)
def _largest(values, column_ptr):
    largest = np.zeros(column_ptr.shape[0] - 1)
    for c in range(largest.shape[0]):
        for i in range(column_ptr[c], column_ptr[c + 1]):
            largest[c] = max(largest[c], abs(values[i]))
    return largest


@nb.njit(cache=True, nogil=True)
def _best_octaves(values, worth, column_ptr, mine, largest, fraction, limit, octave, errors):
    """Fill in the octave that each column loses least in, and what it loses; the highest octave is returned."""
    highest = _NONE
    for c in mine:
        octave[c] = _NONE
        if largest[c] == 0:
            continue
        run = slice(column_ptr[c], column_ptr[c + 1])
        top = np.int64(np.ceil(np.log2(largest[c] / (limit * fraction)) - 1e-12))
        errors[c] = np.inf
        for one in range(top, top - _OCTAVES, -1):
            lost = squared_error(values[run], worth[run], fraction * 2.0**one, limit)
            if lost < errors[c]:
                octave[c], errors[c] = one, lost
        highest = max(highest, octave[c])
    return highest
