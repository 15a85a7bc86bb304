"""The explicit dependences of lowered programs are complete: no memory is read too early or overwritten too early."""

from __future__ import annotations

import numpy as np
import pytest

from simulator.machine.machine import Machine
from simulator.numbers.execute import layer_sums
from simulator.numbers.tile_pass import Arithmetic
from simulator.program.operations import After, Op
from simulator.program.program import Program
from simulator.timing.durations import resolve_timing
from simulator.timing.engine import run_engine
from tests.drawn.strategies import case, generator
from tests.oracles.hazards import hazards, orders, without

DRAM = [{"gb_per_s": 0.2, "latency_ns": 300.0}, {"gb_per_s": 3.0}, {"gb_per_s": 5000.0, "latency_ns": 0.0}]


def corpus(seed: int, layers: int = 1) -> tuple[Machine, Program]:
    """One program a seed, over one, two and three DMA engines and slow and fast memories."""
    machine, _, program = case(70_000 + seed, layers=layers, dma={"engines": 1 + seed % 3}, dram=DRAM[seed // 3 % 3])
    return machine, program


@pytest.mark.parametrize("block", range(6))
def test_no_hazard_in_any_memory(block):
    for seed in range(20 * block, 20 * block + 20):
        machine, program = corpus(seed, layers=1 + seed % 5)
        timing = resolve_timing(program, machine)
        assert hazards(program, machine, timing, run_engine(timing)) == []


@pytest.mark.parametrize("column", list(After), ids=lambda c: c.name.lower())
def test_every_dependence_column_is_needed(column):
    """The check can fail: without one column of dependences it finds hazards."""
    found = 0
    for seed in range(30):
        machine, program = corpus(seed, layers=3)
        timing = without(resolve_timing(program, machine), column)
        found += bool(hazards(program, machine, timing, run_engine(timing)))
    assert found > 0


def walk(program: Program, machine: Machine, index: int, order: np.ndarray, inputs: np.ndarray) -> np.ndarray:
    """Sums of layer ``index`` when its instructions take effect in ``order``, from memories full of NaN."""
    payload = program.layers[index].payload
    mine = order[program.instructions.layer[order] == index]
    exact = Arithmetic(machine, None, None)
    return layer_sums(program, index, inputs, payload.values.astype(np.float64), payload.bias, exact, np.nan, mine)


@pytest.mark.parametrize("effect", ["early", "late"])
def test_numbers_do_not_depend_on_when_things_take_effect(effect):
    several_blocks = reloaded = 0
    for seed in range(60):
        machine, program = corpus(seed, layers=1 + seed % 3)
        timing = resolve_timing(program, machine)
        order = orders(timing, run_engine(timing))[effect]
        for index, layer in enumerate(program.layers):
            inputs = generator(seed).normal(size=(program.tokens, layer.in_features))
            expected = walk(program, machine, index, np.arange(len(order)), inputs)
            np.testing.assert_array_equal(walk(program, machine, index, order, inputs), expected)
            assert np.isfinite(expected).all()
            several_blocks += layer.block_tokens < program.tokens
            reloaded += len(layer.tiles) > machine.weight_slots and layer.block_tokens < program.tokens
    assert several_blocks > 10
    assert reloaded > 3


def test_the_walk_notices_a_missing_dependence():
    wrong = 0
    for seed in range(60):
        machine, program = corpus(seed)
        timing = resolve_timing(program, machine)
        order = orders(timing, run_engine(without(timing, After.INPUT)))["late"]
        inputs = generator(seed).normal(size=(program.tokens, program.layers[0].in_features))
        expected = walk(program, machine, 0, np.arange(len(order)), inputs)
        wrong += not np.array_equal(walk(program, machine, 0, order, inputs), expected)
    assert wrong > 0


def test_rank_multipliers_arrive_before_the_first_expand_tile():
    """A short layer before one with many tiles: the parameters stand before the layer's weights in their queue."""
    for seed in range(40):
        machine, _, program = case(seed, layers=4, weight_buffer={"kib": 16})
        events = run_engine(resolve_timing(program, machine))
        ins = program.instructions
        for index in range(4):
            parameters = np.flatnonzero((ins.layer == index) & (ins.op == Op.LOAD_PARAMETERS))
            expands = np.flatnonzero((ins.layer == index) & (ins.op == Op.EXPAND))
            loads = np.flatnonzero((ins.layer == index) & (ins.op == Op.LOAD_WEIGHTS))
            assert len(parameters) == 1
            assert (loads > parameters[0]).all()
            assert (events.start[expands] >= events.done[parameters[0]]).all()
