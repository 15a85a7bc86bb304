"""Whole networks on whole tensors: every access and kind against plain numpy loops and PyTorch, and every message."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from simulator.base.arithmetic import ceil_div
from simulator.base.errors import InputError
from simulator.network.evaluate_network import constant_values, evaluate_network
from simulator.network.network import Network, Operand, Port, Window
from simulator.network.operand_views import channel_places, operand_view, window_tokens
from simulator.network.tensor_values import port_to_tensor, stored_tensors, tensor_to_port
from simulator.network.vector_steps import Step
from tests.drawn.small_networks import Sketch, window_operand

COPY = [Step("copy", (0,))]


def sketch(seed: int = 0) -> Sketch:
    return Sketch(np.random.default_rng(seed))


def run(made: Sketch, *outputs: str, **inputs: np.ndarray) -> list[np.ndarray]:
    results = evaluate_network(made.network(*outputs), made.apply, inputs)
    return [results[name] for name in outputs]


def drawn(made: Sketch, name: str) -> np.ndarray:
    tensor = made.tensors[name]
    return made.rng.normal(size=(tensor.batch, tensor.tokens, tensor.groups, tensor.width))


def test_a_part_of_rows_seen_in_other_groups():
    made = sketch()
    x = made.input("x", 2, 5, 3, 8)
    part = Operand(x, 2, 4, 2, token0=3, channel0=8)
    made.vector("v", [part], COPY, 4, 2)
    values = drawn(made, x)
    (result,) = run(made, "v.out", x=values)
    np.testing.assert_array_equal(result, values.reshape(2, 5, 24)[:, 3:5, 8:16].reshape(2, 2, 4, 2))


def test_transposed_and_gather():
    made = sketch()
    x = made.input("x", 2, 6, 1, 5)
    indices = made.input("i", 2, 3, 1, 1, index=True)
    table = made.constant("table", made.rng.normal(size=(1, 7, 2, 3)))
    made.vector("t", [Operand(x, 4, 2, 3, token0=1, access="transposed")], COPY, 2, 3)
    made.vector("g", [Operand(table, 3, 2, 3, access="gather", indices=indices)], COPY, 2, 3, batch=2)
    values, rows = drawn(made, x), made.rng.integers(0, 7, (2, 3, 1, 1))
    transposed, gathered = run(made, "t.out", "g.out", x=values, i=rows)
    np.testing.assert_array_equal(transposed, values[:, :, 0, 1:5].transpose(0, 2, 1).reshape(2, 4, 2, 3))
    np.testing.assert_array_equal(gathered, made.values["table"][0][rows[..., 0, 0]])


def test_gather_from_a_table_for_each_sequence():
    values = np.arange(12.0).reshape(2, 3, 2)
    operand = Operand("x", 2, 1, 2, access="gather", indices="i")
    found = operand_view(operand, values, np.array([[2, 0], [1, 1]]))
    np.testing.assert_array_equal(found[:, :, 0], [[[4, 5], [0, 1]], [[8, 9], [8, 9]]])


@pytest.mark.parametrize("stride", [(1, 1), (2, 3)])
@pytest.mark.parametrize("padding", [(0, 0), (1, 2)])
@pytest.mark.parametrize("dilation", [(1, 1), (2, 1)])
def test_convolution_and_pooling_follow_pytorch(stride, padding, dilation):
    made = sketch()
    window = Window((7, 6), (3, 2), stride, padding, dilation)
    x = made.input("x", 2, 42, 1, 5)
    made.linear("conv", window_operand(x, window, 5), 4, batch=2)
    if padding[0] <= 1 and padding[1] <= 1:
        made.vector(
            "pool", [window_operand(x, replace(window, fill=-np.inf), 5)], [Step("max_groups", (0,))], 1, 5, batch=2
        )
    values = drawn(made, x)
    results = run(made, *(f"{operator.name}.out" for operator in made.operators), x=values)
    image = torch.from_numpy(values.reshape(2, 7, 6, 5).transpose(0, 3, 1, 2))
    matrix, bias = (torch.from_numpy(part) for part in made.weights["conv"])
    kernel = matrix.reshape(4, 3, 2, 5).permute(0, 3, 1, 2)
    expected = functional.conv2d(image, kernel, bias, stride, padding, dilation)
    np.testing.assert_allclose(results[0][:, :, 0], expected.flatten(2).mT.numpy(), atol=1e-12)
    if len(results) > 1:
        pooled = functional.max_pool2d(image, (3, 2), stride, padding, dilation)
        np.testing.assert_array_equal(results[1][:, :, 0], pooled.flatten(2).mT.numpy())


@pytest.mark.parametrize("groups", [1, 2, 6])
def test_attention_with_grouped_queries_follows_pytorch(groups):
    made = sketch()
    q, k, v = made.input("q", 2, 4, 6, 5), made.input("k", 2, 7, groups, 5), made.input("v", 2, 7, groups, 3)
    s = made.scores("s", q, k, padded=True)
    mask = np.where(np.arange(7) <= np.arange(4)[:, None] + 3, 0.0, -np.inf)[None, :, None]
    steps = [Step("multiply", (0,), None, (5**-0.5,)), Step("add", (1,), "mask"), Step("softmax", (2,))]
    p = made.vector("p", [s], steps, 6, 7, {"mask": mask}, padded=True)
    made.mix("m", p, v)
    given = {name: drawn(made, name) for name in (q, k, v)}
    (result,) = run(made, "m.out", **given)
    heads = [torch.from_numpy(given[name].transpose(0, 2, 1, 3)) for name in (q, k, v)]
    expected = functional.scaled_dot_product_attention(
        *heads, attn_mask=torch.from_numpy(mask[:, :, 0]), enable_gqa=True
    )
    np.testing.assert_allclose(result, expected.transpose(1, 2).numpy(), atol=1e-12)


def test_rows_that_a_mask_empties_are_nan_as_in_frameworks():
    made = sketch()
    x = made.input("x", 1, 2, 1, 3)
    mask = np.array([[0.0, 0.0, -np.inf], [-np.inf] * 3])[None, :, None]
    made.vector("p", [x], [Step("add", (0,), "mask"), Step("softmax", (1,))], 1, 3, {"mask": mask})
    (result,) = run(made, "p.out", x=np.zeros((1, 2, 1, 3)))
    np.testing.assert_array_equal(result[0, :, 0], [[0.5, 0.5, 0.0], [np.nan] * 3])


def test_concatenation_costs_nothing_and_broadcasting_works():
    """A class token before the tokens, both parts channels of one whole; the sum with a position table of batch 1."""
    made = sketch()
    whole = made.tensor("whole", 2, 4, 1, 6)
    made.constant("class", made.rng.normal(size=(1, 1, 1, 6)), within=(whole, 0, 0))
    x = made.input("x", 2, 3, 1, 2, within=(whole, 1, 0))
    made.linear("l", x, 4, within=(whole, 1, 2))
    made.constant("position", made.rng.normal(size=(1, 4, 1, 6)))
    made.constant("row", made.rng.normal(size=(1, 1, 1, 6)))
    made.vector("sum", [whole, "position"], [Step("add", (0, 1))], 1, 6)
    made.vector("last", ["sum.out", "row"], [Step("multiply", (0, 1))], 1, 6)
    values = drawn(made, x)
    parent, result = run(made, whole, "last.out", x=values)
    rows = np.concatenate([values[:, :, 0], made.apply("l", values[:, :, 0])], axis=2)
    first = np.broadcast_to(made.values["class"][:, :, 0], (2, 1, 6))
    np.testing.assert_array_equal(parent[:, :, 0], np.concatenate([first, rows], axis=1))
    np.testing.assert_array_equal(result, (parent + made.values["position"]) * made.values["row"])


def test_observe_sees_every_value_once_and_in_order():
    made = sketch()
    x = made.input("x", 1, 2, 1, 3)
    made.vector("a", [x], [Step("relu", (0,))], 1, 3)
    made.vector("b", ["a.out"], [Step("negative", (0,))], 1, 3)
    seen = []
    evaluate_network(
        made.network("b.out"), made.apply, {x: drawn(made, x)}, lambda name, v: seen.append((name, v.shape))
    )
    assert seen == [("x", (1, 2, 1, 3)), ("a.out", (1, 2, 1, 3)), ("b.out", (1, 2, 1, 3))]


def test_ports_carry_a_model_s_shape_there_and_back():
    made = sketch()
    x = made.input("x", 2, 6, 3, 4)
    port = Port("image", x, (2, 12, 2, 3), (2, 3, 4, 2, 3), (0, 3, 4, 2, 1))
    array = made.rng.normal(size=port.shape)
    values = port_to_tensor(port, made.tensors[x], array)
    np.testing.assert_array_equal(values[1, 4, 0, 2], array[1, 8, 1, 1])  # token (1, 1); channel 2 is (0, 2) of 4 x 3
    np.testing.assert_array_equal(tensor_to_port(port, values), array)


@pytest.mark.parametrize(("groups", "width", "padded"), [(3, 5, True), (3, 5, False), (2, 8, True), (1, 3, True)])
def test_places_of_channels(groups, width, padded):
    places = channel_places(groups, width, padded, side=4).reshape(groups, width)
    assert (np.diff(places, axis=1) == 1).all()
    assert places[:, 0].tolist() == [g * (ceil_div(width, 4) * 4 if padded else width) for g in range(groups)]


def test_window_tokens_by_hand():
    window = Window((2, 3), (1, 2), (1, 2), (0, 1))
    assert window_tokens(window).tolist() == [[-1, 0], [1, 2], [-1, 3], [4, 5]]


# ---- messages


def two_rows() -> tuple[Sketch, Network]:
    made = sketch()
    x = made.input("x", 1, 2, 1, 3)
    made.linear("l", x, 4)
    return made, made.network("l.out")


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "input 'x': found nothing; the network's inputs are x"),
        ({"y": 0, "x": 0}, "input 'y': found no such input; the network's inputs are x"),
        ({"x": np.zeros((2, 1, 3))}, "input 'x': found shape (2, 1, 3); the network was made for shape (1, 2, 1, 3)"),
        ({"x": np.full((1, 2, 1, 3), np.nan)}, "input 'x': found NaN; inputs are numbers"),
    ],
)
def test_bad_inputs(inputs, message):
    made, network = two_rows()
    with pytest.raises(InputError) as error:
        evaluate_network(network, made.apply, inputs)
    assert message in str(error.value)


def test_a_linear_of_another_size():
    _, network = two_rows()
    with pytest.raises(InputError) as error:
        evaluate_network(network, lambda name, rows: rows, {"x": np.zeros((1, 2, 1, 3))})
    assert "operator 'l': found values of shape (2, 3); its output 'l.out' takes (1, 2, 1, 4)" in str(error.value)


def test_constants_and_parts_that_do_not_fit():
    made = sketch()
    made.constant("c", np.zeros((1, 2, 1, 3)))
    made.tensor("whole", 1, 4, 1, 3)
    made.tensor("part", 1, 2, 1, 3, within=("whole", 3, 0))
    network = made.network()
    with pytest.raises(InputError, match="tensor 'part' within 'whole': found 1 x 2 x 3 at token 3, channel 0"):
        stored_tensors(network)
    made.values["c"] = np.zeros((2, 3))
    with pytest.raises(InputError, match="constant 'c': found shape"):
        constant_values(network, "c")


@pytest.mark.parametrize(
    ("operand", "indices", "message"),
    [
        (Operand("x", 4, 1, 3), None, "operand 'x': found rows to token 4, channel 3; the tensor has 3 tokens of 4"),
        (Operand("x", 5, 1, 3, access="transposed"), None, "found transposed to token 3, channel 5"),
        (Operand("x", 1, 1, 5, access="gather", indices="i"), [[0]], "found gather to token 0, channel 5"),
        (Operand("x", 1, 1, 4, access="gather", indices="i"), [[3]], "index 'i': found 3; table 'x' has rows 0 to 2"),
        (Operand("x", 1, 1, 4, access="gather", indices="i"), [[-1]], "index 'i': found -1; table 'x' has"),
        (Operand("x", 1, 1, 4, access="gather", indices="i"), [[0.5]], "index 'i': found 0.5; table 'x' has"),
        (Operand("x", 4, 1, 3, access="window"), None, "window of 'x': found None positions"),
        (
            Operand("x", 4, 1, 4, access="window", window=Window((1, 3), (1, 2), (1, 1), (0, 0))),
            None,
            "window of 'x': found (2, 2) positions and kernel positions; the view has 4 tokens and 1 groups",
        ),
        (
            Operand("x", 3, 2, 4, access="window", window=Window((1, 4), (1, 2), (1, 1), (0, 0))),
            None,
            "found window to token 4, channel 4; the tensor has 3 tokens",
        ),
    ],
)
def test_views_outside_their_tensor(operand, indices, message):
    with pytest.raises(InputError) as error:
        operand_view(operand, np.zeros((1, 3, 4)), None if indices is None else np.array(indices))
    assert message in str(error.value)
