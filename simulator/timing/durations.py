"""What an engine needs to know of program and machine, resolved to integer columns (machine.md, sections 3 to 6).

Both engines read these columns, so a rule about a *duration* lives here once; rules about *order and waiting* live in
each engine separately, which is what their agreement tests.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from simulator.base.arithmetic import ceil_div
from simulator.machine.machine import Machine
from simulator.program.isa import Instructions
from simulator.program.operations import (
    TILE_OPS,
    TRANSFER_OPS,
    After,
    Duration,
    Place,
    Unit,
    by_op,
    complete,
    is_any,
    ops_where,
    unit_of_op,
)
from simulator.program.program import Program
from simulator.program.schedule import TileTable

UNIT_COUNT = len(Unit)


@dataclass(frozen=True, eq=False)
class Timing:
    """Columns of length N (int64): unit, busy cycles, cycles from end of busy to done, lead of array and weights,
    cycles of a tile's preload (0 of others).

    ``op`` and ``layer`` have no part in the timing: they name an instruction that can never start.
    """

    op: np.ndarray
    layer: np.ndarray
    unit: np.ndarray
    busy: np.ndarray
    tail: np.ndarray
    lead: np.ndarray
    is_tile: np.ndarray
    is_transfer: np.ndarray
    after: np.ndarray
    preload: np.ndarray


def resolve_timing(program: Program, machine: Machine) -> Timing:
    """Durations of every instruction of ``program`` on ``machine``."""
    return time_instructions(program.instructions, [layer.tiles for layer in program.layers], machine)


def time_instructions(ins: Instructions, tables: Sequence[TileTable], machine: Machine) -> Timing:
    """Durations of instructions on ``machine``, without a program around them (rules D1, D2, D4, A1, A2, A4, A5, A6,
    B2, V1, V2). tables: of the layers that they name.
    """
    busy = np.zeros(len(ins), dtype=np.int64)
    for duration, cycles in _BUSY.items():
        at = np.flatnonzero(is_any(ins.op, _OPS_OF[duration]))
        busy[at] = cycles(ins, machine, at)
    return Timing(
        op=ins.op,
        layer=ins.layer,
        unit=unit_of_op(machine.dma.engines).astype(np.int8)[ins.op],
        busy=busy,
        tail=tail_by_op(machine)[ins.op],
        lead=lead_by_op(machine)[ins.op],
        is_tile=is_any(ins.op, TILE_OPS),
        is_transfer=is_any(ins.op, TRANSFER_OPS),
        after=ins.after,
        preload=_preload_cycles(ins, tables, machine),
    )


def _preload_cycles(ins: Instructions, tables: Sequence[TileTable], machine: Machine) -> np.ndarray:
    """Rules A2 and A6: a row a cycle, or several of a narrow tile that has no wide tile before it."""
    cycles = np.zeros(len(ins), dtype=np.int64)
    tiles = np.flatnonzero(is_any(ins.op, TILE_OPS))
    cycles[tiles] = machine.rows
    if any(table.narrow.any() for table in tables):
        first = np.cumsum([0, *(len(table) for table in tables)])
        narrow = np.concatenate([table.narrow for table in tables])[first[ins.layer[tiles]] + ins.tile[tiles]] == 1
        behind_wide = np.concatenate([[False], ~narrow[:-1]])
        cycles[tiles[narrow & ~behind_wide]] = ceil_div(machine.rows, machine.datatypes.narrow_rows)
    return cycles


def _transfer_cycles(ins: Instructions, machine: Machine, at: np.ndarray) -> np.ndarray:
    """Rule D2."""
    return channel_cycles(machine, ins.dram_bytes[at])


def _row_cycles(ins: Instructions, machine: Machine, at: np.ndarray) -> np.ndarray:
    """Rules A1 and B2."""
    return ins.tokens[at].astype(np.int64) * ins.row_cycles[at]


def _drain_cycles(ins: Instructions, machine: Machine, at: np.ndarray) -> np.ndarray:
    """Rule V1."""
    return ceil_div(ins.tokens[at].astype(np.int64) * machine.cols, machine.vector.lanes)


def _pass_cycles(ins: Instructions, machine: Machine, at: np.ndarray) -> np.ndarray:
    """Rule V2."""
    elements = ins.tokens[at].astype(np.int64) * ins.chunk[at] * machine.cols
    return ins.row_cycles[at] * ceil_div(elements, machine.vector.lanes)


_BUSY: Mapping[Duration, Callable[[Instructions, Machine, np.ndarray], np.ndarray]] = complete(
    {
        Duration.TRANSFER: _transfer_cycles,
        Duration.ROWS: _row_cycles,
        Duration.DRAIN: _drain_cycles,
        Duration.PASSES: _pass_cycles,
    },
    Duration,
    "simulator.timing.durations._BUSY",
)
_OPS_OF = {kind: ops_where(lambda entry, kind=kind: entry.duration is kind) for kind in Duration}  # type: ignore[misc]


def tail_by_op(machine: Machine) -> np.ndarray:
    """Cycles from the end of busy to done, by operation: latencies (D4, V1) and the way out of the array (A5)."""
    network = machine.rank_memory.network_cycles
    out_of_array = machine.rows + machine.cols - 1
    tails = {
        After.WEIGHTS: machine.dram_latency_cycles,
        After.INPUT: machine.dram_latency_cycles,
        After.STORE: machine.dram_latency_cycles,
        After.ARRAY: out_of_array,
        After.VECTOR: machine.vector.latency_cycles,
    }
    through_network = ops_where(lambda entry: entry.writes is Place.RANKS)
    tail = by_op(lambda entry: tails[entry.queue]).astype(np.int32)
    tail[list(through_network)] += network
    return tail


def lead_by_op(machine: Machine) -> np.ndarray:
    """Cycles that ranks and their lane table must be there ahead of a tile that gathers them, by operation (A4)."""
    lead = machine.rank_memory.network_cycles + machine.rank_memory.requantise_cycles
    return by_op(lambda entry: lead if entry.reads is Place.RANKS else 0).astype(np.int32)


def channel_cycles(machine: Machine, transfer_bytes: np.ndarray) -> np.ndarray:
    """Cycles for which a transfer holds the DRAM channel: whole bursts at the channel's bandwidth, rounded up (rule
    D2).
    """
    burst = machine.dram.burst_bytes
    moved = ceil_div(transfer_bytes, burst) * burst
    return ceil_div(moved * 1000, machine.dram_bytes_per_kilocycle)
