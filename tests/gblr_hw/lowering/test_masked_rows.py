"""What comes out of rows of attention that are masked in full: padding, whose numbers the manual states (N8)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from gblr_hw.lowering.emit.emit_loads import is_mask
from gblr_hw.lowering.pipeline import lower
from simulator.machine.machine import Machine
from simulator.numbers.execute_network import execute_network

MACHINE = Machine.load("mid-32")


class Attention(nn.Module):
    """Attention over places that a mask of truth values lets through."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(16, 48)

    def parts(self, x: Tensor) -> Tensor:
        return self.qkv(x).view(2, 5, 3, 2, 8).permute(2, 0, 3, 1, 4)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        q, k, v = self.parts(x)
        return functional.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None, :])


@pytest.mark.parametrize("shown", [True, False])
@pytest.mark.parametrize("mode", ["float", "int8"])
def test_a_row_without_places_is_the_mean_of_values_if_an_example_has_one(mode: str, shown: bool) -> None:
    torch.manual_seed(0)
    model, x = Attention().eval(), torch.randn(2, 5, 16)
    whole = torch.ones(2, 5, dtype=torch.bool)
    mask = whole.clone()
    mask[0, 3:], mask[1] = False, False
    program = lower(model, MACHINE, example_inputs=(x, mask), calibration=[(x, mask if shown else whole)])
    found = execute_network(program, {"x": x.numpy(), "mask": mask.numpy()}, mode)["output"]
    with torch.no_grad():
        wanted, unmasked = (model(x, one).numpy() for one in (mask, whole))
        mean = model.parts(x)[2].mean(2, keepdim=True).expand(2, 2, 5, 8).numpy()
    assert not wanted[1].any()  # PyTorch's own answer
    tolerance = {"float": 1e-5, "int8": 0.05}[mode]
    if mode == "int8" and not shown:
        np.testing.assert_allclose(found[1], unmasked[1], atol=tolerance)
        return
    np.testing.assert_allclose(found[0], wanted[0], atol=tolerance)
    np.testing.assert_allclose(found[1], mean[1], atol=tolerance)


def test_a_norm_of_zeros_is_zero() -> None:
    model = nn.LayerNorm(16, bias=False).eval()
    x = torch.randn(2, 5, 16)
    program = lower(model, MACHINE, example_inputs=x, calibration=[x])
    x[1] = 0
    for mode in ("float", "int8"):
        assert not execute_network(program, {"input": x.numpy()}, mode)["output"][1].any()


@pytest.mark.parametrize("through", [0.0, np.inf])
def test_a_mask_is_known_by_its_runs_whether_it_is_added_or_the_smaller_counts(through: float) -> None:
    band = np.tril(np.ones((5, 5), dtype=bool))
    scattered = np.array([[True, False, True, False, True]])
    assert is_mask(np.where(band, through, -1e9))
    assert not is_mask(np.where(scattered, through, -1e9))
    assert not is_mask(np.where(band, 1.0, -1e9))
