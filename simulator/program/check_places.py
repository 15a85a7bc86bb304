"""Whether every place that a program names exists on its machine: chunks, slots, addresses, rows, banks and lanes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from simulator.base.arithmetic import ceil_div
from simulator.base.errors import NOT_OURS, InputError
from simulator.machine.machine import Machine
from simulator.network.network import Network
from simulator.program.check_network import tile_chunks
from simulator.program.isa import TILE_OPS, Instructions, Op, is_any
from simulator.program.schedule import LayerSchedule


def check_places(
    instructions: Instructions, layers: Sequence[LayerSchedule], machine: Machine, network: Network | None = None
) -> None:
    """Raise InputError naming the first instruction, tile or rank whose place lies outside its memory or layer. The
    chunks of a network's instructions are looked at by ``check_network``.
    """
    for index, layer in enumerate(layers):
        reads, writes = ceil_div(layer.in_features, machine.rows), ceil_div(layer.out_features, machine.cols)
        if network is not None and len(layer.tiles):
            reads, writes = tile_chunks(network, network.operators[index], machine.rows)
        _check_layer(layer, machine, reads, writes)
    _check_memories(instructions, machine)
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


def _check_layer(layer: LayerSchedule, machine: Machine, reads: int, writes: int) -> None:
    where, tiles = f"layer '{layer.name}': ", layer.tiles
    every = np.ones(layer.ranks, dtype=bool)
    _check(where + "rank {}: bank", every, layer.rank_bank, machine.rank_memory.banks)
    _check(where + "rank {}: slot", every, layer.rank_slot, machine.rank_rows_per_bank // layer.block_tokens)
    _check(where + "tile {}: 'source'", tiles.kind != Op.EXPAND, tiles.source, reads)
    _check(where + "tile {}: 'target'", tiles.kind != Op.REDUCE, tiles.target, writes)
    most = np.where(tiles.kind == Op.REDUCE, machine.cols, machine.rows)
    _check(where + "tile {}: lanes", np.ones(len(tiles), dtype=bool), tiles.lane_count, most + 1)
    kind = np.repeat(tiles.kind, tiles.lane_count)
    _check(where + "lane {}", kind == Op.DENSE, tiles.lane, machine.rows)
    width = np.where(kind == Op.REDUCE, machine.rows, machine.cols)
    _check(where + "lane {}: 'hi'", np.ones(len(kind), dtype=bool), tiles.hi, width + 1)


def _check_memories(ins: Instructions, machine: Machine) -> None:
    def of(*ops: Op) -> np.ndarray:
        return is_any(ins.op, ops)

    scratchpad, rows = machine.scratchpad.size_bytes + 1, machine.accumulator_rows + 1
    inputs, outputs = ins.tokens * machine.rows, ins.tokens * machine.cols
    where = "program: instruction {}: field "
    _check(where + "'slot'", of(*TILE_OPS, Op.LOAD_WEIGHTS), ins.slot, machine.weight_slots)
    _check(where + "'dst'", of(Op.LOAD_INPUT), ins.dst, scratchpad - inputs)
    _check(where + "'src'", of(Op.DENSE, Op.REDUCE), ins.src, scratchpad - inputs)
    _check(where + "'dst'", of(Op.DRAIN), ins.dst, scratchpad - outputs)
    _check(where + "'src'", of(Op.STORE), ins.src, scratchpad - outputs)
    _check(where + "'dst'", of(Op.DENSE, Op.EXPAND), ins.dst, rows - ins.tokens)
    _check(where + "'src'", of(Op.DRAIN), ins.src, rows - ins.tokens)


def _check_chunks(ins: Instructions, layers: Sequence[LayerSchedule], machine: Machine) -> None:
    where = "program: instruction {}: field 'chunk'"
    inputs = np.array([ceil_div(layer.in_features, machine.rows) for layer in layers])
    outputs = np.array([ceil_div(layer.out_features, machine.cols) for layer in layers])
    _check(where, ins.op == Op.LOAD_INPUT, ins.chunk, inputs[ins.layer])
    _check(where, is_any(ins.op, (Op.DRAIN, Op.STORE)), ins.chunk, outputs[ins.layer])
