"""What an engine needs to know of program and machine, resolved to integer columns (machine.md, sections 3 to 6).

Both engines read these columns, so a rule about a *duration* lives here once; rules about *order and waiting* live in
each engine separately, which is what their agreement tests.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simulator.isa import TILE_OPS, TRANSFER_OPS, Op, Unit, unit_of_op
from simulator.machine import Machine
from simulator.program import Program

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
    ins = program.instructions
    is_tile = np.isin(ins.op, TILE_OPS)
    is_transfer = np.isin(ins.op, TRANSFER_OPS)
    is_drain = ins.op == Op.DRAIN
    busy = np.zeros(len(ins), dtype=np.int64)
    busy[is_transfer] = channel_cycles(machine, ins.dram_bytes[is_transfer])
    busy[is_tile] = (ins.tokens * ins.row_cycles)[is_tile]
    busy[is_drain] = -(-ins.tokens[is_drain] * machine.cols // machine.vector.lanes)
    network = machine.rank_memory.network_cycles
    tail = np.zeros(len(ins), dtype=np.int64)
    tail[is_transfer] = machine.dram_latency_cycles
    tail[is_tile] = machine.rows + machine.cols - 1
    tail[ins.op == Op.REDUCE] += network
    tail[is_drain] = machine.vector.latency_cycles
    lead = np.where(ins.op == Op.EXPAND, network + machine.rank_memory.requantise_cycles, 0)
    return Timing(
        op=ins.op,
        layer=ins.layer,
        unit=unit_of_op(machine.dma.engines)[ins.op],
        busy=busy,
        tail=tail,
        lead=lead,
        is_tile=is_tile,
        is_transfer=is_transfer,
        after=ins.after,
        preload_cycles=machine.rows,
    )


def channel_cycles(machine: Machine, transfer_bytes: np.ndarray) -> np.ndarray:
    """Cycles for which a transfer holds the DRAM channel: whole bursts at the channel's bandwidth, rounded up (rule
    D2).
    """
    burst = machine.dram.burst_bytes
    moved = -(-transfer_bytes // burst) * burst
    return -(-moved * 1000 // machine.dram_bytes_per_kilocycle)
