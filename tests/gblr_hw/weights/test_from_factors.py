"""The baselines as exact weights: every family evaluates to its own matrix, and round trips through GBLR bit by bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gblr_hw.layers.linear import GBLRLinear
from gblr_hw.weights.factors import evaluate
from gblr_hw.weights.from_factors import (
    block_grid_weights,
    block_sparse_weights,
    low_rank_weights,
    monarch_weights,
)
from gblr_hw.weights.multiplications import multiplications
from gblr_hw.weights.stored import DenseWeights, LatticeWeights
from simulator.base.arithmetic import ceil_div
from simulator.base.errors import InputError
from tests.oracles.gblr_embedding import as_gblr, block_sparse_as_gblr, cyclic_runs


def assert_same(found: DenseWeights | LatticeWeights, matrix: torch.Tensor) -> None:
    """The evaluated matrix is the given one, and so is that of the embedding into GBLR and of the module holding it."""
    factors = evaluate(found)
    np.testing.assert_allclose(factors.matrix(), matrix.double().numpy(), rtol=1e-6, atol=1e-6)
    embedded = as_gblr(found)
    # Bit by bit: evaluated masks are ones and zeros, and the factors are the same numbers.
    assert np.array_equal(evaluate(embedded).matrix(), factors.matrix())
    if embedded.blocks:
        layer = GBLRLinear.from_weights(embedded).eval()
        torch.testing.assert_close(layer.matrix(), matrix, rtol=1e-5, atol=1e-5)


@settings(deadline=None, max_examples=30)
@given(m=st.integers(2, 40), n=st.integers(2, 40), rank=st.integers(0, 5), chunk=st.sampled_from([1, 3, 8, 64]))
def test_low_rank(m: int, n: int, rank: int, chunk: int) -> None:
    torch.manual_seed(m + n)
    u, v = torch.randn(m, rank), torch.randn(rank, n)
    weights = low_rank_weights(u, v, torch.randn(m), chunk_in=chunk, chunk_out=chunk)
    assert_same(weights, u @ v)
    assert weights.family == "low_rank"
    assert multiplications(weights) == rank * min(m + n, m * n)
    assert bool((as_gblr(weights).widths == 1).all())


@settings(deadline=None, max_examples=30)
@given(
    grid=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    p=st.integers(1, 5),
    q=st.integers(1, 5),
    rank=st.integers(1, 3),
    crop=st.booleans(),
)
def test_block_grid(grid: tuple[int, int], p: int, q: int, rank: int, crop: bool) -> None:
    torch.manual_seed(p * 10 + q)
    m, n = grid[0] * p - int(crop and p > 1), grid[1] * q - int(crop and q > 1)
    if min(m, n) < 2:
        return
    u, v = torch.randn(*grid, p, rank), torch.randn(*grid, rank, q)
    weights = block_grid_weights(u, v, shape=(m, n))
    matrix = torch.cat([torch.cat([u[i, j] @ v[i, j] for j in range(grid[1])], 1) for i in range(grid[0])])[:m, :n]
    assert_same(weights, matrix)
    assert (weights.chunk_in, weights.chunk_out, weights.family) == (q, p, "monarch")


@pytest.mark.parametrize(
    ("blocks_in", "q", "p", "blocks_out", "s"), [(2, 6, 4, 3, 5), (4, 4, 4, 4, 4), (1, 6, 2, 2, 3)]
)
def test_monarch_is_the_product_of_its_factors(blocks_in: int, q: int, p: int, blocks_out: int, s: int) -> None:
    torch.manual_seed(0)
    r = blocks_in * q // blocks_out
    right, left = torch.randn(blocks_in, q, p), torch.randn(blocks_out, s, r)
    inputs = torch.randn(7, blocks_in * p)
    hidden = torch.einsum("tkp,kqp->tkq", inputs.view(7, blocks_in, p), right).reshape(7, r, blocks_out)
    wanted = torch.einsum("trl,lsr->tsl", hidden, left).reshape(7, -1)
    weights = monarch_weights(right, left)
    found = inputs.double().numpy() @ evaluate(weights).matrix().T
    np.testing.assert_allclose(found, wanted.numpy(), rtol=1e-4, atol=1e-4)
    if s > 1 and blocks_out > 1:
        with pytest.raises(InputError, match="a GBLR mask is one cyclic interval"):
            as_gblr(weights)


@settings(deadline=None, max_examples=30)
@given(
    m=st.integers(2, 20),
    n=st.integers(2, 20),
    chunk_out=st.integers(1, 6),
    chunk_in=st.integers(1, 6),
    seed=st.integers(0, 9),
)
def test_block_sparse(m: int, n: int, chunk_out: int, chunk_in: int, seed: int) -> None:
    torch.manual_seed(seed)
    weight, kept = torch.randn(m, n), torch.rand(ceil_div(m, chunk_out), ceil_div(n, chunk_in)) < 0.5
    weights = block_sparse_weights(weight, kept, chunk_in=chunk_in, chunk_out=chunk_out)
    matrix = weight.clone()
    for i, j in (~kept).nonzero().tolist():
        matrix[i * chunk_out : (i + 1) * chunk_out, j * chunk_in : (j + 1) * chunk_in] = 0
    assert_same(weights, matrix)
    assert torch.equal(weights.dense, matrix)
    by_block = evaluate(block_sparse_as_gblr(weight, kept, chunk_in=chunk_in, chunk_out=chunk_out))
    assert np.array_equal(by_block.matrix(), matrix.double().numpy())
    # Dense is the cheaper of the two orders for a block whose rank is its side.
    if min(chunk_in, chunk_out) > 1 and m % chunk_out == 0 and n % chunk_in == 0:
        assert by_block.multiplications == int(kept.sum()) * chunk_in * chunk_out


def test_dense_as_gblr_is_exact() -> None:
    weight = torch.randn(5, 9)
    assert_same(DenseWeights(weight, torch.randn(5)), weight)


def test_cyclic_runs_wrap() -> None:
    support = torch.tensor([[1, 0, 0, 1, 1], [0, 1, 1, 0, 0], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0]]).bool()
    starts, lengths = cyclic_runs(support)
    assert starts.tolist() == [3, 1, 0, 0]
    assert lengths.tolist() == [3, 2, 5, 0]


def test_wrapping_ranks_embed() -> None:
    reads, writes = torch.tensor([[True, False, True]]), torch.tensor([[True, True, False]])
    v, u = torch.randn(1, 6), torch.randn(6, 1)
    v[0, 2:4], u[4:, 0] = 0, 0
    tiles = torch.zeros(3, 3, dtype=torch.bool)
    weights = LatticeWeights(u, v, reads, writes, tiles, torch.zeros(6, 6), None, 2, 2)
    assert_same(weights, u @ v)


def test_what_gblr_cannot_hold_is_refused() -> None:
    with pytest.raises(InputError, match="a GBLR mask of width 1/n or less is empty"):
        as_gblr(low_rank_weights(torch.ones(4, 1), torch.ones(1, 1)))
    with pytest.raises(InputError, match=r"they are \(m, r\) and \(r, n\)"):
        low_rank_weights(torch.ones(4, 2), torch.ones(3, 4))
    with pytest.raises(InputError, match=r"\(R, C, p, r\)"):
        block_grid_weights(torch.ones(1, 1, 2, 2), torch.ones(1, 1, 3, 2))
    with pytest.raises(InputError, match="it must fill a grid of 1 x 1 blocks"):
        block_grid_weights(torch.ones(1, 1, 2, 2), torch.ones(1, 1, 2, 2), shape=(3, 2))
    with pytest.raises(InputError, match="k q = l r"):
        monarch_weights(torch.ones(2, 2, 2), torch.ones(3, 2, 2))
    with pytest.raises(InputError, match="tensor 'kept'"):
        block_sparse_weights(torch.ones(4, 4), torch.ones(3, 3, dtype=torch.bool), chunk_in=2, chunk_out=2)


def test_lattice_checks_itself() -> None:
    good = low_rank_weights(torch.ones(4, 1), torch.ones(1, 4), chunk_in=2, chunk_out=2)

    def build(**change: object) -> LatticeWeights:
        return LatticeWeights(**({name: getattr(good, name) for name in good.__dataclass_fields__} | change))

    with pytest.raises(InputError, match=r"tensor 'v': found 1.0 at index \(0, 2\); it must be zero outside"):
        build(reads=torch.tensor([[True, False]]))
    with pytest.raises(InputError, match="tensor 'dense'"):
        build(dense=torch.ones(4, 4))
    with pytest.raises(InputError, match="a set of chunks is boolean"):
        build(writes=torch.ones(1, 2))
    with pytest.raises(InputError, match="family: found 'other'"):
        build(family="other")
    with pytest.raises(InputError, match="chunk_in: found 0"):
        build(chunk_in=0)
    with pytest.raises(InputError, match=r"tensor 'tiles': found shape \(1, 1\)"):
        build(tiles=torch.zeros(1, 1, dtype=torch.bool))
