"""What a program makes the hardware do, counted by event: accesses by memory, bits moved, arithmetic (machine.md,
section 8).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from simulator.base.kernels import ceil_div, kernel
from simulator.machine.events import EVENTS
from simulator.machine.machine import Machine
from simulator.network.network_layout import output_chunks, region_chunks, region_rows
from simulator.program.operations import Chunk, Duration, Op, Place, by_op
from simulator.program.program import Program
from simulator.program.schedule import TileTable

# Columns of the counts. They go by the sorted names, because compiled kernels are kept until this file changes: another
# order of the table must not move them, and another name has to be counted, so that it changes this file.
_COLUMN = {name: column for column, name in enumerate(sorted(EVENTS))}
_uncounted = dict(_COLUMN)
_MAC_ACTIVE = _uncounted.pop("mac_active")
_MAC_NARROW = _uncounted.pop("mac_narrow")
_MAC_GATED = _uncounted.pop("mac_gated")
_MAC_PADDING = _uncounted.pop("mac_padding")
_REGISTER_BITS = _uncounted.pop("register_bits")
_WIRE_BITS = _uncounted.pop("wire_bits")
_SCRATCHPAD_READ = _uncounted.pop("scratchpad_read")
_SCRATCHPAD_WRITE = _uncounted.pop("scratchpad_write")
_ACCUMULATOR_READ = _uncounted.pop("accumulator_read")
_ACCUMULATOR_WRITE = _uncounted.pop("accumulator_write")
_RANK_MEMORY_READ = _uncounted.pop("rank_memory_read")
_RANK_MEMORY_WRITE = _uncounted.pop("rank_memory_write")
_NETWORK_BITS = _uncounted.pop("network_bits")
_WEIGHT_BUFFER_READ = _uncounted.pop("weight_buffer_read")
_WEIGHT_BUFFER_WRITE = _uncounted.pop("weight_buffer_write")
_REQUANTISE_OPS = _uncounted.pop("requantise_ops")
_VECTOR_OPS = _uncounted.pop("vector_ops")
_DRAM_READ_BYTES = _uncounted.pop("dram_read_bytes")
_DRAM_WRITE_BYTES = _uncounted.pop("dram_write_bytes")
if _uncounted:
    raise TypeError(
        f"event '{min(_uncounted)}' of simulator/machine/events.py is counted nowhere: count it in accesses.py"
    )


class _Costs(NamedTuple):
    """What a machine moves: words of a token row, bits of a token row over all cells, sizes."""

    input_words: int
    output_words: int
    sum_words: int
    row_bits: int
    sum_bits: int
    rank_word_bits: int
    scatter_bits: int
    gather_bits: int
    cells: int
    cols: int
    burst_bytes: int


class _Kinds(NamedTuple):
    """What counting needs of the table of operations, (operations,) int64 each: the places of its rows, whether it is a
    pass through the array, whether rows of P or of Q channels pass the scratchpad, and what the vector unit does.
    """

    reads: np.ndarray
    writes: np.ndarray
    is_tile: np.ndarray
    wide_as_input: np.ndarray
    drains: np.ndarray
    passes: np.ndarray


_KINDS = _Kinds(
    reads=by_op(lambda entry: entry.reads),
    writes=by_op(lambda entry: entry.writes),
    is_tile=by_op(lambda entry: entry.is_tile),
    wide_as_input=by_op(lambda entry: entry.is_tile or entry.chunk is Chunk.INPUT),
    drains=by_op(lambda entry: entry.duration is Duration.DRAIN),
    passes=by_op(lambda entry: entry.duration is Duration.PASSES),
)
_DRAM, _WEIGHT_BUFFER, _SCRATCHPAD = int(Place.DRAM), int(Place.WEIGHT_BUFFER), int(Place.SCRATCHPAD)
_ACCUMULATORS, _RANKS = int(Place.ACCUMULATORS), int(Place.RANKS)


def count_events(program: Program, machine: Machine) -> dict[str, np.ndarray]:
    """Events by kind and layer: name -> (layers,) int64. Memories count words, DRAM counts bytes in whole bursts."""
    ins = program.instructions
    tiles = [layer.tiles for layer in program.layers]
    first_tile = np.concatenate([[0], np.cumsum([len(table) for table in tiles])]).astype(np.int64)
    counts = np.zeros((len(tiles), len(EVENTS)), dtype=np.int64)
    read, written = _vector_rows(program, machine.cols)
    weights = _joined([table.weight_count for table in tiles])
    bits = _joined([table.weight_bits(machine) for table in tiles])
    _count(
        ins.op,
        ins.layer,
        ins.tile,
        ins.chunk,
        ins.tokens,
        ins.accumulate,
        ins.dram_bytes,
        ins.row_cycles,
        first_tile,
        _joined([table.gathered for table in tiles]),
        _joined([table.scattered for table in tiles]),
        weights,
        _joined([_overwriting_lanes(table) for table in tiles]),
        bits,
        _gated(program, machine),
        _joined([table.narrow for table in tiles]),
        _words(weights * bits, machine.weight_buffer.word_bits),
        read,
        written,
        _KINDS,
        _costs(machine),
        counts,
    )
    return {name: counts[:, _COLUMN[name]].copy() for name in EVENTS}


def _vector_rows(program: Program, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of a chunk that each VECTOR reads and writes, (VECTORs,) int64 each: operands and result once, whatever the
    passes.
    """
    ins, network = program.instructions, program.network
    at = np.flatnonzero(ins.op == Op.VECTOR)
    read = np.zeros(len(at), dtype=np.int64)
    if network is None:
        return read, read
    layer, rows = ins.layer[at], ins.tokens[at].astype(np.int64)
    outputs = np.array([output_chunks(network, o, side) for o in network.operators], dtype=np.int64)[layer]
    part = np.where(ins.tile[at] < 0, outputs, ins.chunk[at])
    for number, given in enumerate((ins.src[at], ins.other[at])):
        operands = [(o, o.operands[number]) if number < len(o.operands) else None for o in network.operators]
        sizes = [0 if pair is None else region_chunks(network, pair[1], side) for pair in operands]
        chunks = np.array(sizes, dtype=np.int64)[layer]
        # Chunk for chunk what the result needs, but all of a value that is broadcast over its groups (rule I2).
        chunks = np.where(chunks == outputs, part, chunks)
        own = np.array([0 if pair is None else region_rows(network, *pair) for pair in operands], dtype=np.int64)[layer]
        read += np.where(given >= 0, chunks * np.where(own > 0, own, rows), 0)
    return read, part * rows


