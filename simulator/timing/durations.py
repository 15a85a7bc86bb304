"""What an engine needs to know of program and machine, resolved to integer columns (machine.md, sections 3 to 6).

Both engines read these columns, so a rule about a *duration* lives here once; rules about *order and waiting* live in
each engine separately, which is what their agreement tests.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simulator.base.arithmetic import ceil_div
from simulator.machine.machine import Machine
from simulator.program.isa import TILE_OPS, TRANSFER_OPS, VECTOR_OPS, Instructions, Op, Unit, is_any, unit_of_op
from simulator.program.program import Program

UNIT_COUNT = len(Unit)


@dataclass(frozen=True, eq=False)
class Timing:
    """Columns of length N (int64): unit, busy cycles, cycles from end of busy to done, lead of array and weights.

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
    preload_cycles: int


def resolve_timing(program: Program, machine: Machine) -> Timing:
    """Durations of every instruction of ``program`` on ``machine``."""
    return time_instructions(program.instructions, machine)


def time_instructions(ins: Instructions, machine: Machine) -> Timing:
    """Durations of instructions on ``machine``, without a program around them (rules D1, D2, D4, A1, A2, A4, A5, B2,
    V1, V2).
    """
    is_tile, is_transfer = is_any(ins.op, TILE_OPS), is_any(ins.op, TRANSFER_OPS)
    at = np.flatnonzero(ins.op == Op.DRAIN)
    steps = np.flatnonzero(ins.op == Op.VECTOR)
    busy = ins.tokens.astype(np.int64) * ins.row_cycles
    busy[is_transfer] = channel_cycles(machine, ins.dram_bytes[is_transfer])
    busy[at] = ceil_div(ins.tokens[at].astype(np.int64) * machine.cols, machine.vector.lanes)
    elements = ins.tokens[steps].astype(np.int64) * ins.chunk[steps] * machine.cols
    busy[steps] = ins.row_cycles[steps] * ceil_div(elements, machine.vector.lanes)
    tail, lead = _tail_and_lead(machine)
    return Timing(
        op=ins.op,
        layer=ins.layer,
        unit=unit_of_op(machine.dma.engines).astype(np.int8)[ins.op],
        busy=busy,
        tail=tail[ins.op],
        lead=lead[ins.op],
        is_tile=is_tile,
        is_transfer=is_transfer,
        after=ins.after,
        preload_cycles=machine.rows,
    )


def _tail_and_lead(machine: Machine) -> tuple[np.ndarray, np.ndarray]:
    """Cycles from the end of busy to done, and the lead of rule A4, by operation."""
    tail, lead = np.zeros((2, len(Op)), dtype=np.int32)
    network = machine.rank_memory.network_cycles
    tail[list(TRANSFER_OPS)] = machine.dram_latency_cycles
    tail[list(TILE_OPS)] = machine.rows + machine.cols - 1
    tail[Op.REDUCE] += network
    tail[list(VECTOR_OPS)] = machine.vector.latency_cycles
    lead[Op.EXPAND] = network + machine.rank_memory.requantise_cycles
    return tail, lead


def channel_cycles(machine: Machine, transfer_bytes: np.ndarray) -> np.ndarray:
    """Cycles for which a transfer holds the DRAM channel: whole bursts at the channel's bandwidth, rounded up (rule
    D2).
    """
    burst = machine.dram.burst_bytes
    moved = ceil_div(transfer_bytes, burst) * burst
    return ceil_div(moved * 1000, machine.dram_bytes_per_kilocycle)
