"""Conservation and physics of every simulation: nothing is lost, nothing is counted twice, no roof is broken."""

from __future__ import annotations

import json
from math import ceil

import numpy as np
import pytest
from hypothesis import given, settings

from simulator.base.arithmetic import ceil_div
from simulator.base.errors import InputError
from simulator.machine.machine import Machine
from simulator.program.operations import Op, Unit
from simulator.program.program import Program
from simulator.timing.durations import resolve_timing
from simulator.timing.engine import run_engine
from simulator.timing.report import CAUSES, Report
from simulator.timing.simulate import simulate
from tests.drawn.strategies import case, seeds

TRANSFERS = (Op.LOAD_PARAMETERS, Op.LOAD_INPUT, Op.LOAD_WEIGHTS, Op.STORE)


def check_cycles(report: Report) -> None:
    total = report.latency_cycles
    assert total == report.trace.done.max()
    assert report.latency_s == pytest.approx(total / (report.clock_ghz * 1e9), rel=1e-12)
    assert sum(layer.latency_cycles for layer in report.layers) == total
    for layer in report.layers:
        assert tuple(layer.cycles_by_cause) == CAUSES
        assert sum(layer.cycles_by_cause.values()) == layer.latency_cycles
        assert min(layer.cycles_by_cause.values()) >= 0
        assert 0 <= layer.utilisation <= 1
    for unit in report.units:
        assert unit.busy_cycles + sum(unit.stall_cycles.values()) + unit.idle_after_last_cycles == total
        assert min(unit.stall_cycles.values(), default=0) >= 0
        assert unit.idle_after_last_cycles >= 0
    channel = sum(unit.busy_cycles for unit in report.units[: Unit.ARRAY])
    assert channel <= total  # one channel for all DMA engines
    assert 0 < report.roofline_cycles <= total
    assert report.roofline_fraction == report.roofline_cycles / total
    assert 0 <= report.utilisation <= 1


def check_counts(report: Report, program: Program, machine: Machine) -> None:
    ins, burst = program.instructions, machine.dram.burst_bytes
    cells = machine.rows * machine.cols
    moved = {op: sum(ceil(int(b) / burst) * burst for b in ins.dram_bytes[ins.op == op]) for op in TRANSFERS}
    assert report.dram_write_bytes == moved[Op.STORE]
    assert report.dram_read_bytes == sum(moved.values()) - moved[Op.STORE]
    assert (
        report.dram_bytes
        == report.dram_read_bytes + report.dram_write_bytes
        == sum(layer.dram_bytes for layer in report.layers)
    )
    stored = sum(int((layer.tiles.hi - layer.tiles.lo).sum()) for layer in program.layers)
    assert sum(report.accesses[name] for name in ("mac_active", "mac_narrow", "mac_gated")) == stored * program.tokens
    assert (
        report.tiles == sum(len(layer.tiles) for layer in program.layers) == sum(layer.tiles for layer in report.layers)
    )
    assert report.macs == report.tiles * cells * program.tokens == sum(layer.macs for layer in report.layers)
    assert min(report.accesses.values()) >= 0
    for layer in report.layers:
        assert layer.tiles == sum(layer.tiles_by_kind.values())
        assert layer.tile_bound == layer.multiplications / cells
        assert layer.tile_bound <= layer.tiles
    # What is written on chip is what arrives; every drained row was summed up or is a bias alone.
    outputs = sum(ceil_div(layer.out_features, machine.cols) for layer in program.layers) * program.tokens
    assert report.accesses["vector_ops"] == outputs * machine.cols
    assert report.accesses["requantise_ops"] == program.tokens * sum(
        int(layer.tiles.lane_gathers.sum()) for layer in program.layers
    )


def check_energy(report: Report) -> None:
    assert min(report.energy_by_component.values()) >= 0
    assert report.energy_pj == pytest.approx(sum(report.energy_by_component.values()), rel=1e-12)
    assert sum(layer.energy_pj for layer in report.layers) == pytest.approx(report.energy_pj, rel=1e-9)
    low, high = report.energy_range_pj
    assert 0 < low <= report.energy_pj <= high
    assert report.energy_table == "any-size"
    assert len(report.energy_table_sha256) == 64


