"""What a program makes the hardware do, counted by event: accesses by memory, bits moved, arithmetic (machine.md,
section 8).
"""

from __future__ import annotations

import numpy as np

from simulator.isa import TILE_OPS, TRANSFER_OPS, Op
from simulator.machine import Machine
from simulator.program import Program

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


def count_events(program: Program, machine: Machine) -> dict[str, np.ndarray]:
    """Events by kind and layer: name -> (layers,) int64. Memories count words, DRAM counts bytes in whole bursts."""
    per_instruction = _events_per_instruction(program, machine)
    layer = program.instructions.layer
    counts = {}
    for name in EVENTS:
        total = np.zeros(len(program.layers), dtype=np.int64)
        np.add.at(total, layer, per_instruction[name])
        counts[name] = total
    return counts


def _tile_columns(program: Program) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For every instruction: lanes, stored weights and overwriting lanes of the tile that it loads or runs, else 0."""
    ins = program.instructions
    lanes, weights, firsts = (np.zeros(len(ins), dtype=np.int64) for _ in range(3))
    for index, layer in enumerate(program.layers):
        mine = (ins.layer == index) & np.isin(ins.op, (*TILE_OPS, Op.LOAD_WEIGHTS))
        tile = ins.tile[mine]
        lanes[mine] = layer.tiles.lane_count[tile]
        weights[mine] = np.diff(layer.tiles.weight_ptr)[tile]
        running = np.concatenate([[0], np.cumsum(layer.tiles.first)])
        firsts[mine] = np.diff(running[layer.tiles.lane_ptr])[tile]
    return lanes, weights, firsts


def _events_per_instruction(program: Program, machine: Machine) -> dict[str, np.ndarray]:
    ins = program.instructions
    types = machine.datatypes
    cells = machine.rows * machine.cols
    lanes, weights, firsts = _tile_columns(program)
    is_tile = np.isin(ins.op, TILE_OPS)
    is_reduce, is_expand, is_dense = (ins.op == op for op in (Op.REDUCE, Op.EXPAND, Op.DENSE))
    is_drain, is_store, is_input, is_weights = (
        ins.op == op for op in (Op.DRAIN, Op.STORE, Op.LOAD_INPUT, Op.LOAD_WEIGHTS)
    )
    tokens = np.where(is_tile | is_drain | is_store | is_input, ins.tokens, 0)
    sums_out = is_dense | is_expand

    def words(bits: np.ndarray | int, word_bits: int) -> np.ndarray:
        return -(-np.asarray(bits) // word_bits)

    input_words = tokens * words(machine.rows * types.activation_bits, machine.scratchpad.word_bits)
    output_words = tokens * words(machine.cols * types.activation_bits, machine.scratchpad.word_bits)
    sum_words = tokens * words(machine.cols * types.accumulator_bits, machine.accumulator.word_bits)
    rank_words = words(tokens * types.accumulator_bits, machine.rank_memory.word_bits)
    tile_words = words(weights * types.weight_bits, machine.weight_buffer.word_bits)
    adds = ins.accumulate == 1
    moved = np.where(
        np.isin(ins.op, TRANSFER_OPS), -(-ins.dram_bytes // machine.dram.burst_bytes) * machine.dram.burst_bytes, 0
    )
    shifted = tokens * is_tile * cells * (types.activation_bits + types.accumulator_bits)
    ranked = tokens * lanes * (is_reduce | is_expand)
    return {
        "mac_active": tokens * is_tile * weights,
        "mac_padding": tokens * is_tile * (cells - weights),
        "register_bits": shifted + is_tile * cells * types.weight_bits,
        "wire_bits": shifted + is_tile * cells * types.weight_bits,
        "scratchpad_read": np.where(is_dense | is_reduce, input_words, 0) + np.where(is_store, output_words, 0),
        "scratchpad_write": np.where(is_input, input_words, 0) + np.where(is_drain, output_words, 0),
        "accumulator_read": np.where((sums_out | is_drain) & adds, sum_words, 0),
        "accumulator_write": np.where(sums_out, sum_words, 0),
        "rank_memory_read": np.where(is_reduce, rank_words * (lanes - firsts), 0)
        + np.where(is_expand, rank_words * lanes, 0),
        "rank_memory_write": np.where(is_reduce, rank_words * lanes, 0),
        "network_bits": ranked * np.where(is_reduce, types.accumulator_bits, types.activation_bits) * machine.scatter,
        "weight_buffer_read": is_tile * tile_words,
        "weight_buffer_write": is_weights * tile_words,
        "requantise_ops": tokens * lanes * is_expand,
        "vector_ops": tokens * is_drain * machine.cols,
        "dram_read_bytes": np.where(is_store, 0, moved),
        "dram_write_bytes": np.where(is_store, moved, 0),
    }
