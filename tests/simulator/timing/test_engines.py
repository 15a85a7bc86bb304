"""The two engines agree on every event; rules of order and waiting are checked on hand-written programs, to the cycle."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given

from simulator.program.operations import TRANSFER_OPS, After, Op, Unit, unit_of_op
from simulator.timing.durations import Timing, resolve_timing
from simulator.timing.engine import (
    STALL_ARRAY,
    STALL_CHANNEL,
    STALL_INPUT,
    STALL_NONE,
    STALL_PRELOAD,
    STALL_VECTOR,
    STALL_WEIGHTS,
    Events,
    run_engine,
)
from simulator.timing.reference import run_reference
from simulator.timing.simulate import simulate
from tests.drawn.random_networks import built_network
from tests.drawn.random_programs import generator, random_timing, sampled
from tests.drawn.strategies import case

P, Q = 8, 6  # the hand-written programs' array: not square
DRAIN_LATENCY, DRAM_LATENCY, NETWORK, REQUANTISE = 5, 20, 4, 3


def assert_same_events(timing: Timing) -> Events:
    fast, slow = run_engine(timing), run_reference(timing)
    for field in fields(Events):
        np.testing.assert_array_equal(getattr(fast, field.name), getattr(slow, field.name), err_msg=field.name)
    return fast


@pytest.mark.parametrize("block", range(8))
def test_engines_agree_on_random_columns(block):
    for seed in range(block * 50, block * 50 + 50):
        assert_same_events(random_timing(generator(seed)))


@given(sampled(random_timing))
def test_engines_agree_on_any_columns(timing):
    assert_same_events(timing)


@pytest.mark.parametrize("engines", [1, 2, 3])
@pytest.mark.parametrize("bandwidth", [0.2, 3.0, 4000.0], ids=["starved", "balanced", "flooded"])
def test_engines_agree_on_lowered_programs(engines, bandwidth):
    for seed in range(6):
        machine, _, program = case(
            1000 * engines + seed,
            layers=1 + seed % 3,
            tokens=(1, 5, 40)[seed % 3],
            dma={"engines": engines},
            dram={"gb_per_s": bandwidth},
        )
        assert_same_events(resolve_timing(program, machine))


def test_corpus_reaches_every_stall_cause():
    seen = set()
    for seed in range(100):
        timing = random_timing(generator(seed))
        seen |= set(run_engine(timing).stall.tolist())
    assert seen == set(range(8))


# ---- hand-written programs
# --------------------------------------------------------------------------------------------------


def program(*rows: tuple, engines: int = 3) -> Timing:
    """A timing from rows (op, busy cycles, {dependence column: instruction})."""
    ops = np.array([row[0] for row in rows])
    after = np.full((len(After), len(rows)), -1, dtype=np.int64)
    for i, row in enumerate(rows):
        for column, producer in (row[2] if len(row) > 2 else {}).items():
            after[column, i] = producer
    after.setflags(write=False)
    tails = {
        Op.LOAD_INPUT: DRAM_LATENCY, Op.LOAD_WEIGHTS: DRAM_LATENCY, Op.LOAD_PARAMETERS: DRAM_LATENCY, Op.STORE: DRAM_LATENCY,
        Op.DENSE: P + Q - 1, Op.EXPAND: P + Q - 1, Op.REDUCE: P + Q - 1 + NETWORK, Op.DRAIN: DRAIN_LATENCY,
        Op.VECTOR: DRAIN_LATENCY, Op.MIX: P + Q - 1 + NETWORK,
    }  # fmt: skip
    return Timing(
        op=ops,
        layer=np.zeros(len(rows), dtype=np.int64),
        unit=unit_of_op(engines)[ops],
        busy=np.array([row[1] for row in rows], dtype=np.int64),
        tail=np.array([tails[op] for op in ops.tolist()], dtype=np.int64),
        lead=np.where(np.isin(ops, (Op.EXPAND, Op.MIX)), NETWORK + REQUANTISE, 0),
        is_tile=np.isin(ops, (Op.DENSE, Op.REDUCE, Op.EXPAND, Op.MIX)),
        is_transfer=np.isin(ops, TRANSFER_OPS),
        after=after,
        preload=np.where(np.isin(ops, (Op.DENSE, Op.REDUCE, Op.EXPAND, Op.MIX)), P, 0),
    )


def test_one_transfer():
    """Rule D4: the queue is free at the end, the data are there a latency later."""
    events = assert_same_events(program((Op.LOAD_INPUT, 7)))
    assert (events.start[0], events.end[0], events.done[0], events.stall[0]) == (0, 7, 7 + DRAM_LATENCY, STALL_NONE)
    assert events.preload[0] == -1


def test_one_dense_tile_end_to_end():
    events = assert_same_events(
        program(
            (Op.LOAD_INPUT, 7),
            (Op.LOAD_WEIGHTS, 4),
            (Op.DENSE, 10, {After.INPUT: 0, After.WEIGHTS: 1}),
            (Op.DRAIN, 9, {After.ARRAY: 2}),
            (Op.STORE, 6, {After.VECTOR: 3}),
        )
    )
    # Both queues ask in cycle 0: the weight queue, with the lower number, is served first, the input once the channel
    # is free.
    assert events.start[1] == 0
    assert events.start[0] == 4
    assert events.stall[0] == STALL_CHANNEL
    weights, inputs = 4 + DRAM_LATENCY, 4 + 7 + DRAM_LATENCY
    assert events.preload[2] == weights
    assert weights + P == 32
    assert inputs == 31
    assert events.start[2] == weights + P  # weights in the array one cycle after the input is there
    assert events.stall[2] == STALL_WEIGHTS
    sums = 32 + 10 + P + Q - 1
    assert events.start[3] == sums
    assert events.start[4] == sums + 9 + DRAIN_LATENCY
    assert events.done[4] == sums + 9 + DRAIN_LATENCY + 6 + DRAM_LATENCY == 95


def test_input_one_cycle_later_than_weights_is_blamed():
    timing = program((Op.LOAD_INPUT, 9), (Op.LOAD_WEIGHTS, 4), (Op.DENSE, 10, {After.INPUT: 0, After.WEIGHTS: 1}))
    events = assert_same_events(timing)
    assert events.start[2] == 4 + 9 + DRAM_LATENCY
    assert events.stall[2] == STALL_INPUT


@pytest.mark.parametrize(
    ("tokens", "begin", "cause"),
    [(P + 3, P + P + 3, STALL_NONE), (P, P + P, STALL_NONE), (P - 1, P + P, STALL_PRELOAD), (1, P + P, STALL_PRELOAD)],
)
def test_back_to_back_tiles_are_bound_by_rows_or_preload(tokens, begin, cause):
    events = assert_same_events(program((Op.DENSE, tokens), (Op.DENSE, tokens)))
    assert events.preload.tolist() == [
        0,
        P,
    ]  # the second preload begins when the first tile swaps the shadow registers out
    assert events.start.tolist() == [P, begin]
    assert events.stall[1] == cause


def test_third_preload_waits_for_the_shadow_registers():
    events = assert_same_events(program((Op.DENSE, 20), (Op.DENSE, 20), (Op.DENSE, 20)))
    assert events.start.tolist() == [P, P + 20, P + 40]
    assert events.preload.tolist() == [0, P, P + 20]  # not at 2 P, when the loader is free


def test_late_weights_are_blamed_only_when_they_delay_the_preload():
    """Rule Q3: weights gate the preload."""
    # The load ends in cycle 3 + 20; the first tile streams from 8 to 8 + busy; the second preload can begin in cycle 8.
    load = DRAM_LATENCY + 3
    for busy in (load + P - 8 - 1, load + P - 8, load + P - 8 + 1):
        events = assert_same_events(program((Op.DENSE, busy), (Op.LOAD_WEIGHTS, 3), (Op.DENSE, 5, {After.WEIGHTS: 1})))
        assert events.preload[2] == load
        assert events.start[2] == max(8 + busy, load + P)
        assert events.stall[2] == (STALL_WEIGHTS if 8 + busy < load + P else STALL_NONE)


def test_expand_waits_for_network_and_requantisation():
    reduce_done = P + 10 + (P + Q - 1) + NETWORK
    events = assert_same_events(program((Op.REDUCE, 10), (Op.EXPAND, 10, {After.ARRAY: 0})))
    assert events.done[0] == reduce_done
    assert events.start[1] == reduce_done + NETWORK + REQUANTISE == 8 + 10 + 13 + 4 + 4 + 3
    assert events.stall[1] == STALL_ARRAY
    assert events.done[1] == events.start[1] + 10 + P + Q - 1  # sums go to the accumulators, not through the network


def test_a_mix_waits_as_an_expand_and_is_done_as_a_reduce():
    """Rules A4 and A5: its ranks pass requantisers and network on the way in, its sums the network on the way out."""
    links = [(Op.MIX, 10, {After.ARRAY: at}) for at in range(2)]
    events = assert_same_events(program((Op.REDUCE, 10), *links, (Op.EXPAND, 10, {After.ARRAY: 2})))
    leave, lead = P + Q - 1 + NETWORK, NETWORK + REQUANTISE
    assert events.done[0] == P + 10 + leave
    for at in (1, 2):
        assert events.start[at] == events.done[at - 1] + lead
        assert events.done[at] == events.start[at] + 10 + leave
        assert events.stall[at] == STALL_ARRAY
    assert events.start[3] == events.done[2] + lead
    assert events.done[3] == events.start[3] + 10 + P + Q - 1


@pytest.mark.parametrize(("lead", "stall"), [(P, STALL_WEIGHTS), (P + 1, STALL_WEIGHTS), (P + 5, STALL_WEIGHTS)])
def test_expand_needs_its_lane_table_a_lead_ahead(lead, stall):
    """A short array preloads faster than ranks pass requantisers and network: the stream waits for its ranks then."""
    timing = program((Op.LOAD_WEIGHTS, 10), (Op.EXPAND, 10, {After.WEIGHTS: 0}))
    events = assert_same_events(replace(timing, lead=np.where(timing.is_tile, lead, 0)))
    assert events.preload[1] == 10 + DRAM_LATENCY
    assert events.start[1] == 10 + DRAM_LATENCY + max(P, lead)
    assert events.stall[1] == stall


def test_tiles_between_hide_the_wait_for_ranks():
    gap = (P + Q - 1) + NETWORK + NETWORK + REQUANTISE
    for between in (gap - 1, gap, gap + 1):
        events = assert_same_events(program((Op.REDUCE, 10), (Op.DENSE, between), (Op.EXPAND, 10, {After.ARRAY: 0})))
        assert events.start[2] == max(18 + between, 18 + gap)
        assert events.stall[2] == (STALL_ARRAY if between < gap else STALL_NONE)


def test_a_drain_holds_its_accumulator_until_it_has_read_it():
    """Two accumulators: the third output chunk's first tile waits for the first drain, blocked at N-1, ready at N."""
    events = assert_same_events(
        program(
            (Op.DENSE, 10),
            (Op.DRAIN, 40, {After.ARRAY: 0}),
            (Op.DENSE, 10),
            (Op.DENSE, 10, {After.VECTOR: 1}),
        )
    )
    drained = P + 10 + (P + Q - 1) + 40 + DRAIN_LATENCY
    assert events.done[1] == drained
    assert events.start[2] == P + 10
    assert events.start[3] == drained
    assert events.stall[3] == STALL_VECTOR


