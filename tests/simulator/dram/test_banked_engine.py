"""The engine with a memory of banks: against the reference that counts cycles, with the memory that counts clocks; the
places of transfers; what files and reports say (machine.md, rules D5, D7, D8, D12).
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from gblr_hw.cli.app import app
from gblr_hw.lowering.pipeline import lower
from gblr_hw.weights.stored import DenseWeights
from simulator.base.errors import InputError
from simulator.dram.standards import STANDARDS
from simulator.machine.dram_choice import with_dram_model
from simulator.machine.machine import Machine
from simulator.program.operations import TRANSFER_OPS, Op, Place, is_any, reads, writes
from simulator.program.program import Program
from simulator.timing.banked_transfers import banked_transfers, with_served
from simulator.timing.dram_places import transfer_bursts
from simulator.timing.durations import resolve_timing
from simulator.timing.engine import run_engine
from simulator.timing.reference import run_reference
from simulator.timing.reference_durations import reference_timing
from simulator.timing.simulate import simulate
from tests.drawn.random_networks import built_network
from tests.drawn.random_programs import built_program, generator
from tests.drawn.strategies import case, layer_weights
from tests.oracles.slow_dram import SlowMemory

MID = Machine.load("mid-32")


def on_banks(machine: Machine, seed: int) -> Machine:
    """A machine with a standard's DRAM, drawn by seed."""
    rng = generator(seed)
    machine = machine.with_(dram={"gb_per_s": min(machine.dram.gb_per_s, 30.0)})
    name = list(STANDARDS)[seed % len(STANDARDS)]
    change = {
        "queue_entries": int(rng.integers(1, 9)),
        "scheduler": "fcfs" if rng.random() < 0.5 else "fr-fcfs",
        "mapping": "row-bank-group-column-channel" if rng.random() < 0.3 else "row-bank-column-group-channel",
    }
    return with_dram_model(machine, name).with_(dram=change)


def drawn_program(seed: int) -> tuple[Machine, Program]:
    if seed % 3 == 0:
        return built_program(generator(seed))
    if seed % 3 == 1:
        return built_network(generator(seed))
    machine, _, program = case(700_000 + seed, layers=1 + seed % 2, tokens=5)
    return machine, program


@pytest.mark.parametrize("seed", range(18))
def test_engine_and_reference_agree_on_banks(seed: int) -> None:
    drawn, program = drawn_program(seed)
    machine = on_banks(drawn, seed)
    standard = machine.dram.standard
    assert standard is not None
    timing, banked = resolve_timing(program, machine), banked_transfers(program, machine)
    assert banked is not None
    slow = SlowMemory(
        standard, machine.dram.channels, machine.dram.mapping, machine.dram.scheduler, machine.dram.queue_entries,
        Fraction(round(10**6 / machine.clock_ghz), 10**6), machine.dram_latency_cycles,
    )  # fmt: skip

    def serve(i: int, cycle: int) -> tuple[int, int]:
        return slow.serve(int(banked.first[i]), int(banked.bursts[i]), program.instructions.op[i] == Op.STORE, cycle)

    events, reference = run_engine(timing, banked), run_reference(reference_timing(program, machine), serve)
    for column in ("preload", "start", "end", "done", "stall"):
        np.testing.assert_array_equal(getattr(events, column), getattr(reference, column), err_msg=column)
    served = with_served(timing, events.start, events.end, events.done)
    np.testing.assert_array_equal(events.start + served.busy, events.end)
    np.testing.assert_array_equal(events.end + served.tail, events.done)


def test_one_kernel_serves_all_standards() -> None:
    from numba.core.types import none

    from simulator.timing.engine import _advance

    program = layers_program(MID, 1)
    for model in STANDARDS:
        simulate(program, with_dram_model(MID, model))
    assert len([signature for signature in _advance.compiled.signatures if signature[-1] != none]) == 1


def test_a_load_by_hand() -> None:
    """One weight tile on a machine of 1 GHz with DDR4-3200 and 10 ns on the way. Parameters, 256 bytes, are 4 bursts in
    4 groups: activates in clocks 0, 4, 8, 12; their last data end in clock 12 + 22 + 22 + 4 = 60, in ns 37.5.
    """
    machine = with_dram_model(MID, "ddr4-3200").with_(dram={"latency_ns": 10.0})
    program = lower({"fc": DenseWeights(torch.ones(32, 32))}, machine, tokens=40)
    events = run_engine(resolve_timing(program, machine), banked_transfers(program, machine))
    first = int(np.flatnonzero(program.instructions.op == Op.LOAD_PARAMETERS)[0])
    assert program.instructions.dram_bytes[first] == 256
    assert (events.start[first], events.end[first], events.done[first]) == (0, 3, 38 + 10)  # 4 clocks are 2.5 ns


