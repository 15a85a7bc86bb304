"""The numbers: exact weights in tile order, their int8 codes, and the scales of machine.md, section 9.

In units of the input step, a rank's activation code stands for ``rank_divisor * step of its reduce weights``. The
expand weights carry that factor, so that the products of EXPAND and DENSE tiles fall into one accumulator with one step
per output.
"""

from __future__ import annotations

from dataclasses import replace

import numba as nb
import numpy as np

from gblr_hw.weights.factors import Factors
from simulator.base.columns import kernel_input
from simulator.machine.machine import Machine
from simulator.numbers.execute import input_step
from simulator.numbers.numerics import code_limit, quantise
from simulator.program.operations import Op
from simulator.program.schedule import LayerSchedule, Payload

_WHITE_RMS_CODE = 32.0  # root mean square code of uncalibrated inputs (rule N1)
_SIGMAS = 4.0  # range of a rank's sum, in standard deviations, when inputs are white


def quantise_weights(
    schedule: LayerSchedule,
    factors: Factors,
    machine: Machine,
    calibration: np.ndarray | None,
    steps: tuple[float, float] | None = None,
) -> LayerSchedule:
    """Fill the payload. calibration: (N, n) example inputs of the layer, or None for the white-input rule N1. steps:
    activation steps of the layer's input and output where they are known, as in a calibrated network.
    """
    types = machine.datatypes
    limit = code_limit(types.weight_bits)
    dense = factors.dense if factors.dense is not None else np.zeros((factors.out_features, 0), np.float32)
    v_step = _step(np.abs(factors.v).max(axis=1, initial=0.0), limit)
    in_step, divisor = _activation_ranges(factors.v, v_step, machine, calibration, steps[0] if steps else 0.0)
    v, u, dense = (kernel_input(numbers, np.float32) for numbers in (factors.v, factors.u, dense))
    u_scale = v_step * divisor
    largest = np.maximum(_largest_rows(u, u_scale), np.abs(dense).max(axis=1, initial=0.0))
    # An output without weights counts in parts of its bias: fine enough at any input step, far from saturation.
    bias_step = _step(np.abs(schedule.payload.bias), 2 ** (types.accumulator_bits // 2 - 1))
    row_step = np.where(largest > 0, _step(largest, limit), bias_step)
    out_step = 0.0
    if steps is not None:
        out_step = steps[1]
    elif calibration is not None:
        outputs = calibration @ factors.matrix().T + (0.0 if factors.bias is None else factors.bias)
        out_step = float(np.abs(outputs).max(initial=0.0)) / code_limit(types.activation_bits)
    tiles = schedule.tiles
    codes = np.empty(int(tiles.weight_ptr[-1]), np.int8)
    values = np.empty(len(codes), np.float32)
    v_step, u_scale, row_steps = (kernel_input(step, np.float64) for step in (v_step, u_scale, row_step))
    _pack(
        tiles.kind,
        tiles.source * machine.rows,
        tiles.target * machine.cols,
        tiles.lane_ptr,
        tiles.lane,
        tiles.lo,
        tiles.hi,
        v,
        u,
        dense,
        v_step,
        u_scale,
        row_steps,
        limit,
        codes,
        values,
    )
    payload = Payload(
        codes=codes,
        values=values,
        row_step=row_step,
        rank_divisor=divisor,
        bias=schedule.payload.bias,
        input_step=in_step,
        output_step=out_step,
    )
    return replace(schedule, payload=payload)


def _step(largest: np.ndarray, limit: int) -> np.ndarray:
    return np.where(largest > 0, largest / limit, 1.0).astype(np.float64)


def _activation_ranges(
    v: np.ndarray, v_step: np.ndarray, machine: Machine, calibration: np.ndarray | None, known_step: float
) -> tuple[float, np.ndarray]:
    """Input step (``known_step`` if there is one, else the examples', else 0: from the data) and what each rank's
    integer sum is divided by to fill an activation code.
    """
    types = machine.datatypes
    limit = code_limit(types.activation_bits)
    if calibration is None:
        rms = min(_WHITE_RMS_CODE, limit)
        squares = _sums_of_squares(
            kernel_input(v, np.float32), kernel_input(v_step, np.float64), code_limit(types.weight_bits)
        )
        return known_step, np.maximum(_SIGMAS * (np.sqrt(squares.astype(np.float64)) * rms) / limit, 1.0)
    step = known_step or input_step(calibration, types.activation_bits)
    v_codes = quantise(v, v_step[:, None], types.weight_bits)
    sums = quantise(calibration, step, types.activation_bits).astype(np.float64) @ v_codes.T.astype(np.float64)
    return step, np.maximum(np.abs(sums).max(axis=0, initial=0.0) / limit, 1.0)


@nb.njit(cache=True, nogil=True)
def _code(value, step, limit):
    """numerics.quantise of one number."""
    return np.int64(max(-limit, min(limit, np.rint(value / step))))


@nb.njit(cache=True, nogil=True)
def _sums_of_squares(v, v_step, limit):
    """Sum of squares of each rank's codes, (K,)."""
    sums = np.zeros(v.shape[0], dtype=np.int64)
    for k in range(v.shape[0]):
        for j in range(v.shape[1]):
            if v[k, j] != 0:
                sums[k] += _code(np.float64(v[k, j]), v_step[k], limit) ** 2
    return sums


@nb.njit(cache=True, nogil=True)
def _largest_rows(u, u_scale):
    """Largest magnitude in each row of u x u_scale, (m,)."""
    largest = np.zeros(u.shape[0], dtype=np.float64)
    for i in range(u.shape[0]):
        for k in range(u.shape[1]):
            largest[i] = max(largest[i], abs(np.float64(u[i, k]) * u_scale[k]))
    return largest


@nb.njit(cache=True, nogil=True)
def _pack(kind, inputs, outputs, lane_ptr, lane, lo, hi, v, u, dense, v_step, u_scale, row_step, limit, codes, values):
    """Stored weights lane by lane as the tile table lists them: exact in ``values``, quantised in ``codes``, (W,).

    inputs, outputs (N,): first input and output channel of each tile's chunks.
    """
    at = 0
    for t in range(kind.shape[0]):
        x, y = inputs[t], outputs[t]
        for which in range(lane_ptr[t], lane_ptr[t + 1]):
            number = lane[which]
            for j in range(lo[which], hi[which]):
                if kind[t] == Op.REDUCE:
                    values[at] = v[number, x + j]
                    codes[at] = _code(np.float64(v[number, x + j]), v_step[number], limit)
                elif kind[t] == Op.EXPAND:
                    values[at] = u[y + j, number]
                    codes[at] = _code(np.float64(u[y + j, number]) * u_scale[number], row_step[y + j], limit)
                else:
                    values[at] = dense[y + j, x + number]
                    codes[at] = _code(np.float64(dense[y + j, x + number]), row_step[y + j], limit)
                at += 1
