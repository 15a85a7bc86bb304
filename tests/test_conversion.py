"""Conversion: the budget is met exactly, the error falls with it, and low rank is beaten at equal tiles."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gblr_hw.conversion import convert
from gblr_hw.factors import evaluate
from gblr_hw.lattice import Structure, dense_tile_count, is_interval
from gblr_hw.refit import refit_expand, refit_reduce
from gblr_hw.weights import DenseWeights, LatticeWeights
from simulator.errors import InputError

MACHINE = SimpleNamespace(rows=8, cols=8)


def _matrix(seed: int = 0, m: int = 64, n: int = 64) -> np.ndarray:
    """Low rank that differs by block, plus noise: what the lattice is for."""
    rng = np.random.default_rng(seed)
    parts = [np.kron(rng.random((4, 4)) < 0.4, np.ones((m // 4, n // 4))) for _ in range(4)]
    return sum(p * np.outer(rng.normal(size=m), rng.normal(size=n)) for p in parts) + 0.2 * rng.normal(size=(m, n))


def _error(weights: LatticeWeights, matrix: np.ndarray, covariance: np.ndarray | None = None) -> float:
    covariance = np.eye(matrix.shape[1]) if covariance is None else covariance
    left = matrix - evaluate(weights).matrix()
    return float(np.sqrt(np.trace(left @ covariance @ left.T) / np.trace(matrix @ covariance @ matrix.T)))


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 40), st.integers(1, 40), st.floats(0.2, 1.0), st.booleans(), st.integers(0, 1000))
def test_budget_is_never_exceeded_on_awkward_sizes(m: int, n: int, tiles: float, runs: bool, seed: int) -> None:
    machine = SimpleNamespace(rows=5, cols=3)
    budget = int(tiles * dense_tile_count(m, n, 5, 3) + 1e-9)
    matrix = np.random.default_rng(seed).normal(size=(m, n))
    if budget < 2:
        with pytest.raises(InputError, match="one rank takes at least 2 tiles"):
            convert({"a": matrix}, machine, tiles)
        return
    weights = convert({"a": matrix}, machine, tiles, intervals_only=runs)["a"]
    structure = Structure.of(evaluate(weights), 5, 3)
    assert structure.tile_count(5, 3) <= budget
    if runs:
        assert is_interval(weights.reads.numpy()).all()
        assert is_interval(weights.writes.numpy()).all()


def test_budget_is_met_exactly_and_error_falls_with_it() -> None:
    matrix, errors = _matrix(), []
    for tiles in (0.25, 0.5, 0.75):
        weights = convert({"a": matrix}, MACHINE, tiles)["a"]
        assert Structure.of(evaluate(weights), 8, 8).tile_count(8, 8) == int(64 * tiles)
        errors.append(_error(weights, matrix))
    assert errors == sorted(errors, reverse=True)


def test_better_than_low_rank_in_the_same_tiles() -> None:
    matrix = _matrix()
    values = np.linalg.svd(matrix, compute_uv=False)
    low_rank = np.sqrt((values[16:] ** 2).sum() / (values**2).sum())
    # 16 ranks on 8 + 8 chunks take 32 tiles, half of the dense layer's.
    assert _error(convert({"a": matrix}, MACHINE, 0.5)["a"], matrix) < 0.95 * low_rank


def test_covariance_weighting_serves_the_inputs_that_occur() -> None:
    rng, matrix = np.random.default_rng(3), _matrix()
    mix = rng.normal(size=(64, 64)) * np.geomspace(3, 0.05, 64)
    covariance = mix @ mix.T
    plain = convert({"a": matrix}, MACHINE, 0.4)["a"]
    weighted = convert({"a": matrix}, MACHINE, 0.4, {"a": covariance})["a"]
    assert _error(weighted, matrix, covariance) < 0.8 * _error(plain, matrix, covariance)


@pytest.mark.parametrize("weighted", [False, True])
def test_refits_never_raise_the_error(weighted: bool) -> None:
    rng = np.random.default_rng(5)
    matrix, v = rng.normal(size=(13, 17)), rng.normal(size=(6, 17))
    mix = rng.normal(size=(17, 17))
    covariance = mix @ mix.T + 0.1 * np.eye(17) if weighted else None
    norm = np.eye(17) if covariance is None else covariance
    reads, writes = rng.random((6, 4)) < 0.7, rng.random((6, 3)) < 0.7
    v *= np.repeat(reads, 5, axis=1)[:, :17]
    u = np.zeros((13, 6))
    errors = []
    for _ in range(4):
        u = refit_expand(matrix, v, writes, 5, covariance)
        errors.append(np.trace((matrix - u @ v) @ norm @ (matrix - u @ v).T))
        v = refit_reduce(matrix, u, v, reads, 5, covariance)
        errors.append(np.trace((matrix - u @ v) @ norm @ (matrix - u @ v).T))
    assert all(after <= before * (1 + 1e-6) for before, after in itertools.pairwise(errors))
    assert not u[~np.repeat(writes, 5, axis=1)[:, :13].T].any()
    assert not v[~np.repeat(reads, 5, axis=1)[:, :17]].any()


def test_bias_is_kept_and_progress_told() -> None:
    layer, seen = DenseWeights(torch.randn(16, 24), torch.randn(16)), []
    weights = convert({"x": layer}, MACHINE, 0.5, progress=lambda *step: seen.append(step))["x"]
    assert layer.bias is not None
    assert weights.bias is not None
    assert torch.equal(weights.bias, layer.bias)
    assert seen == [(0, 1, "x")]


def test_zero_matrix_converts_to_zero() -> None:
    weights = convert({"a": np.zeros((16, 16))}, MACHINE, 0.5)["a"]
    assert not evaluate(weights).matrix().any()


@pytest.mark.parametrize(
    ("layers", "options", "text"),
    [
        ({"a": np.ones((8, 8))}, {"tiles": 0.0}, r"in \(0, 1\]"),
        ({"a": np.ones((8, 8))}, {"tiles": float("nan")}, r"in \(0, 1\]"),
        ({"a": np.ones((16, 16))}, {"tiles": 0.3}, "layer 'a'.*at least 2 tiles"),
        ({"a": np.ones(8)}, {}, "a layer is a matrix"),
        ({"a": np.full((16, 16), np.inf)}, {}, "weights are finite"),
        ({"a": np.ones((16, 16))}, {"covariances": {"b": np.eye(16)}}, "'b'"),
        ({"a": np.ones((16, 16))}, {"tiles": 0.9, "covariances": {"a": np.eye(15)}}, "covariance of layer 'a'"),
    ],
)
def test_bad_input_is_refused(layers: dict, options: dict, text: str) -> None:
    with pytest.raises(InputError, match=text):
        convert(layers, MACHINE, **options)
