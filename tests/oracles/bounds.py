"""Physical bounds that no simulation may beat, counted from program and machine alone (rules D1, D2, A1 to A5, V1,
V2, C3).
"""

from __future__ import annotations

import numpy as np

from simulator.machine.machine import Machine
from simulator.program.operations import After, Op
from simulator.program.program import Program
from simulator.timing.report import Report

_TILES = (Op.DENSE, Op.REDUCE, Op.EXPAND, Op.MIX)
_INTO_RANKS = (Op.REDUCE, Op.MIX)
_VECTOR = (Op.DRAIN, Op.VECTOR)
_TRANSFERS = (Op.LOAD_PARAMETERS, Op.LOAD_INPUT, Op.LOAD_WEIGHTS, Op.STORE)


def assert_bounds(report: Report, program: Program, machine: Machine) -> None:
    """Assert that no cycle, cell or byte was used twice, and that everything waited for what it depends on."""
    ins, total = program.instructions, report.latency_cycles
    is_tile, is_transfer = np.isin(ins.op, _TILES), np.isin(ins.op, _TRANSFERS)
    cells, rate = machine.rows * machine.cols, machine.dram_bytes_per_kilocycle
    # MACs / (P Q), with and without padding; token rows of all tiles, bank conflicts included.
    assert report.accesses["mac_active"] + report.accesses["mac_narrow"] <= report.macs <= total * cells
    assert int((ins.tokens * ins.row_cycles)[is_tile].sum()) <= total
    # bytes / bandwidth
    assert (
        report.dram_bytes == report.dram_read_bytes + report.dram_write_bytes >= int(ins.dram_bytes[is_transfer].sum())
    )
    assert report.dram_bytes * 1000 <= total * rate
    assert report.roofline_cycles <= total
    # sums that leave through the vector unit
    passes = np.select([ins.op == Op.DRAIN, ins.op == Op.VECTOR], [1, ins.chunk.astype(np.int64) * ins.row_cycles], 0)
    elements = int((ins.tokens * passes).sum()) * machine.cols
    assert elements == report.accesses["vector_ops"]
    assert elements <= total * machine.vector.lanes
    assert critical_path(program, machine) <= total
    # causality: nothing starts before what it waits for is done, no channel or unit serves two at once
    trace, preloads = report.trace, np.array(preload_cycles(program, machine), dtype=np.int64)
    for column in range(len(After)):
        waits = np.flatnonzero(ins.after[column] >= 0)
        producer = ins.after[column, waits]
        preload = preloads[waits] * (column == After.WEIGHTS)
        assert (trace.start[waits] >= trace.done[producer] + preload).all()
    assert (trace.end >= trace.start).all()
    assert (trace.done >= trace.end).all()
    is_vector = np.isin(ins.op, _VECTOR)
    for one_at_a_time in (is_transfer, is_tile, is_vector):
        mine = np.flatnonzero(one_at_a_time)
        mine = mine[np.argsort(trace.start[mine], kind="stable")]
        assert (trace.start[mine][1:] >= trace.end[mine][:-1]).all()
    # rule Q4
    into_ranks = np.isin(ins.op, _INTO_RANKS)
    for in_order in (is_transfer, into_ranks, is_tile & ~into_ranks, is_vector):
        mine = np.flatnonzero(in_order)
        mine = mine[np.argsort(trace.start[mine], kind="stable")]
        assert (np.diff(trace.done[mine]) >= 0).all()


def preload_cycles(program: Program, machine: Machine) -> list[int]:
    """Cycles of each tile's preload, 0 of other instructions: a row a cycle (rule A2), or as many narrow rows as make a
    wide one, unless the tile before is wide (rule A6).
    """
    ins, types = program.instructions, machine.datatypes
    found, after_wide = [], False
    for i, op in enumerate(ins.op.tolist()):
        cycles, rows = 0, machine.rows if op in _TILES else 0
        narrow = bool(rows and program.layers[int(ins.layer[i])].tiles.narrow[int(ins.tile[i])])
        at_once = types.weight_bits // types.narrow_bits if narrow and not after_wide else 1
        while rows > 0:
            cycles, rows, after_wide = cycles + 1, rows - at_once, not narrow
        found.append(cycles)
    return found


def critical_path(program: Program, machine: Machine) -> int:
    """Cycles of the longest chain of dependences, if every unit and the channel served everybody at once."""
    ins = program.instructions
    network = machine.rank_memory.network_cycles
    lead = network + machine.rank_memory.requantise_cycles
    leave = machine.rows + machine.cols - 1
    busy, tail = _durations(program, machine)
    after, preloads = [column.tolist() for column in ins.after], preload_cycles(program, machine)
    op = ins.op.tolist()
    done: list[int] = []
    for i, kind in enumerate(op):
        ready = preloads[i]
        ahead = lead if kind in (Op.EXPAND, Op.MIX) else 0
        for column, producers in enumerate(after):
            if producers[i] >= 0:
                extra = ahead if column in (After.ARRAY, After.WEIGHTS) else 0
                if column == After.WEIGHTS and kind in _TILES:
                    extra = max(extra, preloads[i])
                ready = max(ready, done[producers[i]] + extra)
        after_end = leave + (network if kind in _INTO_RANKS else 0) if kind in _TILES else tail[i]
        done.append(ready + busy[i] + after_end)
    return max(done, default=0)


def _durations(program: Program, machine: Machine) -> tuple[list[int], list[int]]:
    ins = program.instructions
    burst, rate = machine.dram.burst_bytes, machine.dram_bytes_per_kilocycle
    busy, tail = [], []
    columns = [column.tolist() for column in (ins.op, ins.tokens, ins.row_cycles, ins.dram_bytes, ins.chunk)]
    for op, tokens, row_cycles, size, chunks in zip(*columns, strict=True):
        if op in _TRANSFERS:
            busy.append(-(-(-(-size // burst) * burst * 1000) // rate))
            tail.append(machine.dram_latency_cycles)
        elif op in _TILES:
            busy.append(tokens * row_cycles)
            tail.append(0)
        else:
            passes, width = (row_cycles, chunks * machine.cols) if op == Op.VECTOR else (1, machine.cols)
            busy.append(passes * -(-tokens * width // machine.vector.lanes))
            tail.append(machine.vector.latency_cycles)
    return busy, tail
