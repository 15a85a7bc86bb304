"""One walk over a program's instructions: what each does to the machine's memories, whether the program is of plain
layers or of a whole network.

What they compute with, and what lies in DRAM, a program's ``Layers`` know: ``execute`` has one plain layer and carries
many runs along, ``execute_network`` has all operators of a network. A new instruction is one entry of ``_PERFORM``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np

from simulator.base.arithmetic import ceil_div
from simulator.base.errors import refuse_program
from simulator.machine.machine import Machine
from simulator.numbers.memories import OnChip
from simulator.numbers.numerics import requantise
from simulator.numbers.tile_pass import Arithmetic, TilePass, run_tile
from simulator.numbers.vector_regions import VectorPass
from simulator.program.isa import Instructions
from simulator.program.operations import TILE_OPS, Op, complete
from simulator.program.schedule import LayerSchedule


class Instruction(NamedTuple):
    """The operands of an instruction that say what it computes."""

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


def columns_of(instructions: Instructions, order: Sequence[int] | np.ndarray | None) -> dict[str, np.ndarray]:
    """The operands of the instructions that ``order`` names, all of them if it is None, by name of the column."""
    columns = {name: getattr(instructions, name) for name in Instruction._fields}
    return columns if order is None else {name: column[np.asarray(order)] for name, column in columns.items()}


def instructions_of(columns: Mapping[str, np.ndarray]) -> Iterable[Instruction]:
    """Rows of those columns, to be taken once."""
    return map(Instruction._make, zip(*(columns[name].tolist() for name in Instruction._fields), strict=True))


@dataclass(frozen=True, eq=False)
class DrainNumbers:
    """What a DRAIN adds, (chunks, Q), and the multipliers and shifts, (chunks, Q) each, by which it requantises; None
    leaves sums as they are. loaded: whether a LOAD_PARAMETERS brings them (machine.md, M4).
    """

    bias: np.ndarray
    scale: tuple[np.ndarray, np.ndarray] | None = None
    loaded: bool = True


class Layers(Protocol):
    """What a walk asks of a program's layers, by their index. Blocks have an axis of runs in front: (runs, T, C)."""

    unwritten: float  # what a memory holds that nothing has written

    def schedule(self, layer: int) -> LayerSchedule: ...

    def arithmetic(self, layer: int) -> Arithmetic: ...

    def drain_numbers(self, layer: int) -> DrainNumbers: ...

    def chunk(self, layer: int, operand: int, chunk: int, rows: np.ndarray) -> np.ndarray:
        """(runs, T, P) stored numbers of a chunk of an operand; (runs, T, pixels, channels) of rows of an image."""
        ...

    def addresses(self, ins: Instruction) -> np.ndarray | None:
        """(T, P) scratchpad bytes that a tile's rows are read from, -1 for a lane that reads zero; None for rows that
        lie behind one another.
        """
        ...

    def chunk_heads(self, layer: int) -> int:
        """Query heads of an output chunk that have sums of their own."""
        ...

    def places(self, layer: int, operand: int, chunk: int, rows: np.ndarray) -> np.ndarray | None:
        """Bytes from a region's begin to where ``chunk``'s numbers go; None if they go behind one another."""
        ...

    def tile(self, layer: int, tile: int, row: int) -> np.ndarray:
        """(lanes, max(P, Q)) weights of a tile; ``row``: the first of the sequence whose activations it holds."""
        ...

    def store(self, layer: int, chunk: int, rows: np.ndarray, block: np.ndarray) -> None:
        """Keep (runs, T, Q) numbers as an output chunk's rows."""
        ...

    def run_vector(self, layer: int, scratchpad: np.ndarray, run: VectorPass) -> None:
        """Carry out an operator of the vector unit on the bytes of one run."""
        ...


class _Slot(NamedTuple):
    """A weight slot: which tile of which layer, and its numbers."""

    layer: int
    tile: int
    rows: np.ndarray


@dataclass
class _Walk:
    """The layers, the memories, and what the buffers for weights and parameters hold."""

    machine: Machine
    layers: Layers
    memories: OnChip
    slots: dict[int, _Slot] = field(default_factory=dict)
    has_parameters: set[int] = field(default_factory=set)


