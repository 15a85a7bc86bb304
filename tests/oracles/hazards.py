"""When instructions touch memories, and whether every reader finds what program order says it should find.

Pessimistic windows: a transfer or a drain may write its destination at any time from its start until it is done, a tile
may read its weights while they are preloaded, its inputs and ranks from as long before its start as the lead says,
until its last row has left the array. Tiles touch accumulators and rank memory at the far end of the array, in order.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from simulator.machine.machine import Machine
from simulator.program.operations import After, Op, Unit
from simulator.program.program import Program
from simulator.timing.durations import Timing
from simulator.timing.engine import Events
from tests.drawn.network_regions import (
    drained_heads,
    head_bytes,
    image_bytes,
    image_operand,
    parameter_half,
    read_cells,
    vector_images,
    vector_regions,
)

Cell = tuple[object, ...]


@dataclass(frozen=True)
class Access:
    """One instruction's use of one memory cell in the cycles [begin, end)."""

    cell: Cell
    writes: bool
    begin: int
    end: int


def accesses(program: Program, machine: Machine, timing: Timing, events: Events, i: int) -> Iterator[Access]:
    """Every memory cell that instruction i touches. Scratchpad cells are bytes, DRAM cells rows of a layer's output or
    of a network's tensor.
    """
    ins = program.instructions
    op, index, tokens = int(ins.op[i]), int(ins.layer[i]), int(ins.tokens[i])
    layer, network = program.layers[index], program.network
    start, end, done = (int(column[i]) for column in (events.start, events.end, events.done))
    far = start + machine.rows + machine.cols - 1
    early = start - int(timing.lead[i])

    def use(cell: Cell, writes: bool, begin: int, stop: int) -> Access:
        return Access(cell, writes, begin, stop)

    def scratchpad(
        column: np.ndarray, width: int, writes: bool, begin: int, stop: int, rows: int = tokens
    ) -> Iterator[Access]:
        base = int(column[i])
        assert base >= 0
        assert base + rows * width <= machine.scratchpad.size_bytes
        for byte in range(base, base + rows * width):
            yield use(("scratchpad", byte), writes, begin, stop)

    def head_rows(begin: int, stop: int) -> Iterator[Access]:
        """The bytes that a tile streams; of rows of query heads (rule I2), those of its lanes."""
        image = image_operand(program, i)
        if image is not None:
            for byte in sorted(set(image_bytes(program, machine, i, *image))):
                assert 0 <= byte < machine.scratchpad.size_bytes
                yield use(("scratchpad", byte), False, begin, stop)
            return
        if ins.other[i] < 0:
            yield from scratchpad(ins.src, machine.rows, False, begin, stop)
            return
        for byte in head_bytes(program, machine, i):
            assert 0 <= byte < machine.scratchpad.size_bytes
            yield use(("scratchpad", byte), False, begin, stop)

    def accumulator(column: np.ndarray, writes: bool, begin: int, stop: int) -> Iterator[Access]:
        base = int(column[i])
        assert base >= 0
        assert base + tokens <= machine.accumulator_rows
        for row in range(base, base + tokens):
            yield use(("accumulator", row), writes, begin, stop)

    def ranks(tile: int, writes: bool, begin: int, stop: int) -> Iterator[Access]:
        lanes = range(int(layer.tiles.lane_ptr[tile]), int(layer.tiles.lane_ptr[tile + 1]))
        read = int(layer.tiles.gathered[tile]) if op == Op.MIX else 0 if writes else len(lanes)
        for lane in lanes[read:] if writes else lanes[:read]:
            rank = int(layer.tiles.lane[lane])
            bank, row = int(layer.rank_bank[rank]), int(layer.rank_slot[rank]) % layer.held_slots * layer.block_tokens
            assert 0 <= bank < machine.rank_memory.banks
            assert row + tokens <= machine.rank_rows_per_bank
            for token in range(tokens):
                yield use(("rank", bank, row + token), writes, begin, stop)

    half = index % 2 if network is None else parameter_half(program, i)
    if half is not None and op in (Op.LOAD_PARAMETERS, Op.DRAIN, Op.VECTOR):
        yield use(("parameters", half), op == Op.LOAD_PARAMETERS, start, done)
    if op == Op.LOAD_PARAMETERS:
        pass
    elif op == Op.LOAD_WEIGHTS:
        assert 0 <= ins.slot[i] < machine.weight_slots
        yield use(("weights", int(ins.slot[i])), True, start, done)
        if network is not None:
            yield from (use(cell, False, start, done) for cell in read_cells(program, i))
    elif op == Op.LOAD_INPUT:
        if network is not None:
            yield from (use(cell, False, start, done) for cell in read_cells(program, i))
        else:  # a layer reads what the layer before it stored, or those that it says
            for token in range(int(ins.token0[i]), int(ins.token0[i]) + tokens):
                for before in _layers_read(program, index, int(ins.chunk[i])):
                    yield use(("dram", before, token), False, start, done)
        image = image_operand(program, i)
        if image is None:
            yield from scratchpad(ins.dst, machine.rows, True, start, done)
        else:
            yield from (
                use(("scratchpad", byte), True, start, done) for byte in image_bytes(program, machine, i, *image)
            )
    elif op == Op.VECTOR:
        for operand, base in vector_images(program, i):
            read = set(image_bytes(program, machine, i, operand, base))
            yield from (use(("scratchpad", byte), False, start, done) for byte in sorted(read))
        for column, rows, chunks in vector_regions(program, machine, i):
            writes = column is ins.dst
            yield from scratchpad(column, chunks * machine.cols, writes, start, done, rows)
    elif op == Op.DRAIN:
        if ins.accumulate[i]:
            heads = 1 if ins.other[i] < 0 else drained_heads(program, machine, i)
            for head in range(heads):
                yield from accumulator(ins.src + head * int(ins.other[i]), False, start, done)
        yield from scratchpad(ins.dst, machine.cols, True, start, done)
    elif op == Op.STORE:
        yield from scratchpad(ins.src, machine.cols, False, start, done)
        name = index if network is None else network.operators[index].output
        for token in range(int(ins.token0[i]), int(ins.token0[i]) + tokens):
            yield use(("dram", name, token), True, start, done)
    else:
        tile = int(ins.tile[i])
        yield use(("weights", int(ins.slot[i])), False, int(events.preload[i]), start)
        if op in (Op.EXPAND, Op.MIX):
            yield use(("parameters", half), False, early, end)
            yield from ranks(tile, False, early, end)
        else:
            yield from head_rows(start, done)
        if op in (Op.REDUCE, Op.MIX):
            network = machine.rank_memory.network_cycles
            yield from ranks(tile, True, far + network, done)
        else:
            yield from accumulator(ins.dst, True, far, done)


