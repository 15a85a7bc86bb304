"""Fitted ranges: errors behind readers against a second computation, when to clip, when to scale, and what is left."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.base.errors import InputError
from simulator.calibration.calibrate_network import calibrate_network
from simulator.calibration.channel_scales import scaled_linear
from simulator.calibration.fit_calibration import FRACTIONS, fit_calibration
from simulator.calibration.reading_errors import Ladder, reading_errors, relative_error
from simulator.network.evaluate_network import evaluate_network
from simulator.network.network import Network
from simulator.network.tensor_values import root_of
from simulator.network.vector_steps import Step
from simulator.numbers.numerics import quantise
from tests.drawn.drawn_networks import drawn_inputs, drawn_network
from tests.drawn.random_programs import generator
from tests.drawn.small_networks import Sketch

TANH = [Step("tanh", (0,))]
NORM = [Step("layer_norm", (0,), None, (1e-5,)), Step("multiply", (1,), "gain"), Step("add", (2,), "offset")]


def sketch(tokens: int = 20, width: int = 4) -> Sketch:
    made = Sketch(generator(3))
    made.input("x", 2, tokens, 1, width)
    return made


def fractions(made: Sketch, output: str, values: np.ndarray, **settings: object) -> dict[str, float]:
    """Chosen range over largest magnitude, of tensors without scales."""
    network = made.network(output)
    found = fit_calibration(network, made.apply, [{"x": values}], **settings).network  # type: ignore[arg-type]
    largest = calibrate_network(network, made.apply, [{"x": values}], percentile=100).network
    return {name: tensor.step / largest.tensors[name].step for name, tensor in found.tensors.items()}


# ---- ranges


def test_even_values_keep_their_largest():
    made = sketch()
    made.vector("copy", ["x"], [Step("copy", (0,))], 1, 4)
    made.linear("end", "copy.out", 3)
    values = made.rng.uniform(-1, 1, (2, 20, 1, 4))
    found = fractions(made, "end.out", values)
    assert found["x"] == found["copy.out"] == 1.0


def test_an_outlier_that_its_reader_flattens_is_clipped():
    """tanh gives 1 from 4 on: a range of 100 leaves steps of 0.8, one of 6.25 keeps all that counts."""
    made = sketch()
    made.vector("tanh", ["x"], TANH, 1, 4)
    values = made.rng.uniform(-1, 1, (2, 20, 1, 4))
    values[0, 0, 0, 0] = 100.0
    made.vector("own", ["x"], [Step("multiply", (0,), None, (0.0,))], 1, 4)
    assert 1 / 64 <= fractions(made, "tanh.out", values)["x"] <= 1 / 16


def test_an_outlier_that_counts_is_not():
    made = sketch()
    made.vector("square", ["x"], [Step("square", (0,))], 1, 4)
    values = made.rng.uniform(-1, 1, (2, 20, 1, 4))
    values[:, :, 0, 0] *= 100.0
    assert fractions(made, "square.out", values)["x"] == 1.0


def test_an_outlier_counts_as_a_share_of_its_own_row():
    """In one row of forty, everything but the outlier is lost either way; the others want a small range."""
    made = sketch()
    made.linear("end", "x", 3)
    values = made.rng.uniform(-1, 1, (2, 20, 1, 4))
    values[0, 0] *= 1e4
    assert fractions(made, "end.out", values)["x"] == FRACTIONS[-1]


@settings(max_examples=40)
@given(st.integers(0, 10**6))
def test_errors_against_rounding_one_tensor_at_a_time(seed):
    rng = generator(seed)
    made = drawn_network(rng, 4)
    network, inputs = made.network(made.operators[-1].output), drawn_inputs(made)
    exact: dict[str, np.ndarray] = {}
    evaluate_network(network, made.apply, inputs, exact.__setitem__)
    largest = {name: np.array([np.abs(values).max()]) for name, values in exact.items()}
    largest = {name: found for name, found in largest.items() if found > 0 and _read_once(network, name)}
    ladder = Ladder(largest, np.array([1.0, 0.6]), frozenset())
    errors = reading_errors(network, made.apply, [inputs], ladder)
    for name in largest:
        wanted = [_slow_error(network, made, inputs, exact, name, reach) for reach in ladder.ranges(name)]
        np.testing.assert_allclose(errors[name].clipped, wanted, rtol=1e-9, atol=1e-12, err_msg=name)


def _read_once(network: Network, name: str) -> bool:
    """Whether every reader reads a tensor that is whole by itself once, and no indices from it."""
    whole = network.tensors[name].within is None and network.parts(name) == (name,)
    reads = [o for operator in network.operators for o in operator.operands if o.tensor == name]
    indices = {operand.indices for operator in network.operators for operand in operator.operands}
    return whole and name not in indices and len(reads) == len(network.readers.get(name, ()))


def _slow_error(network, made, inputs, exact, name, reach) -> float:
    seen = {}

    def keep(tensor, values):
        seen[tensor] = values
        return np.clip(np.rint(values / reach * 127), -127, 127) * reach / 127 if tensor == name else exact[tensor]

    evaluate_network(network, made.apply, inputs, keep=keep)
    readers = [network.operators[i] for i in network.readers.get(name, ())]
    pairs = [(exact[operator.output], seen[operator.output]) for operator in readers]
    for operator in readers:  # once more, with what was computed in place of the exact result
        alone = [network.operators[i] for i in network.readers.get(operator.output, ())]
        alone = [o for o in alone if (o.kind, len(o.operands), o.operands[0].access) == ("vector", 1, "rows")]
        if operator.kind == "vector" and network.tensors[operator.output].within is None:
            after: dict[str, np.ndarray] = {}
            replaced = {**exact, operator.output: seen[operator.output]}
            evaluate_network(
                network, made.apply, inputs, keep=lambda t, v, r=replaced, a=after: (a.__setitem__(t, v), r[t])[1]
            )
            pairs += [(exact[o.output], after[o.output]) for o in alone]
    if any(root_of(network, port.tensor) == name for port in network.outputs):
        pairs.append((exact[name], keep(name, exact[name])))
    total = 0.0
    for wanted, found in pairs:
        rows = [(w.ravel(), f.ravel()) for w, f in zip(_rows(wanted), _rows(found), strict=True)]
        power = [float(w @ w) for w, _ in rows]
        least = 0.01 * (np.median(power) or sum(power) / len(rows))
        if least:
            shares = [float((f - w) @ (f - w)) / max(p, least) for (w, f), p in zip(rows, power, strict=True)]
            total += sum(shares) / len(rows)
    return total


def _rows(values: np.ndarray) -> np.ndarray:
    return values.reshape(-1, *values.shape[2:])


def test_relative_error_of_rows():
    wanted = np.array([3.0, 4.0, 0.0, 30.0]).reshape(1, 2, 1, 2)
    found = wanted + np.array([1.0, 0.0, 0.0, 6.0]).reshape(1, 2, 1, 2)
    assert relative_error(wanted, found) == pytest.approx((1 / 25 + 36 / 900) / 2)
    wanted[0, 1] = np.nan
    assert relative_error(wanted, found) == pytest.approx((1 / 25 + 0) / 2)
    assert relative_error(np.zeros((1, 1, 1, 1)), np.ones((1, 1, 1, 1))) == 0.0
    # A row of next to nothing counts against a hundredth of the mean square.
    # A row of next to nothing counts against a hundredth of the middle one's square.
    wanted = np.array([10.0, 10.0, 1e-9]).reshape(1, 3, 1, 1)
    found = wanted + np.array([0.0, 0.0, 0.1]).reshape(1, 3, 1, 1)
    assert relative_error(wanted, found) == pytest.approx(0.01 / 1.0 / 3, rel=1e-6)


# ---- scales


def outlier_network(gain: float) -> Sketch:
    """A residual block behind a linear with one large channel: its output is read by a norm, which a linear reads."""
    made = sketch(tokens=40, width=16)
    made.linear("down", "x", 16)
    made.weights["down"][0][5] *= gain
    constants = {"gain": np.where(np.arange(16) == 5, 1 / 16, 1.0), "offset": np.zeros(16)}
    steps = [Step("add", (0, 1)), Step("layer_norm", (2,), None, (1e-5,)), Step("multiply", (3,), "gain")]
    steps += [Step("add", (4,), "offset")]
    normed = made.vector("norm", ["down.out", "x"], steps, 1, 16, constants)
    made.linear("end", normed, 8)
    return made


def int8_error(made: Sketch, network: Network, scales: dict, values: np.ndarray) -> float:
    exact = evaluate_network(made.network("end.out"), made.apply, {"x": values})["end.out"]

    def keep(name: str, stored: np.ndarray) -> np.ndarray:
        step = network.tensors[name].step
        return quantise(stored, step, 8) * step

    linear = scaled_linear(network, made.apply, scales)
    found = evaluate_network(network, linear, {"x": values}, keep=keep)["end.out"]
    return float(np.sqrt(np.mean((found - exact) ** 2) / np.mean(exact**2)))


def test_a_large_channel_is_scaled():
    made = outlier_network(1000.0)
    made.weights["end"][0][:, 5] = 0.0  # nothing but the norm reads the large channel
    values, network = made.rng.normal(size=(2, 40, 1, 16)), made.network("end.out")
    fitted = fit_calibration(network, made.apply, [{"x": values}])
    assert set(fitted.scales) >= {"down.out"}
    assert fitted.scales["down.out"][5] >= 256 and np.median(fitted.scales["down.out"]) <= 2
    plain = calibrate_network(network, made.apply, [{"x": values}], percentile=100).network
    before, after = int8_error(made, plain, {}, values), int8_error(made, fitted.network, fitted.scales, values)
    assert after < 0.4 * before
    exact = evaluate_network(network, made.apply, {"x": values})["end.out"]
    linear = scaled_linear(network, made.apply, fitted.scales)
    same = evaluate_network(fitted.network, linear, {"x": values})["end.out"]
    np.testing.assert_allclose(same, exact, rtol=1e-9, atol=1e-12)


def test_even_channels_are_not():
    made = outlier_network(1.0)
    values = made.rng.uniform(-1, 1, (2, 40, 1, 16))
    assert "down.out" not in fit_calibration(made.network("end.out"), made.apply, [{"x": values}]).scales


def test_constants_that_do_not_fit_are_not_added():
    made = outlier_network(1000.0)
    batch = {"x": made.rng.normal(size=(2, 40, 1, 16))}
    network = made.network("end.out")
    for most, scaled in ((48, True), (47, False)):  # gain and offset, and 16 more
        found = fit_calibration(network, made.apply, [batch], most_constants=most).scales
        assert ("down.out" in found) == scaled


def test_a_pass_is_paid_only_for_a_thousandth():
    """Channels four times as large as the others: a norm scales them for nothing, a copy not at a pass's price."""
    made = sketch(tokens=40, width=16)
    gain = np.where(np.arange(16) % 4, 1.0, 6.0)
    made.vector("norm", ["x"], NORM, 1, 16, {"gain": gain, "offset": np.zeros(16)})
    made.linear("one", "norm.out", 8)
    made.vector("norm2", ["x"], [*NORM, Step("copy", (3,))], 1, 16, {"gain": gain, "offset": np.zeros(16)})
    made.linear("two", "norm2.out", 8)
    for name in ("one", "two"):
        made.weights[name][0][:, ::4] /= 64
    batch = {"x": made.rng.uniform(-1, 1, (2, 40, 1, 16))}
    network = made.network("one.out", "two.out")
    found, plain = (calibrate(network, made.apply, [batch]) for calibrate in (fit_calibration, calibrate_network))
    assert set(found.scales) == {"norm.out"}
    np.testing.assert_array_equal(found.rows["one"], plain.rows["one"] / found.scales["norm.out"])
    np.testing.assert_array_equal(found.rows["two"], plain.rows["two"])


