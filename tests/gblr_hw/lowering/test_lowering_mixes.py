"""Chains of ranks: packed completely, computed exactly, as fast as they should be, and multiplied out where that is better."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings

from gblr_hw.lowering.chains.pack_mixes import pack_mixes
from gblr_hw.lowering.choose_best import choose_best
from gblr_hw.lowering.emit.emit import emit
from gblr_hw.lowering.passes.choose_form import numbers, outline
from gblr_hw.lowering.passes.drop_empty import drop_empty
from gblr_hw.lowering.passes.merge_links import merged, possible_merges
from gblr_hw.lowering.passes.plan import LayerPlan
from gblr_hw.weights.factors import Factors
from gblr_hw.weights.mixes import mix_levels
from simulator import InputError, Machine, Program, execute, simulate
from simulator.base.arithmetic import ceil_div
from simulator.numbers.execute import input_step
from simulator.program.listing import print_program
from simulator.program.operations import Op
from simulator.program.parse_listing import parse_program
from simulator.timing.durations import resolve_timing
from simulator.timing.engine import run_engine
from tests.drawn.mixed_layers import (
    as_chain,
    blast_factors,
    chain_factors,
    chain_program,
    lowered,
    many_parts,
    matrix_and_bias,
)
from tests.drawn.random_programs import generator, seeds, small_machine
from tests.oracles.hazards import hazards
from tests.oracles.integer_layer import int8_outputs

MID = Machine.load("mid-32")


def roomy(rng: np.random.Generator, scatter: bool = True) -> Machine:
    return small_machine(rng, array={"scatter": scatter}, scratchpad={"kib": 16}, rank_memory={"kib": 16})


def drawn(seed: int, scatter: bool = True) -> tuple[np.random.Generator, Machine, Factors]:
    rng = generator(seed)
    machine = roomy(rng, scatter)
    return rng, machine, chain_factors(rng, *(int(rng.integers(1, 4 * s + 2)) for s in (machine.rows, machine.cols)))


def assert_computes(program: Program, factors: Factors, rng: np.random.Generator) -> None:
    """Float outputs are those of the matrix, int8 outputs those of plain integer loops over the schedule."""
    layer, (matrix, bias) = program.layers[0], matrix_and_bias(factors)
    x = rng.normal(size=(program.tokens + 2, factors.in_features))
    scale = max(1e-9, float((np.abs(x) @ np.abs(matrix).T + np.abs(bias)).max()))
    assert np.abs(execute(program, {"layer": x})["layer"] - (x @ matrix.T + bias)).max() <= 1e-5 * scale
    few = x[:3]
    stored = np.array(
        int8_outputs(layer, program.machine, few.tolist(), layer.payload.input_step or input_step(few, 8))
    )
    expected = np.empty_like(stored)
    expected[:, layer.output_order] = stored
    np.testing.assert_allclose(execute(program, {"layer": few}, "int8")["layer"], expected, rtol=1e-12)


@settings(deadline=None, max_examples=40)
@given(seeds)
def test_chains_compute_their_product(seed):
    rng, machine, factors = drawn(seed)
    tokens = int(rng.choice([1, 13, 40]))
    as_it_is = as_chain(factors, machine, tokens, rng if seed % 2 else None)
    for layer in (as_it_is, lowered(factors, machine, tokens)):
        assert_computes(emit([layer], machine, tokens, {}), factors, rng)


@settings(deadline=None, max_examples=25)
@given(seeds)
def test_calibrated_chains_compute_their_product(seed):
    rng, machine, factors = drawn(seed)
    examples = rng.normal(size=(20, factors.in_features))
    layer = lowered(factors, machine, 7, calibration=examples)
    assert_computes(emit([layer], machine, 7, {}), factors, rng)
    assert layer.payload.input_step > 0


@settings(deadline=None, max_examples=25)
@given(seeds)
def test_a_plain_machine_does_without_mix_tiles(seed):
    rng, machine, factors = drawn(seed, scatter=False)
    layer = lowered(factors, machine, 5)
    assert Op.MIX not in layer.tiles.kind.tolist()
    assert_computes(emit([layer], machine, 5, {}), factors, rng)


@settings(deadline=None, max_examples=60)
@given(seeds)
def test_every_mix_is_in_one_tile(seed):
    """Whatever the blocks: each edge once, within the array's lanes, no rank twice on a side, sources complete before."""
    _, machine, factors = drawn(seed)
    plan = pack_mixes(drop_empty(LayerPlan("layer", factors, machine, 4)))
    factors, tiles = plan.factors, plan.rank_tiles
    edges = set(zip(factors.mix_source.tolist(), factors.mix_target.tolist(), strict=True))
    level = mix_levels(factors.ranks, factors.mix_source, factors.mix_target)
    covered: Counter = Counter()
    for tile in range(len(tiles.op)):
        ranks = tiles.rank[tiles.ptr[tile] : tiles.ptr[tile + 1]].tolist()
        reads, writes = ranks[: tiles.read[tile]], ranks[tiles.read[tile] :]
        assert 0 < len(reads) <= machine.rows and 0 < len(writes) <= machine.cols
        assert len(set(reads)) == len(reads) and len(set(writes)) == len(writes)
        assert len({int(level[rank]) for rank in writes}) == 1
        covered.update((s, t) for s in reads for t in writes if (s, t) in edges)
    assert covered == Counter(edges)
    of_tile = [level[tiles.rank[end - 1]] for end in tiles.ptr[1:]]
    assert of_tile == sorted(of_tile)


