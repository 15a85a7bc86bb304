"""A checked program always finishes (rule Q2); columns that cannot are diagnosed by instruction, layer and unit."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given

from simulator.base.errors import DeadlockError, InputError
from simulator.program.isa import Instructions
from simulator.program.operations import TILE_OPS, After, Op
from simulator.program.program import Program
from simulator.timing.durations import Timing, resolve_timing
from simulator.timing.engine import run_engine
from simulator.timing.reference import run_reference
from tests.drawn.random_programs import built_program, generator, random_timing, seeds
from tests.simulator.timing.test_engines import program


def message(timing: Timing) -> str:
    """What both engines say; they must say the same."""
    said = []
    for run in (run_engine, run_reference):
        with pytest.raises(DeadlockError) as caught:
            run(timing)
        said.append(str(caught.value))
    assert said[0] == said[1]
    return said[0]


def test_a_circle_of_dependences_is_named():
    assert message(program((Op.LOAD_INPUT, 3, {After.ARRAY: 1}), (Op.DENSE, 5, {After.INPUT: 0}))) == (
        "no unit can proceed; "
        "INPUT_DMA: instruction 0 (LOAD_INPUT of layer 0) waits for instruction 1 (DENSE of layer 0) on ARRAY; "
        "ARRAY: instruction 1 (DENSE of layer 0) waits for instruction 0 (LOAD_INPUT of layer 0) on INPUT_DMA"
    )


def test_a_circle_through_a_queue_names_what_stands_in_front():
    """With one DMA engine the weights stand behind an input that waits for the tile that needs them."""
    rows = ((Op.LOAD_INPUT, 3, {After.ARRAY: 2}), (Op.LOAD_WEIGHTS, 3), (Op.DENSE, 5, {After.WEIGHTS: 1}))
    timing = replace(program(*rows, engines=1), layer=np.array([7, 8, 9]))
    assert message(timing) == (
        "no unit can proceed; "
        "WEIGHT_DMA: instruction 0 (LOAD_INPUT of layer 7) waits for instruction 2 (DENSE of layer 9) on ARRAY; "
        "ARRAY: instruction 2 (DENSE of layer 9) waits for instruction 1 (LOAD_WEIGHTS of layer 8) on WEIGHT_DMA "
        "behind instruction 0"
    )
    run_engine(program(*rows, engines=2 + 1))  # with a queue of their own the weights pass


def test_an_instruction_that_waits_for_itself_is_named():
    assert message(program((Op.DRAIN, 5), (Op.DENSE, 5, {After.ARRAY: 1}))) == (
        "no unit can proceed; ARRAY: instruction 1 (DENSE of layer 0) waits for instruction 1 (DENSE of layer 0) on ARRAY"
    )


def test_both_engines_find_the_same_deadlocks():
    """Random dependences in any direction: one engine is stuck exactly when the other is, at the same instructions."""
    stuck = 0
    for seed in range(150):
        rng = generator(seed)
        timing = random_timing(rng, longest=12)
        after = np.array(timing.after)
        after[rng.integers(5), rng.integers(after.shape[1])] = rng.integers(after.shape[1])
        after.setflags(write=False)
        timing = replace(timing, after=after)
        try:
            run_engine(timing)
        except DeadlockError:
            stuck += 1
            assert re.match(
                r"no unit can proceed; [A-Z_]+: instruction \d+ \([A-Z_]+ of layer 0\) waits", message(timing)
            )
        else:
            run_reference(timing)
    assert 20 < stuck < 130


@given(seeds)
def test_a_checked_program_never_deadlocks(seed):
    """Every dependence and every queue goes by program order, so the first instruction not yet started can start."""
    machine, program = built_program(generator(seed))
    for engines in (1, 2, 3):
        run_engine(resolve_timing(program, machine.with_(dma={"engines": engines})))


def test_a_program_that_could_deadlock_is_refused():
    machine, good = built_program(generator(3), shape="chain")
    ins = good.instructions
    for later in (0, 1):  # itself, and the one behind it
        after = np.array(ins.after)
        at = int(np.flatnonzero(np.isin(ins.op, TILE_OPS))[0])
        after[After.ARRAY, at] = at + later
        columns = {name: getattr(ins, name) for name in Instructions.__dataclass_fields__ if name != "after"}
        with pytest.raises(
            InputError,
            match=rf"instruction {at}: field 'after.array': found {at + later}; a dependence names an earlier instruction",
        ):
            Program(machine, good.tokens, good.layers, Instructions(after=after, **columns), {})
