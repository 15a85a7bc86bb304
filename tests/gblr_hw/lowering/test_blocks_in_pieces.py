"""Blocks that go through the array in pieces, operands that have a few buffers in turn, inputs in the order of their
use: less is moved, and the numbers stay.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from gblr_hw.layers.blast_linear import BLASTLinear
from gblr_hw.lowering.calibration_batches import port_arrays
from gblr_hw.lowering.groups.scratchpad_map import map_regions
from gblr_hw.lowering.groups.stages import stages_of
from gblr_hw.lowering.pipeline import lower
from simulator.machine.machine import Machine
from simulator.network.network import Operand
from simulator.numbers.execute_network import execute_network
from simulator.program.operations import Op
from simulator.program.program import Program
from simulator.timing.durations import resolve_timing
from simulator.timing.engine import run_engine
from simulator.timing.simulate import simulate
from tests.oracles.hazards import hazards, orders

_MID = Machine.load("mid-32")


def _machine(kib: int = 2, engines: int = 2) -> Machine:
    """8 x 8 cells, 32 rows of sums."""
    return _MID.with_(
        name="small",
        array={"rows": 8, "cols": 8},
        scratchpad={"kib": kib},
        accumulator={"kib": 1},
        weight_buffer={"kib": 1},
        vector={"lanes": 8},
        dram={"gb_per_s": 4.0},
        dma={"engines": engines},
    )


class _Residual(nn.Module):
    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(channels, hidden), nn.Linear(hidden, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x + self.down(torch.relu(self.up(x))))


def _agrees(program: Program, model: nn.Module, x: torch.Tensor) -> None:
    assert program.network is not None
    timing = resolve_timing(program, program.machine)
    events = run_engine(timing)
    assert hazards(program, program.machine, timing, events) == []
    with torch.no_grad():
        want = model(x).numpy()
    for order in (None, *orders(timing, events).values()):
        (got,) = execute_network(program, port_arrays(program.network.inputs, (x,)), order=order).values()
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-5 * max(1, np.abs(want).max()))


def _blocks(program: Program) -> list[tuple[int, int, int]]:
    """First operator, one past the last, and block of each group."""
    found, first = [], 0
    for text in program.provenance["groups"].split(","):
        count, block = (int(part) for part in text.split("x"))
        found.append((first, first + count, block))
        first += count
    return found


@pytest.mark.parametrize("rows", [20, 31, 61])
def test_a_tile_that_is_loaded_once_serves_both_pieces_of_a_block(rows: int) -> None:
    torch.manual_seed(0)
    model, x = nn.Linear(40, 32).eval(), torch.randn(rows, 40)
    machine = _machine(kib=4)
    program = lower(model, machine, example_inputs=(x,))
    ((_, _, block),) = _blocks(program)
    ins = program.instructions
    assert block > machine.accumulator_rows // 2
    assert int(ins.tokens[ins.op == Op.DENSE].max()) <= machine.accumulator_rows // 2
    loads, tiles = np.count_nonzero(ins.op == Op.LOAD_WEIGHTS), np.count_nonzero(ins.op == Op.DENSE)
    assert loads == 20 * -(-rows // block) < tiles
    assert int(ins.tokens[ins.op == Op.DENSE].sum()) == 20 * rows
    _agrees(program, model, x)


@pytest.mark.parametrize("kib", [1, 2])
@pytest.mark.parametrize("engines", [1, 2, 3])
def test_a_residual_comes_chunk_by_chunk_into_a_few_buffers(kib: int, engines: int) -> None:
    torch.manual_seed(0)
    model, x = _Residual(80, 16).eval(), torch.randn(45, 80)
    program = lower(model, _machine(kib, engines), example_inputs=(x,))
    assert program.network is not None
    in_turn = [
        (key, region.chunks)
        for first, last, block in _blocks(program)
        for key, region in (
            map_regions(program.network, stages_of(program.network, first, last, 8), block, program.machine) or {}
        ).items()
        if isinstance(key, Operand) and not region.whole
    ]
    assert all(chunks < 10 for _, chunks in in_turn)
    if kib == 1:
        assert in_turn
    _agrees(program, model, x)


@pytest.mark.parametrize("machine", ["edge-16", "mid-32", "cloud-128"])
def test_a_layer_costs_the_same_as_a_model_and_as_a_checkpoint(machine: str) -> None:
    torch.manual_seed(0)
    layer = BLASTLinear(768, 768, blocks=16, rank=48).eval()
    whole = lower(layer, machine, example_inputs=(torch.randn(1, 197, 768),))
    plain = lower(nn.Sequential(layer), machine, tokens=197)
    cycles = [simulate(program, program.machine).latency_cycles for program in (whole, plain)]
    assert abs(cycles[0] - cycles[1]) <= 0.02 * cycles[1]


def test_inputs_are_asked_for_as_they_are_used() -> None:
    """The first tile's weights do not stand behind chunks that later tiles read."""
    torch.manual_seed(0)
    program = lower(nn.Linear(256, 64).eval(), "edge-16", example_inputs=(torch.randn(1, 100, 256),))
    ins = program.instructions
    weights = int(np.flatnonzero(ins.op == Op.LOAD_WEIGHTS)[0])
    assert np.count_nonzero(ins.op[:weights] == Op.LOAD_INPUT) == 1