@settings(deadline=None, max_examples=60)
@given(seeds)
def test_no_rank_is_overwritten_before_it_is_read(seed):
    """Ranks that share a place, tile by tile: whoever is read was the last to be written there."""
    _, machine, factors = drawn(seed)
    layer = as_chain(factors, machine, 4)
    tiles, there = layer.tiles, {}
    places = list(zip(layer.rank_bank.tolist(), layer.memory_slot.tolist(), strict=True))
    for tile in range(len(tiles)):
        lanes = range(*tiles.lane_ptr[tile : tile + 2].tolist())
        for lane in lanes:
            if tiles.lane_gathers[lane]:
                rank = int(tiles.lane[lane])
                assert there[places[rank]] == rank
        for lane in lanes:
            if tiles.lane_scatters[lane]:
                rank = int(tiles.lane[lane])
                assert tiles.first[lane] or there[places[rank]] == rank
                there[places[rank]] = rank
    pairs = Counter(zip(layer.rank_bank.tolist(), layer.rank_slot.tolist(), strict=True))
    assert max(pairs.values(), default=1) == 1  # a multiplier each
    assert (max(layer.memory_slot.tolist(), default=0) + 1) * layer.block_tokens <= machine.rank_rows_per_bank


@settings(deadline=None, max_examples=40)
@given(seeds)
def test_merged_links_are_the_same_matrix(seed):
    _, machine, factors = drawn(seed)
    matrix = factors.stored_matrix()
    plan = drop_empty(LayerPlan("layer", factors, machine, 4))
    for merge in possible_merges(plan.factors):
        less = merged(plan.factors, merge, values=True)
        np.testing.assert_allclose(less.stored_matrix(), matrix, atol=1e-3 * max(1, np.abs(matrix).max()))
        assert not less.u[~less.writes.T].any() and not less.v[~less.reads].any()
        supports = merged(plan.factors, merge, values=False)
        for name in ("reads", "writes", "mix_source", "mix_target"):
            np.testing.assert_array_equal(getattr(supports, name), getattr(less, name))
    for form in choose_forms(plan):
        whole = numbers(plan, form)
        np.testing.assert_allclose(whole.stored_matrix(), matrix, atol=1e-3 * max(1, np.abs(matrix).max()))
        assert outline(plan, form).factors.ranks == whole.ranks


def choose_forms(plan: LayerPlan):
    from gblr_hw.lowering.passes.choose_form import candidate_forms

    return candidate_forms(plan)


@settings(deadline=None, max_examples=25)
@given(seeds)
def test_no_hazard_and_nothing_slower_than_dense(seed):
    rng, machine, factors = drawn(seed)
    tokens = int(rng.integers(1, 20))
    program = emit([as_chain(factors, machine, tokens)], machine, tokens, {})
    timing = resolve_timing(program, machine)
    assert hazards(program, machine, timing, run_engine(timing)) == []
    best = emit([lowered(factors, machine, tokens)], machine, tokens, {})
    dense = replace(
        factors, dense=factors.stored_matrix().astype(np.float32), mix_source=np.zeros(0, np.int64),
        dense_support=np.ones((factors.out_features, factors.in_features), bool), mix_target=np.zeros(0, np.int64),
        mix_value=np.zeros(0, np.float32), u=factors.u[:, :0], v=factors.v[:0], reads=factors.reads[:0], writes=factors.writes[:0],
    )  # fmt: skip
    try:
        plan = drop_empty(LayerPlan("dense", dense, machine, tokens), keep_zeros=True)
        slowest = choose_best(plan, 1, explain=True).best.cost[0]
    except InputError:
        return
    assert simulate(best, machine).latency_cycles <= slowest


def test_chains_are_listed_and_kept_in_files(tmp_path):
    mixed = reordered = 0
    for seed in range(12):
        rng = generator(seed)
        program = chain_program(rng, roomy(rng), layers=2, tokens=5, keep=True)
        mixed += (program.instructions.op == Op.MIX).any()
        reordered += program.layers[0].reorders
        assert str(parse_program(str(program))) == str(program)
        program.save(tmp_path / "one")
        loaded = Program.load(tmp_path / "one")
        assert str(loaded) == str(program)
        loaded.save(tmp_path / "two")
        assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert mixed > 6 and reordered > 2


