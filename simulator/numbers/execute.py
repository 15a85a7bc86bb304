"""``execute``: the numbers that the hardware would compute, instruction by instruction, on a model of its memories.

Float mode keeps every value in float64 with the exact weights and shows that the schedule is right; int8 mode computes
with codes, saturating integer sums and fixed-point requantisation (machine.md, section 9).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from simulator.base.arithmetic import ceil_div
from simulator.base.errors import InputError
from simulator.machine.machine import Machine
from simulator.numbers.numerics import code_limit, fixed_point, quantise, requantise, saturate
from simulator.numbers.tile_pass import Arithmetic, OnChip, TilePass, drained_sums, lane_rows, run_tile
from simulator.program.isa import Instructions
from simulator.program.layer_numbers import LayerNumbers
from simulator.program.operations import Op
from simulator.program.program import Program
from simulator.program.schedule import LayerSchedule

_BATCH = 16  # token sequences that one walk over the instructions carries along
_RMS_CODE = 32  # uncalibrated inputs are scaled so that their root mean square is at most this code (rule N1)


def execute(
    program: Program,
    inputs: Mapping[str, ArrayLike],
    mode: Literal["float", "int8"] = "float",
) -> dict[str, np.ndarray]:
    """Outputs of the layers named in ``inputs``.

    inputs: layer name -> (..., in_features), the leading axes flattened to token rows; the program runs once for each
    ``program.tokens`` rows, the last run padded with zeros. Returns layer name -> (..., out_features) float64.
    Raises InputError for an unknown layer or mode, a wrong shape, NaN or infinity, and a program of a whole network.
    """
    if program.network is not None:
        raise InputError(
            "program",
            f"a network of {len(program.layers)} operators",
            "`execute` runs single layers",
            "Run it from its inputs to its outputs with `execute_network`.",
        )
    if mode not in ("float", "int8"):
        raise InputError("mode", repr(mode), 'it is "float" or "int8"', "Use one of these.")
    outputs = {}
    for name, values in inputs.items():
        index = program.layer_index(name)
        layer = program.layers[index]
        rows, leading = _rows_of(name, values, layer.in_features)
        compute = _execute_float if mode == "float" else _execute_codes
        outputs[name] = compute(program, index, rows).reshape(*leading, layer.out_features)
    return outputs


def _rows_of(name: str, values: ArrayLike, features: int) -> tuple[np.ndarray, tuple[int, ...]]:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim < 1 or array.shape[-1] != features:
        raise InputError(
            f"inputs of layer '{name}'",
            f"shape {array.shape}",
            f"the last axis holds its {features} input features",
            "Check which layer they belong to.",
        )
    if not np.isfinite(array).all():
        raise InputError(
            f"inputs of layer '{name}'", "NaN or infinity", "inputs are finite", "Look where they come from."
        )
    return array.reshape(-1, features), array.shape[:-1]


def _execute_float(program: Program, index: int, rows: np.ndarray) -> np.ndarray:
    layer, machine = program.layers[index], program.machine
    weights = lane_rows(layer, layer.payload.values.astype(np.float64), machine)
    sums = _walk_rows(program, index, rows, _Arithmetic(machine, None, None, weights))
    return sums + layer.payload.bias.astype(np.float64)


def _execute_codes(program: Program, index: int, rows: np.ndarray) -> np.ndarray:
    numbers = layer_numbers(program, index, rows)
    return numbers.output_codes * numbers.output_step


def layer_numbers(program: Program, index: int, rows: np.ndarray) -> LayerNumbers:
    """What layer ``index`` computes in codes from (N, n) float inputs, and with which parameters."""
    layer, machine = program.layers[index], program.machine
    types = machine.datatypes
    payload = layer.payload
    step = payload.input_step or input_step(rows, types.activation_bits)
    codes = quantise(rows, step, types.activation_bits)
    weights = lane_rows(layer, payload.codes.astype(np.float64), machine)
    rank_scale = fixed_point(1.0 / payload.rank_divisor)
    sums = _walk_rows(program, index, codes, _Arithmetic(machine, types.accumulator_bits, rank_scale, weights))
    bias = saturate(np.rint(payload.bias / (payload.row_step * step)), types.accumulator_bits).astype(np.int64)
    sums = saturate(sums.astype(np.int64) + bias, types.accumulator_bits)
    largest = float(np.abs(sums * payload.row_step).max(initial=0.0)) * step
    # Requantisation is elementwise, so that applying it after the walk gives what each DRAIN would have written.
    out_step = payload.output_step or (largest / code_limit(types.activation_bits) or 1.0)
    scale = fixed_point(payload.row_step * step / out_step)
    outputs = requantise(sums, *scale, types.activation_bits)
    return LayerNumbers(codes, step, bias, scale, rank_scale, outputs, out_step)


def input_step(rows: np.ndarray, bits: int) -> float:
    """Activation step for uncalibrated inputs: nothing saturates, and the root mean square code is at most 32 (rule
    N1).
    """
    if rows.size == 0 or not rows.any():
        return 1.0
    root_mean_square = float(np.sqrt(np.mean(np.square(rows))))
    return max(float(np.abs(rows).max()) / code_limit(bits), root_mean_square / min(_RMS_CODE, code_limit(bits)))


@dataclass(frozen=True)
class _Arithmetic(Arithmetic):
    """With the weights as stored, a row for each lane of the tile table."""

    lane_rows: np.ndarray


class _Memories(OnChip):
    """With the slots of the weight buffer (which tile each holds), and the output rows in DRAM."""

    def __init__(self, machine: Machine, batch: int, tokens: int, layer: LayerSchedule) -> None:
        super().__init__(machine, batch)
        self.weight_slot = np.full(machine.weight_slots, -1)
        self.outputs = np.zeros((batch, tokens, ceil_div(layer.out_features, machine.cols) * machine.cols))


def _walk_rows(program: Program, index: int, rows: np.ndarray, arithmetic: _Arithmetic) -> np.ndarray:
    """Run the layer's instructions on (N, n) rows, ``_BATCH`` programs' worth at a time; (N, m) sums without bias."""
    layer, tokens, machine = program.layers[index], program.tokens, arithmetic.machine
    runs = max(1, ceil_div(len(rows), tokens))
    width = ceil_div(layer.in_features, machine.rows) * machine.rows
    flat = np.zeros((runs * tokens, width))
    flat[: len(rows), : layer.in_features] = rows
    padded = flat.reshape(runs, tokens, width)
    mine = np.flatnonzero(program.instructions.layer == index)
    parts = []
    for first in range(0, runs, _BATCH):
        batch = padded[first : first + _BATCH]
        memories = _Memories(machine, len(batch), tokens, layer)
        walk_layer(program, mine, batch, memories, arithmetic)
        parts.append(memories.outputs[:, :, : layer.out_features])
    return np.concatenate(parts).reshape(runs * tokens, -1)[: len(rows)]


def walk_layer(
    program: Program,
    order: Sequence[int] | np.ndarray,
    inputs: np.ndarray,
    memories: _Memories,
    arithmetic: _Arithmetic,
) -> None:
    """Carry out one layer's instructions in ``order`` on (batch, tokens, padded inputs); results land in
    ``memories.outputs``.
    """
    ins = program.instructions
    if not len(order):
        return
    layer = program.layers[int(ins.layer[order[0]])]
    for i in order:
        op = int(ins.op[i])
        if op == Op.LOAD_PARAMETERS:
            continue  # parameters are applied to all outputs at once after the walk
        if op == Op.LOAD_WEIGHTS:
            memories.weight_slot[ins.slot[i]] = ins.tile[i]
        elif op == Op.LOAD_INPUT:
            _load_input(ins, i, inputs, memories, arithmetic.machine.rows)
        elif op in (Op.DENSE, Op.REDUCE, Op.EXPAND):
            _run_tile(layer, ins, i, memories, arithmetic)
        elif op == Op.DRAIN:
            _drain(ins, i, memories, arithmetic.machine.cols)
        elif op == Op.STORE:
            _store(ins, i, memories, arithmetic.machine.cols)
        else:
            raise InputError(
                f"program: instruction {i}",
                f"operation {op}",
                f"operations are 0 to {len(Op) - 1}",
                "Lower the checkpoint again.",
            )


def _load_input(ins: Instructions, i: int, inputs: np.ndarray, memories: _Memories, rows: int) -> None:
    t0, tokens, chunk, dst = int(ins.token0[i]), int(ins.tokens[i]), int(ins.chunk[i]), int(ins.dst[i])
    block = inputs[:, t0 : t0 + tokens, chunk * rows : (chunk + 1) * rows]
    memories.scratchpad[:, dst : dst + tokens * rows] = block.reshape(len(block), -1)


def _run_tile(layer: LayerSchedule, ins: Instructions, i: int, memories: _Memories, arithmetic: _Arithmetic) -> None:
    tile = int(memories.weight_slot[ins.slot[i]])
    operands = (int(column[i]) for column in (ins.tokens, ins.src, ins.dst, ins.accumulate))
    lanes = slice(int(layer.tiles.lane_ptr[tile]), int(layer.tiles.lane_ptr[tile + 1]))
    run_tile(layer, TilePass(int(ins.op[i]), tile, *operands), arithmetic.lane_rows[lanes], memories, arithmetic)


def _drain(ins: Instructions, i: int, memories: _Memories, cols: int) -> None:
    dst, tokens = int(ins.dst[i]), int(ins.tokens[i])
    sums = drained_sums(memories, int(ins.src[i]), tokens, int(ins.accumulate[i]))
    memories.scratchpad[:, dst : dst + tokens * cols] = sums.reshape(len(sums), -1)


def _store(ins: Instructions, i: int, memories: _Memories, cols: int) -> None:
    src, t0, tokens, chunk = int(ins.src[i]), int(ins.token0[i]), int(ins.tokens[i]), int(ins.chunk[i])
    block = memories.scratchpad[:, src : src + tokens * cols]
    memories.outputs[:, t0 : t0 + tokens, chunk * cols : (chunk + 1) * cols] = block.reshape(len(block), tokens, cols)
