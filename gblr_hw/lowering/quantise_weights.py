"""Pass 9: the numbers. Exact weights in tile order, their int8 codes, and the scales of machine.md, section 9.

In units of the input step, a rank's activation code stands for ``rank_divisor * step of its reduce weights``. The
expand weights carry that factor, so that the products of EXPAND and DENSE tiles fall into one accumulator with one step
per output.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from gblr_hw.factors import Factors
from simulator.execute import input_step
from simulator.isa import Op
from simulator.machine import Machine
from simulator.numerics import code_limit, quantise
from simulator.schedule import LayerSchedule, Payload

_WHITE_RMS_CODE = 32.0  # root mean square code of uncalibrated inputs (rule N1)
_SIGMAS = 4.0  # range of a rank's sum, in standard deviations, when inputs are white


def quantise_weights(
    schedule: LayerSchedule, factors: Factors, machine: Machine, calibration: np.ndarray | None
) -> LayerSchedule:
    """Fill the payload. calibration: (N, n) example inputs of the layer, or None for the white-input rule N1."""
    types = machine.datatypes
    limit = code_limit(types.weight_bits)
    dense = factors.dense if factors.dense is not None else np.zeros((factors.out_features, 0), np.float32)
    v_step = _step(np.abs(factors.v).max(axis=1, initial=0.0), limit)
    v_codes = quantise(factors.v, v_step[:, None], types.weight_bits)
    in_step, divisor = _activation_ranges(v_codes, types.activation_bits, calibration)
    u_scaled = factors.u.astype(np.float64) * (v_step * divisor)
    largest = np.maximum(np.abs(u_scaled).max(axis=1, initial=0.0), np.abs(dense).max(axis=1, initial=0.0))
    # An output without weights counts in parts of its bias: fine enough at any input step, far from saturation.
    bias_step = _step(np.abs(schedule.payload.bias), 2 ** (types.accumulator_bits // 2 - 1))
    row_step = np.where(largest > 0, _step(largest, limit), bias_step)
    u_codes = quantise(u_scaled, row_step[:, None], types.weight_bits)
    d_codes = quantise(dense, row_step[:, None], types.weight_bits)
    out_step = 0.0
    if calibration is not None:
        outputs = calibration @ factors.matrix().T + (0.0 if factors.bias is None else factors.bias)
        out_step = float(np.abs(outputs).max(initial=0.0)) / code_limit(types.activation_bits)
    payload = Payload(
        codes=_in_tile_order(schedule, machine, v_codes, u_codes, d_codes).astype(np.int8),
        values=_in_tile_order(schedule, machine, factors.v, factors.u, dense).astype(np.float32),
        row_step=row_step,
        rank_divisor=divisor,
        bias=schedule.payload.bias,
        input_step=in_step,
        output_step=out_step,
    )
    return replace(schedule, payload=payload)


def _step(largest: np.ndarray, limit: int) -> np.ndarray:
    return np.where(largest > 0, largest / limit, 1.0).astype(np.float64)


def _activation_ranges(v_codes: np.ndarray, bits: int, calibration: np.ndarray | None) -> tuple[float, np.ndarray]:
    """Input step (0: from the data) and what each rank's integer sum is divided by to fill an activation code."""
    limit = code_limit(bits)
    if calibration is None:
        rms = min(_WHITE_RMS_CODE, limit)
        spread = np.sqrt((v_codes.astype(np.float64) ** 2).sum(axis=1)) * rms
        return 0.0, np.maximum(_SIGMAS * spread / limit, 1.0)
    step = input_step(calibration, bits)
    sums = quantise(calibration, step, bits).astype(np.float64) @ v_codes.T.astype(np.float64)
    return step, np.maximum(np.abs(sums).max(axis=0, initial=0.0) / limit, 1.0)


def _in_tile_order(
    schedule: LayerSchedule, machine: Machine, v: np.ndarray, u: np.ndarray, dense: np.ndarray
) -> np.ndarray:
    """Stored weights lane by lane as the tile table lists them, (W,)."""
    tiles = schedule.tiles
    lengths = tiles.hi - tiles.lo
    tile = np.repeat(np.arange(len(tiles)), tiles.lane_count)
    lane = np.repeat(np.arange(len(lengths)), lengths)
    column = np.arange(len(lane)) - np.repeat(tiles.lane_weight_ptr[:-1] - tiles.lo, lengths)
    kind, number, tile = np.repeat(tiles.kind, tiles.lane_count)[lane], tiles.lane[lane], tile[lane]
    packed = np.zeros(len(lane), dtype=np.float64)
    is_reduce, is_expand, is_dense = (kind == op for op in (Op.REDUCE, Op.EXPAND, Op.DENSE))
    inputs = tiles.source[tile] * machine.rows
    outputs = tiles.target[tile] * machine.cols + column
    packed[is_reduce] = v[number[is_reduce], (inputs + column)[is_reduce]]
    packed[is_expand] = u[outputs[is_expand], number[is_expand]]
    packed[is_dense] = dense[outputs[is_dense], (inputs + number)[is_dense]]
    return packed