@pytest.mark.parametrize(
    ("inputs", "outputs", "tokens", "blocks", "rank", "share", "block_tokens"),
    [(768, 3072, 197, 3, 128, 0.23, 197), (768, 3072, 384, 6, 192, 0.34, 96)],
)
def test_blast_layers_take_their_share_of_dense(inputs, outputs, tokens, blocks, rank, share, block_tokens):
    """Tiles: b chunks of C_j each with r ranks, a mix of b x b for each k, b chunks of B_i. What is mixed takes the
    places of what it is mixed from: half as many token blocks.
    """
    factors = blast_factors(np.random.default_rng(0), inputs, outputs, blocks, rank)
    layer = lowered(factors, MID, tokens)
    kinds = Counter(layer.tiles.kind.tolist())
    assert kinds[Op.REDUCE] == inputs // 32 * -(-rank // 32)
    assert kinds[Op.EXPAND] == outputs // 32 * -(-rank // 32)
    assert kinds[Op.MIX] == -(-rank // (32 // blocks))
    assert layer.tiles.row_cycles.max() == 1
    assert layer.ranks == 2 * blocks * rank and layer.shares_places and layer.block_tokens == block_tokens
    cycles = simulate(emit([layer], MID, tokens, {}), MID).latency_cycles
    assert cycles <= share * (inputs // 32) * (outputs // 32) * tokens


def test_a_chain_that_is_no_shorter_is_multiplied_out():
    """Four ranks between eight inputs and eight outputs, through four others: two tiles of ranks do it, or one dense."""
    factors = blast_factors(np.random.default_rng(0), 8, 8, 2, 4)
    choice = choose_best(drop_empty(LayerPlan("layer", factors, MID, 40)), 1, explain=True)
    assert choice.best.form.label == "dense"
    assert "  ranks: 3 tiles, " in choice.summary and "  ranks without level 0" in choice.summary


def few_ranks(rng: np.random.Generator, parts: int) -> tuple[Machine, Factors]:
    """A machine whose rank memory holds a few of the parts' ranks at a time."""
    machine = small_machine(rng, array={"scatter": True}, scratchpad={"kib": 16}, accumulator={"kib": 8})
    factors = many_parts(rng, machine, parts)
    banks = machine.rank_memory.banks
    words = ceil_div(factors.ranks // parts, banks) * 30 * banks
    return machine.with_(rank_memory={"kib": ceil_div(4 * words, 1024)}), factors


@settings(deadline=None, max_examples=40)
@example(3072)  # nine ranks a turn in seven banks: two turns at a time take four slots a bank, not three
@given(seeds)
def test_ranks_that_do_not_fit_take_turns(seed):
    """The same product, no rank overwritten that is still read, and engine and hardware's dependences as ever."""
    rng = generator(seed)
    machine, factors = few_ranks(rng, int(rng.integers(2, 9)))
    layer = as_chain(factors, machine, 24)
    program = emit([layer], machine, 24, {})
    assert_computes(program, factors, rng)
    timing = resolve_timing(program, machine)
    assert hazards(program, machine, timing, run_engine(timing)) == []
    rows = int(layer.memory_slot.max() + 1) * layer.block_tokens
    assert rows <= machine.rank_rows_per_bank


def test_turns_are_taken_and_told():
    rng = generator(6)
    machine, factors = few_ranks(rng, 8)
    layer = as_chain(factors, machine, 24)
    assert layer.slots > 2 * layer.held_slots and layer.block_tokens == 24
    assert (np.diff(layer.first_slot) >= 0).all() and layer.first_slot[-1] > 0
    again = parse_program(print_program(emit([layer], machine, 24, {})))
    assert again.layers[0].held_slots == layer.held_slots
    apart = layer.rank_slot.copy()
    apart[layer.tiles.lane[0]] += 2 * layer.held_slots
    with pytest.raises(InputError, match=r"tile \d+: slot: found .*; it lies between 0 and"):
        emit([replace(layer, rank_slot=apart)], machine, 24, {})


@settings(deadline=None, max_examples=40)
@given(seeds)
def test_a_block_may_have_both_input_buffers(seed):
    """Larger blocks, whose inputs come while the block before still reads its last ones."""
    rng = generator(seed)
    machine = small_machine(rng, array={"scatter": True}, accumulator={"kib": 8}, rank_memory={"kib": 16})
    factors = many_parts(rng, machine, 4, chunks=5)
    half = 5 * machine.rows * 13
    buffers = machine.cols * (machine.accumulator_rows // 2)
    machine = machine.with_(scratchpad={"kib": ceil_div(2 * half + 2 * buffers, 1024)})
    halves, one = (as_chain(factors, machine, 40, one_input=given) for given in (False, True))
    program = emit([one], machine, 40, {})
    assert one.block_tokens >= halves.block_tokens
    assert_computes(program, factors, rng)
    timing = resolve_timing(program, machine)
    assert hazards(program, machine, timing, run_engine(timing)) == []
