"""The reference and the engine agree on a seeded corpus: every event, every stall cause, every counter of the report."""

from __future__ import annotations

from collections import Counter
from functools import lru_cache

import numpy as np
import pytest
from hypothesis import given, settings

from simulator.program.operations import Op
from simulator.timing.durations import resolve_timing
from simulator.timing.reference import run_reference
from simulator.timing.reference_durations import reference_timing
from simulator.timing.simulate import simulate
from tests.drawn.corpus import SIZES, survey
from tests.drawn.random_networks import built_network
from tests.drawn.random_programs import built_program, generator, seeds
from tests.oracles.slow_counter import access_differences, differences
from tests.simulator.timing.test_engines import assert_same_events

surveyed = lru_cache(survey)  # the coverage test reads what the agreement tests ran

# Instructions (operations, stalls) or programs (the rest) that the corpus has at least, at scale 1.
LEAST = {
    **{op.name: 1000 for op in Op},
    **{f"other stall {name}": 100 for name in ("none", "wait_weights", "wait_input", "wait_array", "wait_vector", "wait_store", "dram_channel")},
    **{f"array stall {name}": 100 for name in ("none", "wait_weights", "wait_input", "wait_array", "wait_vector", "weight_preload")},
    **{f"{engines} DMA engines": 300 for engines in (1, 2, 3)},
    **{f"{side} = {size}": 30 for side in "PQ" for size in range(2, 17)},
    "P < Q": 300, "P > Q": 300, "P = Q": 50, "scatter": 500, "plain array": 200, "T = 1": 200, "m > 1": 100,
    "several tiles wait for one load": 100, "two operands": 30, "a run of a vector operator's chunks": 100, "activations as weights": 200,
    "several layers": 40, "several token blocks": 100, "weights loaded again": 100, "weight buffer: its last slot": 200,
    "scratchpad: its last byte": 200, "accumulator: its last row": 200, "rank memory: no room for another slot": 50,
    "output chunk without tiles": 100, "tile without stored weights": 50,
    "narrow tiles": 300, "a narrow tile behind a wide one": 150,
    "back-to-back dependence, started as it was done": 300, "two requests in one cycle": 300,
    "served before a later request of a lower unit": 20, "lead longer than the preload": 100,
    "starved: channel busy over 90 %": 100, "flooded: channel busy under 5 %": 100, "streaming bound: two tiles without a gap": 100,
}  # fmt: skip


def test_the_corpus_has_two_thousand_programs():
    assert sum(SIZES.values()) == 2000


@pytest.mark.parametrize("kind", SIZES)
def test_engine_reference_and_counters_agree(kind, corpus_scale):
    result = surveyed(kind, corpus_scale)
    assert result.programs == SIZES[kind] * corpus_scale
    assert result.found == []


def test_the_corpus_reaches_every_feature(corpus_scale):
    features = sum((surveyed(kind, corpus_scale).features for kind in SIZES), Counter())
    assert {name: features[name] for name, least in LEAST.items() if features[name] < least * corpus_scale} == {}


@settings(max_examples=150)
@given(seeds)
def test_any_built_program(seed):
    machine, program = built_program(generator(seed))
    timing = resolve_timing(program, machine)
    assert_same_events(timing)
    assert (
        differences(simulate(program, machine), program, machine, run_reference(reference_timing(program, machine)))
        == []
    )


@settings(max_examples=100)
@given(seeds)
def test_any_built_network(seed):
    machine, program = built_network(generator(seed))
    timing = resolve_timing(program, machine)
    assert_same_events(timing)
    assert access_differences(program, machine) == []
    assert (
        differences(simulate(program, machine), program, machine, run_reference(reference_timing(program, machine)))
        == []
    )


def test_the_counter_notices_one_cycle_and_one_word():
    machine, program = built_program(generator(8), "chain")
    report, events = simulate(program, machine), run_reference(resolve_timing(program, machine))
    assert differences(report, program, machine, events) == []
    events.end[np.argmax(events.end)] += 1
    assert any("idle" in what or "after" in what for what in differences(report, program, machine, events))
    events.end[np.argmax(events.end)] -= 1
    object.__setattr__(
        report, "accesses", {**report.accesses, "scratchpad_read": report.accesses["scratchpad_read"] + 1}
    )
    assert [what.split(":")[0] for what in differences(report, program, machine, events)] == ["accesses"]
