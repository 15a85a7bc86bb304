"""Matrices of several factors: as files hold them, as ranks that feed ranks, and what is refused of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gblr_hw.files.checkpoint import load_checkpoint, save_checkpoint
from gblr_hw.weights.chains import (
    CHAIN_KINDS,
    BLASTWeights,
    ChainWeights,
    KroneckerWeights,
    MonarchWeights,
    TensorTrainWeights,
    no_mixes,
    sorted_mixes,
)
from gblr_hw.weights.factors import evaluate
from gblr_hw.weights.from_factors import block_grid_weights, monarch_weights
from gblr_hw.weights.mixes import mix_levels
from gblr_hw.weights.multiplications import multiplications
from gblr_hw.weights.network_weights import linear_of
from gblr_hw.weights.scaled_weights import scaled_weights, shifted_outputs
from gblr_hw.weights.stored import LayerWeights
from simulator.base.errors import InputError

REFERENCE = Path(__file__).parents[2] / "data" / "reference"
SIZES = st.integers(1, 4)
torch.manual_seed(0)


def blast(b_out: int, p: int, b_in: int, q: int, rank: int) -> BLASTWeights:
    return BLASTWeights(torch.randn(b_out, p, rank), torch.randn(b_in, rank, q), torch.randn(b_out, b_in, rank))


def blast_matrix(weights: BLASTWeights) -> Tensor:
    """Block by block, as the paper writes it."""
    rows = [
        torch.cat([B @ torch.diag(D) @ C for D, C in zip(Ds, weights.C, strict=True)], dim=1)
        for B, Ds in zip(weights.B, weights.D, strict=True)
    ]
    return torch.cat(rows)


def monarch_matrix(weights: MonarchWeights) -> Tensor:
    """Value by value, from the description of the published layout."""
    (k, q, p), (l, s, _) = weights.blkdiag1.shape, weights.blkdiag2.shape  # noqa: E741
    matrix = torch.zeros(l * s, k * p)
    for a in range(k):
        for row in range(q):
            if weights.arrangement == "strided":
                place, block = divmod(a * q + row, l)
            else:
                block, inner = divmod(row, q // l)
                place = a * (q // l) + inner
            for out in range(s):
                channel = out * l + block if weights.arrangement == "strided" else block * s + out
                matrix[channel, a * p : (a + 1) * p] += weights.blkdiag2[block, out, place] * weights.blkdiag1[a, row]
    return matrix[: weights.out_features, : weights.in_features]


@settings(max_examples=30, deadline=None)
@given(SIZES, SIZES, SIZES, SIZES, SIZES)
def test_blast_is_its_blocks(b_out: int, p: int, b_in: int, q: int, rank: int) -> None:
    weights = blast(b_out, p, b_in, q, rank)
    factors = evaluate(weights)
    assert np.allclose(factors.matrix(), blast_matrix(weights), atol=1e-5)
    edges = b_out * b_in * rank if min(b_out, b_in) > 1 else 0
    assert len(factors.mix_value) == edges
    shared = rank * (weights.in_features + weights.out_features)
    assert multiplications(weights) == shared + edges
    assert factors.output_order is None


@settings(max_examples=30, deadline=None)
@given(SIZES, SIZES, SIZES, SIZES, SIZES, st.booleans(), st.integers(0, 3), st.integers(0, 3))
def test_monarch_is_its_values_in_both_arrangements(
    k: int,
    q: int,
    p: int,
    l: int,  # noqa: E741
    s: int,
    strided: bool,
    cut_in: int,
    cut_out: int,
) -> None:
    q = q * l if not strided or (k * q) % l else q
    n, m = max(1, k * p - cut_in), max(1, l * s - cut_out)
    weights = MonarchWeights(
        torch.randn(k, q, p), torch.randn(l, s, k * q // l), in_features=n, out_features=m, bias=torch.randn(m),
        arrangement="strided" if strided else "grid",
    )  # fmt: skip
    factors = evaluate(weights)
    assert np.allclose(factors.matrix(), monarch_matrix(weights), atol=1e-5)
    assert not len(factors.mix_value)
    reads = sum(min(p, max(0, n - a * p)) * q for a in range(k))
    assert multiplications(weights) == reads + m * (k * q // l)
    if factors.output_order is not None:
        # In stored order the outputs of a block are neighbours, blocks one after another.
        block = factors.output_order % l
        assert strided and (np.diff(block) >= 0).all() and sorted(factors.output_order) == list(range(m))
    else:
        assert not strided or l == 1 or s == 1 or m <= l


def test_both_arrangements_are_those_of_the_factors_they_generalise() -> None:
    first, second = torch.randn(3, 4, 5), torch.randn(2, 7, 6)
    strided = MonarchWeights(first, second, in_features=15, out_features=14)
    assert np.array_equal(evaluate(strided).matrix(), evaluate(monarch_weights(first, second)).matrix())
    grid = replace(strided, arrangement="grid")
    u = second.reshape(2, 7, 3, 2).permute(0, 2, 1, 3)
    v = first.reshape(3, 2, 2, 5).permute(1, 0, 2, 3)
    assert np.allclose(evaluate(grid).matrix(), evaluate(block_grid_weights(u, v)).matrix(), atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(SIZES, SIZES, SIZES, SIZES, SIZES)
def test_sums_of_kronecker_products_and_trains_of_two_cores(m1: int, n1: int, m2: int, n2: int, terms: int) -> None:
    left, right = torch.randn(terms, m1, n1), torch.randn(terms, m2, n2)
    matrix = sum(torch.kron(a, b) for a, b in zip(left, right, strict=True))
    train = TensorTrainWeights(left.permute(1, 2, 0)[None], right[..., None])
    for weights in (KroneckerWeights(left, right), train):
        factors = evaluate(weights)
        assert np.allclose(factors.matrix(), matrix, atol=1e-5)
        assert factors.family == weights.family
        assert multiplications(weights) == terms * (n1 * m2 * n2 + m1 * m2 * n1)


def of_each_kind() -> list[LayerWeights]:
    monarch = MonarchWeights(torch.randn(2, 4, 3), torch.randn(4, 3, 2), in_features=5, out_features=10)
    return [
        blast(2, 5, 3, 2, 2),
        replace(blast(2, 3, 2, 2, 1), bias=torch.randn(6)),
        monarch,
        replace(monarch, arrangement="grid", bias=torch.randn(10)),
        KroneckerWeights(torch.randn(2, 2, 3), torch.randn(2, 4, 2), torch.randn(8)),
        TensorTrainWeights(torch.randn(1, 2, 3, 2), torch.randn(2, 2, 2, 1)),
    ]


def test_every_kind_round_trips_through_the_own_format(tmp_path: Path) -> None:
    layers = {f"layer.{place}": weights for place, weights in enumerate(of_each_kind())}
    save_checkpoint(layers, tmp_path / "own.safetensors")
    found = load_checkpoint(tmp_path / "own.safetensors")
    assert list(found) == list(layers)
    for name, weights in layers.items():
        again = found[name]
        assert type(again) is type(weights)
        for field in weights.__dataclass_fields__:
            old, new = getattr(weights, field), getattr(again, field)
            assert torch.equal(old, new) if isinstance(old, Tensor) else old == new
    save_checkpoint(found, tmp_path / "again.safetensors")
    assert (tmp_path / "own.safetensors").read_bytes() == (tmp_path / "again.safetensors").read_bytes()


@pytest.mark.parametrize("place", range(6))
def test_scaling_and_the_networks_own_products_follow_every_kind(place: int) -> None:
    weights = of_each_kind()[place]
    assert isinstance(weights, CHAIN_KINDS)
    rng = np.random.default_rng(0)
    columns, rows = rng.normal(size=weights.in_features), rng.normal(size=weights.out_features)
    matrix = evaluate(weights).matrix()
    scaled = evaluate(scaled_weights(weights, columns, rows))
    assert np.allclose(scaled.matrix(), rows[:, None] * matrix * columns, atol=1e-5)
    assert scaled.family == weights.family
    shift = torch.randn(weights.out_features)
    bias = np.zeros(len(rows)) if weights.bias is None else weights.bias.numpy()
    assert np.allclose(
        evaluate(shifted_outputs(weights, shift)).in_natural_order().bias, bias + shift.numpy(), atol=1e-6
    )
    x = rng.normal(size=(3, weights.in_features))
    assert np.allclose(linear_of({"a": weights})("a", x), x @ matrix.T + bias, atol=1e-5)


def test_a_chain_of_any_depth() -> None:
    # Rank 0 reads, 1 and 2 are fed by it, 3 by all of them.
    mixes = sorted_mixes(torch.tensor([0, 0, 0, 1, 2]), torch.tensor([1, 2, 3, 3, 3]), torch.tensor([2.0, 3, 5, 7, 11]))
    v, u = torch.zeros(4, 2), torch.zeros(1, 4)
    v[0], u[0, 3] = torch.tensor([1.0, 10.0]), 1.0
    chain = ChainWeights(u, v, v != 0, u != 0, **mixes)
    factors = evaluate(chain)
    assert factors.matrix().tolist() == [[52.0, 520.0]]
    assert factors.multiplications == 2 + 5 + 1
    assert mix_levels(4, factors.mix_source, factors.mix_target).tolist() == [0, 1, 1, 2]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: BLASTWeights(torch.ones(2, 3), torch.ones(2, 2, 2), torch.ones(2, 2, 2)), "(output blocks, outputs of a block, rank)"),
        (lambda: BLASTWeights(torch.ones(2, 3, 4), torch.ones(2, 5, 2), torch.ones(2, 2, 4)), "tensor 'C': found shape (2, 5, 2); B has bases of 4 columns, its rank, so it must be (2, 4, 2)"),
        (lambda: BLASTWeights(torch.ones(2, 3, 4), torch.ones(3, 4, 2), torch.ones(2, 2, 4)), "B has 2 output blocks of rank 4 and C 3 input blocks, so it must be (2, 3, 4)"),
        (lambda: BLASTWeights(torch.ones(2, 3, 4), torch.ones(2, 4, 2), torch.full((2, 2, 4), np.nan)), "tensor 'D': found nan at index (0, 0, 0)"),
        (lambda: BLASTWeights(torch.ones(0, 3, 4), torch.ones(2, 4, 2), torch.ones(0, 2, 4)), "each of them is at least 1"),
        (lambda: BLASTWeights(torch.ones(2, 3, 4), torch.ones(2, 4, 2), torch.ones(2, 2, 4), torch.ones(5)), "tensor 'bias': found shape (5,); the layer has 6 outputs"),
        (lambda: MonarchWeights(torch.ones(2, 3, 4), torch.ones(2, 5, 4), 8, 10), "gives k q = 6 values and the second reads l r = 8"),
        (lambda: MonarchWeights(torch.ones(2, 3, 4), torch.ones(2, 5, 3), 9, 10), "in_features: found 9; 'blkdiag1' of shape (2, 3, 4) has 8 at most"),
        (lambda: MonarchWeights(torch.ones(2, 3, 4), torch.ones(2, 5, 3), 8, 11), "out_features: found 11; 'blkdiag2' of shape (2, 5, 3) has 10 at most"),
        (lambda: MonarchWeights(torch.ones(2, 3, 4), torch.ones(2, 5, 3), 8, 10, arrangement="rows"), "it is 'strided' or 'grid'"),
        (lambda: MonarchWeights(torch.ones(2, 3, 4), torch.ones(2, 5, 3), 8, 10, arrangement="grid"), "3 values of a block"),
        (lambda: MonarchWeights(torch.full((1, 1, 1), np.inf), torch.ones(1, 1, 1), 1, 1), "inf at index (0, 0, 0)"),
        (lambda: MonarchWeights(torch.ones(1, 1, 1, dtype=torch.int64), torch.ones(1, 1, 1), 1, 1), "weights are floating point"),
        (lambda: KroneckerWeights(torch.ones(2, 3, 4), torch.ones(1, 3, 4)), "left has 2 terms, so it must be (2, 3, 4)"),
        (lambda: TensorTrainWeights(torch.ones(1, 3, 4, 2), torch.ones(3, 3, 4, 1)), "core1 has rank 2 and this core is the last"),
        (lambda: TensorTrainWeights(torch.ones(2, 3, 4, 2), torch.ones(2, 3, 4, 1)), "it is the first of two cores"),
        (lambda: ChainWeights(torch.ones(1, 1), torch.ones(1, 1), torch.zeros(1, 1, dtype=torch.bool), torch.ones(1, 1, dtype=torch.bool), **no_mixes()), "entries outside its support"),
        (lambda: ChainWeights(torch.ones(2, 1), torch.ones(1, 1), torch.ones(1, 1, dtype=torch.bool), torch.ones(2, 1, dtype=torch.bool), **no_mixes(), output_order=torch.tensor([1, 1])), "it names each of 2 outputs once"),
    ],
)  # fmt: skip
def test_what_is_refused(make: object, words: str) -> None:
    with pytest.raises(InputError) as caught:
        make()  # type: ignore[operator]
    assert words in str(caught.value) and "\n" not in str(caught.value)
