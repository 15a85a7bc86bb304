"""The tile lattice: counting, immutability, and that every weight family is a point of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gblr_hw.weights.factors import evaluate, structure_of
from gblr_hw.weights.stored import DenseWeights, GBLRWeights, LatticeWeights
from gblr_hw.weights.structure import Structure, channel_mask, dense_tile_count, is_interval, touched
from simulator.base.arithmetic import ceil_div
from simulator.base.errors import InputError


def _lattice(reads: np.ndarray, writes: np.ndarray, tiles: np.ndarray, m: int, n: int, chunk: int) -> LatticeWeights:
    v = torch.from_numpy(channel_mask(reads, chunk, n)).float()
    u = torch.from_numpy(channel_mask(writes, chunk, m)).float().T
    by_row = channel_mask(tiles.T, chunk, m).T
    dense = torch.from_numpy(channel_mask(by_row, chunk, n)).float()
    sets = [torch.from_numpy(part.copy()) for part in (reads, writes, tiles)]
    return LatticeWeights(u, v, sets[0], sets[1], sets[2], dense, None, chunk, chunk)


def test_dense_layer_counts_its_grid() -> None:
    structure = structure_of(evaluate(DenseWeights(torch.randn(33, 65))), 32, 16)
    assert structure.tiles.shape == (3, 3)
    assert structure.tile_count(32, 16) == dense_tile_count(33, 65, 32, 16) == 9
    assert structure.ranks == 0


def test_low_rank_counts_each_chunk() -> None:
    structure = Structure.full(outputs=64, inputs=96, ranks=33, rows=32, cols=16)
    # 3 input chunks of 33 ranks in columns of 16, 4 output chunks of 33 ranks in lanes of 32.
    assert structure.tile_count(32, 16) == 3 * 3 + 4 * 2


def test_block_sparse_counts_only_tiles() -> None:
    weight = torch.zeros(64, 64)
    weight[40, 3] = 1.0
    tiles = np.array([[False, False], [True, False]])
    none = np.zeros((0, 2), bool)
    structure = structure_of(evaluate(_lattice(none, none, tiles, 64, 64, 32)), 32, 32)
    assert (structure.tiles == tiles).all()
    assert structure.tile_count(32, 32) == 1


def test_gblr_intervals_wrap_and_dead_blocks_cost_nothing() -> None:
    n = 64
    widths = torch.tensor([[20 / n, 10 / n, 0.0], [16 / n, 0.0, 16 / n]])
    locations = torch.tensor([[56 / n, 0.0, 0.0], [16 / n, 0.0, 0.0]])
    factors = torch.ones(3, 1, n), torch.ones(3, n, 1)
    structure = structure_of(evaluate(GBLRWeights(widths, locations, *factors, None, 100.0, False)), 16, 16)
    assert structure.reads[0].tolist() == [True, False, False, True]
    assert structure.writes[0].tolist() == [False, True, False, False]
    assert structure.ranks == 1
    assert structure.tile_count(16, 16) == 2 + 1
    assert is_interval(structure.reads).all()


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_lattice_weights_come_back_as_their_own_structure(data: st.DataObject) -> None:
    m, n = data.draw(st.integers(1, 23)), data.draw(st.integers(1, 23))
    chunk, ranks = data.draw(st.sampled_from([1, 3, 5, 8])), data.draw(st.integers(0, 6))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**20)))
    chunks_in, chunks_out = ceil_div(n, chunk), ceil_div(m, chunk)
    reads, writes = rng.random((ranks, chunks_in)) < 0.5, rng.random((ranks, chunks_out)) < 0.5
    alive = np.asarray(reads.any(axis=1) & writes.any(axis=1))[:, None]
    tiles = rng.random((chunks_out, chunks_in)) < 0.4
    wanted = Structure(tiles, reads & alive, writes & alive)
    found = structure_of(evaluate(_lattice(reads & alive, writes & alive, tiles, m, n, chunk)), chunk, chunk)
    for part in ("tiles", "reads", "writes"):
        assert (getattr(found, part) == getattr(wanted, part)).all()
    brute = tiles.sum()
    for side in (wanted.reads, wanted.writes):
        brute += sum(ceil_div(int(column.sum()), chunk) for column in side.T)
    assert found.tile_count(chunk, chunk) == brute


@given(st.lists(st.booleans(), min_size=1, max_size=9))
def test_is_interval_against_trying_every_run(row: list[bool]) -> None:
    size = len(row)
    runs = {tuple((i - s) % size < w for i in range(size)) for s in range(size) for w in range(size + 1)}
    assert bool(is_interval(np.array([row]))[0]) == (tuple(row) in runs)


def test_touched_and_channel_mask_are_inverse_on_chunks() -> None:
    chunks = np.array([[True, False, True], [False, True, False]])
    assert (touched(channel_mask(chunks, 4, 10), 4) == chunks).all()
    assert channel_mask(chunks, 4, 10).sum() == 4 + 2 + 4


def test_structure_is_immutable_and_does_not_follow_its_source() -> None:
    reads = np.ones((2, 2), bool)
    structure = Structure(np.zeros((1, 2), bool), reads, np.ones((2, 1), bool))
    reads[:] = False
    assert structure.ranks == 2
    with pytest.raises(ValueError, match="read-only"):
        structure.reads[0, 0] = False


@pytest.mark.parametrize(
    ("tiles", "reads", "writes", "text"),
    [
        (np.zeros((1, 2)), np.ones((1, 2), bool), np.ones((1, 1), bool), "boolean"),
        (np.zeros((1, 3), bool), np.ones((1, 2), bool), np.ones((1, 1), bool), "must agree"),
        (np.zeros((1, 2), bool), np.ones((2, 2), bool), np.ones((1, 1), bool), "must agree"),
        (np.zeros((1, 2), bool), np.ones((1, 2), bool), np.zeros((1, 1), bool), "rank 0 with one side only"),
    ],
)
def test_bad_structures_are_refused(tiles: np.ndarray, reads: np.ndarray, writes: np.ndarray, text: str) -> None:
    with pytest.raises(InputError, match=text):
        Structure(tiles, reads, writes)