# ---- what is left alone, and messages


def test_masked_tensors_keep_their_largest():
    made = sketch()
    made.constant("mask", np.broadcast_to([0.0, -np.inf, 3.0, 0.5], (1, 20, 1, 4)))
    masked = made.vector("masked", ["x", "mask"], [Step("add", (0, 1))], 1, 4)
    made.vector("p", [masked], [Step("softmax", (0,))], 1, 4)
    values = np.ones((2, 20, 1, 4))
    found = fractions(made, "p.out", values)
    assert found["mask"] == found["masked.out"] == 1.0


@settings(max_examples=40)
@given(st.integers(0, 10**6))
def test_any_network_gets_steps_of_the_ladder_and_the_same_ones_again(seed):
    made = drawn_network(generator(seed), 4)
    network, inputs = made.network(made.operators[-1].output), drawn_inputs(made)
    found, again = (fit_calibration(network, made.apply, [inputs]) for _ in range(2))
    assert found.network.tensors == again.network.tensors
    assert all(np.array_equal(found.scales[name], again.scales[name]) for name in again.scales)
    largest = calibrate_network(network, made.apply, [inputs], percentile=100).network.tensors
    for name, tensor in found.network.tensors.items():
        assert tensor.step == found.network.tensors[root_of(network, name)].step
        share = tensor.step / largest[root_of(network, name)].step if tensor.step else 1.0
        assert np.abs(FRACTIONS - share).min() < 1e-9
    linear = scaled_linear(network, made.apply, found.scales)
    outputs = [evaluate_network(network, made.apply, inputs), evaluate_network(found.network, linear, inputs)]
    for name, values in outputs[0].items():
        np.testing.assert_allclose(outputs[1][name], values, rtol=1e-9, atol=1e-9)


def test_fractions_go_down_by_half_octaves():
    assert FRACTIONS[0] == 1.0 and FRACTIONS[-1] == 1 / 256
    assert all(low / high == pytest.approx(2**-0.5) for high, low in pairwise(FRACTIONS))


def test_no_batches():
    made = sketch()
    made.linear("end", "x", 2)
    with pytest.raises(InputError, match="calibration: found 0 batches, 1024 rows an operator; there is at least one"):
        fit_calibration(made.network("end.out"), made.apply, [])