def test_a_vector_operator_shares_the_drains_unit_and_its_readers_wait_for_it():
    """Rules Q1 and Q2: behind a drain, on which it depends, and before a tile, a store and another of its kind."""
    events = assert_same_events(
        program(
            (Op.DRAIN, 10),
            (Op.VECTOR, 30, {After.VECTOR: 0}),
            (Op.VECTOR, 8),
            (Op.DRAIN, 6),
            (Op.DENSE, 10, {After.VECTOR: 1}),
            (Op.STORE, 4, {After.VECTOR: 1}),
        )
    )
    first = 10 + DRAIN_LATENCY
    assert events.start[:4].tolist() == [0, first, first + 30, first + 38]
    assert events.start[4:].tolist() == [first + 30 + DRAIN_LATENCY] * 2
    assert events.stall[[1, 4, 5]].tolist() == [STALL_VECTOR] * 3


def test_channel_serves_in_order_of_request():
    events = assert_same_events(
        program(
            (Op.LOAD_WEIGHTS, 10),
            (Op.LOAD_WEIGHTS, 10),
            (Op.LOAD_INPUT, 10),
            (Op.LOAD_INPUT, 10),
        )
    )
    # Cycle 0: weights and input ask, the lower unit wins. Input was asked for in cycle 0, the second weights in cycle
    # 10.
    assert events.start.tolist() == [0, 20, 10, 30]
    assert events.stall.tolist() == [STALL_NONE, STALL_CHANNEL, STALL_CHANNEL, STALL_CHANNEL]


