"""What objects that hold arrays show of themselves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

import gblr_hw
from gblr_hw import lower
from gblr_hw.weights.stored import DenseWeights
from simulator import Machine, simulate
from simulator.base.shown import Shown, shown


@dataclass(frozen=True, repr=False)
class Held(Shown):
    name: str
    table: np.ndarray
    parts: tuple[int, ...]


def test_sizes_stand_for_numbers():
    assert repr(Held("a", np.zeros((3, 2), np.int64), (1, 2))) == "Held(name='a', table=int64[3, 2], parts=(1, 2))"
    assert shown(tuple(range(9))) == "<9 entries>"
    assert repr(DenseWeights(torch.ones(4, 5))).startswith("DenseWeights(weight=float32[4, 5], bias=None")


def test_programs_and_reports_are_told_in_a_line():
    machine = Machine.load("mid-32")
    program = lower({"layer": DenseWeights(torch.ones(64, 64))}, machine, tokens=8)
    report = simulate(program, machine)
    assert repr(program).startswith("<Program for 'mid-32': 1 layers, 4 tiles, ")
    assert f"{report.latency_cycles:,} cycles" in repr(report)
    for one in (program, report, program.layers[0]):
        assert len(repr(one)) < 1000
        assert "\n" not in repr(one)


def test_there_is_a_version():
    assert gblr_hw.__version__.split(".")[0].isdigit()  # type: ignore[attr-defined]
