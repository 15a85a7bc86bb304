"""Whether every place that a program names exists on its machine: chunks, slots, addresses, rows, banks and lanes; and
whether narrow tiles have a machine that runs them, and codes of its bits.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from simulator.base.arithmetic import ceil_div
from simulator.base.errors import NOT_OURS, InputError, refuse_program
from simulator.machine.machine import Machine
from simulator.network.network import Network
from simulator.program.check_images import image_instructions
from simulator.program.check_network import tile_chunks
from simulator.program.isa import Instructions
from simulator.program.operations import (
    COLUMN_OPS,
    INPUT_CHUNK_OPS,
    MIX_OPS,
    OUTPUT_CHUNK_OPS,
    RANK_OPS,
    TILE_OPS,
    VECTOR_OPERATOR_OPS,
    Chunk,
    Place,
    is_any,
    ops_where,
    reads,
    writes,
)
from simulator.program.schedule import LayerSchedule

# Operations whose rows in the scratchpad are P channels wide; the others' are Q.
_INPUT_ROWS = ops_where(lambda entry: entry.is_tile or entry.chunk is Chunk.INPUT)


def check_places(
    instructions: Instructions, layers: Sequence[LayerSchedule], machine: Machine, network: Network | None = None
) -> None:
    """Raise InputError naming the first instruction, tile or rank whose place lies outside its memory or layer. The
    chunks of a network's instructions are looked at by ``check_network``.
    """
    for index, layer in enumerate(layers):
        inputs, outputs = ceil_div(layer.in_features, machine.rows), ceil_div(layer.out_features, machine.cols)
        if network is not None and len(layer.tiles):
            inputs, outputs = tile_chunks(network, network.operators[index], machine.rows)
        _check_layer(layer, machine, inputs, outputs)
        if layer.tiles.narrow.any():
            _check_bits(layer, machine)
    _check_memories(instructions, machine, network)
    if layers and network is None:
        _check_chunks(instructions, layers, machine)


def _check(where: str, mask: np.ndarray, values: np.ndarray, count: int | np.ndarray) -> None:
    """Refuse the first value under ``mask`` that is not in [0, count)."""
    bad = mask & ((values < 0) | (values >= count))
    if bad.any():
        at = int(np.argmax(bad))
        limit = int(np.broadcast_to(count, values.shape)[at])
        raise InputError(
            where.format(at),
            str(int(values[at])),
            f"it lies between 0 and {limit - 1}",
            NOT_OURS,
        )


def _check_layer(layer: LayerSchedule, machine: Machine, chunks_read: int, chunks_written: int) -> None:
    where, tiles = f"layer '{layer.name}': ", layer.tiles
    every = np.ones(layer.ranks, dtype=bool)
    _check(where + "rank {}: bank", every, layer.rank_bank, machine.rank_memory.banks)
    _check(where + "rank {}: slot", every, layer.rank_slot, layer.slots)
    _check(where + "rank {}: slot", every, layer.memory_slot, machine.rank_rows_per_bank // layer.block_tokens)
    # The hardware counts a tile's slots from one multiple of those held on, and takes off no more than that once.
    ranks = is_any(tiles.kind, RANK_OPS)
    _check(where + "tile {}: slot", ranks, layer.last_slot, layer.first_slot + 2 * layer.held_slots)
    _check(where + "tile {}: 'source'", reads(tiles.kind, Place.SCRATCHPAD), tiles.source, chunks_read)
    _check(where + "tile {}: 'target'", writes(tiles.kind, Place.ACCUMULATORS), tiles.target, chunks_written)
    # A lane that writes a rank is a column of the array, any other a row (schedule.TileTable).
    every = np.ones(len(tiles), dtype=bool)
    _check(where + "tile {}: lanes", every, tiles.lane_count - tiles.scattered, np.full(len(tiles), machine.rows + 1))
    _check(where + "tile {}: lanes", every, tiles.scattered, np.full(len(tiles), machine.cols + 1))
    kind = np.repeat(tiles.kind, tiles.lane_count)
    _check(where + "lane {}", ~is_any(kind, RANK_OPS), tiles.lane, machine.rows)
    width = np.where(is_any(kind, COLUMN_OPS), machine.rows, machine.cols)
    mixes = is_any(kind, MIX_OPS)
    width = np.where(mixes, np.repeat(tiles.scattered, tiles.lane_count), width)
    _check(where + "lane {}: 'hi'", np.ones(len(kind), dtype=bool), tiles.hi, width + 1)
    if mixes.any() and not machine.scatter:
        refuse_program(
            f"layer '{layer.name}' on machine '{machine.name}'",
            "a MIX tile",
            "ranks are mixed through a permutation network ('scatter'; machine.md, rule B3)",
        )


def _check_bits(layer: LayerSchedule, machine: Machine) -> None:
    """Rule A6."""
    tiles, bits = layer.tiles, machine.datatypes.narrow_bits
    if not bits:
        raise InputError(
            f"layer '{layer.name}': tile {int(np.argmax(tiles.narrow))}",
            f"a narrow tile on machine '{machine.name}'",
            "'datatypes.narrow_bits' is 0: the machine has none (machine.md, rule A6)",
            "Set datatypes.narrow_bits, or lower the checkpoint without narrow tiles.",
        )
    low, high = -(1 << bits - 1), (1 << bits - 1) - 1
    codes = layer.payload.codes[np.repeat(tiles.narrow == 1, tiles.weight_count)]
    outside = (codes < low) | (codes > high)
    if outside.any():
        refuse_program(
            f"layer '{layer.name}': payload: 'codes'",
            f"{codes[outside][0]} in a narrow tile",
            f"weights of {bits} bits lie between {low} and {high}",
        )


def scratchpad_bytes(op: np.ndarray, tokens: np.ndarray, machine: Machine) -> np.ndarray:
    """Bytes of the rows that instructions have in the scratchpad, if they have any there (but for VECTORs), (N,)."""
    return tokens * np.where(is_any(op, _INPUT_ROWS), machine.rows, machine.cols)


def _check_memories(ins: Instructions, machine: Machine, network: Network | None) -> None:
    """Slots, scratchpad addresses and accumulator rows, by the places that an operation reads and writes."""
    at_all = ~is_any(ins.op, VECTOR_OPERATOR_OPS)  # their regions are a network's: check_network looks at them
    scratchpad, rows = machine.scratchpad.size_bytes + 1, machine.accumulator_rows + 1
    size = scratchpad_bytes(ins.op, ins.tokens, machine)
    # Rows of query heads and of images have places of their own: check_heads and check_images look at them.
    close = at_all & ~(is_any(ins.op, TILE_OPS) & (ins.other >= 0))
    if network is not None and network.operators:
        close &= ~image_instructions(ins, network)
    where = "program: instruction {}: field "
    slots = is_any(ins.op, TILE_OPS) | writes(ins.op, Place.WEIGHT_BUFFER)
    _check(where + "'slot'", slots, ins.slot, machine.weight_slots)
    for name, column, uses in (("'src'", ins.src, reads), ("'dst'", ins.dst, writes)):
        _check(where + name, close & uses(ins.op, Place.SCRATCHPAD), column, scratchpad - size)
        _check(where + name, at_all & uses(ins.op, Place.ACCUMULATORS), column, rows - ins.tokens)


def _check_chunks(ins: Instructions, layers: Sequence[LayerSchedule], machine: Machine) -> None:
    where = "program: instruction {}: field 'chunk'"
    inputs = np.array([ceil_div(layer.in_features, machine.rows) for layer in layers])
    outputs = np.array([ceil_div(layer.out_features, machine.cols) for layer in layers])
    _check(where, is_any(ins.op, INPUT_CHUNK_OPS), ins.chunk, inputs[ins.layer])
    _check(where, is_any(ins.op, OUTPUT_CHUNK_OPS), ins.chunk, outputs[ins.layer])
