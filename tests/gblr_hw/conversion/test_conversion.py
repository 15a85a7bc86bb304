"""Conversion: the budget is met exactly, the error falls with it, and low rank is beaten at equal tiles."""

from __future__ import annotations

import itertools
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gblr_hw.conversion.conversion import convert
from gblr_hw.conversion.fit.fit_layer import Schedule
from gblr_hw.conversion.fit.refit import refit_expand, refit_reduce
from gblr_hw.files.checkpoint import save_checkpoint
from gblr_hw.lowering.pipeline import lower
from gblr_hw.weights.factors import evaluate, structure_of
from gblr_hw.weights.stored import DenseWeights, LatticeWeights
from gblr_hw.weights.structure import dense_tile_count, is_interval
from simulator import simulate
from simulator.base.errors import InputError
from simulator.machine.machine import Machine

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


QUICK = Schedule(steps=3, sweeps=2, final_steps=2, final_sweeps=6)


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 40), st.integers(1, 40), st.floats(0.01, 1.0), st.booleans(), st.booleans(), st.integers(0, 99))
def test_budget_is_met_exactly_on_awkward_sizes(
    m: int, n: int, tiles: float, runs: bool, dense: bool, seed: int
) -> None:
    machine = SimpleNamespace(rows=5, cols=3)
    rng = np.random.default_rng(seed)
    layers = {"a": rng.normal(size=(m, n)), "b": rng.normal(size=(n, m))}
    total = dense_tile_count(m, n, 5, 3) + dense_tile_count(n, m, 5, 3)
    budget = int(tiles * total + 1e-9)
    options = {"intervals_only": runs, "with_dense_tiles": dense, "allocation": "even", "schedule": QUICK}
    least = sum(min(1 if dense else 2, dense_tile_count(*size, 5, 3)) for size in ((m, n), (n, m)))
    if budget < least:
        with pytest.raises(InputError, match=f"smallest reachable total is {least}"):
            convert(layers, machine, tiles, **options)
        return
    found = convert(layers, machine, tiles, **options)
    used = sum(weights.structure().tile_count(5, 3) for weights in found.values())
    assert used <= budget
    if dense:
        assert used == budget
    if runs:
        for weights in found.values():
            assert is_interval(weights.reads.numpy()).all()
            assert is_interval(weights.writes.numpy()).all()


def test_budget_is_met_exactly_and_error_falls_with_it() -> None:
    matrix, errors = _matrix(), []
    for tiles in (0.25, 0.5, 0.75):
        weights = convert({"a": matrix}, MACHINE, tiles)["a"]
        assert structure_of(evaluate(weights), 8, 8).tile_count(8, 8) == int(64 * tiles)
        errors.append(_error(weights, matrix))
    assert errors == sorted(errors, reverse=True)


def test_better_than_low_rank_in_the_same_tiles() -> None:
    matrix = _matrix()
    values = np.linalg.svd(matrix, compute_uv=False)
    low_rank = np.sqrt((values[16:] ** 2).sum() / (values**2).sum())
    # 16 ranks on 8 + 8 chunks take 32 tiles, half of the dense layer's.
    assert _error(convert({"a": matrix}, MACHINE, 0.5)["a"], matrix) < 0.95 * low_rank


def test_a_covariance_that_is_not_symmetric_is_refused() -> None:
    moments = np.eye(24) * 2
    moments[3, 5] = 0.5
    message = r"covariance of layer 'fc': found 0.5 at \(3, 5\) and 0 at \(5, 3\); second moments .* are symmetric"
    with pytest.raises(InputError, match=message):
        convert({"fc": np.ones((16, 24))}, MACHINE, 0.5, {"fc": moments})
    moments[5, 3] = 0.499  # rounding
    convert({"fc": np.ones((16, 24))}, MACHINE, 0.5, {"fc": moments})


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
    assert torch.equal(weights.matrix(), torch.from_numpy(evaluate(weights).matrix()))


def test_layers_of_different_need_share_one_budget() -> None:
    rng = np.random.default_rng(0)
    easy = rng.normal(size=(64, 2)) @ rng.normal(size=(2, 64)) + 0.01 * rng.normal(size=(64, 64))
    layers, totals, used = {"easy": easy, "hard": rng.normal(size=(64, 64))}, {}, {}
    for allocation in ("even", "by-error"):
        found = convert(layers, MACHINE, 0.5, allocation=allocation, schedule=QUICK)
        used[allocation] = {name: weights.structure().tile_count(8, 8) for name, weights in found.items()}
        totals[allocation] = sum(_error(found[name], layers[name]) ** 2 for name in layers)
    assert sum(used["even"].values()) == sum(used["by-error"].values()) == 64
    assert used["by-error"]["hard"] > used["even"]["hard"] == 32
    assert totals["by-error"] < 0.9 * totals["even"]


