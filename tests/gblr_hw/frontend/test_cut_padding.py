"""Zeros behind a product's inputs cost nothing; other constants, and zeros that somebody else reads, stay."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from gblr_hw.frontend import export_network
from gblr_hw.lowering.calibration_batches import port_arrays
from tests.oracles.run_graph import run_graph


class _Padded(nn.Module):
    def __init__(self, value: float, before: int, chain: bool) -> None:
        super().__init__()
        self.value, self.before, self.chain = value, before, chain
        self.first = nn.Parameter(torch.randn(5, 6, 5))
        self.second = nn.Parameter(torch.randn(6, 5, 7))
        self.dense = nn.Linear(25, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        padded = functional.pad(x, (self.before, 25 - self.before - x.shape[1]), value=self.value)
        if not self.chain:
            return self.dense(padded)
        values = torch.einsum("tkp,kqp->tqk", padded.reshape(len(x), 5, 5), self.first)
        return torch.einsum("tqk,qks->tqs", values, self.second).reshape(len(x), -1)


@pytest.mark.parametrize("chain", [False, True])
@pytest.mark.parametrize(("value", "before", "read"), [(0.0, 0, 23), (1.0, 0, 25), (0.0, 1, 25)])
def test_a_product_reads_no_zeros_behind_its_inputs(value: float, before: int, read: int, chain: bool) -> None:
    torch.manual_seed(0)
    model, x = _Padded(value, before, chain).eval(), torch.randn(3, 23)
    exported = export_network(model, (x,))
    (product,) = [operator for operator in exported.network.operators if operator.kind == "linear"]
    assert exported.weights[product.name].in_features == read
    arrays = port_arrays(exported.network.inputs, (x,))
    (found,) = run_graph(exported.network, exported.weights, list(arrays.values())).values()
    with torch.no_grad():
        torch.testing.assert_close(torch.as_tensor(found).float().reshape(3, -1), model(x), rtol=0, atol=1e-4)
