"""The reference's durations are its own, and the same as the engine's: every column, whole networks included."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gblr_hw import lower
from simulator import Machine, Program
from simulator.program.operations import Op
from simulator.timing.durations import Timing, resolve_timing
from simulator.timing.reference_durations import reference_timing
from tests.drawn.corpus import SIZES, member


def assert_same_columns(program: Program, machine: Machine) -> Timing:
    ours, theirs = resolve_timing(program, machine), reference_timing(program, machine)
    for field in fields(Timing):
        given, own = (np.asarray(getattr(one, field.name)) for one in (ours, theirs))
        np.testing.assert_array_equal(given, own, err_msg=field.name)
        assert given.dtype == own.dtype, field.name
    return theirs


@pytest.mark.parametrize("kind", [kind for kind in SIZES if kind != "columns"])
def test_on_drawn_programs(kind: str) -> None:
    for seed in range(12):
        _, machine, program = member(kind, seed)
        assert machine is not None and program is not None
        assert_same_columns(program, machine)


class _Block(nn.Module):
    """Attention, a norm and a gelu: softmax and norms take several passes."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.mix = nn.LayerNorm(40), nn.MultiheadAttention(40, 4, batch_first=True)
        self.up, self.down = nn.Linear(40, 96), nn.Linear(96, 40)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        x = x + self.mix(y, y, y, need_weights=False)[0]
        return x + torch.as_tensor(self.down(nn.functional.gelu(self.up(x))))


@pytest.mark.parametrize("name", ["edge-16", "mid-32", "cloud-128", "plain-32"])
def test_on_a_whole_network(name: str) -> None:
    machine = Machine.load(name)
    program = lower(_Block().eval(), machine, example_inputs=(torch.randn(2, 17, 40),))
    timing = assert_same_columns(program, machine)
    assert timing.busy[program.instructions.op == Op.VECTOR].min() >= 1
    assert set(timing.op.tolist()) >= {Op.VECTOR, Op.DENSE, Op.DRAIN}
    for clock, engines in ((1.1, 1), (0.7, 2)):
        assert_same_columns(program, machine.with_(array={"clock_ghz": clock}, dma={"engines": engines}))
