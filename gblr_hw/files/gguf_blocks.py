"""GGUF's blocks as whole numbers and scales, and whether a machine's grid holds them (machine.md, A6, N3).

A machine has one step an output, times a power of two for each tile and output in narrow tiles, and none in wide ones.
So blocks keep their codes where the scales of a row are powers of two of each other (in wide tiles: where the whole
row's numbers are small multiples of one scale). The formats let every block have a scale of its own, in half
precision, so that files which were not made for such a grid do not fit: they are the numbers that they stand for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from gblr_hw.weights.bits.grid import Grid, short_steps
from simulator.machine.machine import MAX_COLUMN_SHIFT

Bytes = npt.NDArray[np.uint8]
# Whole numbers (blocks, weights of a block), and what one of each block stands for (blocks,).
Blocks = tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]


def _halves(data: Bytes) -> npt.NDArray[np.float64]:
    return np.ascontiguousarray(data).view(np.float16).astype(np.float64)[:, 0]


def _nibbles(data: Bytes) -> npt.NDArray[np.int64]:
    """Low halves first, then high ones."""
    return np.concatenate([data & 15, data >> 4], axis=1).astype(np.int64)


def _q8_0(blocks: Bytes) -> Blocks:
    return np.ascontiguousarray(blocks[:, 2:]).view(np.int8).astype(np.int64), _halves(blocks[:, :2])


def _q4_0(blocks: Bytes) -> Blocks:
    return _nibbles(blocks[:, 2:]) - 8, _halves(blocks[:, :2])


def _q4_1(blocks: Bytes) -> Blocks:
    """A block of codes 0 to 15 with an offset, which is whole only if it is a multiple of the scale."""
    scale, offset = _halves(blocks[:, :2]), _halves(blocks[:, 2:4])
    steps = np.divide(offset, scale, out=np.full_like(scale, 0.5), where=scale != 0)
    whole = steps == np.rint(steps)
    numbers = _nibbles(blocks[:, 4:]) + np.where(whole, steps, 0).astype(np.int64)[:, None]
    # A scale that is not a number fits nowhere.
    return numbers, np.where(whole, scale, np.nan)


# Kind -> (bits of the tiles that could hold it, bytes of blocks -> numbers and scales). Of Q6_K scales are products of
# two numbers for every 16 weights: no row of a tile of eight bits counts in one step.
KINDS: Mapping[str, tuple[int, Callable[[Bytes], Blocks]]] = {
    "Q8_0": (8, _q8_0),
    "Q4_0": (4, _q4_0),
    "Q4_1": (4, _q4_1),
}
FITS = "one step an output, times a power of two in narrow tiles"


def grid_of_blocks(kind: str, data: Bytes, shape: tuple[int, ...]) -> Grid | None:
    """The grid that a tensor's numbers lie on, None if there is none. data: its blocks' bytes, row by row; shape:
    (outputs, inputs).
    """
    if kind not in KINDS or len(shape) != 2 or 0 in shape:
        return None
    bits, parts = KINDS[kind]
    outputs, inputs = shape
    blocks = data.reshape(-1, data.size * 32 // (outputs * inputs))
    numbers, scale = parts(blocks)
    numbers, scale = numbers * np.where(scale < 0, -1, 1)[:, None], np.abs(scale)
    numbers, scale = numbers.reshape(outputs, -1, 32), scale.reshape(outputs, -1)
    used = numbers.any(axis=2)
    step = np.where(used, scale, np.inf).min(axis=1)
    step = np.where(np.isfinite(step) | np.isnan(step), step, 1.0)
    if np.isnan(step).any() or (step <= 0).any() or (short_steps(step) != step).any():
        return None
    mantissa, exponent = np.frexp(np.where(used, scale, step[:, None]) / step[:, None])
    shift = exponent.astype(np.int64) - 1
    if (mantissa != 0.5).any() or shift.max() > MAX_COLUMN_SHIFT:
        return None
    group = 32
    if bits == 8:  # wide tiles have no shifts
        numbers, shift, group = numbers << shift[:, :, None], np.zeros((outputs, 1), np.int64), inputs
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    if numbers.min() < low + (bits == 8) or numbers.max() > high:
        return None
    return Grid(step, shift, group, bits)