def hazards(program: Program, machine: Machine, timing: Timing, events: Events) -> list[str]:
    """Pairs of instructions whose windows on a cell are not in program order (read after write, write after read or
    write).

    Two stores to the same token of DRAM write different chunks, so writes of the "dram" cells are not ordered among
    themselves; a reader waits for all of them.
    """
    writers: dict[Cell, list[tuple[int, int]]] = {}  # (instruction, end) since the cell was last replaced
    readers: dict[Cell, list[tuple[int, int]]] = {}
    found = []
    for i in range(len(program.instructions)):
        for use in list(accesses(program, machine, timing, events, i)):
            before = list(writers.get(use.cell, ()))
            if use.writes:
                before = (before if use.cell[0] != "dram" else []) + readers.get(use.cell, [])
            found += [
                f"{use.cell}: instruction {i} from {use.begin}, {j} until {end}"
                for j, end in before
                if j != i and end > use.begin and not (use.writes and _in_order(timing, i, j))
            ]
            if not use.writes:
                readers.setdefault(use.cell, []).append((i, use.end))
            elif use.cell[0] == "dram":
                writers.setdefault(use.cell, []).append((i, use.end))
            else:
                writers[use.cell] = [(i, use.end)]
                readers[use.cell] = []
    return found


def _in_order(timing: Timing, i: int, j: int) -> bool:
    """Whether both are the vector unit's: a pipeline reads and writes elements in the order in which it takes them."""
    return bool(timing.unit[i] == timing.unit[j] == Unit.VECTOR)


def without(timing: Timing, column: After) -> Timing:
    """The same program with one column of dependences taken out."""
    after = timing.after.copy()
    after[column] = -1
    after.setflags(write=False)
    return replace(timing, after=after)


def orders(timing: Timing, events: Events) -> dict[str, np.ndarray]:
    """Two extreme orders in which things can happen, as instruction indices sorted by time.

    "early": transfers and drains take effect when they start, tiles when they have ended. "late": transfers and drains
    take effect when they are done, tiles when they start.
    What is done in a cycle is done before what starts in it.
    """
    position = np.arange(len(timing.unit))
    early = np.where(timing.is_tile, events.end, events.start)
    late = np.where(timing.is_tile, events.start, events.done)
    return {
        "early": np.lexsort((position, ~timing.is_tile, early)),
        "late": np.lexsort((position, timing.is_tile, late)),
    }


def _layers_read(program: Program, index: int, chunk: int) -> list[int]:
    """Layers of which a plain layer's input chunk holds outputs."""
    layer, side = program.layers[index], program.machine.rows
    if not layer.sources:
        return [index - 1] if index else []
    at, found = 0, []
    for run in layer.sources:
        end = at + run.last - run.first
        if at < (chunk + 1) * side and end > chunk * side:
            found.append(program.layer_index(run.layer))
        at = end
    return found
