"""Tiles and places: as few as the lattice says, complete, within the array's lanes and the banks, the same every time."""

from __future__ import annotations

from collections import Counter
from math import ceil

import numpy as np
import pytest
import torch
from hypothesis import given, settings

from gblr_hw.lowering.passes.build_schedule import build_schedule
from gblr_hw.weights.factors import evaluate, structure_of
from gblr_hw.weights.stored import LatticeWeights
from gblr_hw.weights.structure import Structure
from simulator.base.errors import InputError
from simulator.machine.machine import Machine
from simulator.program.operations import Op
from simulator.program.schedule import LayerSchedule
from tests.drawn.strategies import case, generator, layer_weights, numbers, placed, seeds, small_machine

FAMILIES = ("gblr", "gblr_gaussian", "lattice", "block_sparse", "conv", "dense")


def stored_schedule(seed: int, scatter: bool) -> tuple[Machine, Structure, LayerSchedule]:
    """A random layer in its stored form, its structure on the machine's array, and its schedule."""
    rng = generator(seed)
    while True:
        machine = small_machine(rng, array={"scatter": scatter})
        weights = layer_weights(rng, machine, str(rng.choice(FAMILIES)))
        try:
            plan = placed(weights, machine, tokens=4)
        except InputError:
            continue  # too large for this machine
        structure = structure_of(plan.factors, machine.rows, machine.cols)
        return machine, structure, build_schedule(plan, evaluate(weights).multiplications)


def lanes_of(layer: LayerSchedule) -> list[tuple[int, int, int, np.ndarray]]:
    """(kind, source, target, lanes) of each tile."""
    tiles, ptr = layer.tiles, layer.tiles.lane_ptr.tolist()
    return [
        (int(tiles.kind[t]), int(tiles.source[t]), int(tiles.target[t]), tiles.lane[ptr[t] : ptr[t + 1]])
        for t in range(len(tiles))
    ]


@settings(max_examples=80)
@given(seeds)
def test_with_scatter_the_lattice_formula_is_met(seed):
    machine, structure, layer = stored_schedule(seed, scatter=True)
    readers, writers = structure.reads.sum(axis=0).tolist(), structure.writes.sum(axis=0).tolist()
    formula = (
        int(structure.tiles.sum())
        + sum(ceil(n / machine.cols) for n in readers)
        + sum(ceil(n / machine.rows) for n in writers)
    )
    assert len(layer.tiles) == formula == structure.tile_count(machine.rows, machine.cols)


@settings(max_examples=80)
@given(seeds)
def test_tiles_cover_the_structure_once(seed):
    """Every (rank, input chunk), (rank, output chunk) and dense tile of the structure is run exactly once, and nothing else."""
    machine, structure, layer = stored_schedule(seed, scatter=bool(seed % 2))
    runs: Counter = Counter()
    for kind, source, target, lanes in lanes_of(layer):
        if kind == Op.DENSE:
            runs[("dense", target, source)] += 1
            assert lanes.tolist() == list(range(min(machine.rows, layer.in_features - source * machine.rows)))
        elif kind == Op.REDUCE:
            assert len(lanes) <= machine.cols
            runs.update(("reduce", int(k), source) for k in lanes)
        else:
            assert len(lanes) <= machine.rows
            runs.update(("expand", int(k), target) for k in lanes)
    expected = [("dense", int(r), int(c)) for r, c in np.argwhere(structure.tiles)]
    expected += [("reduce", int(k), int(c)) for k, c in np.argwhere(structure.reads)]
    expected += [("expand", int(k), int(r)) for k, r in np.argwhere(structure.writes)]
    assert runs == Counter(expected)


@settings(max_examples=80)
@given(seeds)
def test_row_cycles_are_the_bank_multiplicity(seed):
    _, _, layer = stored_schedule(seed, scatter=bool(seed % 2))
    for (kind, _, _, lanes), cycles in zip(lanes_of(layer), layer.tiles.row_cycles.tolist(), strict=True):
        banks = Counter(layer.rank_bank[lanes].tolist()) if kind != Op.DENSE else Counter([0])
        assert cycles == max(banks.values())


@settings(max_examples=80)
@given(seeds)
def test_every_rank_has_a_place_of_its_own(seed):
    machine, _, layer = stored_schedule(seed, scatter=bool(seed % 2))
    places = set(zip(layer.rank_bank.tolist(), layer.rank_slot.tolist(), strict=True))
    assert len(places) == layer.ranks
    for bank, slot in places:
        assert 0 <= bank < machine.rank_memory.banks
        assert slot >= 0
        assert (slot + 1) * layer.block_tokens <= machine.rank_rows_per_bank