def layers_program(machine: Machine, seed: int) -> Program:
    layers = {f"layer{i}": layer_weights(generator(10 * seed + i), machine) for i in range(3)}
    return lower(layers, machine, tokens=70)


@pytest.mark.parametrize("seed", range(4))
def test_each_byte_of_a_plain_program_has_one_place(seed: int) -> None:
    """Runs of different things share no burst; weights lie in the order of the tile table, without a gap."""
    machine = with_dram_model(MID, "lpddr5-6400")  # bursts of 32 bytes: rows of chunks are whole ones
    program = layers_program(machine, seed)
    ins = program.instructions
    first, count = transfer_bursts(program, machine)
    transfers = np.flatnonzero(is_any(ins.op, TRANSFER_OPS))
    assert (count[transfers] > 0).all() and (first >= 0).all()
    assert count.sum() * 32 == simulate(program, machine).dram_bytes
    owner: dict[int, tuple[int, ...]] = {}
    for i in transfers.tolist():
        kind = int(ins.op[i])
        what = (kind, int(ins.layer[i]), int(ins.tile[i]) if kind == Op.LOAD_WEIGHTS else int(ins.chunk[i]))
        for burst in range(int(first[i]), int(first[i] + count[i])):
            assert owner.setdefault(burst, what) == what, (i, burst)
    for index, layer in enumerate(program.layers):
        mine = np.flatnonzero(writes(ins.op, Place.WEIGHT_BUFFER) & (ins.layer == index))
        begins = {int(ins.tile[i]): (int(first[i]), int(count[i])) for i in mine}
        for tile in range(len(layer.tiles) - 1):
            assert begins[tile][0] + begins[tile][1] == begins[tile + 1][0]


@pytest.mark.parametrize("seed", range(6))
def test_transfers_of_a_network_stay_in_their_tensors(seed: int) -> None:
    machine, program = built_network(generator(seed))
    first, count = transfer_bursts(program, machine)
    ins = program.instructions
    stores = np.flatnonzero(is_any(ins.op, TRANSFER_OPS) & reads(ins.op, Place.SCRATCHPAD))
    assert (first >= 0).all() and (count[stores] > 0).all()


def test_reports_and_programs_of_the_bandwidth_model_are_as_they_were() -> None:
    program = layers_program(MID, 9)
    report = simulate(program, MID)
    assert report.dram is None and "dram" not in report.to_dict()
    assert "model" not in MID.to_record()["dram"]
    banks = simulate(program, with_dram_model(MID, "lpddr4-3200"))
    assert banks.dram is not None
    found = banks.to_dict()["dram"]
    assert isinstance(found, dict) and found["model"] == "lpddr4-3200" and found["channels"] == 4
    assert banks.dram.hits + banks.dram.misses + banks.dram.conflicts == banks.dram.bursts
    assert banks.dram_bytes == banks.dram.bursts * 32
    assert 0 < banks.dram.utilisation <= banks.dram.efficiency <= 1
    units = {unit.name: unit for unit in banks.units}
    for unit in units.values():
        idle = sum(unit.stall_cycles.values()) + unit.idle_after_last_cycles
        assert unit.busy_cycles + idle == banks.latency_cycles
    assert sum(layer.latency_cycles for layer in banks.layers) == banks.latency_cycles


def test_programs_are_the_same_whatever_the_dram_model() -> None:
    """Lowering decides by bandwidth and latency, which are what they were on a machine of the same peak."""
    banked = with_dram_model(MID, "ddr4-3200").with_(dram={"latency_ns": MID.dram.latency_ns})
    weights = {"fc": layer_weights(generator(3), MID)}
    one, other = (lower(weights, machine, tokens=33).instructions for machine in (MID, banked))
    for column in ("op", "tile", "dram_bytes", "after"):
        np.testing.assert_array_equal(getattr(one, column), getattr(other, column))