def walk(machine: Machine, layers: Layers, memories: OnChip, instructions: Iterable[Instruction]) -> None:
    """Carry the instructions out, one after another; results land where ``layers.store`` keeps them. Raises InputError
    for a tile that runs before its slot is loaded.
    """
    state, perform = _Walk(machine, layers, memories), [_PERFORM[op] for op in Op]
    for instruction in instructions:
        perform[instruction.op](state, instruction)


def _load_parameters(walk: _Walk, ins: Instruction) -> None:
    walk.has_parameters.add(ins.layer)


def _load_input(walk: _Walk, ins: Instruction) -> None:
    # A layer without a network has one operand, which is named by nothing.
    operand, rows = max(ins.tile, 0), _rows(ins)
    block = walk.layers.chunk(ins.layer, operand, ins.chunk, rows)
    places = walk.layers.places(ins.layer, operand, ins.chunk, rows)
    if places is None:
        walk.memories.write_rows(ins.dst, block)
    else:
        walk.memories.scratchpad[:, ins.dst + places] = block


def _load_weights(walk: _Walk, ins: Instruction) -> None:
    walk.slots[ins.slot] = _Slot(ins.layer, ins.tile, walk.layers.tile(ins.layer, ins.tile, ins.token0))


def _run_tile(walk: _Walk, ins: Instruction) -> None:
    slot = walk.slots.get(ins.slot)
    if slot is None:
        refuse_program(
            f"program: layer '{walk.layers.schedule(ins.layer).name}'",
            f"weight slot {ins.slot} is empty",
            "a tile is loaded before it runs",
        )
    layers = walk.layers
    addresses = layers.addresses(ins)
    operands = TilePass(ins.op, slot.tile, ins.tokens, ins.src, ins.dst, ins.accumulate, addresses)
    run_tile(layers.schedule(slot.layer), operands, slot.rows, walk.memories, layers.arithmetic(slot.layer))


def _drain(walk: _Walk, ins: Instruction) -> None:
    sums = walk.memories.accumulator[:, ins.src : ins.src + ins.tokens]
    if ins.other > 0:
        heads = walk.layers.chunk_heads(ins.layer)
        width = walk.machine.cols // heads
        begins = [ins.src + head * ins.other for head in range(heads)]
        sums = np.concatenate([walk.memories.accumulator[:, at : at + ins.tokens, :width] for at in begins], axis=2)
    numbers, arithmetic = walk.layers.drain_numbers(ins.layer), walk.layers.arithmetic(ins.layer)
    if numbers.loaded and ins.layer not in walk.has_parameters:
        results = np.full_like(sums, walk.layers.unwritten)
    else:
        results = arithmetic.add(sums if ins.accumulate else 0.0, np.broadcast_to(numbers.bias[ins.chunk], sums.shape))
        if numbers.scale is not None:
            multiplier, shift = numbers.scale[0][ins.chunk], numbers.scale[1][ins.chunk]
            results = requantise(results.astype(np.int64), multiplier, shift, walk.machine.datatypes.activation_bits)
    walk.memories.write_rows(ins.dst, results)


def _store(walk: _Walk, ins: Instruction) -> None:
    block = walk.memories.read_rows(ins.src, ins.tokens, walk.machine.cols)
    walk.layers.store(ins.layer, ins.chunk, _rows(ins), block)


def _run_vector(walk: _Walk, ins: Instruction) -> None:
    run = VectorPass(_rows(ins), ins.tile, ins.chunk, (ins.src, ins.other), ins.dst)
    for scratchpad in walk.memories.scratchpad:
        walk.layers.run_vector(ins.layer, scratchpad, run)


def _rows(ins: Instruction) -> np.ndarray:
    return np.arange(ins.token0, ins.token0 + ins.tokens)


_PERFORM: Mapping[Op, Callable[[_Walk, Instruction], None]] = complete(
    {
        Op.LOAD_PARAMETERS: _load_parameters,
        Op.LOAD_INPUT: _load_input,
        Op.LOAD_WEIGHTS: _load_weights,
        **dict.fromkeys(TILE_OPS, _run_tile),
        Op.DRAIN: _drain,
        Op.STORE: _store,
        Op.VECTOR: _run_vector,
    },
    Op,
    "simulator.numbers.walk._PERFORM",
)


def in_chunks(values: np.ndarray, side: int) -> np.ndarray:
    """Values by output channel as (chunks, Q), zero beyond the last channel."""
    chunks = np.zeros(ceil_div(len(values), side) * side, dtype=values.dtype)
    chunks[: len(values)] = values
    return chunks.reshape(-1, side)
