"""Channel scales: powers of two, which tensors carry them, and networks that compute the same with them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gblr_hw.weights.network_weights import linear_of
from gblr_hw.weights.scaled_weights import scaled_weights
from simulator.calibration.channel_scales import (
    added_constants,
    carries_scales,
    linear_scales,
    operand_scale,
    scaled_linear,
    scaled_network,
    scales_for,
)
from simulator.network.evaluate_network import evaluate_network
from simulator.network.network import Network, Operand, Window
from simulator.network.vector_steps import Step
from tests.drawn.drawn_networks import drawn_inputs, drawn_network
from tests.drawn.random_programs import generator
from tests.drawn.small_networks import Sketch, window_operand
from tests.drawn.strategies import FAMILIES, layer_weights, matrix_and_bias, small_machine

NORM = [Step("layer_norm", (0,), None, (1e-5,)), Step("multiply", (1,), "gain"), Step("add", (2,), "offset")]


def sketch() -> Sketch:
    made = Sketch(generator(1))
    made.input("x", 2, 3, 1, 4)
    return made


def norm(made: Sketch, name: str, source: str) -> str:
    constants = {"gain": made.rng.normal(size=4), "offset": made.rng.normal(size=4)}
    return made.vector(name, [source], NORM, 1, 4, constants)


def test_scales_of_four_channels():
    np.testing.assert_array_equal(scales_for(np.array([1.0, 3.0, 8.0, 0.0]), 2.0), [1.0, 2.0, 4.0, 1.0])


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(1e-3, 1e3))
def test_scales_are_the_smallest_powers_of_two_that_do(largest, reach):
    scales = scales_for(np.array(largest), reach)
    assert ((scales >= 1) & (np.exp2(np.rint(np.log2(scales))) == scales)).all()
    assert (np.array(largest) / scales <= reach).all()
    assert ((scales == 1) | (2 * np.array(largest) / scales > reach)).all()


@settings(max_examples=60)
@given(st.integers(0, 10**6))
def test_scaled_networks_compute_the_same_and_store_the_scaled_tensors(seed):
    rng = generator(seed)
    made = drawn_network(rng, 4)
    network, inputs = made.network(made.operators[-1].output), drawn_inputs(made)
    scales = {
        name: 2.0 ** rng.integers(0, 5, tensor.groups * tensor.width)
        for name, tensor in network.tensors.items()
        if carries_scales(network, name)
    }
    stored: list[dict[str, np.ndarray]] = [{}, {}]
    scaled = scaled_network(network, scales)
    results = [
        evaluate_network(network, made.apply, inputs, stored[0].__setitem__),
        evaluate_network(scaled, scaled_linear(network, made.apply, scales), inputs, stored[1].__setitem__),
    ]
    for name, values in stored[0].items():
        scale = scales[name].reshape(values.shape[2:]) if name in scales else 1.0
        np.testing.assert_allclose(stored[1][name] * scale, values, rtol=1e-9, atol=1e-9, err_msg=name)
    for name, values in results[0].items():
        np.testing.assert_allclose(results[1][name], values, rtol=1e-9, atol=1e-9)


def test_most_drawn_networks_have_such_tensors():
    made = [drawn_network(generator(seed), 4) for seed in range(30)]
    networks = [sketch.network(sketch.operators[-1].output) for sketch in made]
    assert sum(any(carries_scales(n, name) for name in n.tensors) for n in networks) > 20


def carried(network: Network) -> set[str]:
    return {name for name in network.tensors if carries_scales(network, name)}


def test_readers_that_cannot_multiply_again():
    made = sketch()
    q, k = made.linear("q", "x", 4), made.linear("k", "x", 4)
    made.scores("s", q, k, padded=True)
    assert carried(made.network("s.out")) == set()
    turned = Operand(q, 4, 1, 3, access="transposed")
    made.vector("turn", [turned], [Step("copy", (0,))], 1, 3, tokens=4)
    assert carried(made.network("turn.out")) == set()


def test_windows_of_linears_carry_but_not_those_of_pools_nor_other_fills():
    made = Sketch(generator(0))
    made.input("image", 1, 9, 1, 4)
    first = made.linear("first", "image", 5)
    window = Window((3, 3), (2, 2), (1, 1), (1, 1))
    made.linear("conv", window_operand(first, window, 5), 3, batch=1)
    assert carried(made.network("conv.out")) == {first}
    filled = Window((3, 3), (2, 2), (1, 1), (1, 1), fill=1.0)
    made.linear("filled", window_operand(first, filled, 5), 3, batch=1)
    assert carried(made.network("filled.out", "conv.out")) == set()
    second = made.linear("second", "image", 5)
    made.vector("pool", [window_operand(second, window, 5)], [Step("max_groups", (0,))], 1, 5, batch=1)
    assert second not in carried(made.network("pool.out"))


def test_inputs_outputs_and_parts_do_not_carry():
    made = sketch()
    whole = made.tensor("whole", 2, 3, 1, 6)
    made.linear("left", "x", 4, within=(whole, 0, 0))
    made.linear("right", "x", 2, within=(whole, 0, 4))
    inner = made.linear("inner", whole, 4)
    made.linear("end", inner, 4)
    assert carried(made.network("end.out")) == {inner}
    assert carried(made.network("end.out", inner)) == set()


def test_a_norm_before_linears_costs_nothing_and_other_vector_operators_a_pass():
    made = sketch()
    normed = norm(made, "norm", "x")
    up = made.linear("up", normed, 4)
    active = made.vector("gelu", [up], [Step("gelu", (0,))], 1, 4)
    down = made.linear("down", active, 4)
    made.vector("add", [down, "x"], [Step("add", (0, 1))], 1, 4)
    network = made.network("add.out")
    assert [added_constants(network, name) for name in (normed, up, active, down)] == [{}, {2: 4}, {2: 4}, {4: 4}]
    scales = {name: np.array([1.0, 2.0, 4.0, 8.0]) for name in (normed, up, active, down)}
    scaled = scaled_network(network, scales)
    passes = [after.passes - before.passes for before, after in zip(network.operators, scaled.operators, strict=True)]
    assert passes == [0, 0, 2, 0, 1]
    assert [array.size for array in scaled.operators[0].constants.values()] == [4, 4]


def test_a_shift_of_another_value_takes_no_factor():
    made = sketch()
    steps = [Step("multiply", (0,), "gain"), Step("add", (0,), "offset")]
    shifted = made.vector("shift", ["x"], steps, 1, 4, {"gain": np.ones(4), "offset": np.ones(4)})
    made.linear("end", shifted, 4)
    assert added_constants(made.network("end.out"), shifted) == {0: 4}


def test_scales_of_a_view():
    scale = np.arange(6.0)
    rows = Operand("t", 3, 2, 2, channel0=1)
    np.testing.assert_array_equal(operand_scale(rows, scale), [[1, 2], [3, 4]])
    window = window_operand("t", Window((3, 3), (1, 2), (1, 1), (0, 0)), 3, channel0=2)
    np.testing.assert_array_equal(operand_scale(window, scale), [[2, 3, 4], [2, 3, 4]])


@pytest.mark.parametrize("family", FAMILIES)
def test_scaled_weights_of_every_family(family):
    for seed in range(10):
        rng = generator(seed)
        weights = layer_weights(rng, small_machine(rng), family)
        matrix, bias = matrix_and_bias(weights)
        rows, columns = (2.0 ** rng.integers(-3, 4, size) for size in matrix.shape)
        found, found_bias = matrix_and_bias(scaled_weights(weights, columns, rows))
        np.testing.assert_array_equal(found, matrix * columns * rows[:, None])
        np.testing.assert_array_equal(found_bias, bias * rows)
        inputs = rng.normal(size=(3, matrix.shape[1]))
        np.testing.assert_allclose(
            linear_of({"a": scaled_weights(weights, columns, None)})("a", inputs),
            linear_of({"a": weights})("a", inputs * columns),
            rtol=1e-9, atol=1e-9,
        )  # fmt: skip
        assert scaled_weights(weights, None, None) is weights


def test_scales_of_an_operator_without_any():
    made = sketch()
    made.linear("end", "x", 4)
    assert linear_scales(made.operators[0], {}) == (None, None)