@settings(max_examples=80)
@given(seeds)
def test_conservation(seed):
    machine, _, program = case(seed, layers=1 + seed % 4)
    report = simulate(program, machine)
    check_cycles(report)
    check_counts(report, program, machine)
    check_energy(report)


@pytest.mark.parametrize(
    "dram", [{"gb_per_s": 0.1, "latency_ns": 1000.0}, {"gb_per_s": 1e5, "latency_ns": 0.0}], ids=["starved", "flooded"]
)
def test_conservation_at_the_extremes(dram):
    bounds = set()
    for seed in range(20):
        machine, _, program = case(500 + seed, layers=2, dram=dram)
        report = simulate(program, machine)
        check_cycles(report)
        bounds.add(report.bound)
    assert bounds == ({"memory"} if dram["latency_ns"] else {"memory", "compute"})


def test_compute_and_conflicts_are_the_arrays_busy_cycles():
    conflicts = 0
    for seed in range(40):
        machine, _, program = case(seed, layers=2)
        report = simulate(program, machine)
        array = report.units[Unit.ARRAY]
        causes = [layer.cycles_by_cause for layer in report.layers]
        assert array.busy_cycles == sum(c["compute"] + c["bank_conflict"] for c in causes)
        assert sum(c["compute"] for c in causes) == program.tokens * report.tiles
        conflicts += any(c["bank_conflict"] for c in causes)
    assert conflicts > 0


def test_clock_changes_seconds_not_order():
    machine, _, program = case(
        3, layers=2, dram={"latency_ns": 0.0, "gb_per_s": 4.0, "burst_bytes": 1}, array={"clock_ghz": 0.5}
    )
    slow = simulate(program, machine)
    fast = simulate(program, machine.with_(array={"clock_ghz": 1.0}, dram={"gb_per_s": 8.0}))
    assert fast.latency_cycles == slow.latency_cycles
    assert fast.latency_s == pytest.approx(slow.latency_s / 2)


def test_trace_repeats_the_engine():
    machine, _, program = case(11, layers=3)
    report, events = simulate(program, machine), run_engine(resolve_timing(program, machine))
    for name in ("start", "end", "done"):
        np.testing.assert_array_equal(getattr(report.trace, name), getattr(events, name))
    np.testing.assert_array_equal(report.trace.op, program.instructions.op)
    assert report.trace.op_names == tuple(op.name for op in Op)
    assert report.trace.unit_names == tuple(unit.name.lower() for unit in Unit)


def test_json_is_deterministic_and_plain():
    machine, _, program = case(4, layers=2)
    text = simulate(program, machine).to_json()
    assert text == simulate(program, machine).to_json()
    data = json.loads(text)
    assert data["latency_cycles"] == simulate(program, machine).latency_cycles
    assert [layer["name"] for layer in data["layers"]] == ["layer0", "layer1"]
    assert "trace" not in data
    assert data["energy_by_component"].keys() == simulate(program, machine).energy_by_component.keys()


def test_a_program_for_another_machine_is_refused():
    machine, _, program = case(4)
    for change in (
        {"array": {"scatter": not machine.scatter}},
        {"scratchpad": {"kib": 77}},
        {"rank_memory": {"banks": 77}},
    ):
        other = machine.with_(name="other", **change)
        with pytest.raises(
            InputError, match=r"program for machine 'random' \(\d+ x \d+, layout [0-9a-f]{16}\): found machine 'other'"
        ) as caught:
            simulate(program, other)
        assert "Lower the checkpoint again with `--machine other`" in str(caught.value)


def test_a_machine_with_the_same_layout_is_accepted():
    machine, _, program = case(4)
    assert simulate(program, machine.with_(name="faster", array={"clock_ghz": 3.0})).machine == "faster"
