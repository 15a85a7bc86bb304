"""Multiplications per token against a count by hand."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from gblr_hw.layers.conv import GBLRConv2d
from gblr_hw.layers.linear import GBLRLinear
from gblr_hw.weights.from_factors import block_sparse_weights, low_rank_weights
from gblr_hw.weights.multiplications import (
    dense_multiplications,
    hardware_multiplications,
    multiplications,
    multiplications_by_layer,
    published_multiplications,
)
from gblr_hw.weights.stored import DenseWeights, GBLRWeights
from simulator.base.errors import InputError


def layer_of(rows: list[int], cols: list[int], m: int, n: int, rank: int) -> GBLRWeights:
    blocks = len(rows)
    widths = torch.stack([torch.tensor(cols) / n, torch.tensor(rows) / m])
    shape = (torch.rand(blocks, rank, n), torch.rand(blocks, m, rank))
    return GBLRWeights(widths, torch.rand(2, blocks), *shape, None, 100.0, False)


@settings(deadline=None, max_examples=40)
@given(
    sizes=st.lists(st.tuples(st.integers(0, 16), st.integers(0, 32)), min_size=1, max_size=6), rank=st.integers(1, 4)
)
def test_each_block_costs_the_lesser_of_low_rank_and_dense(sizes: list[tuple[int, int]], rank: int) -> None:
    rows, cols = [row for row, _ in sizes], [col for _, col in sizes]
    weights = layer_of(rows, cols, 16, 32, rank)
    wanted = sum(min(rank * (r + c), r * c) for r, c in sizes if r > 1 and c > 1)
    assert hardware_multiplications(weights) == wanted
    # With power-of-two sizes the float32 mean is exact, so the authors' count has nothing to round up.
    assert multiplications(weights) == published_multiplications(weights) == wanted


def test_support_counts_and_not_the_width() -> None:
    sharp = layer_of([4], [8], 16, 32, 1)
    soft = GBLRWeights(sharp.widths, sharp.locations, sharp.lr_weight1, sharp.lr_weight2, None, 3.0, True)
    assert hardware_multiplications(soft) > hardware_multiplications(sharp) == 12
    # Entries below zero are run and not counted by the authors.
    assert published_multiplications(soft) <= hardware_multiplications(soft)


def test_model_sums_its_layers() -> None:
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Conv2d(2, 3, 2), GBLRLinear(4, 4, 1, gaussian=False))
    counts = multiplications_by_layer(model)
    assert counts == {"0": 20, "2": 24, "3": 4}
    assert multiplications(model) == 48
    assert dense_multiplications(model) == 20 + 24 + 16


@pytest.mark.parametrize("arrangement", ["positions", "unfolded"])
def test_convolution_is_counted_per_output_position(arrangement: str) -> None:
    layer = GBLRConv2d(4, 4, 2, arrangement=arrangement, blocks=1, gaussian=False, init_width=1.0)
    wanted = 4 * min(8, 16) if arrangement == "positions" else min(4 + 16, 64)
    assert multiplications(layer) == multiplications(layer.weights()) == wanted
    assert published_multiplications(layer.weights()) == wanted
    assert dense_multiplications(layer) == 64


def test_other_kinds() -> None:
    assert multiplications(DenseWeights(torch.ones(3, 4))) == 12
    assert multiplications(low_rank_weights(torch.ones(9, 2), torch.ones(2, 7))) == 32
    kept = torch.tensor([[True, False], [False, True]])
    assert multiplications(block_sparse_weights(torch.ones(5, 4), kept, chunk_in=3, chunk_out=3)) == 3 * 3 + 2 * 1
    with pytest.raises(InputError, match="the published count is of GBLR layers"):
        published_multiplications(DenseWeights(torch.ones(3, 4)))
