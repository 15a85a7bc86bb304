"""Balancing changes no exact number, touches only what it may, and saves small channels beside large ones in int8."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings

from simulator.balance_channels import balance_channels
from simulator.calibrate_network import calibrate_network
from simulator.errors import InputError
from simulator.evaluate_network import evaluate_network
from simulator.execute_network import execute_network
from simulator.network import Operand
from simulator.vector_steps import Step
from tests.drawn_networks import drawn_inputs, drawn_network, lowered, square_machine
from tests.random_programs import generator, seeds
from tests.small_networks import Sketch


@settings(max_examples=80)
@given(seeds)
def test_exact_numbers_stay(seed):
    made = drawn_network(generator(seed), 4)
    network, inputs = made.network(made.operators[-1].output), drawn_inputs(made)
    balanced = balance_channels(network, made.apply, [inputs], ratio=1.0)
    expected = evaluate_network(network, made.apply, inputs)
    result = evaluate_network(balanced.network, balanced.linear(made.apply), inputs)
    for name in expected:
        np.testing.assert_allclose(result[name], expected[name], rtol=1e-9, atol=1e-9)


def outlier_case() -> Sketch:
    """A residual branch with one channel a thousand times larger than the others, which the next operator takes back."""
    made = Sketch(generator(0))
    made.input("x", 1, 6, 1, 8)
    made.linear("branch", "x", 8)
    made.weights["branch"][0][3] *= 1000
    gain = np.where(np.arange(8) == 3, 1e-3, 1.0)
    steps = [Step("add", (0, 1)), Step("multiply", (2,), "gain")]
    made.vector("sum", ["x", "branch.out"], steps, 1, 8, {"gain": gain})
    made.linear("end", "sum.out", 4)
    return made


def test_small_channels_beside_a_large_one_survive_int8():
    made = outlier_case()
    machine = square_machine(generator(2))
    network, inputs = made.network("sum.out", "end.out"), drawn_inputs(made)
    small = np.arange(8) != 3
    expected = evaluate_network(network, made.apply, inputs)["sum.out"][..., small]

    def error(network, apply, weights) -> float:
        calibrated = calibrate_network(network, apply, [inputs]).network
        made.weights.update(weights)
        result = execute_network(lowered(made, calibrated, machine), inputs, "int8")["sum.out"][..., small]
        return float(np.abs(result - expected).max() / np.abs(expected).max())

    balanced = balance_channels(network, made.apply, [inputs])
    matrix, bias = made.weights["branch"]
    factor = balanced.factors["branch"]
    before = error(network, made.apply, {})
    after = error(balanced.network, balanced.linear(made.apply), {"branch": (matrix / factor[:, None], bias / factor)})
    assert set(balanced.factors) == {"branch"}
    assert factor.argmax() == 3
    assert factor[3] > 100
    assert after < 0.1 < 0.5 < before


def test_what_others_read_is_left_alone():
    """Read by a linear, an output of the model, a part of a whole, read in windows or turned."""
    made = Sketch(generator(0))
    made.input("x", 1, 6, 1, 8)
    made.tensor("whole", 1, 6, 1, 16)
    made.linear("a", "x", 8)
    made.linear("after", "a.out", 8)
    made.linear("part", "x", 8, within=("whole", 0, 0))
    made.linear("part2", "x", 8, within=("whole", 0, 8))
    made.linear("turned", "x", 8)
    made.vector("t", [Operand("turned.out", 8, 1, 6, access="transposed")], [Step("copy", (0,))], 1, 6)
    made.vector("w", ["whole"], [Step("copy", (0,))], 1, 16)
    for name in made.weights:
        made.weights[name][0][3] *= 1000
    balanced = balance_channels(made.network("after.out", "t.out", "w.out"), made.apply, [drawn_inputs(made)])
    assert balanced.factors == {}
    assert balanced.network.operators == tuple(made.operators)


def test_views_of_parts_get_their_own_factors():
    made = Sketch(generator(0))
    made.input("x", 1, 3, 1, 4)
    made.linear("l", "x", 12)
    made.weights["l"][0][[2, 7]] *= 1000
    halves = [Operand("l.out", 3, 2, 2, channel0=channel) for channel in (4, 8)]
    made.vector("gate", list(halves), [Step("silu", (0,)), Step("multiply", (2, 1))], 2, 2)
    network, inputs = made.network("gate.out"), drawn_inputs(made)
    balanced = balance_channels(network, made.apply, [inputs])
    gate = balanced.network.operators[1]
    assert [step.function for step in gate.steps] == ["multiply", "multiply", "silu", "multiply"]
    assert [step.args for step in gate.steps] == [(0,), (1,), (2,), (4, 3)]
    np.testing.assert_array_equal(gate.constants["balance of operand 0"].reshape(-1), balanced.factors["l"][4:8])
    np.testing.assert_allclose(
        evaluate_network(balanced.network, balanced.linear(made.apply), inputs)["gate.out"],
        evaluate_network(network, made.apply, inputs)["gate.out"],
        rtol=1e-12,
    )


def test_ratio():
    made = outlier_case()
    network = made.network("end.out")
    assert balance_channels(network, made.apply, [drawn_inputs(made)], ratio=1e6).factors == {}
    for ratio in (0.5, float("nan")):
        with pytest.raises(InputError, match=f"ratio: found {ratio}; it is at least 1"):
            balance_channels(network, made.apply, [], ratio)
