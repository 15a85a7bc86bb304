"""Conversion by family: what each gives up is what an independent formula says, at budgets in tiles and in cycles."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from gblr_hw.conversion.conversion import convert
from gblr_hw.conversion.fit.fit_layer import Schedule
from gblr_hw.conversion.from_dense import FROM_DENSE, Fitting, FromDense, check_from_dense, fitting_of, layer_start
from gblr_hw.conversion.in_order.conversion_in_order import convert_in_order
from gblr_hw.lowering.pipeline import lower
from gblr_hw.weights.family import converted
from gblr_hw.weights.stored import DenseWeights
from simulator import Machine, simulate
from simulator.base.errors import InputError

QUICK = Schedule(steps=2, sweeps=1, final_steps=1, final_sweeps=2)
ARRAY = SimpleNamespace(rows=4, cols=4)


def matrices() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    # Odd sizes: the last chunk of both sides is cut short.
    return {"a": rng.normal(size=(22, 30)) * np.linspace(2, 0.1, 30), "b": rng.normal(size=(30, 22))}


@pytest.mark.parametrize("family", ["low-rank", "low_rank", "low rank"])
def test_low_rank_is_the_svd_cut_to_the_ranks_that_fit(family: str) -> None:
    layers = matrices()
    found = convert(layers, ARRAY, 0.7, family=family)
    for name, matrix in layers.items():
        weights = found[name]
        assert weights.family == "low_rank"
        ranks = weights.u.shape[1]
        left, values, right = np.linalg.svd(matrix)
        wanted = (left[:, :ranks] * values[:ranks]) @ right[:ranks]
        np.testing.assert_allclose(weights.matrix().numpy(), wanted, atol=1e-5)
        # Four ranks fill a tile in each of 8 + 6 chunks, out of 48 dense tiles.
        assert ranks == 8
        assert weights.structure().tile_count(4, 4) == 28 <= 0.7 * 48


@pytest.mark.parametrize("share", [0.35, 0.5, 0.72, 0.9, 1.0])
def test_low_rank_uses_a_budget_to_within_its_smallest_group(share: float) -> None:
    rng = np.random.default_rng(0)
    sizes = {"a": (22, 30), "b": (30, 22), "c": (16, 8), "d": (40, 40), "e": (4, 8)}
    layers = {name: rng.normal(size=size) * np.linspace(2, 0.1, size[1]) for name, size in sizes.items()}
    found = convert(layers, ARRAY, share, family="low-rank")
    dense = {name: -(-m // 4) * -(-n // 4) for name, (m, n) in sizes.items()}
    used = {name: weights.structure().tile_count(4, 4) for name, weights in found.items()}
    left = int(share * sum(dense.values()) + 1e-9) - sum(used.values())
    # What a layer's next four ranks, or all of its dense tiles, would take.
    steps = {
        name: min(-(-m // 4) + -(-n // 4), dense[name] - used[name])
        for name, (m, n) in sizes.items()
        if used[name] < dense[name]
    }
    assert 0 <= left < min(steps.values(), default=1)
    assert left == 0 or share < 1


def test_what_whole_ranks_leave_goes_where_errors_fall_most() -> None:
    rng = np.random.default_rng(0)
    flat, steep = rng.normal(size=(24, 24)), rng.normal(size=(24, 24)) * 0.05
    steep[:, :6] += 3 * rng.normal(size=(24, 6))  # four ranks hold nine tenths of it
    found = convert({"steep": steep, "flat": flat}, ARRAY, 0.5, family="low-rank")
    # 18 tiles each, a group of 12 and 6 left over in both: together one more group.
    assert {name: weights.u.shape[1] for name, weights in found.items()} == {"steep": 4, "flat": 8}


def test_block_sparse_keeps_the_tiles_of_most_energy_and_nothing_else() -> None:
    layers = matrices()
    found = convert(layers, ARRAY, 0.5, family="block-sparse")
    for name, matrix in layers.items():
        padded = np.pad(matrix, ((0, -matrix.shape[0] % 4), (0, -matrix.shape[1] % 4)))
        energy = np.square(padded).reshape(padded.shape[0] // 4, 4, -1, 4).sum(axis=(1, 3))
        kept = found[name].tiles.numpy()
        assert found[name].family == "block_sparse"
        assert kept.sum() == 24
        assert energy[kept].min() >= energy[~kept].max()
        entries = np.kron(kept, np.ones((4, 4)))[: matrix.shape[0], : matrix.shape[1]]
        np.testing.assert_allclose(found[name].matrix().numpy(), matrix * entries, atol=1e-6)


@pytest.mark.parametrize("family", converted())
def test_every_family_meets_a_limit_and_an_even_and_a_moved_budget(family: str) -> None:
    machine, rng = Machine.load("edge-16"), np.random.default_rng(1)
    layers = {name: rng.normal(size=size) for name, size in {"a": (96, 80), "b": (64, 96)}.items()}
    dense = {name: DenseWeights(torch.from_numpy(matrix).float()) for name, matrix in layers.items()}
    bound = 0.8 * simulate(lower(dense, machine, 64), machine).latency_cycles
    found = convert(layers, machine, latency="0.8x-dense", tokens=64, family=family, schedule=QUICK)
    assert simulate(lower(found, machine, 64), machine).latency_cycles <= bound
    moved = convert(layers, machine, 0.6, family=family, allocation="by-error", schedule=QUICK)
    for network in (found, moved):
        assert {weights.family for weights in network.values()} == {family}
        assert all(bool(weights.matrix().isfinite().all()) for weights in network.values())
        assert all(bool(weights.matrix().any()) for weights in network.values())
    used = sum(weights.structure().tile_count(16, 16) for weights in moved.values())
    assert used <= int(0.6 * 54)


def test_a_limit_just_below_dense_leaves_the_most_ranks_that_meet_it() -> None:
    machine, matrix = Machine.load("mid-32"), np.random.default_rng(0).normal(size=(256, 192))
    dense = simulate(lower({"a": DenseWeights(torch.from_numpy(matrix).float())}, machine, 64), machine).latency_cycles
    found = convert({"a": matrix}, machine, latency="0.98x-dense", tokens=64, family="low_rank")
    assert (found["a"].u.shape[1], bool(found["a"].tiles.any())) == (96, False)
    assert simulate(lower(found, machine, 64), machine).latency_cycles <= 0.98 * dense


def test_low_rank_needs_a_tile_of_every_chunk() -> None:
    layers = matrices()
    with pytest.raises(InputError, match="smallest reachable total is 28"):
        convert(layers, ARRAY, 27 / 96, family="low_rank")
    found = convert(layers, ARRAY, 28 / 96, family="low_rank")
    assert [weights.u.shape[1] for weights in found.values()] == [4, 4]


def test_a_layer_too_small_for_its_family_keeps_dense_tiles() -> None:
    layers = {"a": np.random.default_rng(0).normal(size=(4, 8)), "b": np.random.default_rng(1).normal(size=(40, 40))}
    found = convert(layers, ARRAY, 0.6, family="low_rank")
    assert bool(found["a"].tiles.all())
    np.testing.assert_allclose(found["a"].matrix().numpy(), layers["a"], atol=1e-6)
    assert not bool(found["b"].tiles.any())


def test_in_order_takes_a_family_too() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(16, 24), torch.nn.ReLU(), torch.nn.Linear(24, 16))
    found = convert_in_order(model, ARRAY, [torch.randn(40, 16)], ["0", "2"], 0.6, family="block-sparse")
    assert {weights.family for weights in found.values()} == {"block_sparse"}
    assert sum(int(weights.tiles.sum()) for weights in found.values()) == int(0.6 * 48)


def test_work_is_kept_by_family_and_goes_on_under_its_name(tmp_path) -> None:
    layers = matrices()
    first = {
        family: convert(layers, ARRAY, 0.7, family=family, schedule=QUICK, work=tmp_path) for family in converted()
    }
    times = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/*")}
    assert len(times) == 2 * len(converted())
    for family, network in first.items():
        again = convert(layers, ARRAY, 0.7, family=family, schedule=QUICK, work=tmp_path)
        assert all(torch.equal(again[name].matrix(), network[name].matrix()) for name in layers)
        assert {weights.family for weights in again.values()} == {family}
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/*")} == times


def test_an_entry_that_does_not_keep_the_registrys_promise_is_told() -> None:
    lattice = FROM_DENSE["lattice"]
    with pytest.raises(InputError, match="family 'lattice': field 'fitting': found nothing"):
        check_from_dense({"lattice": FromDense(lattice.start, None)})
    with pytest.raises(InputError, match="family 'lattice': field 'start': found nothing"):
        check_from_dense({"lattice": FromDense(None, lattice.fitting)})
    with pytest.raises(InputError, match="family 'dense': field 'start': found something"):
        check_from_dense({"dense": FromDense(lattice.start, None)})
    assert isinstance(fitting_of("lattice"), Fitting)
    with pytest.raises(InputError, match="family 'monarch': field 'fitting': found nothing"):
        fitting_of("monarch")
    with pytest.raises(InputError, match="family 'width': field 'start': found nothing"):
        layer_start(torch.nn.Linear(4, 4), "width", 4, 4)
