"""Grids of few bits: a step for each output, times a power of two for each group of its inputs."""

from __future__ import annotations

from dataclasses import dataclass

import numba as nb
import numpy as np
import numpy.typing as npt

from simulator.base.arithmetic import ceil_div
from simulator.base.columns import kernel_input
from simulator.base.errors import InputError
from simulator.machine.machine import MAX_COLUMN_SHIFT
from simulator.numbers.numerics import code_limit

FloatArray = npt.NDArray[np.float64]
# Steps that are tried in each octave, and how many octaves below the one that holds the largest weight.
_IN_AN_OCTAVE, _OCTAVES = 16, 3


@dataclass(frozen=True, eq=False)
class Grid:
    """What codes count in: weight (i, j) is code (i, j) times ``step[i] * 2 ** shift[i, j // group]``.

    step (m,), above 0. shift (m, groups), from 0 to MAX_COLUMN_SHIFT. group: inputs that share a shift. bits: of a
    code, whose magnitude is at most 2 ** (bits - 1) - 1.
    """

    step: FloatArray
    shift: npt.NDArray[np.int64]
    group: int
    bits: int

    @property
    def limit(self) -> int:
        """The largest magnitude of a code."""
        return largest_code(self.bits)

    def spacing(self, inputs: int) -> FloatArray:
        """What a code of each weight counts in, (m, n)."""
        wide = np.repeat(self.step[:, None] * np.exp2(self.shift), self.group, axis=1)
        return np.ascontiguousarray(wide[:, :inputs])


@dataclass(frozen=True, eq=False)
class Rounded:
    """A matrix on a grid: codes (m, n) int8."""

    codes: npt.NDArray[np.int8]
    grid: Grid

    def matrix(self) -> FloatArray:
        """(m, n)."""
        return self.codes * self.grid.spacing(self.codes.shape[1])


def largest_code(bits: int) -> int:
    """The largest magnitude of a code. Raises InputError for bits below 2 or above 8."""
    if not 2 <= bits <= 8:
        raise InputError("bits", str(bits), "codes have 2 to 8 bits", "Choose 4.")
    return code_limit(bits)


def fitting_grid(matrix: FloatArray, bits: int, group: int | None = None, worth: FloatArray | None = None) -> Grid:
    """The grid that nearest rounding to it loses least on, of those tried: 16 steps in each octave, an octave a group.

    group: inputs that share a shift; all of them if None, and then there are no shifts. worth (n,): what a squared
    error of each input counts, the diagonal of the inputs' second moments; equal if None.
    """
    inputs = matrix.shape[1]
    limit, wide = largest_code(bits), inputs if group is None else group
    counts = np.ones(inputs) if worth is None else worth
    step, shift = _best_steps(
        kernel_input(matrix, np.float64), kernel_input(counts, np.float64), wide, limit, ceil_div(inputs, wide)
    )
    return Grid(step, shift, wide, bits)


def plain_grid(matrix: FloatArray, bits: int) -> Grid:
    """One step an output, that of its largest weight: what plain converters take."""
    largest, limit = np.abs(matrix).max(axis=1), largest_code(bits)
    step = np.where(largest > 0, largest / limit, 1.0)
    return Grid(step, np.zeros((len(matrix), 1), np.int64), matrix.shape[1], bits)


def round_nearest(matrix: FloatArray, grid: Grid) -> Rounded:
    """Every weight to the code that is nearest."""
    codes = np.clip(np.rint(matrix / grid.spacing(matrix.shape[1])), -grid.limit, grid.limit)
    return Rounded(codes.astype(np.int8), grid)


@nb.njit(cache=True, nogil=True)
def _best_steps(matrix, worth, wide, limit, groups):
    """Step (m,) and shifts (m, groups). Rows are independent: for each fraction of an octave every group takes the
    octave that it loses least in, and the row the fraction that is best over its groups.
    """
    rows, inputs = matrix.shape
    step, shift = np.empty(rows), np.zeros((rows, groups), np.int64)
    octave, chosen = np.empty(groups, np.int64), np.empty(groups, np.int64)
    for i in range(rows):
        least = np.inf
        step[i] = 1.0
        for part in range(_IN_AN_OCTAVE):
            fraction = 2.0 ** (part / _IN_AN_OCTAVE)
            lost, highest = 0.0, -(2**20)
            for c in range(groups):
                first, last = c * wide, min((c + 1) * wide, inputs)
                largest = np.abs(matrix[i, first:last]).max()
                octave[c] = -(2**20)
                if largest > 0:
                    octave[c], one = _best_octave(matrix[i, first:last], worth[first:last], fraction, largest, limit)
                    lost += one
                    highest = max(highest, octave[c])
            if lost < least and highest > -(2**20):
                least = lost
                lowest = highest
                for c in range(groups):
                    if octave[c] > -(2**20):
                        lowest = min(lowest, octave[c])
                lowest = max(lowest, highest - MAX_COLUMN_SHIFT)
                for c in range(groups):
                    chosen[c] = max(octave[c], lowest) - lowest
                step[i] = fraction * 2.0**lowest
                shift[i] = chosen
    return step, shift


@nb.njit(cache=True, nogil=True)
def _best_octave(weights, worth, fraction, largest, limit):
    """The octave that a group loses least in, and what it loses."""
    top = int(np.ceil(np.log2(largest / (limit * fraction))))
    best, least = top, np.inf
    for octave in range(top, top - _OCTAVES, -1):
        spacing, lost = fraction * 2.0**octave, 0.0
        for j in range(len(weights)):
            code = min(max(np.rint(weights[j] / spacing), -limit), limit)
            lost += worth[j] * (weights[j] - code * spacing) ** 2
        if lost < least:
            best, least = octave, lost
    return best, least
