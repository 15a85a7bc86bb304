"""Projection: the budget is met exactly, nothing is dropped needlessly, and the result is near the best there is."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gblr_hw.projection.by_unit import project_by_unit
from gblr_hw.projection.project_groups import project_groups
from gblr_hw.projection.project_low_rank import project_low_rank
from gblr_hw.projection.projection import Importance, InfeasibleBudgetError, project, project_jointly
from gblr_hw.projection.projection_kernels import fill_seats, take_until
from gblr_hw.weights.structure import Structure, is_interval
from simulator.base.arithmetic import ceil_div
from simulator.base.errors import InputError


def _random(rng: np.random.Generator, chunks_out: int, chunks_in: int, ranks: int, *, runs: bool = False) -> Structure:
    if runs:
        reads, writes = (_runs(rng, ranks, chunks) for chunks in (chunks_in, chunks_out))
    else:
        reads, writes = rng.random((ranks, chunks_in)) < 0.7, rng.random((ranks, chunks_out)) < 0.7
    alive = np.asarray(reads.any(axis=1) & writes.any(axis=1))[:, None]
    return Structure(rng.random((chunks_out, chunks_in)) < 0.5, reads & alive, writes & alive)


def _runs(rng: np.random.Generator, ranks: int, chunks: int) -> np.ndarray:
    start, width = rng.integers(chunks, size=(ranks, 1)), rng.integers(1, chunks + 1, size=(ranks, 1))
    return (np.arange(chunks) - start) % chunks < width


def _worth(rng: np.random.Generator, structure: Structure) -> Importance:
    return Importance(*(rng.exponential(size=getattr(structure, p).shape) for p in ("tiles", "reads", "writes")))


@settings(deadline=None, max_examples=120)
@given(st.integers(0, 2**20), st.integers(1, 5), st.integers(1, 5), st.integers(0, 14), st.booleans(), st.data())
def test_budget_is_met_and_nothing_more_could_return(
    seed: int, chunks_out: int, chunks_in: int, ranks: int, runs: bool, data: st.DataObject
) -> None:
    rng = np.random.default_rng(seed)
    rows, cols = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 4))
    structure = _random(rng, chunks_out, chunks_in, ranks, runs=runs)
    first = structure.tile_count(rows, cols)
    if first < 2:
        return
    budget = data.draw(st.integers(2, first))
    worth = _worth(rng, structure)
    result = project(structure, worth, budget, rows, cols, intervals_only=runs)
    count = result.tile_count(rows, cols)
    assert count <= budget
    for part in ("tiles", "reads", "writes"):
        assert not (getattr(result, part) & ~getattr(structure, part)).any()
    if runs:
        assert is_interval(result.reads).all()
        assert is_interval(result.writes).all()
    if count < budget:
        assert not (structure.tiles & ~result.tiles).any()
        alive = np.asarray(result.reads.any(axis=1))
        for before, after in ((structure.reads, result.reads), (structure.writes, result.writes)):
            missing = before & ~after & alive[:, None]
            if runs:
                missing &= np.roll(after, 1, axis=1) | np.roll(after, -1, axis=1)
            assert not missing.any()


def test_a_budget_that_holds_everything_changes_nothing() -> None:
    structure = _random(np.random.default_rng(1), 3, 4, 9)
    result = project(structure, _worth(np.random.default_rng(2), structure), structure.tile_count(2, 3), 2, 3)
    for part in ("tiles", "reads", "writes"):
        assert (getattr(result, part) == getattr(structure, part)).all()


def test_the_cheapest_remainder_goes_first() -> None:
    # 5 ranks in columns of 4: emptying the second tile of chunk 1 costs one rank of worth 0.5, every other move costs
    # more.
    structure = Structure(np.zeros((1, 2), bool), np.ones((5, 2), bool), np.ones((5, 1), bool))
    reads = np.full((5, 2), 9.0)
    reads[3, 1] = 0.5
    worth = Importance(np.zeros((1, 2)), reads, np.full((5, 1), 99.0))
    result = project(structure, worth, structure.tile_count(8, 4) - 1, 8, 4)
    dropped = np.argwhere(structure.reads & ~result.reads)
    assert dropped.tolist() == [[3, 1]]


@pytest.mark.parametrize(("runs", "dense"), [(False, True), (False, False), (True, False)])
def test_close_to_exhaustive_search(runs: bool, dense: bool) -> None:
    """Loss above the best, as a share of all there is to lose: 0.15 to 0.3 % on average, 9 % at most, mostly none."""
    structure = Structure(np.full((1, 2), dense), np.ones((3, 2), bool), np.ones((3, 1), bool))
    candidates = [
        c for c in _all_parts(structure) if not runs or (is_interval(c.reads).all() and is_interval(c.writes).all())
    ]
    counts = np.array([candidate.tile_count(2, 2) for candidate in candidates])
    gaps = []
    for seed in range(12):
        worth = _consistent_worth(np.random.default_rng(seed), structure)
        losses = np.array([_loss(candidate, worth) for candidate in candidates])
        for budget in range(2, structure.tile_count(2, 2)):
            found = _loss(project(structure, worth, budget, 2, 2, intervals_only=runs), worth)
            gaps.append((found - losses[counts <= budget].min()) / losses[counts == 0].max())
    assert min(gaps) > -1e-9
    assert np.mean(gaps) < 0.02
    assert np.median(gaps) < 1e-9


@pytest.mark.parametrize("seed", range(4))
def test_two_layers_at_different_costs_against_every_pair_of_parts(seed: int) -> None:
    """A budget in cycles over two layers whose tiles cost 3 and 5: within it, near the best, and no tile fits beside."""
    rng = np.random.default_rng(seed)
    structure = Structure(np.ones((1, 2), bool), np.ones((2, 2), bool), np.ones((2, 1), bool))
    layers = {name: (structure, _consistent_worth(rng, structure)) for name in "ab"}
    costs, parts = {"a": 3.0, "b": 5.0}, _all_parts(structure)
    counts = np.array([part.tile_count(1, 1) for part in parts])
    losses = {name: np.array([_loss(part, layers[name][1]) for part in parts]) for name in layers}
    spent = costs["a"] * counts[:, None] + costs["b"] * counts
    both = losses["a"][:, None] + losses["b"]
    both[(counts == 0)[:, None] | (counts == 0)] = np.inf  # no layer may be emptied
    most = (3.0 + 5.0) * structure.tile_count(1, 1)
    gaps = []
    for budget in np.arange(16.0, most, 7.0):
        found = project_jointly(layers, budget, 1, 1, tile_costs=costs)
        used = sum(costs[name] * found[name].tile_count(1, 1) for name in layers)
        assert used <= budget
        for name in layers:
            missing = structure.tiles & ~found[name].tiles
            assert not missing.any() or budget - used < costs[name]
        loss = sum(_loss(found[name], layers[name][1]) for name in layers)
        gaps.append((loss - both[spent <= budget].min()) / max(losses["a"].max() + losses["b"].max(), 1e-9))
    assert min(gaps) > -1e-9
    assert np.mean(gaps) < 0.08


def test_one_compiled_signature_for_any_and_interval_sets() -> None:
    for runs in (False, True):
        structure = Structure.full(outputs=8, inputs=8, ranks=3, rows=4, cols=4)
        project(structure, _worth(np.random.default_rng(0), structure), 5, 4, 4, intervals_only=runs)
    assert len(take_until.signatures) == 1
    assert len(fill_seats.signatures) == 1


def _consistent_worth(rng: np.random.Generator, structure: Structure) -> Importance:
    """Importances whose reads and writes of a rank sum to the same, as both are estimates of what the rank is worth."""
    total = rng.exponential(size=(len(structure.reads), 1))
    reads, writes = rng.exponential(size=structure.reads.shape), rng.exponential(size=structure.writes.shape)
    shares = (side / side.sum(axis=1, keepdims=True) * total for side in (reads, writes))
    return Importance(rng.exponential(size=structure.tiles.shape), *shares)


def _loss(structure: Structure, worth: Importance) -> float:
    """What is lost with all that is not in `structure`; a rank never loses more than it is worth."""
    dropped = (worth.reads * ~structure.reads).sum(axis=1) + (worth.writes * ~structure.writes).sum(axis=1)
    total = worth.reads.sum(axis=1)
    return float(
        np.where(structure.reads.any(axis=1), np.minimum(dropped, total), total).sum()
        + (worth.tiles * ~structure.tiles).sum()
    )


def _all_parts(structure: Structure) -> list[Structure]:
    found = []
    bits = structure.tiles.size + structure.reads.size + structure.writes.size
    for choice in itertools.product([False, True], repeat=bits):
        flat = np.array(choice)
        a, b = structure.tiles.size, structure.tiles.size + structure.reads.size
        tiles, reads, writes = flat[:a], flat[a:b], flat[b:]
        reads, writes = reads.reshape(structure.reads.shape), writes.reshape(structure.writes.shape)
        inside = not (tiles.reshape(structure.tiles.shape) & ~structure.tiles).any()
        if inside and (reads.any(axis=1) == writes.any(axis=1)).all():
            found.append(Structure(tiles.reshape(structure.tiles.shape), reads, writes))
    return found


def test_joint_projection_takes_from_the_layer_that_loses_least_per_cycle() -> None:
    structure = Structure(np.ones((2, 2), bool), np.zeros((0, 2), bool), np.zeros((0, 2), bool))
    worth = {
        "cheap": Importance(np.full((2, 2), 1.0), np.zeros((0, 2)), np.zeros((0, 2))),
        "dear": Importance(np.full((2, 2), 3.0), np.zeros((0, 2)), np.zeros((0, 2))),
    }
    layers = {name: (structure, worth[name]) for name in worth}
    even = project_jointly(layers, 5, 4, 4)
    assert (even["cheap"].tiles.sum(), even["dear"].tiles.sum()) == (1, 4)
    costs = {"cheap": 1.0, "dear": 10.0}
    weighted = project_jointly(layers, 14, 4, 4, tile_costs=costs)
    assert (weighted["cheap"].tiles.sum(), weighted["dear"].tiles.sum()) == (4, 1)


def test_infeasible_budget_names_what_is_reachable() -> None:
    structure = Structure.full(outputs=8, inputs=8, ranks=3, rows=4, cols=4)
    worth = _worth(np.random.default_rng(0), structure)
    with pytest.raises(InputError, match="smallest reachable total is 2"):
        project(structure, worth, 1, 4, 4)
    assert project(structure, worth, 2, 4, 4).tile_count(4, 4) == 2


def test_bad_importances_are_refused() -> None:
    structure = Structure.full(outputs=8, inputs=8, ranks=3, rows=4, cols=4)
    good = _worth(np.random.default_rng(0), structure)
    with pytest.raises(InputError, match="non-finite"):
        project(structure, Importance(good.tiles, good.reads * np.nan, good.writes), 3, 4, 4)
    with pytest.raises(InputError, match="shape"):
        project(structure, Importance(good.tiles, good.reads[:1], good.writes), 3, 4, 4)
    split = Structure(np.zeros((1, 4), bool), np.array([[True, False, True, False]]), np.ones((1, 1), bool))
    with pytest.raises(InputError, match="one cyclic run"):
        project(split, _worth(np.random.default_rng(0), split), 2, 4, 4, intervals_only=True)


def test_low_rank_keeps_whole_ranks_the_best_ones() -> None:
    structure = Structure.full(outputs=16, inputs=16, ranks=10, rows=4, cols=4)
    worth = Importance(np.zeros((4, 4)), np.arange(40.0).reshape(10, 4), np.zeros((10, 4)))
    result = project_low_rank({"a": (structure, worth)}, 17, 4, 4)["a"]
    assert np.flatnonzero(result.reads.all(axis=1)).tolist() == [2, 3, 4, 5, 6, 7, 8, 9]
    assert result.tile_count(4, 4) == 16
    with pytest.raises(InputError, match="8 tiles in all"):
        project_low_rank({"a": (structure, worth)}, 7, 4, 4)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**20), st.integers(1, 4), st.integers(1, 4), st.integers(1, 11), st.integers(1, 4), st.data())
def test_groups_stay_groups_and_meet_the_budget(
    seed: int, chunks_out: int, chunks_in: int, ranks: int, side: int, data: st.DataObject
) -> None:
    rng = np.random.default_rng(seed)
    structure = Structure(
        np.zeros((chunks_out, chunks_in), bool), np.ones((ranks, chunks_in), bool), np.ones((ranks, chunks_out), bool)
    )
    groups = ceil_div(ranks, side)
    first = structure.tile_count(side, side)
    assert first == groups * (chunks_in + chunks_out)
    budget = data.draw(st.integers(2, first))
    found = project_groups({"a": (structure, _worth(rng, structure))}, budget, side, side)["a"]
    group = np.arange(ranks) // side
    for touches in (found.reads, found.writes):
        assert (touches == touches[::side][group]).all()
    assert budget - 1 <= found.tile_count(side, side) <= budget or found.tile_count(side, side) == first


def test_rank_groups_need_a_square_array_and_groups() -> None:
    structure = Structure(np.zeros((1, 2), bool), np.array([[True, False], [False, True]]), np.ones((2, 1), bool))
    layers = {"a": (structure, _worth(np.random.default_rng(0), structure))}
    with pytest.raises(InputError, match="4 x 8"):
        project_groups(layers, 3, 4, 8)
    with pytest.raises(InputError, match="differ within 2 ranks"):
        project_groups(layers, 3, 2, 2)


def test_projection_goes_by_what_layers_lose_at_a_time() -> None:
    rng = np.random.default_rng(0)
    full = Structure.full(16, 16, 8, 4, 4)
    ranks = {"a": (full, _worth(rng, full))}
    tiled = Structure.full(16, 16, 0, 4, 4, dense=True)
    both = {**ranks, "b": (tiled, _worth(rng, tiled))}

    def same(found: dict[str, Structure], wanted: dict[str, Structure]) -> bool:
        sides = ("tiles", "reads", "writes")
        return all((getattr(found[n], side) == getattr(wanted[n], side)).all() for n in wanted for side in sides)

    assert same(project_by_unit(["rank"], ranks, 8, 4, 4), project_low_rank(ranks, 8, 4, 4))
    assert same(project_by_unit(["rank_group"], ranks, 9, 4, 4), project_groups(ranks, 9, 4, 4))
    runs = project_jointly(ranks, 9, 4, 4, intervals_only=True)
    assert same(project_by_unit(["chunk"], ranks, 9, 4, 4, intervals_only=True), runs)
    assert same(project_by_unit({"tile", "chunk"}, both, 20, 4, 4), project_jointly(both, 20, 4, 4))
    with pytest.raises(InputError, match="lose a chunk and some that lose a rank at a time"):
        project_by_unit({"rank", "chunk"}, both, 20, 4, 4)
    with pytest.raises(InputError, match="intervals_only: found with layers that lose a rank at a time"):
        project_by_unit(["rank"], ranks, 8, 4, 4, intervals_only=True)
    with pytest.raises(InputError, match="layers to project: found none"):
        project_by_unit([], {}, 8, 4, 4)


def test_low_rank_counts_the_dense_tiles_beside_it() -> None:
    full, tiled = Structure.full(16, 16, 8, 4, 4), Structure.full(8, 8, 0, 4, 4, dense=True)
    layers = {name: (one, _worth(np.random.default_rng(0), one)) for name, one in (("a", full), ("b", tiled))}
    found = project_low_rank(layers, 16, 4, 4)
    assert [found[name].tile_count(4, 4) for name in "ab"] == [8, 4]
    with pytest.raises(InfeasibleBudgetError, match="12 tiles in all"):
        project_low_rank(layers, 11, 4, 4)
