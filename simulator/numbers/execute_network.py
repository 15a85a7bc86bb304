"""``execute_network``: a whole network's numbers, instruction by instruction, on a model of the machine's memories.

Float mode keeps exact numbers and shows that the program is right; int8 mode stores codes at the tensors' calibrated
steps, adds with saturation and requantises in every DRAIN (machine.md, V3 and section 9). Memory that nothing has
written holds NaN (in int8 the largest code), so that a program that reads too early or elsewhere shows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from simulator.base.arithmetic import ceil_div
from simulator.base.errors import NOT_OURS, InputError
from simulator.network.network import Network
from simulator.network.network_layout import heads_of_chunk, output_chunks
from simulator.network.tensor_values import tensor_to_port
from simulator.numbers.activation_codes import ActivationCodes
from simulator.numbers.memories import MemorySizes, OnChip
from simulator.numbers.network_dram import NetworkDram
from simulator.numbers.numerics import fixed_point, saturate
from simulator.numbers.streams import Streams
from simulator.numbers.tile_pass import Arithmetic, tile_rows
from simulator.numbers.vector_regions import VectorOperator, VectorPass
from simulator.numbers.walk import DrainNumbers, Instruction, columns_of, in_chunks, instructions_of, walk
from simulator.program.program import Program
from simulator.program.schedule import LayerSchedule


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
    layers, machine = _Operators(program, program.network, inputs, mode), program.machine
    memories = OnChip(MemorySizes.of(machine), machine.cols, 1, layers.unwritten)
    walk(machine, layers, memories, instructions_of(columns_of(program.instructions, order)))
    return layers.outputs()


class _Operators:
    """The operators of a network as a walk's ``Layers``, in one run; everything is worked out once for each."""

    def __init__(self, program: Program, network: Network, inputs: Mapping[str, ArrayLike], mode: str) -> None:
        self._program, self._network, self._machine = program, network, program.machine
        self._types = program.machine.datatypes
        self._integer = mode == "int8"
        self._codes = ActivationCodes(network, self._types.activation_bits if self._integer else None)
        self._dram = NetworkDram(network, program.machine.cols, self._codes, inputs)
        self._streams = Streams(network, program.layers, program.machine)
        self._vector = cache(lambda layer: VectorOperator(network, network.operators[layer], program.machine.cols))
        self.unwritten = self._codes.unwritten
        self.arithmetic, self.drain_numbers = cache(self._arithmetic_of), cache(self._drain_numbers_of)

    def outputs(self) -> dict[str, np.ndarray]:
        """What the host finds in DRAM, channels in their natural order (rule E1)."""
        results = {}
        for layer, operator in zip(self._program.layers, self._network.operators, strict=True):
            if layer.reorders:
                written = self._dram.arrays[operator.output]
                written[:, :, layer.output_order] = written.copy()
        for port in self._network.outputs:
            stored = np.array(self._dram.arrays[port.tensor])
            results[port.name] = tensor_to_port(port, self._codes.decode(port.tensor, stored))
        return results

    def schedule(self, layer: int) -> LayerSchedule:
        return self._program.layers[layer]

    def chunk(self, layer: int, operand: int, chunk: int, rows: np.ndarray) -> np.ndarray:
        return self._dram.reader(layer, operand)(chunk, rows)[None]

    def addresses(self, ins: Instruction) -> np.ndarray | None:
        return self._streams.addresses(ins)

    def places(self, layer: int, operand: int, chunk: int, rows: np.ndarray) -> np.ndarray | None:
        return self._dram.places(layer, operand, chunk, rows)

    def chunk_heads(self, layer: int) -> int:
        return heads_of_chunk(self._network, self._network.operators[layer], self._machine.cols)

    def tile(self, layer: int, tile: int, row: int) -> np.ndarray:
        schedule, operator = self._program.layers[layer], self._network.operators[layer]
        if operator.kind != "linear":
            return self._dram.activation_tile(schedule, operator, tile, row)
        stored = schedule.payload.codes if self._integer else schedule.payload.values
        return tile_rows(schedule, stored, tile, self._machine)

    def store(self, layer: int, chunk: int, rows: np.ndarray, block: np.ndarray) -> None:
        self._dram.store(self._network.operators[layer].output, chunk, rows, block[0])

    def run_vector(self, layer: int, scratchpad: np.ndarray, run: VectorPass) -> None:
        vector = self._vector(layer)
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

    def _drain_numbers_of(self, index: int) -> DrainNumbers:
        layer, operator = self._program.layers[index], self._network.operators[index]
        payload, side, loaded = layer.payload, self._machine.cols, operator.kind == "linear"
        expected = output_chunks(self._network, operator, side)
        if ceil_div(len(payload.bias), side) != expected:
            raise InputError(
                f"layer '{layer.name}'",
                f"{len(payload.bias)} outputs",
                f"its output '{operator.output}' is stored in {expected} chunks of {side}",
                NOT_OURS,
            )
        if not self._integer:
            return DrainNumbers(in_chunks(payload.bias, side), None, loaded)
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
        # A shift of at least 1 beyond the last channel too, where multipliers are 0.
        scale = in_chunks(multiplier, side), np.maximum(in_chunks(shift, side), 1)
        return DrainNumbers(in_chunks(bias, side), scale, loaded)


def _check_step(name: str, found: float, step: float, which: str) -> None:
    if found and not np.isclose(found, step, rtol=1e-9, atol=0.0):
        raise InputError(
            f"layer '{name}': {which} step",
            f"{found:g}",
            f"the network's tensor has step {step:g}",
            "Lower the calibrated network again, so that weights and activations are quantised together.",
        )
