"""Attention on inputs whose query heads share keys: no copies, and the cycles of as many key heads as there are."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from gblr_hw import lower
from gblr_hw.lowering.calibration_batches import port_arrays
from simulator import execute_network, simulate
from simulator.machine.machine import Machine


class Attention(nn.Module):
    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return scaled_dot_product_attention(query, key, value, enable_gqa=True)


class Repeated(nn.Module):
    """The same with heads repeated by hand, as models do."""

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        times = query.shape[1] // key.shape[1]
        key, value = (one.repeat_interleave(times, dim=1) for one in (key, value))
        return torch.softmax(query @ key.transpose(2, 3) / query.shape[-1] ** 0.5, -1) @ value


def inputs(heads: int, key_heads: int, tokens: int, keys: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    return torch.randn(2, heads, tokens, width), *torch.randn(2, 2, key_heads, keys, width)


@pytest.mark.parametrize("kind", [Attention, Repeated])
@pytest.mark.parametrize("sizes", [(4, 2, 1, 40, 16), (6, 2, 3, 9, 5), (6, 3, 2, 33, 32), (4, 4, 3, 7, 20)])
def test_heads_that_share_keys_on_inputs(kind: type[nn.Module], sizes: tuple[int, ...]) -> None:
    model, given = kind().eval(), inputs(*sizes)
    program = lower(model, "mid-32", example_inputs=given)
    assert program.network is not None
    assert all(o.access != "strided" for one in program.network.operators for o in one.operands)
    (found,) = execute_network(program, port_arrays(program.network.inputs, given), mode="float").values()
    np.testing.assert_allclose(found, model(*given).numpy(), atol=1e-5)


@pytest.mark.parametrize("name", ["mid-32", "cloud-128"])
def test_four_heads_a_key_are_three_times_as_fast(name: str) -> None:
    machine = Machine.load(name)
    cycles = [
        simulate(lower(Attention().eval(), machine, example_inputs=inputs(32, keys, 1, 512, 64)), machine)
        for keys in (32, 8)
    ]
    assert cycles[0].latency_cycles > 3 * cycles[1].latency_cycles
