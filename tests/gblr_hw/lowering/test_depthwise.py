"""Depthwise convolutions run on the unit that takes fewer cycles, and compute the same on either."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from gblr_hw import lower
from gblr_hw.lowering.calibration_batches import port_arrays
from simulator.machine.machine import Machine
from simulator.numbers.execute_network import execute_network
from simulator.program.operations import Op
from simulator.program.program import Program
from simulator.timing.durations import resolve_timing
from simulator.timing.simulate import simulate

_MID = Machine.load("mid-32")


def _model(channels: int, kernel: int = 3, bias: bool = True, stride: int = 1) -> nn.Module:
    torch.manual_seed(0)
    depthwise = nn.Conv2d(channels, channels, kernel, stride, kernel // 2, groups=channels, bias=bias)
    return nn.Sequential(nn.Conv2d(3, channels, 1), nn.ReLU6(), depthwise, nn.ReLU6(), nn.Conv2d(channels, 5, 1)).eval()


def _depthwise(program: Program) -> int:
    """Index of the depthwise convolution among the operators."""
    assert program.network is not None
    (index,) = (i for i, o in enumerate(program.network.operators) if o.operands[0].access in ("image", "window"))
    return index


@pytest.mark.parametrize(("lanes", "unit"), [(1, "linear"), (64, "vector")])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("bias", [True, False])
def test_the_cheaper_unit_computes_what_torch_does(lanes: int, unit: str, stride: int, bias: bool) -> None:
    model, x = _model(40, 3, bias, stride), torch.randn(2, 3, 11, 9)
    machine = _MID.with_(name="few" if lanes == 1 else "many", vector={"lanes": lanes})
    program = lower(model, machine, example_inputs=(x,), calibration=[(x,)])
    index = _depthwise(program)
    assert program.network is not None
    assert program.network.operators[index].kind == unit
    assert program.layers[index].multiplications == 9 * 40
    arrays = port_arrays(program.network.inputs, (x,))
    with torch.no_grad():
        want = model(x).numpy()
    (got,) = execute_network(program, arrays).values()
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-5)
    (codes,) = execute_network(program, arrays, "int8").values()
    assert np.sum(codes * want) > 0.998 * np.linalg.norm(codes) * np.linalg.norm(want)


@pytest.mark.parametrize("machine", ["edge-16", "mid-32", "cloud-128"])
def test_it_takes_fewer_cycles_and_less_energy_than_on_the_array(machine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Closed form: a pass reads every kernel position of every channel once, in chunks of windows."""
    model, x, target = _model(96), torch.randn(1, 3, 28, 28), Machine.load(machine)
    program = lower(model, target, example_inputs=(x,))
    index, ins = _depthwise(program), program.instructions
    mine = (ins.op == Op.VECTOR) & (ins.layer == index)
    busy = resolve_timing(program, target).busy[mine]
    chunks = -(-9 * 96 // target.cols)
    blocks = ins.tokens[mine].astype(np.int64)
    assert blocks.sum() == 28 * 28
    np.testing.assert_array_equal(busy, -(-blocks * chunks * target.cols // target.vector.lanes))
    found = simulate(program, target)
    monkeypatch.setattr(
        "gblr_hw.lowering.whole_network.depthwise_on_vector_unit",
        lambda network, _, schedules, __: (network, schedules),
    )
    array = simulate(lower(model, target, example_inputs=(x,)), target)
    assert found.latency_cycles < array.latency_cycles
    assert sum(one.energy_pj for one in found.layers) < sum(one.energy_pj for one in array.layers)


def test_weights_that_the_parameter_memory_has_no_room_for_stay_on_the_array() -> None:
    """40 channels of 9 weights and a bias, 4 bytes each, take 1,600 bytes."""
    model, x = _model(40), torch.randn(1, 3, 9, 9)
    kinds = []
    for kib in (2, 4):
        program = lower(model, _MID.with_(name="small", vector={"parameter_kib": kib}), example_inputs=(x,))
        assert program.network is not None
        kinds.append(program.network.operators[_depthwise(program)].kind)
    assert kinds == ["linear", "vector"]
