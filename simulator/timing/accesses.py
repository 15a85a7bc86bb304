"""What a program makes the hardware do, counted by event: accesses by memory, bits moved, arithmetic (machine.md,
section 8).
"""

from __future__ import annotations

from typing import NamedTuple

import numba as nb
import numpy as np

from simulator.base.kernels import ceil_div
from simulator.machine.machine import Machine
from simulator.network.network_layout import output_chunks, region_chunks, region_rows
from simulator.program.isa import Op
from simulator.program.program import Program
from simulator.program.schedule import TileTable

EVENTS = (
    "mac_active",
    "mac_padding",
    "register_bits",
    "wire_bits",
    "scratchpad_read",
    "scratchpad_write",
    "accumulator_read",
    "accumulator_write",
    "rank_memory_read",
    "rank_memory_write",
    "network_bits",
    "weight_buffer_read",
    "weight_buffer_write",
    "requantise_ops",
    "vector_ops",
    "dram_read_bytes",
    "dram_write_bytes",
)
(
    _MAC_ACTIVE,
    _MAC_PADDING,
    _REGISTER_BITS,
    _WIRE_BITS,
    _SCRATCHPAD_READ,
    _SCRATCHPAD_WRITE,
    _ACCUMULATOR_READ,
    _ACCUMULATOR_WRITE,
    _RANK_MEMORY_READ,
    _RANK_MEMORY_WRITE,
    _NETWORK_BITS,
    _WEIGHT_BUFFER_READ,
    _WEIGHT_BUFFER_WRITE,
    _REQUANTISE_OPS,
    _VECTOR_OPS,
    _DRAM_READ_BYTES,
    _DRAM_WRITE_BYTES,
) = range(len(EVENTS))


class _Costs(NamedTuple):
    """What a machine moves: words of a token row, bits of a token row and of a preload over all cells, sizes."""

    input_words: int
    output_words: int
    sum_words: int
    row_bits: int
    preload_bits: int
    sum_bits: int
    rank_word_bits: int
    scatter_bits: int
    gather_bits: int
    cells: int
    cols: int
    burst_bytes: int


def count_events(program: Program, machine: Machine) -> dict[str, np.ndarray]:
    """Events by kind and layer: name -> (layers,) int64. Memories count words, DRAM counts bytes in whole bursts."""
    ins = program.instructions
    tiles = [layer.tiles for layer in program.layers]
    first_tile = np.concatenate([[0], np.cumsum([len(table) for table in tiles])]).astype(np.int64)
    counts = np.zeros((len(tiles), len(EVENTS)), dtype=np.int64)
    read, written = _vector_rows(program, machine.cols)
    weights = _joined([table.weight_count for table in tiles])
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
        _joined([table.lane_count for table in tiles]),
        weights,
        _joined([_overwriting_lanes(table) for table in tiles]),
        _words(weights * machine.datatypes.weight_bits, machine.weight_buffer.word_bits),
        read,
        written,
        _costs(machine),
        counts,
    )
    return {name: counts[:, index].copy() for index, name in enumerate(EVENTS)}


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


def _words(bits: np.ndarray, word_bits: int) -> np.ndarray:
    return ceil_div(bits, word_bits)


def _costs(machine: Machine) -> _Costs:
    types, cells = machine.datatypes, machine.rows * machine.cols
    return _Costs(
        input_words=ceil_div(machine.rows * types.activation_bits, machine.scratchpad.word_bits),
        output_words=ceil_div(machine.cols * types.activation_bits, machine.scratchpad.word_bits),
        sum_words=ceil_div(machine.cols * types.accumulator_bits, machine.accumulator.word_bits),
        row_bits=cells * (types.activation_bits + types.accumulator_bits),
        preload_bits=cells * types.weight_bits,
        sum_bits=types.accumulator_bits,
        rank_word_bits=machine.rank_memory.word_bits,
        scatter_bits=machine.partial_sum_bits if machine.scatter else 0,
        gather_bits=types.activation_bits if machine.scatter else 0,
        cells=cells,
        cols=machine.cols,
        burst_bytes=machine.dram.burst_bytes,
    )


@nb.njit(cache=True, nogil=True)
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
    lanes,
    weights,
    overwriting,
    tile_words,
    vector_read,
    vector_written,
    costs,
    counts,
):
    """Add every instruction's events to its layer's row of ``counts`` (layers, events)."""
    vector = 0
    for i in range(op.shape[0]):
        kind, rows, row = op[i], tokens[i], counts[layer[i]]
        if kind == Op.DENSE or kind == Op.REDUCE or kind == Op.EXPAND:
            t = first_tile[layer[i]] + tile[i]
            _count_pass(kind, rows, weights[t], costs, row)
            row[_WEIGHT_BUFFER_READ] += tile_words[t]
            if kind == Op.DENSE or kind == Op.EXPAND:
                row[_ACCUMULATOR_WRITE] += rows * costs.sum_words
                row[_ACCUMULATOR_READ] += rows * costs.sum_words * accumulate[i]
            if kind != Op.DENSE:
                _count_ranks(kind, rows, lanes[t], overwriting[t], costs, row)
        elif kind == Op.DRAIN:
            row[_SCRATCHPAD_WRITE] += rows * costs.output_words
            row[_ACCUMULATOR_READ] += rows * costs.sum_words * accumulate[i]
            row[_VECTOR_OPS] += rows * costs.cols
        elif kind == Op.VECTOR:
            row[_SCRATCHPAD_READ] += vector_read[vector] * costs.input_words
            row[_SCRATCHPAD_WRITE] += vector_written[vector] * costs.output_words
            row[_VECTOR_OPS] += np.int64(rows) * row_cycles[i] * chunk[i] * costs.cols
            vector += 1
        else:
            moved = ceil_div(dram_bytes[i], costs.burst_bytes) * costs.burst_bytes
            row[_DRAM_WRITE_BYTES if kind == Op.STORE else _DRAM_READ_BYTES] += moved
            if kind == Op.STORE:
                row[_SCRATCHPAD_READ] += rows * costs.output_words
            elif kind == Op.LOAD_INPUT:
                row[_SCRATCHPAD_WRITE] += rows * costs.input_words
            elif kind == Op.LOAD_WEIGHTS:
                row[_WEIGHT_BUFFER_WRITE] += tile_words[first_tile[layer[i]] + tile[i]]


@nb.njit(cache=True, nogil=True)
def _count_pass(kind, rows, weights, costs, row):
    """What every pass through the array does, whatever the tile's kind."""
    row[_MAC_ACTIVE] += rows * weights
    row[_MAC_PADDING] += rows * (costs.cells - weights)
    row[_REGISTER_BITS] += rows * costs.row_bits + costs.preload_bits
    row[_WIRE_BITS] += rows * costs.row_bits + costs.preload_bits
    if kind != Op.EXPAND:
        row[_SCRATCHPAD_READ] += rows * costs.input_words


@nb.njit(cache=True, nogil=True)
def _count_ranks(kind, rows, lanes, overwriting, costs, row):
    """Rank memory, network and requantisers."""
    words = ceil_div(rows * costs.sum_bits, costs.rank_word_bits)
    if kind == Op.REDUCE:
        row[_RANK_MEMORY_READ] += words * (lanes - overwriting)
        row[_RANK_MEMORY_WRITE] += words * lanes
        row[_NETWORK_BITS] += rows * lanes * costs.scatter_bits
    else:
        row[_RANK_MEMORY_READ] += words * lanes
        row[_NETWORK_BITS] += rows * lanes * costs.gather_bits
        row[_REQUANTISE_OPS] += rows * lanes