def test_requests_of_the_same_cycle_go_by_unit_number():
    # Weights: 0..10, then asks again in cycle 10, the cycle in which the drain is done and the store asks.
    timing = program(
        (Op.LOAD_WEIGHTS, 10), (Op.LOAD_WEIGHTS, 3), (Op.DRAIN, 10 - DRAIN_LATENCY), (Op.STORE, 4, {After.VECTOR: 2})
    )
    events = assert_same_events(timing)
    assert events.start.tolist() == [0, 10, 0, 13]
    # One cycle earlier the store was first.
    events = assert_same_events(replace(timing, busy=timing.busy - np.array([0, 0, 1, 0])))
    assert events.start.tolist() == [0, 14, 0, 10]


@pytest.mark.parametrize(("drain", "first"), [(8, "input"), (9, "input"), (10, "weights"), (11, "weights")])
def test_an_input_is_served_before_weights_that_ask_a_cycle_later(drain, first):
    """The second weights ask in cycle 10, as the first have left the channel; the input asks as the drain is done."""
    events = assert_same_events(
        program(
            (Op.LOAD_WEIGHTS, 10),
            (Op.LOAD_WEIGHTS, 3),
            (Op.DRAIN, drain - DRAIN_LATENCY),
            (Op.LOAD_INPUT, 4, {After.VECTOR: 2}),
        )
    )
    assert events.start.tolist() == ([0, 14, 0, 10] if first == "input" else [0, 10, 0, 13])


