"""The numbers: exact weights in tile order, their int8 codes, and the scales of machine.md, section 9.

In units of the input step, a rank's activation code stands for ``rank_divisor`` x the step of the weights that its sum
is made with (rank_scales.py). The weights that it meets next carry that factor, so that the products of EXPAND and
DENSE tiles fall into one accumulator with one step per output.
"""

from __future__ import annotations

from dataclasses import replace

import numba as nb
import numpy as np

from gblr_hw.lowering.passes.rank_scales import code as _code
from gblr_hw.lowering.passes.rank_scales import rank_scales, step_of
from gblr_hw.lowering.quantise.tile_bits import narrow_codes
from gblr_hw.weights.factors import Factors
from simulator.base.columns import kernel_input
from simulator.machine.machine import Machine
from simulator.numbers.numerics import code_limit
from simulator.program.operations import Op
from simulator.program.schedule import LayerSchedule, Payload


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
    scales = rank_scales(factors, machine, calibration, steps[0] if steps else 0.0)
    v, u, dense = (kernel_input(numbers, np.float32) for numbers in (factors.v, factors.u, dense))
    u_scale = scales.value_step
    largest = np.maximum(_largest_rows(u, u_scale), np.abs(dense).max(axis=1, initial=0.0))
    # An output without weights counts in parts of its bias: fine enough at any input step, far from saturation.
    bias_step = step_of(np.abs(schedule.payload.bias), 2 ** (types.accumulator_bits // 2 - 1))
    row_step = np.where(largest > 0, step_of(largest, limit), bias_step)
    out_step = 0.0
    if steps is not None:
        out_step = steps[1]
    elif calibration is not None:
        outputs = calibration @ factors.stored_matrix().T + (0.0 if factors.bias is None else factors.bias)
        out_step = float(np.abs(outputs).max(initial=0.0)) / code_limit(types.activation_bits)
    tiles = schedule.tiles
    codes = np.empty(int(tiles.weight_ptr[-1]), np.int8)
    values = np.empty(len(codes), np.float32)
    v_step, u_scale, row_steps = (kernel_input(step, np.float64) for step in (scales.sum_step, u_scale, row_step))
    _pack(
        tiles.kind,
        tiles.source * machine.rows,
        tiles.target * machine.cols,
        tiles.lane_ptr,
        tiles.lane,
        tiles.lo,
        tiles.hi,
        tiles.gathered,
        kernel_input(factors.mix_source, np.int64),
        kernel_input(factors.mix_target, np.int64),
        kernel_input(factors.mix_value, np.float32),
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
        rank_divisor=scales.divisor,
        bias=schedule.payload.bias,
        input_step=scales.input_step,
        output_step=out_step,
    )
    grid = _grid_steps(factors)
    if tiles.narrow.any() or grid is not None:
        tiles, payload = narrow_codes(tiles, payload, scales.sum_step, scales.value_step, machine, grid)
    return replace(schedule, tiles=tiles, payload=payload)


def _grid_steps(factors: Factors) -> np.ndarray | None:
    """Steps of the grids that outputs and then ranks are stored on, (m + K,), 0 without one; None without any."""
    if factors.grid is None and factors.rank_grid is None:
        return None
    none = np.zeros(factors.out_features), np.zeros(factors.ranks)
    parts = (factors.grid, factors.rank_grid)
    return np.concatenate([zero if grid is None else grid.step for zero, grid in zip(none, parts, strict=True)])


@nb.njit(cache=True, nogil=True)
def _largest_rows(u, u_scale):
    """Largest magnitude in each row of u x u_scale, (m,)."""
    largest = np.zeros(u.shape[0], dtype=np.float64)
    for i in range(u.shape[0]):
        for k in range(u.shape[1]):
            largest[i] = max(largest[i], abs(np.float64(u[i, k]) * u_scale[k]))
    return largest


@nb.njit(cache=True, nogil=True)
def _pack(
    kind, inputs, outputs, lane_ptr, lane, lo, hi, gathered, mix_source, mix_target, mix_value, v, u, dense, v_step,
    u_scale, row_step, limit, codes, values,
):  # fmt: skip
    """Stored weights lane by lane as the tile table lists them: exact in ``values``, quantised in ``codes``, (W,).

    inputs, outputs (N,): first input and output channel of each tile's chunks. v_step (K,): what a rank's sum counts
    in; u_scale (K,): what its activation code stands for.
    """
    at = 0
    for t in range(kind.shape[0]):
        x, y = inputs[t], outputs[t]
        for which in range(lane_ptr[t], lane_ptr[t + 1]):
            number = lane[which]
            for j in range(lo[which], hi[which]):
                if kind[t] == Op.MIX:
                    into = lane[lane_ptr[t] + gathered[t] + j]
                    values[at] = _mixed(mix_source, mix_target, mix_value, number, into)
                    codes[at] = _code(np.float64(values[at]) * u_scale[number], v_step[into], limit)
                elif kind[t] == Op.REDUCE:
                    values[at] = v[number, x + j]
                    codes[at] = _code(np.float64(v[number, x + j]), v_step[number], limit)
                elif kind[t] == Op.EXPAND:
                    values[at] = u[y + j, number]
                    codes[at] = _code(np.float64(u[y + j, number]) * u_scale[number], row_step[y + j], limit)
                else:
                    values[at] = dense[y + j, x + number]
                    codes[at] = _code(np.float64(dense[y + j, x + number]), row_step[y + j], limit)
                at += 1


@nb.njit(cache=True, nogil=True)
def _mixed(source, target, value, number, into):
    """The value with which rank ``number`` is mixed into rank ``into``; edges are sorted by target, then source."""
    begin, end = np.searchsorted(target, into), np.searchsorted(target, into + 1)
    at = begin + np.searchsorted(source[begin:end], number)
    return value[at] if at < end and source[at] == number else np.float32(0)
