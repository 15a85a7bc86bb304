"""Every weight family's embedding in the tile lattice has exactly the tiles that the family's own formula gives."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gblr_hw.weights.factors import evaluate, structure_of
from gblr_hw.weights.from_factors import (
    block_grid_weights,
    block_sparse_weights,
    low_rank_weights,
    monarch_weights,
)
from gblr_hw.weights.stored import DenseWeights, GBLRWeights, LayerWeights
from simulator.base.arithmetic import ceil_div
from tests.oracles.gblr_embedding import as_gblr, block_sparse_as_gblr

SIZES = st.integers(1, 30)
CHUNKS = st.integers(1, 7)


def tiles(weights: LayerWeights, rows: int, cols: int) -> int:
    return structure_of(evaluate(weights), rows, cols).tile_count(rows, cols)


def up(count: int, size: int) -> int:
    return ceil_div(count, size)


@settings(deadline=None, max_examples=40)
@given(m=SIZES, n=SIZES, rows=CHUNKS, cols=CHUNKS, rank=st.integers(0, 9))
def test_dense_and_low_rank(m: int, n: int, rows: int, cols: int, rank: int) -> None:
    assert tiles(DenseWeights(torch.ones(m, n)), rows, cols) == up(n, rows) * up(m, cols)
    factors = low_rank_weights(torch.ones(m, rank), torch.ones(rank, n), chunk_in=rows, chunk_out=cols)
    wanted = up(n, rows) * up(rank, cols) + up(m, cols) * up(rank, rows)
    assert tiles(factors, rows, cols) == wanted
    if m > 1 and n > 1:
        assert tiles(as_gblr(factors), rows, cols) == wanted


@settings(deadline=None, max_examples=40)
@given(m=st.integers(2, 30), n=st.integers(2, 30), rows=CHUNKS, cols=CHUNKS, seed=st.integers(0, 99))
def test_block_sparse(m: int, n: int, rows: int, cols: int, seed: int) -> None:
    kept = torch.from_numpy(np.random.default_rng(seed).random((up(m, cols), up(n, rows))) < 0.5)
    options = {"chunk_in": rows, "chunk_out": cols}
    assert tiles(block_sparse_weights(torch.ones(m, n), kept, **options), rows, cols) == int(kept.sum())
    # A Gaudi mask of one channel is empty: such a block is stored as an interval of two.
    if rows == 1 or cols == 1 or m % cols == 1 or n % rows == 1:
        return
    # As GBLR every kept block is min(P, Q) ranks (also of the blocks that the edge cuts short).
    rank, per_in, per_out = min(rows, cols, m, n), kept.sum(dim=0), kept.sum(dim=1)
    wanted = sum(up(int(c) * rank, cols) for c in per_in) + sum(up(int(r) * rank, rows) for r in per_out)
    assert tiles(block_sparse_as_gblr(torch.ones(m, n), kept, **options), rows, cols) == wanted


@settings(deadline=None, max_examples=40)
@given(grid=st.tuples(st.integers(1, 3), st.integers(1, 3)), p=CHUNKS, q=CHUNKS, rank=st.integers(1, 4))
def test_block_grid(grid: tuple[int, int], p: int, q: int, rank: int) -> None:
    weights = block_grid_weights(torch.ones(*grid, p, rank), torch.ones(*grid, rank, q))
    # On an array of the blocks' size, every column of blocks reads all its ranks from one chunk, every row writes them.
    assert tiles(weights, q, p) == grid[1] * up(grid[0] * rank, p) + grid[0] * up(grid[1] * rank, q)


@settings(deadline=None, max_examples=30)
@given(k=st.integers(1, 4), blocks=st.integers(1, 4), p=CHUNKS, s=CHUNKS, rows=CHUNKS, cols=CHUNKS)
def test_monarch(k: int, blocks: int, p: int, s: int, rows: int, cols: int) -> None:
    q = blocks
    weights = monarch_weights(torch.ones(k, q, p), torch.ones(blocks, s, k * q // blocks))
    hidden = np.arange(k * q)
    reads = [
        [np.any(np.arange(h // q * p, (h // q + 1) * p) // rows == c) for c in range(up(k * p, rows))] for h in hidden
    ]
    outputs = np.arange(s) * blocks
    writes = [[np.any((outputs + h % blocks) // cols == r) for r in range(up(s * blocks, cols))] for h in hidden]
    wanted = sum(up(int(n), cols) for n in np.sum(reads, axis=0)) + sum(
        up(int(n), rows) for n in np.sum(writes, axis=0)
    )
    assert tiles(weights, rows, cols) == wanted


@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_gblr_intervals(data: st.DataObject) -> None:
    m, n, rows, cols = (
        data.draw(st.integers(2, 30)),
        data.draw(st.integers(2, 30)),
        data.draw(CHUNKS),
        data.draw(CHUNKS),
    )
    blocks, rank = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 3))
    rng = np.random.default_rng(data.draw(st.integers(0, 999)))
    width, start = np.empty((2, blocks), int), np.empty((2, blocks), int)
    for side, size in enumerate((n, m)):
        width[side], start[side] = rng.integers(2, size + 1, blocks), rng.integers(0, size, blocks)
    sizes = np.array([[n], [m]])
    weights = GBLRWeights(
        torch.from_numpy(width / sizes), torch.from_numpy(start / sizes), torch.ones(blocks, rank, n),
        torch.ones(blocks, m, rank), None, 100.0, False,
    )  # fmt: skip
    wanted = 0
    for side, (size, chunk, seats) in enumerate(((n, rows, cols), (m, cols, rows))):
        counts = np.zeros(up(size, chunk), int)
        for k in range(blocks):
            counts[np.unique((start[side, k] + np.arange(width[side, k])) % size // chunk)] += rank
        wanted += sum(up(int(c), seats) for c in counts)
    assert tiles(weights, rows, cols) == wanted