def test_one_engine_serves_in_program_order():
    rows = ((Op.DRAIN, 30), (Op.STORE, 4, {After.VECTOR: 0}), (Op.LOAD_WEIGHTS, 10))
    blocked = assert_same_events(program(*rows, engines=1))
    assert blocked.start.tolist() == [0, 30 + DRAIN_LATENCY, 30 + DRAIN_LATENCY + 4]
    free = assert_same_events(program(*rows, engines=2))
    assert free.start.tolist() == [0, 30 + DRAIN_LATENCY, 0]


def test_no_instructions():
    timing = program((Op.DENSE, 1))
    empty = Timing(
        **{
            f.name: getattr(timing, f.name)[..., :0]
            if isinstance(getattr(timing, f.name), np.ndarray)
            else getattr(timing, f.name)
            for f in fields(Timing)
        }
    )
    assert len(assert_same_events(empty).done) == 0


def test_kernels_are_compiled_once():
    from numba.core.types import none

    from simulator.timing import accesses, cycle_accounts, engine, operator_bounds, unit_accounts

    for seed in range(5):
        run_engine(random_timing(generator(seed)))
        machine, _, lowered = case(seed)
        simulate(lowered, machine)
        machine, network = built_network(generator(seed))
        simulate(network, machine)
    kernels = (
        engine._advance,
        accesses._count,
        cycle_accounts._end_of_layers,
        cycle_accounts._account_tiles,
        cycle_accounts._charge_tail,
        unit_accounts._account_units,
        operator_bounds._add_work,
    )
    # The engine's has one more for memories with banks, if another test needed it.
    compiled = {k: [s for s in k.compiled.signatures if k is not engine._advance or s[-1] == none] for k in kernels}
    assert [len(found) for found in compiled.values()] == [1] * len(kernels)


def test_a_columns_type_makes_no_difference():
    """Columns that a caller made in other types are converted, not recompiled for."""
    timing = random_timing(generator(1))
    for dtype in (np.int16, np.int32, np.int64):
        other = replace(
            timing, **{name: getattr(timing, name).astype(dtype) for name in ("unit", "busy", "tail", "after")}
        )
        np.testing.assert_array_equal(run_engine(other).done, run_engine(timing).done)


def test_units_take_their_queue_in_order():
    for seed in range(40):
        timing = random_timing(generator(seed))
        events = run_engine(timing)
        for unit in Unit:
            mine = np.flatnonzero(timing.unit == unit)
            assert (events.start[mine][1:] >= events.end[mine][:-1]).all()
        transfers = np.flatnonzero(timing.is_transfer)
        order = transfers[np.argsort(events.start[transfers])]
        assert (events.start[order][1:] >= events.end[order][:-1]).all()  # one channel
