"""Whose fault every cycle of a network is: the kernel against a count cycle by cycle, and cases worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings

from simulator.program.isa import OPERANDS, Instructions
from simulator.program.operations import After, Op
from simulator.program.program import Program
from simulator.timing.cycle_accounts import CycleAccounts, account_operators
from simulator.timing.durations import resolve_timing
from simulator.timing.engine import run_engine
from simulator.timing.report import CAUSES
from tests.drawn.random_networks import built_network
from tests.drawn.random_programs import assembled, built_program, generator, seeds
from tests.oracles.slow_operator_accounts import count_operators
from tests.oracles.timelines import network


def told(cycles: np.ndarray) -> dict[tuple[int, str], int]:
    return {(int(i), CAUSES[c]): int(cycles[i, c]) for i, c in np.argwhere(cycles)}


def overlapping(seed: int, shape: str | None = None) -> Program:
    """A random program whose instructions belong to operators at random."""
    rng = generator(seed)
    _, program = built_program(rng, shape, longest=60)
    count = int(rng.integers(1, 6))
    layers = tuple(replace(program.layers[0], name=f"operator {i}") for i in range(count))
    ins = program.instructions
    return replace(program, layers=layers, instructions=replace(ins, layer=rng.integers(0, count, len(ins))))


def check(program: Program, **changed: np.ndarray) -> CycleAccounts:
    """Compare; ``changed`` event times take the place of the engine's."""
    timing = resolve_timing(program, program.machine)
    events = replace(run_engine(timing), **changed)
    accounts = account_operators(program, timing, events)
    line, tail = count_operators(program, timing.unit.tolist(), events)
    assert told(accounts.line) == dict(line)
    assert told(accounts.tail) == dict(tail)
    assert accounts.line.sum() + accounts.tail.sum() == events.done.max(initial=0)
    assert min(accounts.line.min(), accounts.tail.min()) >= 0
    return accounts


@settings(max_examples=300)
@given(seeds)
def test_kernel_and_the_count_of_every_cycle_agree(seed):
    check(overlapping(seed))


@settings(max_examples=100)
@given(seeds)
def test_kernel_and_the_count_agree_on_networks(seed):
    check(built_network(generator(seed))[1])


@pytest.mark.parametrize("shape", ["soup", "chain", "phases"])
def test_all_causes_are_met(shape):
    line, tail = np.zeros((2, len(CAUSES)), dtype=np.int64)
    for seed in range(60):
        accounts = check(overlapping(seed, shape))
        line += accounts.line.sum(axis=0)
        tail += accounts.tail.sum(axis=0)
    never = {"tail", "wait_vector"} if shape == "phases" else {"tail"}
    assert {cause for cause, cycles in zip(CAUSES, line, strict=True) if not cycles} == never
    assert tail[CAUSES.index("wait_vector")] > 0
    assert tail[CAUSES.index("compute")] == tail[CAUSES.index("bank_conflict")] == 0


def test_a_softmax_that_holds_the_array_up_is_charged():
    """The time line of the manual: fc1 streams in 235 to 275, its sums are drained by 366, the softmax takes to 434."""
    accounts = check(network())
    fc1, softmax, fc2 = range(3)
    assert told(accounts.line) == {
        (fc1, "wait_weights"): 235,
        (fc1, "compute"): 40,
        (fc1, "wait_array"): 338 - 275,
        (fc1, "wait_vector"): 366 - 338,
        (softmax, "wait_vector"): 434 - 366,
        (fc2, "compute"): 40,
    }
    assert told(accounts.tail) == {
        (fc2, "wait_array"): 537 - 474,
        (fc2, "wait_vector"): 565 - 537,
        (fc2, "wait_input"): 715 - 565,
    }


def test_a_softmax_on_its_way_through_memory_is_charged_too():
    """fc2 reads what the softmax has stored: it has the load, the softmax its store and its own work."""
    program = network()
    ins = program.instructions
    kept = {name: getattr(ins, name) for name in ("op", "after", *OPERANDS)}
    store, load = 8, 9  # between the VECTOR and fc2's tile
    columns = {name: np.insert(column, [store, store], -1, axis=-1) for name, column in kept.items() if name != "after"}
    after = np.insert(np.where(kept["after"] >= store, kept["after"] + 2, kept["after"]), [store, store], -1, axis=1)
    for at, row in (
        (store, {"op": Op.STORE, "layer": 1, "src": 2560}),
        (load, {"op": Op.LOAD_INPUT, "layer": 2, "dst": 2560}),
    ):
        for name, value in {**row, "tokens": 40, "token0": 0, "chunk": 0, "dram_bytes": 1280, "accumulate": 0}.items():
            columns[name][at] = value
    after[After.VECTOR, store], after[After.STORE, load] = 7, store
    after[After.VECTOR, load + 1], after[After.INPUT, load + 1] = -1, load
    accounts = check(replace(program, instructions=Instructions(after=after, **columns)))
    fc1, softmax, fc2 = range(3)
    line = told(accounts.line)
    assert line[softmax, "wait_vector"] == 68
    assert line[softmax, "wait_input"] == line[fc2, "wait_input"] == 150  # 50 of the channel and a latency of 100
    assert (fc2, "wait_vector") not in line
    assert line[fc1, "wait_vector"] == 28


def test_a_network_without_a_tile_is_all_tail():
    program = network()
    layers = program.layers
    rows = [
        {"op": Op.LOAD_INPUT, "layer": 1, "tile": 0, "chunk": 0, "token0": 0, "tokens": 40, "dst": 0, "dram_bytes": 1280},
        {"op": Op.VECTOR, "layer": 1, "tile": -1, "chunk": 1, "token0": 0, "tokens": 40, "src": 0, "dst": 1280, "row_cycles": 3, "input": 0},
        {"op": Op.STORE, "layer": 1, "chunk": 0, "token0": 0, "tokens": 40, "src": 1280, "dram_bytes": 1280, "vector": 1},
    ]  # fmt: skip
    accounts = check(assembled(program.machine, layers, 40, rows, program.network))
    assert told(accounts.line) == {}
    assert told(accounts.tail) == {(1, "wait_input"): 300, (1, "wait_vector"): 68}


def test_an_empty_network_has_no_cycles():
    program = network()
    accounts = check(assembled(program.machine, program.layers, 40, [], program.network))
    assert not told(accounts.line) and not told(accounts.tail)


def test_of_two_that_are_done_at_once_the_first_named_was_waited_for():
    program = network()
    ins = program.instructions
    after = ins.after.copy()
    after[After.WEIGHTS, 7] = 4  # the softmax waits for weights as well as for the drain
    done = run_engine(resolve_timing(program, program.machine)).done.copy()
    done[4] = done[6]
    accounts = check(replace(program, instructions=replace(ins, after=after)), done=done)
    assert (2, "wait_weights") in told(accounts.line)
    assert (0, "wait_vector") not in told(accounts.line)