def _joined(columns: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.zeros(0, np.int64), *columns])


def _overwriting_lanes(tiles: TileTable) -> np.ndarray:
    """Lanes of each tile that overwrite their rank's sum, (N,)."""
    tile = np.searchsorted(tiles.lane_ptr, np.flatnonzero(tiles.first), side="right") - 1
    return np.bincount(tile, minlength=len(tiles))


def _gated(program: Program, machine: Machine) -> np.ndarray:
    """Weights of each tile whose code is zero and whose cells the machine holds still then; tiles that are filled with
    activations have no codes before they run, and none are counted.
    """
    found = []
    for layer in program.layers:
        zeros = np.zeros(len(layer.tiles), dtype=np.int64)
        if machine.datatypes.zero_gating and len(layer.payload.codes):
            so_far = np.concatenate([[0], np.cumsum(layer.payload.codes == 0)])
            zeros = np.diff(so_far[layer.tiles.weight_ptr]).astype(np.int64)
        found.append(zeros)
    return _joined(found)


def _words(bits: np.ndarray, word_bits: int) -> np.ndarray:
    return ceil_div(bits, word_bits)


def _costs(machine: Machine) -> _Costs:
    types, cells = machine.datatypes, machine.rows * machine.cols
    return _Costs(
        input_words=ceil_div(machine.rows * types.activation_bits, machine.scratchpad.word_bits),
        output_words=ceil_div(machine.cols * types.activation_bits, machine.scratchpad.word_bits),
        sum_words=ceil_div(machine.cols * types.accumulator_bits, machine.accumulator.word_bits),
        row_bits=cells * (types.activation_bits + types.accumulator_bits),
        sum_bits=types.accumulator_bits,
        rank_word_bits=machine.rank_memory.word_bits,
        scatter_bits=machine.leaving_sum_bits if machine.scatter else 0,
        gather_bits=types.activation_bits if machine.scatter else 0,
        cells=cells,
        cols=machine.cols,
        burst_bytes=machine.dram.burst_bytes,
    )


