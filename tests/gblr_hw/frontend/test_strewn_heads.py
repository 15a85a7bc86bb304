"""Attention over Monarch layers: heads are cut out of outputs that are stored in another order."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from gblr_hw import MonarchLinear, lower
from gblr_hw.frontend import export_network
from simulator import Machine, execute_network

WIDTH, HEADS = 96, 3


class _Attention(nn.Module):
    def __init__(self, monarch: str) -> None:
        super().__init__()
        for name in "qkvo":
            made = MonarchLinear(WIDTH, WIDTH, (4, 4), values=8) if name in monarch else nn.Linear(WIDTH, WIDTH)
            setattr(self, name, made)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.shape[1]
        q, k, v = (getattr(self, name)(x).view(-1, rows, HEADS, WIDTH // HEADS).transpose(1, 2) for name in "qkv")
        mixed = functional.scaled_dot_product_attention(q, k, v)
        found: Tensor = self.o(mixed.transpose(1, 2).reshape(-1, rows, WIDTH))
        return found


@pytest.mark.parametrize("monarch", ["qkvo", "k", "v"])
def test_one_copy_puts_the_channels_in_order(monarch: str) -> None:
    torch.manual_seed(0)
    model, x = _Attention(monarch).eval(), torch.randn(2, 37, WIDTH)
    machine = Machine.load("mid-32")
    program = lower(model, machine, example_inputs=(x,))
    (found,) = execute_network(program, {program.network.inputs[0].name: x.numpy()}).values()  # type: ignore[union-attr]
    np.testing.assert_allclose(found, model(x).detach().numpy(), rtol=0, atol=2e-5)
    # One pass over rows each; heads that are moved one element at a time ("relayout") took four times as long.
    names = [layer.name.partition("#")[0] for layer in program.layers]
    assert names.count("copy") == len(monarch.replace("o", "")) and "relayout" not in names
    # Softmax and the products beside it run block by block: a copy between them would part them.
    assert "copy" not in names[names.index("scores") :]


def test_copies_keep_the_order_of_what_they_read() -> None:
    """Each operator behind what it reads; the same operators."""
    torch.manual_seed(0)
    network = export_network(_Attention("qkv").eval(), (torch.randn(1, 9, WIDTH),)).network
    made = {port.tensor for port in network.inputs}
    for operator in network.operators:
        assert {operand.tensor for operand in operator.operands} <= made
        made.add(operator.output)
    assert [operator.name for operator in network.operators][:6] == ["q", "copy", "k", "copy#2", "v", "copy#3"]
