"""One matrix at a tile budget: refits, candidates, and that nothing simpler is ever better at equal tiles."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gblr_hw.conversion.fit.accelerate import refit
from gblr_hw.conversion.fit.fit_layer import Schedule, fit_layer
from gblr_hw.conversion.fit.fit_problem import Fit, FitProblem
from gblr_hw.conversion.fit.refit import refit_expand, refit_reduce
from gblr_hw.weights.structure import Structure, channel_mask, is_interval
from simulator.base.arithmetic import ceil_div

QUICK = Schedule(steps=3, sweeps=2, final_steps=2, final_sweeps=8)
WEIGHTED = pytest.mark.parametrize("weighted", [False, True])


def moments(rng: np.random.Generator, n: int) -> np.ndarray:
    mix = rng.normal(size=(n, n)) * np.geomspace(2, 0.2, n)
    return mix @ mix.T + 0.05 * np.eye(n)


def corpus(seed: int, m: int = 40, n: int = 36) -> dict[str, np.ndarray]:
    """Matrices of every kind of structure that a family is made for."""
    rng = np.random.default_rng(seed)
    blocks = np.kron(rng.random((5, 6)) < 0.3, np.ones((8, 6)))[:m, :n]
    local = sum(
        np.outer(rng.normal(size=m) * (np.abs(np.arange(m) - m * rng.random()) < 9), rng.normal(size=n))
        for _ in range(12)
    )
    return {
        "noise": rng.normal(size=(m, n)),
        "low rank": rng.normal(size=(m, 4)) @ rng.normal(size=(4, n)) + 0.1 * rng.normal(size=(m, n)),
        "block sparse": blocks * rng.normal(size=(m, n)) + 0.02 * rng.normal(size=(m, n)),
        "mixed": blocks * rng.normal(size=(m, n)) + 2 * np.outer(rng.normal(size=m), rng.normal(size=n)),
        "local ranks": local + 0.1 * rng.normal(size=(m, n)),
        "zero": np.zeros((m, n)),
    }


def low_rank_error(problem: FitProblem, budget: int) -> float:
    """Squared error of truncated SVD in whole tiles, from the spectrum alone."""
    root = np.eye(problem.matrix.shape[1]) if problem.moments is None else np.linalg.cholesky(problem.moments)
    values = np.linalg.svd(problem.matrix @ root, compute_uv=False)
    ranks = [
        k for k in range(len(values) + 1)
        if problem.chunks_in * ceil_div(k, problem.cols) + problem.chunks_out * ceil_div(k, problem.rows) <= budget
    ]  # fmt: skip
    return float((values[max(ranks) :] ** 2).sum())


def block_sparse_error(problem: FitProblem, budget: int) -> float:
    """Squared error of the largest tiles kept as they are."""
    energy = np.add.reduceat(np.square(problem.matrix), np.arange(0, problem.matrix.shape[1], problem.rows), axis=1)
    energy = np.add.reduceat(energy, np.arange(0, len(energy), problem.cols), axis=0)
    kept = np.zeros(energy.size, bool)
    kept[np.argsort(-energy, axis=None)[:budget]] = True
    mask = np.repeat(np.repeat(kept.reshape(energy.shape), problem.cols, 0), problem.rows, 1)
    left = problem.matrix * ~mask[: problem.matrix.shape[0], : problem.matrix.shape[1]]
    return float((problem.weigh(left) * left).sum())


@pytest.mark.parametrize("seed", [0, 1])
@WEIGHTED
@pytest.mark.parametrize("runs", [False, True])
def test_never_worse_than_svd_or_block_sparse_at_equal_tiles(seed: int, weighted: bool, runs: bool) -> None:
    for name, matrix in corpus(seed).items():
        problem = FitProblem(matrix, moments(np.random.default_rng(seed), 36) if weighted else None, 6, 8)
        for budget in (6, 13, 21, 29):
            structure, fit = fit_layer(problem, budget, QUICK, intervals_only=runs)
            assert structure.tile_count(6, 8) <= budget
            error = problem.squared_error(fit)
            assert error <= low_rank_error(problem, budget) * (1 + 1e-6) + 1e-9, (name, budget)
            assert error <= block_sparse_error(problem, budget) * (1 + 1e-6) + 1e-9, (name, budget)
            if runs:
                assert is_interval(structure.reads).all()
                assert is_interval(structure.writes).all()


def test_the_dense_budget_gives_the_matrix_itself() -> None:
    matrix = np.random.default_rng(0).normal(size=(17, 11))
    problem = FitProblem(matrix, None, 4, 5)
    structure, fit = fit_layer(problem, 12, QUICK)
    assert structure.tile_count(4, 5) == 12
    assert np.array_equal(fit.matrix(), matrix)


def test_dense_tiles_and_ranks_are_found_together() -> None:
    rng = np.random.default_rng(4)
    matrix = np.outer(rng.normal(size=40), rng.normal(size=40)) + 1e-3 * rng.normal(size=(40, 40))
    matrix[8:16, 16:24] += 3 * rng.normal(size=(8, 8))
    matrix[32:40, 0:8] += 3 * rng.normal(size=(8, 8))
    problem = FitProblem(matrix, None, 8, 8)
    # One rank on 5 + 5 chunks and the two tiles: 12 of 25.
    _, fit = fit_layer(problem, 12, Schedule())
    assert problem.squared_error(fit) < 5e-3 * problem.energy
    alone, ranks = fit_layer(problem, 12, Schedule(), dense_tiles=False)
    assert not alone.tiles.any()
    assert problem.squared_error(fit) < 0.1 * problem.squared_error(ranks)


@WEIGHTED
def test_refits_fall_and_beat_as_many_plain_sweeps(weighted: bool) -> None:
    rng = np.random.default_rng(0)
    matrix, covariance = corpus(0, 30, 28)["local ranks"], moments(rng, 28) if weighted else None
    problem = FitProblem(matrix, covariance, 5, 6)
    reads, writes = rng.random((12, 6)) < 0.6, rng.random((12, 5)) < 0.6
    alive = np.asarray(reads.any(axis=1) & writes.any(axis=1))[:, None]
    structure = Structure(np.zeros((5, 6), bool), reads & alive, writes & alive)
    v = rng.normal(size=(12, 28)) * channel_mask(structure.reads, 5, 28)
    plain, plain_v = [], v
    for _ in range(41):
        u = refit_expand(matrix, plain_v, structure.writes, 6, covariance)
        plain.append(problem.squared_error(Fit(u, plain_v)))
        plain_v = refit_reduce(matrix, u, plain_v, structure.reads, 5, covariance)
    errors = [
        problem.squared_error(refit(problem, structure, Fit(np.zeros((30, 12)), v), n)) for n in (0, 1, 5, 20, 40)
    ]
    assert all(after <= before * (1 + 1e-9) for before, after in itertools.pairwise(errors))
    assert errors[:2] == pytest.approx(plain[:2], rel=1e-6)
    assert errors[-1] < plain[-1]


@WEIGHTED
def test_what_a_dense_tile_saves_is_measured(weighted: bool) -> None:
    rng = np.random.default_rng(3)
    left = rng.normal(size=(11, 13))
    problem = FitProblem(left, moments(rng, 13) if weighted else None, 5, 4)
    worth = problem.tile_worth(left)
    for r, c in ((0, 0), (2, 2), (1, 2)):
        kept = np.zeros((3, 3), bool)
        kept[r, c] = True
        tile = problem.best_tiles(left, kept)
        assert not tile[:, np.r_[0 : c * 5, (c + 1) * 5 : 13]].any()
        after = left - tile
        saved = problem.energy - float((problem.weigh(after) * after).sum())
        assert worth[r, c] == pytest.approx(saved, rel=1e-4)


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 25), st.integers(1, 25), st.integers(1, 30), st.booleans(), st.integers(0, 99))
def test_awkward_sizes_stay_within_the_budget(m: int, n: int, budget: int, runs: bool, seed: int) -> None:
    problem = FitProblem(np.random.default_rng(seed).normal(size=(m, n)), None, 5, 3)
    structure, fit = fit_layer(problem, budget, QUICK, intervals_only=runs)
    assert structure.tile_count(5, 3) <= budget
    assert not fit.u[~channel_mask(structure.writes, 3, m).T].any() or not structure.reads.size
