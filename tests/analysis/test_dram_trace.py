"""Traces for Ramulator 2: every burst once, in the order of the transfers, in both formats."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from analysis.traces.dram_trace import burst_trace, replayed_clocks, save_dram_trace
from gblr_hw.cli.app import app
from gblr_hw.lowering.pipeline import lower
from gblr_hw.weights.stored import DenseWeights
from simulator.base.errors import InputError
from simulator.machine.dram_choice import with_dram_model
from simulator.machine.machine import Machine
from simulator.program.operations import Op
from simulator.program.program import Program
from simulator.timing.dram_places import transfer_bursts
from simulator.timing.simulate import simulate
from tests.drawn.strategies import generator, layer_weights
from tests.oracles.replay_controller import replay
from tests.oracles.slow_dram import place_of

MID = Machine.load("mid-32")


def small_program() -> Program:
    return lower({"fc": layer_weights(generator(4), MID)}, MID, tokens=20)


@pytest.mark.parametrize("model", ["bandwidth", "ddr4-3200", "lpddr4-3200", "hbm2-1600"])
def test_every_burst_stands_there_once_in_order(model: str, tmp_path: Path) -> None:
    machine, program = with_dram_model(MID, model), small_program()
    report = simulate(program, machine)
    trace, path = burst_trace(program, machine, report), tmp_path / "net.ldst"
    save_dram_trace(trace, machine, path)
    first, count = transfer_bursts(program, machine)
    wanted = []
    for i in np.argsort(report.trace.start, kind="stable").tolist():
        name = "ST" if program.instructions.op[i] == Op.STORE else "LD"
        for burst in range(int(first[i]), int(first[i] + count[i])):
            wanted.append(f"{name} {hex(burst * machine.dram.burst_bytes)}")
    assert path.read_text().splitlines() == wanted
    assert len(wanted) * machine.dram.burst_bytes == report.dram_bytes


def test_address_vectors_are_the_places_of_the_mapping(tmp_path: Path) -> None:
    program = small_program()
    for model, inner in (("ddr4-3200", 1), ("lpddr5-6400", 1), ("hbm2-1600", 2)):
        machine = with_dram_model(MID, model)
        standard = machine.dram.standard
        assert standard is not None
        trace, path = burst_trace(program, machine, simulate(program, machine)), tmp_path / "net.rw"
        save_dram_trace(trace, machine, path)
        lines = path.read_text().splitlines()
        for line, number, write in zip(lines, trace.numbers.tolist(), trace.writes.tolist(), strict=True):
            kind, vector = line.split(" ")
            channel, rank, group, bank, row, column = (int(part) for part in vector.split(","))
            place = place_of(number, standard, machine.dram.mapping, machine.dram.channels)
            assert kind == ("W" if write else "R")
            assert (channel * inner + rank, group, bank, row) == place
            assert 0 <= rank < inner and 0 <= column < standard.row_bursts


def test_vectors_need_banks(tmp_path: Path) -> None:
    program = small_program()
    trace = burst_trace(program, MID, simulate(program, MID))
    with pytest.raises(
        InputError, match=r"a trace of banks and rows \(.rw\); machine 'mid-32' has the DRAM model 'bandwidth'"
    ):
        save_dram_trace(trace, MID, tmp_path / "net.rw")
    assert not (tmp_path / "net.rw").exists()


def test_the_command_line_writes_traces(tmp_path: Path) -> None:
    program, path = tmp_path / "net.program", tmp_path / "net.rw"
    small_program().save(program)
    done = CliRunner().invoke(app, ["simulate", str(program), "--dram", "ddr4-3200", "--dram-trace", str(path)])
    assert done.exit_code == 0 and f"DRAM trace written to {path}" in done.stdout.replace("\n", "")
    assert path.read_text().startswith("R 0,0,") and "replayed as fast as it goes: " in done.stdout
    with pytest.raises(InputError, match=r"\.ldst"):
        CliRunner().invoke(
            app, ["simulate", str(program), "--dram-trace", str(tmp_path / "net.txt")], catch_exceptions=False
        )


@pytest.mark.parametrize("model", ["ddr4-3200", "lpddr4-3200", "lpddr5-6400", "hbm2-1600"])
@pytest.mark.parametrize("tokens", [1, 100])
def test_replayed_traces_take_as_long_as_on_a_controller_of_another_kind(model: str, tokens: int) -> None:
    """Within 5 %: traces of programs, read and written, without times, as other simulators replay them."""
    layers = {"fc1": DenseWeights(torch.ones(192, 256)), "fc2": layer_weights(generator(11), MID)}
    program = lower(layers, MID, tokens=tokens)
    machine = with_dram_model(MID, model)
    trace = burst_trace(program, machine, simulate(program, machine))
    standard = machine.dram.standard
    assert standard is not None
    other = replay(trace.numbers.tolist(), trace.writes.tolist(), standard, machine.dram.channels, machine.dram.mapping)
    assert len(trace.numbers) > 200 and trace.writes.any()
    assert replayed_clocks(trace, machine) == pytest.approx(other, rel=0.05, abs=0)