def test_with_dram_model_keeps_the_peak_and_the_latency_of_one_read() -> None:
    machine = with_dram_model(MID, "lpddr4-3200")
    assert (machine.dram.channels, machine.dram.gb_per_s, machine.dram.burst_bytes) == (4, 25.6, 32)
    assert machine.dram.latency_ns == pytest.approx(100 - 44.375, abs=1e-9)  # 29 + 34 + 8 clocks
    assert with_dram_model(machine, "ddr4-3200").dram == with_dram_model(MID, "ddr4-3200").dram
    assert with_dram_model(Machine.load("cloud-128"), "hbm2-2400").dram.channels == 16
    assert with_dram_model(machine, "bandwidth").dram.model == "bandwidth"
    with pytest.raises(InputError, match="DRAM model: found 'ddr3'; it is one of bandwidth, ddr4-3200"):
        with_dram_model(MID, "ddr3")


@pytest.mark.parametrize(
    "change, message",
    [
        ({"model": "ddr3"}, "model = 'ddr3'; it is one of bandwidth, ddr4-3200"),
        ({"scheduler": "fcfs"}, "scheduler = 'fcfs' does nothing where model = \"bandwidth\""),
        ({"queue_entries": 8}, "queue_entries = 8 does nothing"),
        ({"model": "ddr4-3200", "mapping": "any"}, "mapping = 'any'; it is one of row-bank-column-group-channel"),
        ({"model": "ddr4-3200", "scheduler": "any"}, "scheduler = 'any'; it is one of fcfs, fr-fcfs"),
        ({"model": "lpddr4-3200"}, "burst_bytes = 64, but lpddr4-3200 moves 32 bytes a burst"),
        (
            {"model": "ddr4-3200", "gb_per_s": 20.0},
            r"gb_per_s = 20 is not 1, 2, 4, \.\.\. channels of ddr4-3200 at 25\.6",
        ),
        ({"model": "ddr4-3200", "gb_per_s": 76.8}, "gb_per_s = 76.8 is not"),
        ({"model": "ddr4-3200", "gb_per_s": 1.0}, "gb_per_s = 1 is not"),
    ],
)
def test_machines_that_contradict_their_standard_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        MID.with_(dram=change)


def test_a_clock_beyond_what_integers_hold_is_refused() -> None:
    with pytest.raises(InputError, match=r"array.clock_ghz = 1000; with a standard's DRAM"):
        MID.with_(array={"clock_ghz": 1000.0}, dram={"model": "ddr4-3200"})


def test_rtl_is_not_compared_with_banks() -> None:
    from simulator.rtl.bench.agreement import compare

    machine = with_dram_model(MID, "ddr4-3200")
    with pytest.raises(InputError, match="the RTL is compared with the engine under the DRAM model 'bandwidth'"):
        compare(None, layers_program(MID, 1), machine, ())  # type: ignore[arg-type]


def test_the_command_line_takes_a_dram_model_and_a_machine_file(tmp_path: Path) -> None:
    program, file = tmp_path / "net.program", tmp_path / "banks.toml"
    layers_program(MID, 2).save(program)
    file.write_text(replace_line(MID.to_toml(), 'model = "bandwidth"', 'model = "ddr4-3200"'))
    shown = CliRunner().invoke(app, ["simulate", str(program), "--machine", str(file)])
    assert shown.exit_code == 0 and "DRAM ddr4-3200, 1 channels, row-bank-column-group-channel" in shown.stdout
    asked = CliRunner().invoke(app, ["simulate", str(program), "--dram", "hbm2-1600", "--json"])
    assert asked.exit_code == 0 and '"conflicts"' in asked.stdout
    plain = CliRunner().invoke(app, ["simulate", str(program), "--dram", "bandwidth"])
    assert plain.exit_code == 0 and "DRAM bandwidth" not in plain.stdout


def replace_line(text: str, old: str, new: str) -> str:
    assert text.count(old) == 1
    return text.replace(old, new)


def test_slower_banks_are_slower() -> None:
    """A closed form: a program bound by the channel takes at least its data's time, and what refreshes take."""
    machine = with_dram_model(MID, "lpddr5-6400")
    program = lower({"fc": DenseWeights(torch.ones(512, 2048))}, machine, tokens=1)
    report = simulate(program, machine)
    assert report.dram is not None
    data_ns = report.dram.bursts / 2 * 2 * 1.25
    assert data_ns < report.latency_cycles < 1.25 * data_ns + 400
    assert report.dram.refreshes == 2 * (report.latency_cycles // 3907)
    assert simulate(program, machine.with_(dram={"queue_entries": 1})).latency_cycles >= 1.1 * report.latency_cycles
