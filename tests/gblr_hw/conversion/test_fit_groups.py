"""Rank groups: P ranks share their chunks, budgets hold, and a plain array takes the tiles that were counted."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gblr_hw.conversion.conversion import convert
from gblr_hw.conversion.fit.accelerate import refit
from gblr_hw.conversion.fit.fit_groups import fit_groups
from gblr_hw.conversion.fit.fit_layer import Schedule, block_sparse_layer, truncated_layer, truncated_svd
from gblr_hw.conversion.fit.fit_problem import FitProblem
from gblr_hw.lowering.pipeline import lower
from gblr_hw.weights.stored import DenseWeights, LatticeWeights
from gblr_hw.weights.structure import Structure
from simulator import simulate
from simulator.base.errors import InputError
from simulator.machine.machine import Machine

QUICK = Schedule(steps=3, sweeps=2, final_steps=2, final_sweeps=8)


def moments(rng: np.random.Generator, n: int) -> np.ndarray:
    mix = rng.normal(size=(n, n)) * np.geomspace(2, 0.2, n)
    return mix @ mix.T + 0.05 * np.eye(n)


def shared(structure: Structure, size: int) -> bool:
    """Do ranks share their chunks `size` at a time?"""
    return all(
        (part == part[0]).all()
        for side in (structure.reads, structure.writes)
        for part in np.split(side, range(size, len(side), size))
        if len(part)
    )


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 30), st.integers(1, 30), st.integers(1, 40), st.booleans(), st.booleans(), st.integers(0, 99))
def test_groups_share_chunks_within_the_budget_and_nothing_simpler_is_better(
    m: int, n: int, budget: int, dense: bool, weighted: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    problem = FitProblem(rng.normal(size=(m, n)), moments(rng, n) if weighted else None, 4, 4)
    structure, fit = fit_groups(problem, budget, QUICK, dense_tiles=dense)
    assert shared(structure, 4)
    tiles = structure.tile_count(4, 4)
    # Also counted without packing: a tile for each group and chunk.
    groups = Structure(structure.tiles, structure.reads[::4], structure.writes[::4])
    assert tiles == groups.tile_count(1, 1) <= budget
    if dense:
        assert tiles == min(budget, problem.chunks_in * problem.chunks_out)
    assert structure.tiles.any() <= (dense or budget < 2)
    for simpler in (truncated_layer, block_sparse_layer) if dense else (truncated_layer,):
        bound = problem.squared_error(simpler(problem, budget)[1])
        assert problem.squared_error(fit) <= bound * (1 + 1e-6) + 1e-9


@pytest.mark.parametrize("weighted", [False, True])
def test_near_the_best_of_all_structures(weighted: bool) -> None:
    """Two groups on 3 x 3 chunks, every structure tried: few are better, in the plain norm and with moments.

    Measured on these matrices: none, three or one of 324 in the plain norm; with moments 11, 2 and 6.
    """
    sets = [np.array(bits, bool) for bits in itertools.product((False, True), repeat=3) if any(bits)]
    sides = [(reads, writes) for reads in sets for writes in sets]
    better = []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        problem = FitProblem(rng.normal(size=(6, 6)), moments(rng, 6) if weighted else None, 2, 2)
        start, errors = truncated_svd(problem, problem.matrix, 4), []
        for first, second in itertools.combinations_with_replacement(sides, 2):
            reads, writes = (np.stack([first[i], second[i]]).repeat(2, axis=0) for i in (0, 1))
            structure = Structure(np.zeros((3, 3), bool), reads, writes)
            if structure.tile_count(2, 2) == 7:
                inside = np.where(reads.repeat(2, axis=1), start.v, 0)
                found = refit(problem, structure, type(start)(start.u, inside), 12)
                errors.append(problem.squared_error(found))
        _, fit = fit_groups(problem, 7, Schedule(), dense_tiles=False)
        better.append((np.array(errors) < problem.squared_error(fit) * (1 - 1e-6)).sum())
    assert len(errors) == 324
    assert max(better) <= (12 if weighted else 3), better


@pytest.mark.night
def test_a_plain_array_runs_the_tiles_that_were_counted() -> None:
    rng = np.random.default_rng(0)
    layers = {
        name: DenseWeights(torch.from_numpy(rng.normal(size=(m, n))).float())
        for name, m, n in (("a", 256, 192), ("b", 192, 256))
    }
    plain, mid = Machine.load("plain-32"), Machine.load("mid-32")
    found = convert(layers, plain, 0.5, with_dense_tiles=False, schedule=QUICK)
    counted = [weights.structure().tile_count(32, 32) for weights in found.values()]
    report, same, dense = (
        simulate(lower(network, machine, 128), machine)
        for network, machine in ((found, plain), (found, mid), (layers, plain))
    )
    assert [layer.tiles for layer in report.layers] == [layer.tiles for layer in same.layers] == counted
    assert all(weights.reads.shape[0] % 32 == 0 for weights in found.values())
    assert report.latency_cycles == pytest.approx(same.latency_cycles, rel=0.02)
    assert report.latency_cycles < 0.7 * dense.latency_cycles
    asked = convert(layers, mid, 0.5, family="rank-groups", with_dense_tiles=False, schedule=QUICK)
    assert all(torch.equal(asked[name].reads, found[name].reads) for name in layers)
    # Single ranks fitted for scatter need more tiles on the plain array than were counted.
    single = convert(layers, mid, 0.5, with_dense_tiles=False, schedule=QUICK)
    assert simulate(lower(single, plain, 128), plain).tiles > sum(counted)


def test_a_limit_is_met_with_whole_groups() -> None:
    rng, machine = np.random.default_rng(1), Machine.load("plain-32")
    layers = {"a": rng.normal(size=(256, 192)), "b": rng.normal(size=(192, 256))}
    dense = {name: DenseWeights(torch.from_numpy(matrix).float()) for name, matrix in layers.items()}
    bound = 0.7 * simulate(lower(dense, machine, 64), machine).latency_cycles
    found = convert(layers, machine, latency="0.7x-dense", tokens=64, schedule=QUICK)
    assert 0.9 * bound < simulate(lower(found, machine, 64), machine).latency_cycles <= bound
    assert all(shared(weights.structure(), 32) for weights in found.values())


def test_groups_and_single_ranks_have_work_folders_of_their_own(tmp_path) -> None:
    layers, machine = {"a": np.random.default_rng(0).normal(size=(24, 24))}, SimpleNamespace(rows=4, cols=4)

    def made(family: str) -> LatticeWeights:
        return convert(layers, machine, 0.6, family=family, schedule=QUICK, work=tmp_path)["a"]

    assert shared(made("rank_groups").structure(), 4)
    assert not shared(made("lattice").structure(), 4)
    assert {path.name for path in tmp_path.iterdir()} == {"rank_groups", "lattice"}
    assert made("rank-groups").family == "rank_groups"


@pytest.mark.parametrize(
    ("array", "options", "text"),
    [
        (SimpleNamespace(rows=4, cols=5), {"family": "rank_groups"}, "rank groups fill a tile on both sides"),
        (
            SimpleNamespace(rows=4, cols=4),
            {"family": "rank_groups", "intervals_only": True},
            "found with rank groups; only the family lattice keeps",
        ),
        (Machine.load("plain-32"), {"intervals_only": True}, "a machine without scatter does not run it"),
        (Machine.load("plain-32"), {"family": "lattice"}, "Use 'rank_groups', or a machine with scatter"),
        (
            Machine.load("mid-32"),
            {"family": "groups"},
            "family: found 'groups'; it must be one of low_rank, block_sparse",
        ),
        (Machine.load("mid-32"), {"family": "block sparse", "with_dense_tiles": False}, "off with block sparse"),
    ],
)
def test_what_groups_cannot_be_is_refused(array: object, options: dict, text: str) -> None:
    with pytest.raises(InputError, match=text):
        convert({"a": np.ones((64, 64))}, array, 0.5, **options)
