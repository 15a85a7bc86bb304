"""Grids of few bits: a step for each output, times a power of two for each group of its inputs (machine.md, A6, N3)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from simulator.base.arithmetic import ceil_div
from simulator.base.errors import InputError
from simulator.base.shown import Shown
from simulator.machine.machine import MAX_COLUMN_SHIFT
from simulator.numbers.numerics import code_limit

FloatArray = npt.NDArray[np.float64]
# Of a stored step: beside the 8 bits of a code they fill the 24 bits of a float32, so that weights are exact in it.
_STEP_BITS = 16


@dataclass(frozen=True, eq=False, repr=False)
class Grid(Shown):
    """What codes count in: weight (i, j) is code (i, j) times ``step[i] * 2 ** shift[i, j // group]``.

    step (m,), above 0. shift (m, ceil(n / group)) int64, from 0 to MAX_COLUMN_SHIFT. group: inputs that share a shift.
    bits: of a code, in two's complement. Raises InputError for anything else.
    """

    step: FloatArray
    shift: npt.NDArray[np.int64]
    group: int
    bits: int

    def __post_init__(self) -> None:
        largest_code(self.bits)
        if self.group < 1:
            raise InputError("grid's group", str(self.group), "some inputs share a shift", "Give 1 or more.")
        if self.shift.ndim != 2 or self.step.shape != self.shift.shape[:1]:
            found = f"steps {self.step.shape}, shifts {self.shift.shape}"
            raise InputError("grid", found, "they are (m,) and (m, groups)", "Write the layer again.")
        if not (np.isfinite(self.step) & (self.step > 0)).all():
            raise InputError("grid's steps", "one that is not above 0", "steps are finite", "Write the layer again.")
        if self.shift.size and not 0 <= self.shift.min() <= self.shift.max() <= MAX_COLUMN_SHIFT:
            found = str(self.shift.max() if self.shift.min() >= 0 else self.shift.min())
            raise InputError(
                "grid's shifts", found, f"they lie between 0 and {MAX_COLUMN_SHIFT}", "Write the layer again."
            )

    @property
    def limit(self) -> int:
        """The largest magnitude of a code that rounding gives."""
        return largest_code(self.bits)

    def spacing(self, inputs: int) -> FloatArray:
        """What a code of each weight counts in, (m, n)."""
        wide = np.repeat(self.step[:, None] * np.exp2(self.shift), self.group, axis=1)
        return np.ascontiguousarray(wide[:, :inputs])

    def rows(self, which: slice | npt.NDArray[np.integer]) -> Grid:
        """The grid of some outputs."""
        return replace(self, step=self.step[which], shift=self.shift[which])

    def codes_of(self, matrix: npt.NDArray[np.floating]) -> npt.NDArray[np.int8]:
        """Codes (m, n) of a matrix that lies on the grid. Raises InputError for one that does not."""
        if matrix.shape != (len(self.step), matrix.shape[1]) or self.shift.shape[1] != ceil_div(
            matrix.shape[1], self.group
        ):
            found = f"{self.shift.shape[0]} x {self.shift.shape[1]} shifts of {self.group} inputs"
            raise InputError("grid", found, f"the matrix is {matrix.shape[0]} x {matrix.shape[1]}", "Write it again.")
        codes = matrix.astype(np.float64) / self.spacing(matrix.shape[1])
        low, high = -(2 ** (self.bits - 1)), 2 ** (self.bits - 1) - 1
        stray = (codes != np.rint(codes)) | (codes < low) | (codes > high)
        if stray.any():
            i, j = (int(index) for index in np.argwhere(stray)[0])
            raise InputError(
                f"weight {(i, j)}",
                f"{matrix[i, j]:g}, {codes[i, j]:g} steps",
                f"weights lie on their grid, codes from {low} to {high}",
                "Leave out the grid, or round the weights to it.",
            )
        return codes.astype(np.int8)


def kept_grid(grid: Grid | None, matrix: npt.NDArray[np.floating]) -> Grid | None:
    """The grid, if the matrix lies on it (still)."""
    if grid is None:
        return None
    try:
        grid.codes_of(matrix)
    except InputError:
        return None
    return grid


@dataclass(frozen=True, eq=False, repr=False)
class Rounded(Shown):
    """A matrix on a grid: codes (m, n) int8."""

    codes: npt.NDArray[np.int8]
    grid: Grid

    def matrix(self) -> FloatArray:
        """(m, n)."""
        return self.codes * self.grid.spacing(self.codes.shape[1])

    def stored(self) -> Rounded:
        """The same codes at steps of so few bits that every weight is exact in float32: up to 2^-17 of it away."""
        return Rounded(self.codes, replace(self.grid, step=short_steps(self.grid.step)))


def short_steps(step: FloatArray) -> FloatArray:
    """Steps rounded to 16 significant bits."""
    mantissa, exponent = np.frexp(step)
    return np.asarray(np.ldexp(np.rint(np.ldexp(mantissa, _STEP_BITS)), exponent - _STEP_BITS), np.float64)


def largest_code(bits: int) -> int:
    """The largest magnitude of a code. Raises InputError for bits below 2 or above 8."""
    if not 2 <= bits <= 8:
        raise InputError("bits", str(bits), "codes have 2 to 8 bits", "Choose 4.")
    return code_limit(bits)


def plain_grid(matrix: FloatArray, bits: int) -> Grid:
    """One step an output, that of its largest weight: what plain converters take."""
    largest, limit = np.abs(matrix).max(axis=1), largest_code(bits)
    step = np.where(largest > 0, largest / limit, 1.0)
    return Grid(step, np.zeros((len(matrix), 1), np.int64), matrix.shape[1], bits)


def round_nearest(matrix: FloatArray, grid: Grid) -> Rounded:
    """Every weight to the code that is nearest."""
    codes = np.clip(np.rint(matrix / grid.spacing(matrix.shape[1])), -grid.limit, grid.limit)
    return Rounded(codes.astype(np.int8), grid)
