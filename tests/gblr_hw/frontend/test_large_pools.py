"""Pools whose kernel is larger than the image: only the image is read, whatever the kernel."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from gblr_hw import lower
from gblr_hw.lowering.calibration_batches import port_arrays
from simulator import execute_network

POOLS = (
    nn.AvgPool2d(448, ceil_mode=True),
    nn.AvgPool2d(9, ceil_mode=True, padding=2),
    nn.AvgPool2d(9, ceil_mode=True, padding=2, count_include_pad=False),
    nn.AvgPool2d((3, 40), (2, 40), ceil_mode=True),
    nn.AvgPool2d(5, 3, ceil_mode=True),
    nn.MaxPool2d(9, ceil_mode=True),
    nn.MaxPool2d((9, 2), padding=(3, 0), ceil_mode=True),
)


@pytest.mark.parametrize("pool", POOLS, ids=str)
def test_a_large_pool_computes_what_torch_does(pool: nn.Module) -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Conv2d(3, 6, 1), pool).eval(), torch.randn(2, 3, 5, 7)
    program = lower(model, "mid-32", example_inputs=(x,))
    assert program.network is not None
    groups = [operand.groups for operator in program.network.operators for operand in operator.operands]
    assert max(groups) <= 5 * 7
    (found,) = execute_network(program, port_arrays(program.network.inputs, x), mode="float").values()
    np.testing.assert_allclose(found, model(x).detach().numpy(), atol=1e-6)
