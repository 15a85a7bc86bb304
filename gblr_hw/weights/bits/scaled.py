"""Matrices on grids, multiplied channel by channel: codes stay wherever steps and shifts can carry the factors."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from gblr_hw.weights.bits.choose_steps import fitting_grid
from gblr_hw.weights.bits.grid import FloatArray, Grid, Rounded, round_nearest, short_steps
from simulator.machine.machine import MAX_COLUMN_SHIFT


def rows_scaled(matrix: FloatArray, grid: Grid, rows: FloatArray) -> Rounded:
    """Row i times rows[i]: in its step, to 16 significant bits."""
    codes = grid.codes_of(matrix).astype(np.int64) * np.sign(rows).astype(np.int64)[:, None]
    if codes.max(initial=0) > grid.limit:  # a grid's lowest code has no negative
        return _anew(matrix * rows[:, None], grid)
    step = short_steps(np.where(rows != 0, np.abs(rows), 1.0) * grid.step)
    return Rounded(codes.astype(np.int8), replace(grid, step=step))


def columns_scaled(matrix: FloatArray, grid: Grid, columns: FloatArray) -> Rounded:
    """Column j times columns[j]: in the shifts if these are powers of two that a group shares, else rounded anew."""
    mantissa, exponent = np.frexp(columns)
    firsts = np.arange(0, matrix.shape[1], grid.group)
    shared = np.repeat(exponent[firsts], grid.group)[: matrix.shape[1]]
    if (mantissa != 0.5).any() or (exponent != shared).any():
        return _anew(matrix * columns, grid)
    shift = grid.shift + (exponent[firsts].astype(np.int64) - 1)
    lowest = shift.min(axis=1)
    shift -= lowest[:, None]
    if shift.max(initial=0) > MAX_COLUMN_SHIFT:
        return _anew(matrix * columns, grid)
    return Rounded(grid.codes_of(matrix), replace(grid, step=grid.step * np.exp2(lowest), shift=shift))


def _anew(matrix: FloatArray, grid: Grid) -> Rounded:
    return round_nearest(matrix, fitting_grid(matrix, grid.bits, grid.group)).stored()
