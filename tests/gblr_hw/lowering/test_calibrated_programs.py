"""Programs of calibrated networks: channel scales go through the lowering, and int8 is better for them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from gblr_hw.lowering.calibration_batches import port_arrays
from gblr_hw.lowering.lower_model import lower_model
from gblr_hw.lowering.whole_network import lower_network
from gblr_hw.weights.network_weights import linear_of
from gblr_hw.weights.stored import DenseWeights, LayerWeights
from simulator.machine.machine import Machine
from simulator.network.evaluate_network import evaluate_network
from simulator.network.network import Network, Operand, Operator
from simulator.network.vector_steps import Step
from simulator.numbers.execute_network import execute_network
from tests.drawn.frontend_models import MODELS, outputs_of, small_model
from tests.drawn.transformer_network import Sizes, transformer

_MID = Machine.load("mid-32")


def test_calibrated_programs_scale_channels_and_still_compute_the_network() -> None:
    """A channel of the MLP's output a thousand times the others': one step for all would leave them no codes."""
    size = Sizes(batch=2, tokens=33, heads=2, width=16, hidden=40)
    network, weights = transformer(size)
    down = weights["block0.down"]
    assert isinstance(down, DenseWeights)
    rows = torch.ones(size.channels, 1)
    rows[3] = 1000.0
    network, weights["block0.down"] = _with_head(network, weights), DenseWeights(rows * down.weight, down.bias)
    x = np.random.default_rng(1).normal(size=(size.batch, size.tokens, size.channels))
    expected = evaluate_network(network, linear_of(weights), {"x": x})["y"]
    errors = []
    for percentile in (None, 100.0):
        program = lower_network(network, weights, _MID, [{"x": x}], percentile)
        got = execute_network(program, {"x": x})["y"]
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-6 * np.abs(expected).max())
        codes = execute_network(program, {"x": x}, "int8")["y"]
        errors.append(_error(codes, expected))
    assert errors[0] < 0.08
    assert errors[1] > 4 * errors[0]


def _with_head(network: Network, weights: dict[str, LayerWeights]) -> Network:
    """A norm and a linear behind the last residual sum; the norm's gain makes up for the large channel."""
    tensor = network.tensors[network.outputs[0].tensor]
    channels = tensor.groups * tensor.width
    tensors = {**network.tensors, **{name: replace(tensor, name=name) for name in ("normed", "y.y")}}
    view = Operand(tensor.name, tensor.tokens, 1, channels)
    steps = (Step("layer_norm", (0,), None, (1e-5,)), Step("multiply", (1,), "gain"))
    gain = {"gain": np.where(np.arange(channels) == 3, 1 / 1000, 1.0)}
    norm = Operator("norm", "vector", (view,), "normed", tensor.batch, tensor.tokens, steps, gain)
    head = Operator("head", "linear", (replace(view, tensor="normed"),), "y.y", tensor.batch, tensor.tokens)
    matrix = torch.from_numpy(np.random.default_rng(5).normal(size=(channels, channels))).float()
    weights["head"] = DenseWeights(matrix, torch.zeros(channels))
    ports = (replace(network.outputs[0], tensor="y.y"),)
    return replace(network, tensors=tensors, operators=(*network.operators, norm, head), outputs=ports)


@pytest.mark.parametrize("name", MODELS)
def test_every_architecture_computes_the_same_in_float_and_is_near_in_int8(name: str) -> None:
    model, inputs = small_model(name)
    wanted = outputs_of(model, inputs)
    errors = []
    for percentile in (None, 100.0):
        program = lower_model(model, _MID, inputs, [inputs], percentile)
        assert program.network is not None
        given = port_arrays(program.network.inputs, inputs)
        for found, want in zip(execute_network(program, given).values(), wanted, strict=True):
            np.testing.assert_allclose(found, want, rtol=0, atol=1e-5 * np.abs(want).max())
        codes = execute_network(program, given, "int8").values()
        errors.append(max(_error(found, want) for found, want in zip(codes, wanted, strict=True)))
    # The untrained ViT's class token is hundredths of the patches, with which it shares a tensor and so a step.
    assert errors[0] < (0.2 if name == "vit" else 0.05)
    assert errors[0] < 1.3 * errors[1]


def _error(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.sqrt(np.mean((found - wanted) ** 2) / np.mean(wanted**2)))
