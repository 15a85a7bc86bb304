"""Activation steps of networks: largest magnitudes and percentiles, what counts and who shares, and example rows."""

from __future__ import annotations

import numpy as np
import pytest

from simulator.base.errors import InputError
from simulator.calibration.calibrate_network import calibrate_network, sampled
from simulator.network.evaluate_network import evaluate_network
from simulator.network.vector_steps import Step
from tests.drawn.drawn_networks import all_outputs, drawn_inputs, drawn_network
from tests.drawn.random_programs import generator
from tests.drawn.small_networks import Sketch


def sketch() -> Sketch:
    made = Sketch(generator(0))
    made.input("x", 2, 3, 1, 4)
    return made


def steps(made: Sketch, output: str, batches: list[np.ndarray], **settings: object) -> dict[str, float]:
    examples = [{"x": batch} for batch in batches]
    found = calibrate_network(made.network(output), made.apply, examples, **settings)  # type: ignore[arg-type]
    return {name: tensor.step for name, tensor in found.network.tensors.items()}


@pytest.mark.parametrize("bits", [8, 4])
def test_every_step_is_the_largest_magnitude_over_all_batches(bits):
    for seed in range(20):
        made = drawn_network(generator(seed), 4)
        network, batches = all_outputs(made), [drawn_inputs(made) for _ in range(3)]
        found = calibrate_network(network, made.apply, batches, bits, percentile=100).network
        largest: dict[str, float] = {}
        for batch in batches:
            for name, values in evaluate_network(network, made.apply, batch).items():
                largest[name] = max(largest.get(name, 0.0), np.abs(values).max())
        parts = {name for name, tensor in network.tensors.items() if tensor.within is not None}
        for name in set(largest) - parts:
            assert found.tensors[name].step == pytest.approx(largest[name] / (2 ** (bits - 1) - 1))


def test_a_percentile_leaves_outliers_out_but_not_of_softmax():
    made = sketch()
    made.vector("copy", ["x"], [Step("copy", (0,))], 1, 4)
    made.vector("p", ["copy.out"], [Step("softmax", (0,))], 1, 4)
    values = np.full((2, 3, 1, 4), 2.0)
    values[0, 0, 0, 0] = -100.0
    largest = steps(made, "p.out", [values, values / 2], percentile=100)
    clipped = steps(made, "p.out", [values, values / 2], percentile=90)
    assert largest["copy.out"] == pytest.approx(100 / 127)
    assert steps(made, "p.out", [values])["copy.out"] == pytest.approx(100 / 127, rel=1e-3)  # the default: few values
    assert clipped["x"] == clipped["copy.out"] == pytest.approx(2 / 127)
    assert clipped["p.out"] == largest["p.out"] == pytest.approx(1 / 3 / 127)


def test_masked_values_do_not_count_and_nothing_left_is_one():
    made = sketch()
    mask = np.array([0.0, -np.inf, np.finfo(np.float32).min, 3.0])
    made.constant("mask", np.broadcast_to(mask, (1, 3, 1, 4)))
    made.constant("only", np.where(mask > 0, 0.0, np.broadcast_to(mask, (1, 3, 1, 4))))
    made.vector("masked", ["x", "mask"], [Step("add", (0, 1))], 1, 4)
    made.vector("end", ["masked.out", "only"], [Step("add", (0, 1))], 1, 4)
    found = steps(made, "end.out", [np.ones((2, 3, 1, 4))], percentile=100)
    assert found["mask"] == pytest.approx(3 / 127)
    assert found["masked.out"] == found["end.out"] == pytest.approx(4 / 127)
    assert found["only"] == 1.0


def test_parts_share_the_largest_step_and_indices_have_none():
    made = sketch()
    made.tensor("whole", 2, 3, 1, 6, within=None)
    made.vector("left", ["x"], [Step("copy", (0,))], 1, 4, within=("whole", 0, 0))
    made.constant("right", np.full((2, 3, 1, 2), 9.0), within=("whole", 0, 4))
    index = made.input("i", 2, 3, 1, 1, index=True)
    table = made.constant("table", np.ones((1, 2, 1, 6)))
    row = made.whole(table, tokens=3, access="gather", indices=index)
    made.vector("sum", ["whole", row], [Step("add", (0, 1))], 1, 6)
    batch = {"x": np.ones((2, 3, 1, 4)), "i": np.ones((2, 3, 1, 1), dtype=int)}
    tensors = calibrate_network(made.network("sum.out"), made.apply, [batch], percentile=100).network.tensors
    assert {tensors[name].step for name in ("whole", "left.out", "right")} == {9 / 127}
    assert tensors["i"].step == 0.0


def test_rows_come_evenly_from_every_batch():
    made = sketch()
    made.linear("l", "x", 2)
    batches = [generator(seed).normal(size=(2, 3, 1, 4)) for seed in range(2)]
    examples = [{"x": batch} for batch in batches]
    network = made.network("l.out")
    every = calibrate_network(network, made.apply, examples).rows["l"]
    np.testing.assert_array_equal(every, np.concatenate([batch.reshape(6, 4) for batch in batches]))
    some = calibrate_network(network, made.apply, examples, rows_per_operator=4).rows["l"]
    places = [int(np.flatnonzero((every == row).all(axis=1))[0]) for row in some]
    assert places == sorted(set(places))
    assert [place // 6 for place in places] == [0, 0, 1, 1]


def test_drawn_rows_are_not_the_same_tokens_of_every_sequence():
    tokens = sampled(64 * 64, 256) % 64
    assert len(sampled(64 * 64, 256)) == 256 and len(set(tokens)) > 50
    assert sampled(5, 5).tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("settings", "count", "message"),
    [
        ({"percentile": 0.0}, 1, "percentile: found 0.0; it lies above 0 and up to 100"),
        ({"percentile": 101.0}, 1, "percentile: found 101.0; it lies above 0 and up to 100"),
        ({}, 0, "calibration: found 0 batches, 1024 rows an operator; there is at least one of each"),
        ({"rows_per_operator": 0}, 1, "calibration: found 1 batches, 0 rows an operator"),
    ],
)
def test_bad_settings(settings, count, message):
    made = sketch()
    made.linear("l", "x", 2)
    with pytest.raises(InputError) as error:
        steps(made, "l.out", [np.ones((2, 3, 1, 4))] * count, **settings)
    assert message in str(error.value)