@kernel
def _count(
    op,
    layer,
    tile,
    chunk,
    tokens,
    accumulate,
    dram_bytes,
    row_cycles,
    first_tile,
    gathered,
    scattered,
    weights,
    overwriting,
    weight_bits,
    gated,
    narrow,
    tile_words,
    vector_read,
    vector_written,
    kinds,
    costs,
    counts,
):
    """Add every instruction's events to its layer's row of ``counts`` (layers, events): what follows from the places
    that it reads and writes, then what its unit does.
    """
    vector = 0
    for i in range(op.shape[0]):
        kind, rows, row = op[i], np.int64(tokens[i]), counts[layer[i]]
        reads, writes = kinds.reads[kind], kinds.writes[kind]
        if kinds.passes[kind]:
            row[_SCRATCHPAD_READ] += vector_read[vector] * costs.input_words
            row[_SCRATCHPAD_WRITE] += vector_written[vector] * costs.output_words
            row[_VECTOR_OPS] += rows * row_cycles[i] * chunk[i] * costs.cols
            vector += 1
            continue
        words = costs.input_words if kinds.wide_as_input[kind] else costs.output_words
        if reads == _SCRATCHPAD:
            row[_SCRATCHPAD_READ] += rows * words
        if writes == _SCRATCHPAD:
            row[_SCRATCHPAD_WRITE] += rows * words
        if writes == _ACCUMULATORS:
            row[_ACCUMULATOR_WRITE] += rows * costs.sum_words
        if reads == _ACCUMULATORS or writes == _ACCUMULATORS:
            row[_ACCUMULATOR_READ] += rows * costs.sum_words * accumulate[i]
        if reads == _DRAM or writes == _DRAM:
            moved = ceil_div(dram_bytes[i], costs.burst_bytes) * costs.burst_bytes
            row[_DRAM_READ_BYTES if reads == _DRAM else _DRAM_WRITE_BYTES] += moved
        if kinds.drains[kind]:
            row[_VECTOR_OPS] += rows * costs.cols
        if kinds.is_tile[kind] or writes == _WEIGHT_BUFFER:
            t = first_tile[layer[i]] + tile[i]
            row[_WEIGHT_BUFFER_WRITE if writes == _WEIGHT_BUFFER else _WEIGHT_BUFFER_READ] += tile_words[t]
            if kinds.is_tile[kind]:
                _count_pass(rows, weights[t], weight_bits[t], gated[t], narrow[t], costs, row)
            if writes == _RANKS:
                _count_scatter(rows, scattered[t], overwriting[t], costs, row)
            if reads == _RANKS:
                _count_gather(rows, gathered[t], costs, row)


@kernel
def _count_pass(rows, weights, weight_bits, gated, narrow, costs, row):
    """What every pass through the array does, whatever the tile's kind."""
    bits = rows * costs.row_bits + costs.cells * weight_bits
    row[_MAC_NARROW if narrow else _MAC_ACTIVE] += rows * (weights - gated)
    row[_MAC_GATED] += rows * gated
    row[_MAC_PADDING] += rows * (costs.cells - weights)
    row[_REGISTER_BITS] += bits
    row[_WIRE_BITS] += bits


@kernel
def _count_scatter(rows, lanes, overwriting, costs, row):
    """Sums on their way through the network into rank memory, where all but overwriting lanes add to what is there."""
    words = ceil_div(rows * costs.sum_bits, costs.rank_word_bits)
    row[_RANK_MEMORY_READ] += words * (lanes - overwriting)
    row[_RANK_MEMORY_WRITE] += words * lanes
    row[_NETWORK_BITS] += rows * lanes * costs.scatter_bits


@kernel
def _count_gather(rows, lanes, costs, row):
    """Sums read from rank memory, requantised at the banks, and their codes on the way through the network."""
    row[_RANK_MEMORY_READ] += ceil_div(rows * costs.sum_bits, costs.rank_word_bits) * lanes
    row[_NETWORK_BITS] += rows * lanes * costs.gather_bits
    row[_REQUANTISE_OPS] += rows * lanes
