"""The evaluated form: supports, zeros outside them, and its own checks."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from gblr_hw.layers.conv import GBLRConv2d
from gblr_hw.layers.linear import GBLRLinear
from gblr_hw.weights.factors import block_multiplications, evaluate
from gblr_hw.weights.stored import DenseWeights, GBLRWeights, LatticeWeights, LayerWeights
from simulator.base.errors import InputError
from tests.drawn.strategies import gblr_weights, generator, lattice_weights, seeds

SIZES = st.sampled_from([1, 2, 3, 7, 16, 33])


def check_supports(weights: LayerWeights) -> None:
    factors = evaluate(weights)
    assert not factors.v[~factors.reads].any()
    assert not factors.u.T[~factors.writes].any()
    assert (factors.dense is None) == (factors.dense_support is None)
    if factors.dense is not None and factors.dense_support is not None:
        assert not factors.dense[~factors.dense_support].any()
    assert factors.matrix().shape == (weights.out_features, weights.in_features)
    assert factors.block_starts()[-1] == factors.ranks


@given(seed=seeds, n=SIZES, m=SIZES, gaussian=st.booleans())
def test_gblr_blocks_share_their_support_and_equal_the_module(seed: int, n: int, m: int, gaussian: bool) -> None:
    weights = gblr_weights(generator(seed), n, m, gaussian)
    check_supports(weights)
    factors = evaluate(weights)
    starts = factors.block_starts()
    assert len(starts) == weights.blocks + 1
    for first, last in pairwise(starts):
        assert (factors.reads[first:last] == factors.reads[first]).all()
        assert (factors.writes[first:last] == factors.writes[first]).all()
    matrix = GBLRLinear.from_weights(weights).eval().matrix().detach().numpy()
    np.testing.assert_allclose(factors.matrix(), matrix, rtol=1e-4, atol=1e-5)


@given(seed=seeds, n=SIZES, m=SIZES, chunks=st.tuples(st.integers(1, 9), st.integers(1, 9)))
def test_lattice_evaluates_to_its_own_numbers(seed: int, n: int, m: int, chunks: tuple[int, int]) -> None:
    weights = lattice_weights(generator(seed), n, m, *chunks)
    check_supports(weights)
    factors = evaluate(weights)
    wanted = weights.u.double() @ weights.v.double() + weights.dense
    np.testing.assert_allclose(factors.matrix(), wanted.numpy(), rtol=1e-12, atol=1e-12)
    by_hand = sum(
        min(int(w.sum()) + int(r.sum()), int(w.sum()) * int(r.sum()))
        for w, r in zip(weights.write_support(), weights.read_support(), strict=True)
    )
    assert factors.multiplications == by_hand + int(weights.dense_support().sum())


def test_all_blocks_empty_and_one_full_block() -> None:
    layer = GBLRLinear(5, 7, 3, 2, gaussian=False).eval()
    with torch.no_grad():
        layer.widths.zero_()
    empty = evaluate(layer.weights())
    assert (empty.ranks, empty.multiplications) == (6, 0)
    assert not empty.matrix().any()
    full = evaluate(GBLRLinear(5, 7, 1, gaussian=False, init_width=1.0).weights())
    assert full.reads.all()
    assert full.writes.all()
    assert full.multiplications == 12


def test_dense_has_no_ranks() -> None:
    weight = torch.randn(3, 4)
    factors = evaluate(DenseWeights(weight, torch.ones(3)))
    assert (factors.ranks, factors.multiplications, factors.family) == (0, 12, "dense")
    assert np.array_equal(factors.matrix(), weight.double().numpy())
    assert factors.bias is not None
    assert factors.bias.tolist() == [1, 1, 1]


def test_positions_of_a_convolution_read_their_own_run() -> None:
    layer = GBLRConv2d(3, 4, (2, 1), arrangement="positions", blocks=2, gaussian=False, init_width=1.0)
    factors = evaluate(layer.weights())
    assert factors.reads[:2, :3].all()
    assert not factors.reads[:2, 3:].any()
    assert factors.reads[2:, 3:].all()


def test_a_copy_of_the_numbers_is_returned() -> None:
    weight = torch.zeros(2, 2)
    factors = evaluate(DenseWeights(weight))
    weight.fill_(1.0)
    assert not factors.matrix().any()


def test_block_multiplications_take_the_cheaper_order() -> None:
    rows, cols = np.array([3, 0, 10, 1]), np.array([4, 9, 10, 1])
    assert block_multiplications(rows, cols, 1) == 7 + 0 + 20 + 1
    assert block_multiplications(rows, cols, 9) == 12 + 0 + 100 + 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"u": np.zeros((3, 2), np.float32)}, r"factors field 'u': found shape \(3, 2\); it must be \(4, 2\)"),
        ({"reads": np.zeros((2, 9), np.bool_)}, "factors field 'reads'"),
        ({"bias": np.zeros(9, np.float32)}, "factors field 'bias'"),
        ({"dense": np.zeros((4, 6), np.float32)}, "they come together"),
        ({"block_sizes": (1,)}, "block_sizes: found 1; they must sum to 2"),
    ],
)
def test_inconsistent_factors_are_refused(change: dict[str, Any], message: str) -> None:
    factors = evaluate(GBLRLinear(6, 4, 2).weights())
    with pytest.raises(InputError, match=message):
        replace(factors, **change)


def test_other_objects_are_refused() -> None:
    with pytest.raises(InputError, match="layer weights: found Linear; they must be one of DenseWeights, GBLRWeights"):
        evaluate(nn.Linear(2, 2))  # type: ignore[arg-type]


def test_half_precision_weights_evaluate_as_float32() -> None:
    weights = GBLRLinear(16, 8, 4).to(torch.bfloat16).weights()
    assert isinstance(weights, GBLRWeights)
    assert evaluate(weights).v.dtype == np.float32
    lattice = LatticeWeights(
        u=torch.ones(2, 1, dtype=torch.float64), v=torch.ones(1, 2, dtype=torch.float64),
        reads=torch.ones(1, 1, dtype=torch.bool), writes=torch.ones(1, 1, dtype=torch.bool),
        tiles=torch.zeros(1, 1, dtype=torch.bool), dense=torch.zeros(2, 2), bias=None, chunk_in=2, chunk_out=2,
    )  # fmt: skip
    assert evaluate(lattice).u.dtype == np.float32
