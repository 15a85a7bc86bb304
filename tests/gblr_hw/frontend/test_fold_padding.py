"""Zeros around an image in front of a convolution become its padding, and nothing else does."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from gblr_hw.frontend import export_network
from gblr_hw.lowering.calibration_batches import port_arrays
from tests.oracles.run_graph import run_graph


class _Padded(nn.Module):
    def __init__(
        self, pad: Sequence[int], padding: int | tuple[int, int], value: float = 0.0, twice: bool = False
    ) -> None:
        super().__init__()
        self.before = nn.Conv2d(3, 4, 1)
        self.conv = nn.Conv2d(4, 5, 3, (2, 1), padding, groups=1)
        self.pad, self.value, self.twice = tuple(pad), value, twice

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        padded = functional.pad(self.before(x), self.pad, value=self.value)
        y = self.conv(padded)
        return y + padded.mean() if self.twice else y


def _operators(model: nn.Module, x: torch.Tensor) -> int:
    """Operators of the model's graph, after the graph was run."""
    exported = export_network(model.eval(), (x,))
    arrays = port_arrays(exported.network.inputs, (x,))
    (found,) = run_graph(exported.network, exported.weights, list(arrays.values())).values()
    with torch.no_grad():
        np.testing.assert_allclose(found, model(x).numpy(), rtol=0, atol=1e-5)
    return len(exported.network.operators)


@settings(max_examples=15, deadline=None)
@given(
    pad=st.one_of(st.lists(st.integers(0, 3), min_size=4, max_size=4), st.lists(st.integers(0, 3), min_size=2, max_size=2)),
    padding=st.one_of(st.integers(0, 2), st.tuples(st.integers(0, 2), st.integers(0, 2))),
)  # fmt: skip
def test_padding_in_front_is_the_convolutions_own(pad: list[int], padding: int | tuple[int, int]) -> None:
    torch.manual_seed(0)
    assert _operators(_Padded(pad, padding), torch.randn(2, 3, 7, 6)) == 2


@pytest.mark.parametrize(
    ("pad", "value", "twice"), [((0, 1, 0, 1), 1.0, False), ((0, -1, 0, 1), 0.0, False), ((1, 1, 1, 1), 0.0, True)]
)
def test_what_is_no_padding_of_the_convolution_stays(pad: tuple[int, ...], value: float, twice: bool) -> None:
    torch.manual_seed(0)
    assert _operators(_Padded(pad, 1, value, twice), torch.randn(2, 3, 7, 6)) > 2