@settings(max_examples=80)
@given(seeds)
def test_a_plain_machine_runs_whole_rows(seed):
    """Rule B3: a tile's ranks share one row of the rank memory and lie in different banks below the group size."""
    machine, structure, layer = stored_schedule(seed, scatter=False)
    groups = ceil(layer.ranks / machine.group_size)
    for kind, _, _, lanes in lanes_of(layer):
        if kind != Op.DENSE:
            assert len(set(layer.rank_slot[lanes].tolist())) == 1
            assert len(set(layer.rank_bank[lanes].tolist())) == len(lanes)
            assert layer.rank_bank[lanes].max() < machine.group_size
    assert layer.tiles.row_cycles.max(initial=1) == 1
    assert layer.rank_slot.max(initial=-1) < groups
    touching = [
        set(zip(np.nonzero(side)[1].tolist(), layer.rank_slot[np.nonzero(side)[0]].tolist(), strict=True))
        for side in (structure.reads, structure.writes)
    ]
    assert len(layer.tiles) == int(structure.tiles.sum()) + len(touching[0]) + len(touching[1])


@settings(max_examples=60)
@given(seeds)
def test_first_marks_the_first_reduce_lane_of_each_rank(seed):
    _, _, layer = stored_schedule(seed, scatter=True)
    seen: set[int] = set()
    for tile, (kind, _, _, lanes) in enumerate(lanes_of(layer)):
        begin = int(layer.tiles.lane_ptr[tile])
        for at, rank in enumerate(lanes.tolist()):
            fresh = kind == Op.REDUCE and rank not in seen
            assert layer.tiles.first[begin + at] == fresh
            if kind == Op.REDUCE:
                seen.add(rank)
            elif kind == Op.EXPAND:
                assert rank in seen  # all reduces of a rank that is expanded have begun


@settings(max_examples=60)
@given(seeds)
def test_the_bound_is_a_bound(seed):
    machine, _, program = case(seed, stored=bool(seed % 2))
    for layer in program.layers:
        assert layer.multiplications / (machine.rows * machine.cols) <= len(layer.tiles)


# ---- banks ------------------------------------------------------------------------------------------------------------------


def bipartite(rng: np.random.Generator, machine: Machine, chunks: int, each: int) -> LatticeWeights:
    """Every rank in one reduce and one expand set, every set of exactly ``each`` ranks: the case of Koenig's theorem."""
    rows, cols, ranks = machine.rows, machine.cols, chunks * each
    eye = torch.eye(chunks, dtype=torch.bool)
    reads, writes = (eye[rng.permutation(np.repeat(np.arange(chunks), each))] for _ in range(2))
    return LatticeWeights(
        u=numbers(rng, chunks * cols, ranks) * writes.repeat_interleave(cols, 1).T, v=numbers(rng, ranks, chunks * rows) * reads.repeat_interleave(rows, 1),
        reads=reads, writes=writes, tiles=torch.zeros(chunks, chunks, dtype=torch.bool), dense=torch.zeros(chunks * cols, chunks * rows),
        bias=None, chunk_in=rows, chunk_out=cols,
    )  # fmt: skip


def square(side: int, banks: int) -> Machine:
    return Machine.load("mid-32").with_(array={"rows": side, "cols": side}, rank_memory={"banks": banks})


@pytest.mark.parametrize("side", [4, 8, 16, 32])
@pytest.mark.parametrize("multiple", [1, 2, 3])
def test_full_sets_are_free_of_conflicts_with_twice_the_banks(side, multiple):
    """The shipped machines have two banks a lane: then even exact multiples of the lanes leave no conflict."""
    machine = square(side, 2 * side)
    for seed in range(6):
        plan = placed(bipartite(generator(seed), machine, 8, multiple * side), machine, tokens=8)
        assert build_schedule(plan, 1).tiles.row_cycles.tolist() == [1] * (2 * 8 * multiple)


@pytest.mark.parametrize("side", [4, 8, 16, 32])
def test_with_one_bank_a_lane_a_conflict_costs_two_cycles_at_most(side):
    machine = square(side, side)
    for seed in range(6):
        plan = placed(bipartite(generator(seed), machine, 8, side), machine, tokens=8)
        assert build_schedule(plan, 1).tiles.row_cycles.max() <= 2


def test_half_full_sets_are_free_of_conflicts_with_one_bank_a_lane():
    machine = square(16, 16)
    for seed in range(6):
        plan = placed(bipartite(generator(seed), machine, 8, 8), machine, tokens=8)
        assert build_schedule(plan, 1).tiles.row_cycles.max() == 1


def test_banks_are_filled_to_the_last_row():
    """As many ranks as the memory holds at one token: every bank is full and none overflows."""
    machine = square(4, 4).with_(rank_memory={"kib": 1, "banks": 64})  # 4 sums a bank
    ranks = 64 * machine.rank_rows_per_bank
    ones = torch.ones(ranks, 1, dtype=torch.bool)
    weights = LatticeWeights(
        u=torch.ones(4, ranks), v=torch.ones(ranks, 4), reads=ones, writes=ones, tiles=torch.zeros(1, 1, dtype=torch.bool), dense=torch.zeros(4, 4),
        bias=None, chunk_in=4, chunk_out=4,
    )  # fmt: skip
    plan = placed(weights, machine, tokens=3)
    assert plan.block_tokens == 1
    assert Counter(plan.rank_bank.tolist()) == Counter({bank: machine.rank_rows_per_bank for bank in range(64)})
