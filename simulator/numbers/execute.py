"""``execute``: the numbers that the hardware would compute in single layers, instruction by instruction, on a model of
its memories.

Float mode keeps every value in float64 with the exact weights and shows that the schedule is right; int8 mode computes
with codes, saturating integer sums and fixed-point requantisation (machine.md, section 9).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from simulator.base.arithmetic import ceil_div
from simulator.base.errors import InputError, refuse_program
from simulator.numbers.memories import OnChip, used_memory
from simulator.numbers.numerics import code_limit, fixed_point, quantise, requantise, saturate
from simulator.numbers.tile_pass import Arithmetic, lane_rows
from simulator.numbers.vector_regions import VectorPass
from simulator.numbers.walk import DrainNumbers, Instruction, columns_of, in_chunks, instructions_of, walk
from simulator.program.layer_numbers import LayerNumbers
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
        parts = _parts_named(program, name)
        rows, leading = _rows_of(name, values, _first_inputs(program, parts[0]))
        known: dict[int, LayerNumbers] = {}
        found = [
            _float_outputs(program, index, rows) if mode == "float" else _code_outputs(program, index, rows, known)
            for index in parts
        ]
        whole = np.concatenate(found, axis=1)
        outputs[name] = whole.reshape(*leading, whole.shape[1])
    return outputs


def _parts_named(program: Program, name: str) -> list[int]:
    """The layer of that name, or its parts ``name[first:last]``, whose outputs stand side by side."""
    parts = [
        at for at, layer in enumerate(program.layers) if re.fullmatch(re.escape(name) + r"\[\d+:\d+\]", layer.name)
    ]
    return parts if parts and all(name != layer.name for layer in program.layers) else [program.layer_index(name)]


def _first_inputs(program: Program, index: int) -> int:
    """Inputs of a layer, or of the layers whose outputs it reads."""
    layer = program.layers[index]
    while layer.sources:
        layer = program.layers[program.layer_index(layer.sources[0].layer)]
    return layer.in_features


def _natural(layer: LayerSchedule, stored: np.ndarray) -> np.ndarray:
    natural = np.empty_like(stored)
    natural[:, layer.output_order] = stored
    return natural


def _float_outputs(program: Program, index: int, rows: np.ndarray) -> np.ndarray:
    """(N, m) outputs, in their natural order, of (N, n) rows of its inputs or of those of the layers that it reads."""
    layer = program.layers[index]
    if layer.sources:
        read = {run.layer: program.layer_index(run.layer) for run in layer.sources}
        written = {name: _float_outputs(program, at, rows) for name, at in read.items()}
        rows = np.concatenate([written[run.layer][:, run.first : run.last] for run in layer.sources], axis=1)
    return _natural(layer, _execute_float(program, index, rows))


def _code_outputs(program: Program, index: int, rows: np.ndarray, known: dict[int, LayerNumbers]) -> np.ndarray:
    numbers = _numbers_behind(program, index, rows, known)
    return _natural(program.layers[index], numbers.output_codes * numbers.output_step)


def _numbers_behind(
    program: Program, index: int, rows: np.ndarray, known: dict[int, LayerNumbers], least_step: float = 0.0
) -> LayerNumbers:
    """``layer_numbers`` of a layer that may read others' codes, as they lie there; ``known`` ones are not worked out
    again. Codes that are read together have one step.
    """
    layer = program.layers[index]
    if not layer.sources:
        if index not in known or known[index].output_step < least_step:
            known[index] = layer_numbers(program, index, rows, least_step)
        return known[index]
    read = {run.layer: program.layer_index(run.layer) for run in layer.sources}
    step = max(_numbers_behind(program, at, rows, known).output_step for at in read.values())
    behind = {name: _numbers_behind(program, at, rows, known, step) for name, at in read.items()}
    codes = {name: _natural(program.layers[at], behind[name].output_codes) for name, at in read.items()}
    joined = np.concatenate([codes[run.layer][:, run.first : run.last] for run in layer.sources], axis=1)
    return _numbers_of_codes(program, index, joined, step)


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
    payload = program.layers[index].payload
    values, bias = payload.values.astype(np.float64), payload.bias.astype(np.float64)
    return layer_sums(program, index, rows, values, bias, Arithmetic(program.machine, None, None), np.nan)


def layer_numbers(program: Program, index: int, rows: np.ndarray, least_step: float = 0.0) -> LayerNumbers:
    """What layer ``index`` computes in codes from (N, n) float inputs, and with which parameters. least_step: of its
    outputs, where they have none from calibration.
    """
    bits, payload = program.machine.datatypes.activation_bits, program.layers[index].payload
    step = payload.input_step or input_step(rows, bits)
    return _numbers_of_codes(program, index, quantise(rows, step, bits), step, least_step)


def _numbers_of_codes(
    program: Program, index: int, codes: np.ndarray, step: float, least_step: float = 0.0
) -> LayerNumbers:
    layer, machine = program.layers[index], program.machine
    types = machine.datatypes
    payload, limit = layer.payload, code_limit(types.activation_bits)
    rank_scale = fixed_point(1.0 / payload.rank_divisor)
    bias = saturate(np.rint(payload.bias / (payload.row_step * step)), types.accumulator_bits).astype(np.int64)
    arithmetic = Arithmetic(machine, types.accumulator_bits, rank_scale)
    weights = payload.codes.astype(np.float64)
    sums = layer_sums(program, index, codes, weights, bias, arithmetic, limit).astype(np.int64)
    largest = float(np.abs(sums * payload.row_step).max(initial=0.0)) * step
    # Requantisation is elementwise, so that applying it after the walk gives what each DRAIN would have written; only
    # then is its ratio known without calibration.
    out_step = payload.output_step or max(largest / limit, least_step) or 1.0
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


class _PlainLayer:
    """One layer of a program as a walk's ``Layers``: inputs and outputs of some runs, (runs, tokens, padded channels).
    ``weights``: a row for each lane of the tile table.
    """

    def __init__(
        self,
        program: Program,
        index: int,
        inputs: np.ndarray,
        weights: np.ndarray,
        bias: np.ndarray,
        arithmetic: Arithmetic,
        unwritten: float,
    ) -> None:
        self.layer, self.machine, self.inputs, self.unwritten = (
            program.layers[index],
            program.machine,
            inputs,
            unwritten,
        )
        self._weights, self._arithmetic = weights, arithmetic
        self._drain_numbers = DrainNumbers(in_chunks(bias, self.machine.cols))
        self.outputs = np.full((len(inputs), program.tokens, self._drain_numbers.bias.size), unwritten)

    def schedule(self, layer: int) -> LayerSchedule:
        return self.layer

    def arithmetic(self, layer: int) -> Arithmetic:
        return self._arithmetic

    def drain_numbers(self, layer: int) -> DrainNumbers:
        return self._drain_numbers

    def chunk(self, layer: int, operand: int, chunk: int, rows: np.ndarray) -> np.ndarray:
        side = self.machine.rows
        return self.inputs[:, rows, chunk * side : (chunk + 1) * side]

    def addresses(self, ins: Instruction) -> np.ndarray | None:
        return None  # a plain layer has neither query heads nor images

    def places(self, layer: int, operand: int, chunk: int, rows: np.ndarray) -> np.ndarray | None:
        return None

    def chunk_heads(self, layer: int) -> int:
        return 1

    def tile(self, layer: int, tile: int, row: int) -> np.ndarray:
        lanes = self.layer.tiles.lane_ptr
        return self._weights[lanes[tile] : lanes[tile + 1]]

    def store(self, layer: int, chunk: int, rows: np.ndarray, block: np.ndarray) -> None:
        side = self.machine.cols
        self.outputs[:, rows, chunk * side : (chunk + 1) * side] = block

    def run_vector(self, layer: int, scratchpad: np.ndarray, run: VectorPass) -> None:
        refuse_program(
            f"program: layer '{self.layer.name}'",
            "a VECTOR without an operator",
            "only the program of a network has VECTOR instructions",
        )


def layer_sums(
    program: Program,
    index: int,
    rows: np.ndarray,
    weights: np.ndarray,
    bias: np.ndarray,
    arithmetic: Arithmetic,
    unwritten: float,
    order: Sequence[int] | np.ndarray | None = None,
) -> np.ndarray:
    """Run layer ``index`` on (N, n) rows, ``_BATCH`` programs' worth at a time; (N, m) sums with the bias.

    weights: as stored, in the order of the payload. unwritten: what memories hold that nothing has written. order: the
    layer's instructions in the order in which they take effect, in program order if None.
    """
    layer, tokens, machine = program.layers[index], program.tokens, program.machine
    runs = max(1, ceil_div(len(rows), tokens))
    flat = np.zeros((runs * tokens, ceil_div(layer.in_features, machine.rows) * machine.rows))
    flat[: len(rows), : layer.in_features] = rows
    padded = flat.reshape(runs, tokens, -1)
    mine = np.flatnonzero(program.instructions.layer == index) if order is None else order
    columns = columns_of(program.instructions, mine)
    sizes, moved = used_memory(columns, layer, machine)
    lanes = lane_rows(layer, weights, machine)
    parts = []
    for first in range(0, runs, _BATCH):
        batch = padded[first : first + _BATCH]
        plain = _PlainLayer(program, index, batch, lanes, bias, arithmetic, unwritten)
        walk(machine, plain, OnChip(sizes, machine.cols, len(batch), unwritten), instructions_of(columns | moved))
        parts.append(plain.outputs[:, :, : layer.out_features])
    return np.concatenate(parts).reshape(runs * tokens, -1)[: len(rows)]
