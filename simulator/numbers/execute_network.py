"""``execute_network``: a whole network's numbers, instruction by instruction, on a model of the machine's memories.

Float mode keeps exact numbers and shows that the program is right; int8 mode stores codes at the tensors' calibrated
steps, adds with saturation and requantises in every DRAIN (machine.md, V3 and section 9). Memory that nothing has
written holds NaN (in int8 the largest code), so that a program that reads too early or elsewhere shows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from simulator.base.arithmetic import ceil_div
from simulator.base.errors import InputError
from simulator.network.network import Network
from simulator.network.network_layout import output_chunks
from simulator.network.tensor_values import tensor_to_port
from simulator.numbers.activation_codes import ActivationCodes
from simulator.numbers.network_dram import NetworkDram
from simulator.numbers.numerics import fixed_point, requantise, saturate
from simulator.numbers.tile_pass import Arithmetic, OnChip, TilePass, drained_sums, run_tile, tile_rows
from simulator.numbers.vector_regions import VectorOperator, VectorPass
from simulator.program.operations import Op
from simulator.program.program import Program

_COLUMNS = ("op", "layer", "tile", "chunk", "token0", "tokens", "src", "dst", "other", "slot", "accumulate")


class _Instruction(NamedTuple):
    op: int
    layer: int
    tile: int
    chunk: int
    token0: int
    tokens: int
    src: int
    dst: int
    other: int
    slot: int
    accumulate: int


def execute_network(
    program: Program,
    inputs: Mapping[str, ArrayLike],
    mode: Literal["float", "int8"] = "float",
    order: Sequence[int] | np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """Outputs by port name, in the model's shapes, from inputs by port name.

    order: instruction indices in the order in which they take effect, all in program order if None; the outputs of a
    program whose dependences are complete do not depend on it. Raises InputError for a program without a network, an
    unknown mode, inputs that are not the ports', and in int8 for a tensor without a step or a linear operator that was
    quantised for other steps.
    """
    if mode not in ("float", "int8"):
        raise InputError("mode", repr(mode), 'it is "float" or "int8"', "Use one of these.")
    if program.network is None:
        raise InputError(
            "program",
            "no network",
            "only the program of a whole network runs from its inputs to its outputs",
            "Lower a model instead of a checkpoint, or run single layers with `execute`.",
        )
    run = _Run(program, program.network, inputs, mode)
    columns = [getattr(program.instructions, name) for name in _COLUMNS]
    if order is not None:
        columns = [column[np.asarray(order)] for column in columns]
    run.walk(map(_Instruction._make, zip(*(column.tolist() for column in columns), strict=True)))
    return run.outputs()


class _DrainNumbers(NamedTuple):
    """What a DRAIN adds and multiplies, (chunks, C) each; multiplier and shift are None in float mode."""

    bias: np.ndarray
    multiplier: np.ndarray | None
    shift: np.ndarray | None


class _Slot(NamedTuple):
    """A weight slot: which tile of which layer, and its numbers (lanes, C)."""

    layer: int
    tile: int
    rows: np.ndarray


class _Run:
    """The memories and everything worked out once for each layer."""

    def __init__(self, program: Program, network: Network, inputs: Mapping[str, ArrayLike], mode: str) -> None:
        self._program, self._network, self._machine = program, network, program.machine
        self._types = program.machine.datatypes
        self._integer = mode == "int8"
        self._codes = ActivationCodes(network, self._types.activation_bits if self._integer else None)
        self._dram = NetworkDram(network, program.machine.cols, self._codes, inputs)
        self._memories = OnChip(program.machine, 1, self._codes.unwritten)
        self._slots: list[_Slot | None] = [None] * program.machine.weight_slots
        self._has_parameters: set[int] = set()
        # Looked up for every instruction, worked out once for every layer.
        self._arithmetic, self._drain_numbers = cache(self._arithmetic_of), cache(self._drain_numbers_of)
        self._vector = cache(lambda layer: VectorOperator(network, network.operators[layer], program.machine.cols))

    def walk(self, instructions: map[_Instruction]) -> None:
        steps = {
            Op.LOAD_PARAMETERS: self._load_parameters,
            Op.LOAD_INPUT: self._load_input,
            Op.LOAD_WEIGHTS: self._load_weights,
            Op.DENSE: self._run_tile,
            Op.REDUCE: self._run_tile,
            Op.EXPAND: self._run_tile,
            Op.DRAIN: self._drain,
            Op.STORE: self._store,
            Op.VECTOR: self._run_vector,
        }
        perform = [steps[op] for op in Op]
        for instruction in instructions:
            perform[instruction.op](instruction)

    def outputs(self) -> dict[str, np.ndarray]:
        results = {}
        for port in self._network.outputs:
            stored = np.array(self._dram.arrays[port.tensor])
            results[port.name] = tensor_to_port(port, self._codes.decode(port.tensor, stored))
        return results

    def _load_parameters(self, ins: _Instruction) -> None:
        self._has_parameters.add(ins.layer)

    def _load_input(self, ins: _Instruction) -> None:
        rows = np.arange(ins.token0, ins.token0 + ins.tokens)
        block = self._dram.reader(ins.layer, max(ins.tile, 0))(ins.chunk, rows)
        self._memories.scratchpad[0, ins.dst : ins.dst + block.size] = block.reshape(-1)

    def _load_weights(self, ins: _Instruction) -> None:
        layer, operator = self._program.layers[ins.layer], self._network.operators[ins.layer]
        if operator.kind == "linear":
            stored = layer.payload.codes if self._integer else layer.payload.values
            rows = tile_rows(layer, stored, ins.tile, self._machine)
        else:
            rows = self._dram.activation_tile(layer, operator, ins.tile, ins.token0)
        self._slots[ins.slot] = _Slot(ins.layer, ins.tile, rows)

    def _run_tile(self, ins: _Instruction) -> None:
        slot = self._slots[ins.slot]
        if slot is None:
            raise InputError(
                f"program: layer '{self._program.layers[ins.layer].name}'",
                f"weight slot {ins.slot} is empty",
                "a tile is loaded before it runs",
                "The program is damaged or not ours: lower the model again.",
            )
        operands = TilePass(ins.op, slot.tile, ins.tokens, ins.src, ins.dst, ins.accumulate)
        layer = self._program.layers[slot.layer]
        run_tile(layer, operands, slot.rows, self._memories, self._arithmetic(slot.layer))

    def _drain(self, ins: _Instruction) -> None:
        sums = drained_sums(self._memories, ins.src, ins.tokens, ins.accumulate)[0]
        if ins.layer not in self._has_parameters and self._network.operators[ins.layer].kind == "linear":
            results = np.full_like(sums, self._codes.unwritten)
        else:
            bias, multiplier, shift = self._drain_numbers(ins.layer)
            results = sums + bias[ins.chunk]
            if multiplier is not None and shift is not None:
                exact = saturate(results, self._types.accumulator_bits).astype(np.int64)
                scale = multiplier[ins.chunk], shift[ins.chunk]
                results = requantise(exact, *scale, self._types.activation_bits).astype(np.float64)
        self._memories.scratchpad[0, ins.dst : ins.dst + results.size] = results.reshape(-1)

    def _store(self, ins: _Instruction) -> None:
        side = self._machine.cols
        block = self._memories.scratchpad[0, ins.src : ins.src + ins.tokens * side].reshape(ins.tokens, side)
        rows = np.arange(ins.token0, ins.token0 + ins.tokens)
        self._dram.store(self._network.operators[ins.layer].output, ins.chunk, rows, block)

    def _run_vector(self, ins: _Instruction) -> None:
        vector, scratchpad = self._vector(ins.layer), self._memories.scratchpad[0]
        rows = np.arange(ins.token0, ins.token0 + ins.tokens)
        run = VectorPass(rows, ins.tile, ins.chunk, (ins.src, ins.other), ins.dst)
        values = [
            self._codes.decode(operand.tensor, vector.read(scratchpad, run, which))
            for which, operand in enumerate(vector.operator.operands)
        ]
        vector.write(scratchpad, run, self._codes.encode(vector.operator.output, vector.compute(values, run)))

    def _arithmetic_of(self, layer: int) -> Arithmetic:
        if not self._integer:
            return Arithmetic(self._machine, None, None)
        rank_scale = fixed_point(1.0 / self._program.layers[layer].payload.rank_divisor)
        return Arithmetic(self._machine, self._types.accumulator_bits, rank_scale)

    def _drain_numbers_of(self, index: int) -> _DrainNumbers:
        layer, operator = self._program.layers[index], self._network.operators[index]
        payload, side = layer.payload, self._machine.cols
        expected = output_chunks(self._network, operator, side)
        if ceil_div(len(payload.bias), side) != expected:
            raise InputError(
                f"layer '{layer.name}'",
                f"{len(payload.bias)} outputs",
                f"its output '{operator.output}' is stored in {expected} chunks of {side}",
                "The program is damaged or not ours: lower the model again.",
            )
        if not self._integer:
            return _DrainNumbers(_in_chunks(payload.bias, side), None, None)
        in_step, out_step = self._codes.step(operator.operands[0].tensor), self._codes.step(operator.output)
        if operator.kind == "linear":
            for found, step, name in (
                (payload.input_step, in_step, "input"),
                (payload.output_step, out_step, "output"),
            ):
                _check_step(layer.name, found, step, name)
            row_step = payload.row_step * in_step
        else:
            row_step = np.full(layer.out_features, in_step * self._codes.step(operator.operands[1].tensor))
        bias = saturate(np.rint(payload.bias / row_step), self._types.accumulator_bits)
        multiplier, shift = fixed_point(row_step / out_step)
        return _DrainNumbers(
            _in_chunks(bias, side),
            _in_chunks(multiplier, side),
            _in_chunks(shift, side) + (_in_chunks(np.ones_like(shift), side) == 0),
        )


def _in_chunks(values: np.ndarray, side: int) -> np.ndarray:
    """(chunks, C), zero beyond the last channel."""
    chunks = np.zeros((ceil_div(len(values), side) * side,), dtype=values.dtype)
    chunks[: len(values)] = values
    return chunks.reshape(-1, side)


def _check_step(name: str, found: float, step: float, which: str) -> None:
    if found and not np.isclose(found, step, rtol=1e-9, atol=0.0):
        raise InputError(
            f"layer '{name}': {which} step",
            f"{found:g}",
            f"the network's tensor has step {step:g}",
            "Lower the calibrated network again, so that weights and activations are quantised together.",
        )
