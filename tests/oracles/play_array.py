"""A systolic array played out register by register, fold by fold: the oracle of simulator/scalesim/systolic_gemm.py."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from simulator.scalesim.systolic_gemm import Gemm, SystolicArray


def play_gemm(gemm: Gemm, array: SystolicArray, x: np.ndarray, w: np.ndarray) -> tuple[int, np.ndarray]:
    """Number of the last busy cycle, counted from 0, and the (m, n) product that left the array.

    x: (m, k), w: (k, n), integers. A fold starts when the fold before it has given its last result.
    """
    rows, cols = array.rows, array.cols
    y = np.zeros((gemm.m, gemm.n), dtype=np.int64)
    cycles = 0
    if array.dataflow == "os":
        for top, left in _corners(gemm.m, gemm.n, rows, cols):
            taken, sums = _play_output_stationary(
                _padded(x[top : top + rows], rows, gemm.k), _padded(w[:, left : left + cols], gemm.k, cols)
            )
            cycles += taken
            part = y[top : top + rows, left : left + cols]
            part += sums[: part.shape[0], : part.shape[1]]
        return cycles - 1, y
    held, streamed, out = (w, x, y) if array.dataflow == "ws" else (x.T, w.T, y.T)
    for top, left in _corners(*held.shape, rows, cols):
        stationary = _padded(held[top : top + rows, left : left + cols], rows, cols)
        taken, sums = _play_stationary(stationary, _padded(streamed[:, top : top + rows], len(streamed), rows))
        cycles += taken
        part = out[:, left : left + cols]
        part += sums[:, : part.shape[1]]
    return cycles - 1, y


def _play_stationary(stationary: np.ndarray, streamed: np.ndarray) -> tuple[int, np.ndarray]:
    """(rows, cols) operand loaded from the top a row a cycle, then (tokens, rows) from the left, sums leaving below."""
    cols = stationary.shape[1]
    held = np.zeros_like(stationary)
    cycles = 0
    for row in stationary[::-1]:
        held = np.vstack([row, held[:-1]])
        cycles += 1
    sums = np.zeros_like(stationary)
    moving, tags = np.zeros_like(stationary), np.full_like(stationary, -1)
    out, missing, step = np.zeros((len(streamed), cols), dtype=np.int64), len(streamed) * cols, 0
    while missing:
        values, tokens = _skewed(streamed, step)
        moving, tags = np.hstack([values, moving[:, :-1]]), np.hstack([tokens, tags[:, :-1]])
        sums = np.vstack([np.zeros((1, cols), np.int64), sums[:-1]]) + held * moving
        for col in range(cols):
            if tags[-1, col] >= 0:
                out[tags[-1, col], col] = sums[-1, col]
                missing -= 1
        step += 1
    return cycles + step, out


def _play_output_stationary(x: np.ndarray, w: np.ndarray) -> tuple[int, np.ndarray]:
    """(rows, k) from the left and (k, cols) from the top; a cell adds up in place. Ends with the last multiply-add."""
    rows, cols = len(x), w.shape[1]
    shape = (rows, cols)
    sums, missing, step = np.zeros(shape, np.int64), len(w) * rows * cols, 0
    right, down, tags = np.zeros(shape, np.int64), np.zeros(shape, np.int64), np.full(shape, -1)
    while missing:
        values, tokens = _skewed(x.T, step)
        right, tags = np.hstack([values, right[:, :-1]]), np.hstack([tokens, tags[:, :-1]])
        down = np.vstack([_skewed(w, step)[0].T, down[:-1]])
        sums += np.where(tags >= 0, right * down, 0)
        missing -= int((tags >= 0).sum())
        step += 1
    return step, sums


def _skewed(streamed: np.ndarray, step: int) -> tuple[np.ndarray, np.ndarray]:
    """What enters the lanes in cycle ``step``, as columns: lane i sees entry (step - i, i), and which token that is."""
    tokens, lanes = streamed.shape
    token = step - np.arange(lanes)
    there = (token >= 0) & (token < tokens)
    values = np.where(there, streamed[np.clip(token, 0, tokens - 1), np.arange(lanes)], 0)
    return values[:, None], np.where(there, token, -1)[:, None]


def _corners(height: int, width: int, rows: int, cols: int) -> Iterator[tuple[int, int]]:
    return ((top, left) for left in range(0, width, cols) for top in range(0, height, rows))


def _padded(part: np.ndarray, height: int, width: int) -> np.ndarray:
    padded = np.zeros((height, width), dtype=np.int64)
    padded[: part.shape[0], : part.shape[1]] = part
    return padded
