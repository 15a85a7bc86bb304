"""What objects that hold arrays show of themselves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

import gblr_hw
from gblr_hw import lower
from gblr_hw.weights.stored import DenseWeights
from simulator import Machine, simulate
from simulator.base.shown import Shown, Table, shown


@dataclass(frozen=True, repr=False)
class Held(Shown):
    name: str
    table: np.ndarray
    parts: tuple[int, ...]


def test_sizes_stand_for_numbers():
    assert repr(Held("a", np.zeros((3, 2), np.int64), (1, 2))) == "Held(name='a', table=int64[3, 2], parts=(1, 2))"
    assert shown(tuple(range(9))) == "<9 entries>"
    assert repr(DenseWeights(torch.ones(4, 5))).startswith("DenseWeights(weight=float32[4, 5], bias=None")


def test_programs_and_reports_are_short_tables():
    machine = Machine.load("mid-32")
    program = lower({f"layer{i}": DenseWeights(torch.ones(64, 64)) for i in range(12)}, machine, tokens=8)
    report = simulate(program, machine)
    head, columns, _, first, *_, last = repr(program).splitlines()
    assert head.startswith("Program for 'mid-32': 12 layers, 48 tiles, ") and last == "and 2 more"
    assert columns.split() == ["layer", "form", "inputs", "outputs", "ranks", "tiles"]
    assert first.split() == ["layer0", "dense", "64", "64", "0", "4"]
    assert f"{report.latency_cycles:,} cycles" in repr(report).splitlines()[0]
    assert len(repr(report).splitlines()) == len(repr(program).splitlines()) == 14
    assert "\n" not in repr(program.layers[0])
    assert shown((program, machine)) == f"(<{head}>, <{machine.name}: {machine.description}>)"


def test_a_machine_tells_its_sections_in_lines():
    lines = repr(Machine.load("mid-32")).splitlines()
    assert lines[0].startswith("mid-32: A mobile-class accelerator")
    assert lines[3] == "array          rows 32, cols 32, clock_ghz 1.0, scatter true"
    assert len(lines) == 13 and max(map(len, lines)) < 120


def test_numbers_stand_right_and_long_or_strange_cells_are_cut():
    table = Table("c", ("a", "b", "c"), [("x\x1b[31m" + "y" * 200, 12345.67, None), ("z", 2, 1234)])
    head, columns, _, first, second = table.text().splitlines()
    assert head == "c" and first.startswith("x\\x1b[31myyy") and "\u2026" in first
    assert (
        first.endswith("  12,346      -") and second.endswith("       2  1,234") and columns.endswith("       b      c")
    )


def test_there_is_a_version():
    assert gblr_hw.__version__.split(".")[0].isdigit()  # type: ignore[attr-defined]