def test_the_judge_decides_between_allocations() -> None:
    rng = np.random.default_rng(0)
    layers = {"easy": np.outer(rng.normal(size=64), rng.normal(size=64)), "hard": rng.normal(size=(64, 64))}
    even = convert(layers, MACHINE, 0.5, allocation="even", schedule=QUICK)
    # A judge that prefers whatever leaves the easy layer most tiles picks the even allocation.
    found = convert(
        layers,
        MACHINE,
        0.5,
        allocation="by-error",
        schedule=QUICK,
        judge=lambda net: -net["easy"].structure().tile_count(8, 8),
    )
    assert all(torch.equal(found[name].matrix(), even[name].matrix()) for name in layers)


def test_an_interrupted_conversion_goes_on_bit_for_bit(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    layers = {name: rng.normal(size=(24, 32)) for name in "abc"}
    options = {"allocation": "by-error", "schedule": QUICK}
    whole = convert(layers, MACHINE, 0.5, **options)

    def stop(done: int, of: int, name: str) -> None:
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(layers, MACHINE, 0.5, work=tmp_path / "work", progress=stop, **options)
    kept = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "work" / "lattice").iterdir()}
    assert len(kept) >= 3
    found = convert(layers, MACHINE, 0.5, work=tmp_path / "work", **options)
    assert all((tmp_path / "work" / "lattice" / name).stat().st_mtime_ns == time for name, time in kept.items())
    for name in layers:
        for part in ("u", "v", "dense", "reads", "writes", "tiles"):
            assert torch.equal(getattr(found[name], part), getattr(whole[name], part))


def test_a_work_folder_with_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="found a file; it is a folder that exists or can be made"):
        convert({"a": np.ones((16, 16))}, MACHINE, 0.5, work=tmp_path / "file")
    convert({"a": np.ones((16, 16))}, MACHINE, 0.5, work=tmp_path, schedule=QUICK)
    (path,) = tmp_path.glob("lattice/*.safetensors")
    save_checkpoint({"layer": DenseWeights(torch.ones(16, 16))}, path)
    with pytest.raises(InputError, match="no converted layer"):
        convert({"a": np.ones((16, 16))}, MACHINE, 0.5, work=tmp_path, schedule=QUICK)


@pytest.mark.parametrize("by", ["latency", "energy_pj"])
def test_a_simulated_limit_is_met_closely(by: str) -> None:
    machine, rng = Machine.load("edge-16"), np.random.default_rng(0)
    layers = {"a": rng.normal(size=(96, 80)), "b": rng.normal(size=(64, 96))}
    dense = simulate(
        lower({n: DenseWeights(torch.from_numpy(w).float()) for n, w in layers.items()}, machine, 64), machine
    )
    limit = {"latency": "0.7x-dense", "energy_pj": 0.7 * dense.energy_pj}[by]
    found = convert(layers, machine, tokens=64, schedule=QUICK, **{by: limit})
    report = simulate(lower(found, machine, 64), machine)
    cost, bound = (
        (report.latency_cycles, dense.latency_cycles) if by == "latency" else (report.energy_pj, dense.energy_pj)
    )
    # Within the limit, and closer to it than three tiles' worth of the dense network's cost.
    assert 0.7 * bound * (1 - 3 / 54) < cost <= 0.7 * bound


def test_an_unreachable_limit_names_what_is_reachable() -> None:
    layers = {"a": np.random.default_rng(0).normal(size=(32, 32))}
    with pytest.raises(InputError, match="the least that leaves every layer alive takes"):
        convert(layers, Machine.load("edge-16"), latency=10.0, tokens=16, schedule=QUICK)


def test_zero_matrix_converts_to_zero() -> None:
    weights = convert({"a": np.zeros((16, 16))}, MACHINE, 0.5)["a"]
    assert not evaluate(weights).matrix().any()


@pytest.mark.parametrize(
    ("layers", "options", "text"),
    [
        ({"a": np.ones((8, 8))}, {"tiles": 0.0}, r"in \(0, 1\]"),
        ({"a": np.ones((8, 8))}, {"tiles": float("nan")}, r"in \(0, 1\]"),
        ({"a": np.ones((16, 16))}, {"tiles": 0.2}, "smallest reachable total is 1"),
        ({"a": np.ones((16, 16))}, {"tiles": 0.3, "with_dense_tiles": False}, "smallest reachable total is 2"),
        ({}, {}, "layers: found none"),
        ({"a": np.ones((8, 8))}, {"tiles": 0.5, "latency": "0.5x-dense"}, "tiles and latency"),
        ({"a": np.ones((8, 8))}, {"latency": "0.5x-dense"}, "a limit is simulated"),
        ({"a": np.ones((16, 16))}, {"tiles": 0.9, "covariances": {"a": -np.eye(16)}}, "not positive definite"),
        ({"a": np.ones(8)}, {}, "a layer is a matrix"),
        ({"a": np.full((16, 16), np.inf)}, {}, "weights are finite"),
        ({"a": np.ones((16, 16))}, {"covariances": {"b": np.eye(16)}}, "'b'"),
        ({"a": np.ones((16, 16))}, {"tiles": 0.9, "covariances": {"a": np.eye(15)}}, "covariance of layer 'a'"),
    ],
)
def test_bad_input_is_refused(layers: dict, options: dict, text: str) -> None:
    with pytest.raises(InputError, match=text):
        convert(layers, MACHINE, **options)
