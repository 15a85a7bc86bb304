"""Durations for the reference, worked out a second time from the manual (machine.md, rules D1, D2, D4, A1, A2, A4, A5,
A6, V1, V2): one instruction after another, and each duration found as the first cycle in which what its rule asks for
has come to pass.

``simulator.timing.durations`` has the engine's, column by column; nothing of it is used here but the shape in which
both are handed on. So an error in either shows wherever engine and reference are compared, whole networks included.
"""

from __future__ import annotations

import math
import sys
from bisect import bisect_left
from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache

import numpy as np

from simulator.machine.machine import Machine
from simulator.program.operations import OPERATIONS, After, Duration, Op, Place, Unit
from simulator.program.program import Program
from simulator.timing.durations import Timing

# Whose queue transfers of weights, inputs and stores take, by the number of DMA engines (rule D1).
_TRANSFER_UNITS = {
    1: {After.WEIGHTS: Unit.WEIGHT_DMA, After.INPUT: Unit.WEIGHT_DMA, After.STORE: Unit.WEIGHT_DMA},
    2: {After.WEIGHTS: Unit.WEIGHT_DMA, After.INPUT: Unit.WEIGHT_DMA, After.STORE: Unit.OUTPUT_DMA},
    3: {After.WEIGHTS: Unit.WEIGHT_DMA, After.INPUT: Unit.INPUT_DMA, After.STORE: Unit.OUTPUT_DMA},
}


def reference_timing(program: Program, machine: Machine) -> Timing:
    """What ``resolve_timing`` says of ``program`` on ``machine``, by the means above: the same columns, for
    ``run_reference``.
    """
    ins = program.instructions
    unit, busy, tail, lead, is_tile, is_transfer = (np.zeros(len(ins), dtype=np.int64) for _ in range(6))
    preload, behind = np.zeros(len(ins), dtype=np.int64), False
    for i in range(len(ins)):
        entry = OPERATIONS[Op(int(ins.op[i]))]
        is_tile[i] = tile = entry.queue is After.ARRAY
        is_transfer[i] = Place.DRAM in (entry.reads, entry.writes)
        unit[i] = _unit(entry.queue, machine)
        busy[i] = _busy_cycles(program, machine, i, entry.duration)
        if is_transfer[i]:
            tail[i] = _latency_cycles(machine)
        elif tile:
            # Down past the other rows, across past the other columns, and a cycle to write (rule A5).
            tail[i] = (machine.rows - 1) + (machine.cols - 1) + 1
        else:
            tail[i] = machine.vector.latency_cycles
        if entry.writes is Place.RANKS:
            tail[i] += machine.rank_memory.network_cycles
        if entry.reads is Place.RANKS:
            lead[i] = machine.rank_memory.requantise_cycles + machine.rank_memory.network_cycles
        if tile:
            narrow = bool(program.layers[int(ins.layer[i])].tiles.narrow[int(ins.tile[i])])
            preload[i] = _preload_cycles(machine, narrow, behind)
            behind = not narrow
    return Timing(
        op=ins.op,
        layer=ins.layer,
        unit=unit.astype(np.int8),
        busy=busy,
        tail=tail.astype(np.int32),
        lead=lead.astype(np.int32),
        is_tile=is_tile.astype(bool),
        is_transfer=is_transfer.astype(bool),
        after=ins.after,
        preload=preload,
    )


def _unit(queue: After, machine: Machine) -> Unit:
    """Rule D1; tiles have the array, everything else the vector unit."""
    transfers = _TRANSFER_UNITS[machine.dma.engines]
    return transfers.get(queue, Unit.ARRAY if queue is After.ARRAY else Unit.VECTOR)


def _busy_cycles(program: Program, machine: Machine, i: int, duration: Duration) -> int:
    """Rules D2, A1 with B2, V1 and V2."""
    ins = program.instructions
    rows, lanes = int(ins.tokens[i]), machine.vector.lanes
    match duration:
        case Duration.TRANSFER:
            burst = machine.dram.burst_bytes
            bursts = _first(int(ins.dram_bytes[i]), burst)
            return _first(1000 * bursts * burst, machine.dram_bytes_per_kilocycle)
        case Duration.ROWS:
            return sum(int(ins.row_cycles[i]) for _ in range(rows))
        case Duration.DRAIN:
            return _first(rows * machine.cols, lanes)
        case Duration.PASSES:
            each = _first(rows * int(ins.chunk[i]) * machine.cols, lanes)
            return sum(each for _ in range(_passes(program, i)))


def _passes(program: Program, i: int) -> int:
    """The passes of a VECTOR: those of its operator's steps, one after another (rule V2)."""
    network = program.network
    if network is None:
        return int(program.instructions.row_cycles[i])
    return int(network.operators[int(program.instructions.layer[i])].passes)


@lru_cache(maxsize=65536)
def _first(work: int, of_each: int) -> int:
    """After how many cycles (or bursts), each of which does ``of_each`` at most, ``work`` is done."""
    done: Callable[[int], bool] = lambda cycles: cycles * of_each >= work  # noqa: E731
    return bisect_left(range(sys.maxsize), True, key=done)


def _latency_cycles(machine: Machine) -> int:
    """The first cycle that begins no sooner than the latency is over (rule D4); both numbers as they are written."""
    return math.ceil(Fraction(str(machine.dram.latency_ns)) * Fraction(str(machine.clock_ghz)))


def _preload_cycles(machine: Machine, narrow: bool, behind_wide: bool) -> int:
    """Rule A2, a row a cycle; of a narrow tile that is not behind a wide one as many rows as make a wide one (A6)."""
    cycles, rows = 0, machine.rows
    at_once = machine.datatypes.weight_bits // machine.datatypes.narrow_bits if narrow and not behind_wide else 1
    while rows > 0:
        cycles, rows = cycles + 1, rows - at_once
    return cycles
