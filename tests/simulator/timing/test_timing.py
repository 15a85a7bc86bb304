"""Durations: bursts, bandwidth, rows, drains and tails of real programs, and the manual's worked time line."""

from __future__ import annotations

from math import ceil

import numpy as np
import pytest
import torch

from gblr_hw.lowering.pipeline import lower
from gblr_hw.weights.stored import DenseWeights
from simulator.machine.machine import Machine
from simulator.program.operations import Op, Unit
from simulator.timing.durations import channel_cycles, resolve_timing, time_instructions
from simulator.timing.engine import run_engine
from simulator.timing.simulate import simulate
from tests.drawn.random_programs import assembled_columns, built_program, generator
from tests.drawn.strategies import case
from tests.oracles.bounds import preload_cycles

MID = Machine.load("mid-32")


@pytest.mark.parametrize(
    ("size", "cycles"),
    [
        (1, 3),  # one burst of 64 bytes at 25.6 bytes a cycle: 2.5
        (64, 3),
        (65, 5),
        (1280, 50),
        (1032, 43),  # 17 bursts, 1088 bytes: 42.5
        (10**12, 39_062_500_000),
    ],
)
def test_a_transfer_holds_the_channel_for_whole_bursts(size, cycles):
    assert channel_cycles(MID, np.array([size])).tolist() == [cycles]


def test_bandwidth_is_taken_as_an_integer_of_bytes_per_thousand_cycles():
    machine = MID.with_(array={"clock_ghz": 3.0}, dram={"gb_per_s": 1.0, "burst_bytes": 1})
    assert machine.dram_bytes_per_kilocycle == 333
    assert channel_cycles(machine, np.array([1, 333, 1000])).tolist() == [ceil(1000 / 333), 1000, ceil(1_000_000 / 333)]


def test_durations_of_every_operation():
    seen, fast = set(), False
    cases = [case(seed)[::2] for seed in range(30)] + [built_program(generator(seed)) for seed in range(10)]
    for machine, program in cases:
        ins, timing = program.instructions, resolve_timing(program, machine)
        network, requantise = machine.rank_memory.network_cycles, machine.rank_memory.requantise_cycles
        for i in range(len(ins)):
            op, tokens = Op(int(ins.op[i])), int(ins.tokens[i])
            leave = machine.rows + machine.cols - 1
            expected = {
                Op.DENSE: (tokens, leave, 0),
                Op.REDUCE: (tokens * int(ins.row_cycles[i]), leave + network, 0),
                Op.EXPAND: (tokens * int(ins.row_cycles[i]), leave, network + requantise),
                Op.MIX: (tokens * int(ins.row_cycles[i]), leave + network, network + requantise),
                Op.DRAIN: (ceil(tokens * machine.cols / machine.vector.lanes), machine.vector.latency_cycles, 0),
            }.get(op)
            if expected is None:
                moved = ceil(int(ins.dram_bytes[i]) / machine.dram.burst_bytes) * machine.dram.burst_bytes
                expected = (ceil(1000 * moved / machine.dram_bytes_per_kilocycle), machine.dram_latency_cycles, 0)
            assert (timing.busy[i], timing.tail[i], timing.lead[i]) == expected
            assert timing.is_tile[i] == (op in (Op.DENSE, Op.REDUCE, Op.EXPAND, Op.MIX))
            assert timing.is_transfer[i] == (timing.unit[i] < Unit.ARRAY)
            seen.add(op)
        assert timing.preload.tolist() == preload_cycles(program, machine)
        fast |= (timing.preload[timing.is_tile] < machine.rows).any()
    assert seen == set(Op) - {Op.VECTOR}  # that one stands in networks, below
    assert fast


def test_a_bank_conflict_doubles_a_tile_and_nothing_else():
    for seed in range(200):
        machine, _, program = case(seed)
        conflicting = program.instructions.row_cycles == 2
        if conflicting.any():
            timing = resolve_timing(program, machine)
            assert (timing.busy[conflicting] == 2 * program.instructions.tokens[conflicting]).all()
            return
    pytest.fail("no program with a bank conflict in the corpus")


def test_the_manuals_worked_time_line():
    """docs/machine.md, section 11, as lowering makes it: one dense layer of 64 inputs, 32 outputs, 40 tokens on mid-32."""
    program = lower({"fc": DenseWeights(torch.ones(32, 64))}, MID, tokens=40)
    timing = resolve_timing(program, MID)
    events = run_engine(timing)
    order = np.lexsort((np.arange(len(events.start)), events.start))
    rows = [
        (
            Op(int(program.instructions.op[i])).name,
            *(int(c[i]) for c in (events.preload, events.start, events.end, events.done)),
        )
        for i in order
    ]
    assert rows == [
        ("LOAD_PARAMETERS", -1, 0, 10, 110),
        ("LOAD_INPUT", -1, 10, 60, 160),
        ("LOAD_WEIGHTS", -1, 60, 103, 203),
        ("LOAD_INPUT", -1, 103, 153, 253),
        ("LOAD_WEIGHTS", -1, 153, 196, 296),
        ("DENSE", 203, 235, 275, 338),
        ("DENSE", 296, 328, 368, 431),
        ("DRAIN", -1, 431, 451, 459),
        ("STORE", -1, 459, 509, 609),
    ]


@pytest.mark.parametrize(
    ("tokens", "bandwidth", "roof", "bound"),
    [
        (40, 25.6, 243, "memory"),  # 256 + 2 x 1280 + 2 x 1032 + 1280 bytes are 97 bursts, at 25.6 bytes a cycle
        (40, 2560.0, 80, "compute"),  # 64 x 32 weights x 40 tokens on 1024 cells
        (41, 2560.0, 82, "compute"),
    ],
)
def test_the_roof_of_the_worked_time_line(tokens, bandwidth, roof, bound):
    """Rule C3."""
    machine = MID.with_(dram={"gb_per_s": bandwidth})
    report = simulate(lower({"fc": DenseWeights(torch.ones(32, 64))}, machine, tokens=tokens), machine)
    assert (report.roofline_cycles, report.bound) == (roof, bound)


@pytest.mark.parametrize(
    ("tokens", "chunks", "passes", "lanes", "cycles"),
    [(40, 1, 3, 64, 60), (40, 2, 1, 64, 40), (1, 1, 5, 64, 5), (7, 3, 2, 63, 2 * 11), (7, 3, 2, 65536, 2), (2, 5, 1, 1, 320)],
)  # fmt: skip
def test_a_vector_operator_passes_over_every_chunk(tokens, chunks, passes, lanes, cycles):
    """Rule V2: every pass ends in a cycle of its own."""
    machine = MID.with_(vector={"lanes": lanes})
    row = {"op": Op.VECTOR, "token0": 0, "tokens": tokens, "chunk": chunks, "row_cycles": passes, "src": 0, "dst": 0}
    ins = assembled_columns([row])
    timing = time_instructions(ins, (), machine)
    assert timing.busy.tolist() == [cycles]
    assert (timing.tail[0], timing.lead[0], timing.unit[0]) == (machine.vector.latency_cycles, 0, Unit.VECTOR)


@pytest.mark.parametrize(("lanes", "cycles"), [(1, 40 * 32), (63, 21), (64, 20), (65, 20), (65536, 1)])
def test_a_drain_is_bound_by_the_vector_lanes(lanes, cycles):
    machine = MID.with_(vector={"lanes": lanes})
    program = lower({"fc": DenseWeights(torch.ones(32, 64))}, machine, tokens=40)
    drains = program.instructions.op == Op.DRAIN
    assert resolve_timing(program, machine).busy[drains].tolist() == [cycles]
