"""Programs of whole networks compute what the network does, in whatever order their dependences leave open."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from gblr_hw import lower
from gblr_hw.lowering.whole_network import lower_network
from gblr_hw.weights.stored import LayerWeights
from simulator.base.errors import InputError
from simulator.machine.machine import Machine
from simulator.network.evaluate_network import evaluate_network
from simulator.numbers.execute_network import execute_network
from simulator.program.operations import After, Op
from simulator.program.program import Program
from simulator.timing.durations import resolve_timing
from simulator.timing.engine import run_engine
from tests.drawn.transformer_network import Sizes, transformer
from tests.oracles.hazards import hazards, orders, without

_MID = Machine.load("mid-32")


@st.composite
def machines(draw: st.DrawFn) -> Machine:
    """Square arrays with memories from hardly enough to plenty, fast and slow around them."""
    side = draw(st.sampled_from([2, 4, 8, 16]))
    return _MID.with_(
        name="drawn",
        array={"rows": side, "cols": side, "scatter": draw(st.booleans())},
        scratchpad={"kib": draw(st.sampled_from([4, 8, 32, 512]))},
        accumulator={"kib": draw(st.sampled_from([1, 4, 64]))},
        weight_buffer={"kib": draw(st.sampled_from([1, 2, 32]))},
        dma={"engines": draw(st.integers(1, 3))},
        dram={"gb_per_s": draw(st.sampled_from([0.5, 25.6, 400.0])), "latency_ns": draw(st.sampled_from([0.0, 100.0]))},
        vector={"lanes": draw(st.sampled_from([1, 64])), "latency_cycles": draw(st.sampled_from([0, 40]))},
    )


@st.composite
def sizes(draw: st.DrawFn) -> Sizes:
    heads = draw(st.sampled_from([1, 2, 3, 4]))
    return Sizes(
        batch=draw(st.integers(1, 3)),
        tokens=draw(st.sampled_from([1, 2, 5, 17, 33])),
        heads=heads,
        width=draw(st.sampled_from([3, 4, 8, 12])),
        shared=draw(st.sampled_from([n for n in (1, 2, 3, 4) if heads % n == 0])),
        hidden=draw(st.sampled_from([1, 7, 16, 40])),
        layers=draw(st.integers(1, 2)),
    )


def _expected(network, weights: dict[str, LayerWeights], x: np.ndarray) -> np.ndarray:
    def linear(name: str, rows: np.ndarray) -> np.ndarray:
        layer = weights[name]
        return rows @ layer.weight.double().numpy().T + layer.bias.double().numpy()

    return evaluate_network(network, linear, {"x": x})["y"]


def _input(size: Sizes) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(size.batch, size.tokens, size.channels))


@settings(deadline=None, max_examples=40)
@given(sizes(), machines())
def test_a_program_computes_the_network_in_every_order(size: Sizes, machine: Machine) -> None:
    network, weights = transformer(size)
    program = lower_network(network, weights, machine)
    x = _input(size)
    expected = _expected(network, weights, x)
    timing = resolve_timing(program, machine)
    for order in (None, *orders(timing, run_engine(timing)).values()):
        got = execute_network(program, {"x": x}, order=order)["y"]
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-9 * np.abs(expected).max())


@settings(deadline=None, max_examples=12)
@given(sizes(), machines())
def test_no_memory_is_touched_before_its_turn(size: Sizes, machine: Machine) -> None:
    program = lower_network(*transformer(replace(size, layers=1)), machine)
    timing = resolve_timing(program, machine)
    assert hazards(program, machine, timing, run_engine(timing)) == []


@pytest.mark.parametrize("column", list(After))
def test_every_kind_of_dependence_is_needed(column: After) -> None:
    size = Sizes(batch=2, tokens=33, heads=2, width=8, hidden=40)
    machine = _MID.with_(
        name="small",
        array={"rows": 8, "cols": 8},
        scratchpad={"kib": 4},
        weight_buffer={"kib": 1},
        vector={"lanes": 4, "latency_cycles": 40},
    )
    network, weights = transformer(size)
    program = lower_network(network, weights, machine)
    x = _input(size)
    timing = without(resolve_timing(program, machine), column)
    expected = _expected(network, weights, x)
    events = run_engine(timing)
    # Stores may take effect when they are done, loads when they start.
    at = np.where(timing.op == Op.STORE, events.done, events.start)
    tried = [*orders(timing, events).values(), np.lexsort((np.arange(len(at)), at))]
    assert any(_differs(program, x, order, expected) for order in tried)


def _differs(program: Program, x: np.ndarray, order: np.ndarray, expected: np.ndarray) -> bool:
    try:
        return not np.allclose(execute_network(program, {"x": x}, order=order)["y"], expected)
    except InputError as error:
        assert "a tile is loaded before it runs" in str(error)
        return True


def _lowered(size: Sizes, **machine: dict[str, int]) -> Program:
    return lower_network(*transformer(size), _MID.with_(name="drawn", **machine))


def test_a_small_scratchpad_makes_blocks_and_a_large_one_does_not() -> None:
    size = Sizes(tokens=64, heads=2, width=32, hidden=128)
    sides = {"rows": 16, "cols": 16}
    large = _lowered(size, array=sides)
    small = _lowered(size, array=sides, scratchpad={"kib": 8})
    assert {layer.block_tokens for layer in large.layers} == {64}
    assert min(layer.block_tokens for layer in small.layers) < 64
    assert np.count_nonzero(small.instructions.op == Op.VECTOR) > np.count_nonzero(large.instructions.op == Op.VECTOR)


def test_heads_that_share_keys_load_them_once() -> None:
    def bytes_of(shared: int) -> int:
        program = _lowered(Sizes(tokens=32, heads=4, width=32, shared=shared))
        index = program.layer_index("block0.attention.scores")
        ins = program.instructions
        return int(ins.dram_bytes[(ins.layer == index) & (ins.op == Op.LOAD_WEIGHTS)].sum())

    assert bytes_of(1) == 4 * 32 * 32
    assert bytes_of(4) == 32 * 32


def test_a_machine_that_is_not_square_is_refused() -> None:
    with pytest.raises(InputError, match="an array of 8 x 16.*run on square arrays.*lower the layers one by one"):
        _lowered(Sizes(), array={"rows": 8, "cols": 16})


def test_weights_narrower_than_activations_are_refused() -> None:
    with pytest.raises(InputError, match="weights of 4 bits, activations of 8.*Set datatypes.weight_bits"):
        _lowered(Sizes(), datatypes={"weight_bits": 4})


def test_a_row_that_does_not_fit_names_operator_and_memory() -> None:
    with pytest.raises(InputError, match="operator 'block0.*' on machine 'drawn'.*scratchpad of 1024 bytes"):
        _lowered(Sizes(heads=4, width=64, hidden=2048), scratchpad={"kib": 1})


def test_lowering_twice_gives_the_same_program() -> None:
    assert str(_lowered(Sizes(layers=2))) == str(_lowered(Sizes(layers=2)))


def test_a_program_that_memory_has_no_room_for_is_refused_before_it_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = nn.Sequential(nn.Linear(40, 70), nn.ReLU(), nn.Linear(70, 20)).eval(), torch.randn(300, 40)
    program = lower(model, "edge-16", example_inputs=x)
    monkeypatch.setattr("simulator.base.memory.available_bytes", lambda: 1000)
    with pytest.raises(InputError, match="this computer has 0.0 GiB to give. Give fewer sequences") as refused:
        lower(model, "edge-16", example_inputs=x)
    (told,) = re.findall(r"program: found ([0-9,]+) passes at least", str(refused.value))
    assert len(program.instructions) / 4 < int(told.replace(",", "")) < len(program.instructions)
