"""Convolutions as matrix products: the rows that they read, and modules of a structured matrix in their place."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from gblr_hw.frontend import export_network
from gblr_hw.frontend.put_weights import put_layers
from gblr_hw.layers.matrix_conv import Geometry, MatrixConv2d, geometry, windows
from gblr_hw.layers.matrix_layers import dense_weights, matrix_names, matrix_of, put_matrix
from gblr_hw.lowering.calibration_batches import port_arrays
from gblr_hw.weights.chains import BLASTWeights, MonarchWeights
from gblr_hw.weights.from_factors import block_sparse_weights
from gblr_hw.weights.stored import LayerWeights
from simulator.base.errors import InputError
from tests.oracles.run_graph import run_graph


class SamePadded(nn.Conv2d):
    """As TensorFlow's networks are carried over: zeros that depend on the image's size, more of them behind."""

    def forward(self, x: Tensor) -> Tensor:
        pads: list[int] = []
        for size, k, s in zip(reversed(x.shape[-2:]), reversed(self.kernel_size), reversed(self.stride), strict=True):
            total = max(0, (-(-size // s) - 1) * s + k - size)
            pads += [total // 2, total - total // 2]
        return functional.conv2d(functional.pad(x, pads), self.weight, self.bias, self.stride, 0, self.dilation)


class Standardised(nn.Conv2d):
    """Multiplies by another kernel than its own."""

    def forward(self, x: Tensor) -> Tensor:
        return functional.conv2d(x, self.weight - self.weight.mean(), self.bias)


class Mirrored(nn.Conv2d):
    """Pads with what is there."""

    def forward(self, x: Tensor) -> Tensor:
        return functional.conv2d(functional.pad(x, (1, 0, 0, 0), value=2.0), self.weight, self.bias)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@settings(max_examples=40, deadline=None)
@given(
    kind=st.sampled_from([nn.Conv2d, SamePadded]),
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 3)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 2)),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 3)),
    padding=st.one_of(st.just("valid"), st.just("same"), st.tuples(st.integers(0, 2), st.integers(0, 3))),
    size=st.tuples(st.integers(8, 11), st.integers(8, 12)),
)
def test_windows_times_the_matrix_is_the_convolution(
    kind: Any, kernel: Any, stride: Any, dilation: Any, padding: Any, size: Any
) -> None:
    torch.manual_seed(0)
    if kind is SamePadded:
        dilation = (1, 1)
    if padding == "same":
        stride = (1, 1)
    layer = kind(3, 5, kernel, stride, padding, dilation)
    images = torch.randn(2, 3, *size)
    found = (windows("conv", layer, images) @ matrix_of(layer).T + layer.bias).movedim(-1, 1)
    torch.testing.assert_close(found, layer(images), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(windows("conv", layer, images[1]), windows("conv", layer, images)[1])


def test_a_matrix_is_written_as_it_is_read() -> None:
    layer = nn.Conv2d(3, 4, (2, 3))
    put_matrix(layer, matrix := torch.randn(4, 18))
    torch.testing.assert_close(matrix_of(layer), matrix)
    # Inputs in (k1, k2, channels) order.
    torch.testing.assert_close(layer.weight[1, 2, 1, 0], matrix[1, (1 * 3 + 0) * 3 + 2])


def test_code_of_its_own_is_looked_at() -> None:
    layer = SamePadded(2, 3, 3, 2)
    assert geometry("a", layer, 8, 9) == Geometry((3, 3), (2, 2), (1, 1), (0, 1), (1, 1))
    for kind in (Standardised, Mirrored):
        with pytest.raises(
            InputError, match=f"layer 'stem': found {kind.__name__}; code of its own puts zeros .* Leave"
        ):
            geometry("stem", kind(2, 3, 3), 8, 8)


class _Net(nn.Module):
    """Convolutions of all sorts in front of a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = SamePadded(3, 8, 3, 2, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.deep = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.wide = nn.Conv2d(8, 16, 1)
        self.next = nn.Conv2d(16, 8, 3, padding=1)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.norm(self.stem(x)))
        x = functional.relu(self.wide(self.deep(x)))
        return self.head(functional.relu(self.next(functional.pad(x, (0, 1, 2, 0)))).mean((2, 3)))


def _structured(outputs: int, inputs: int, kind: str) -> LayerWeights:
    """Random weights of a kind."""
    generator = torch.Generator().manual_seed(outputs)
    draw = lambda *sizes: torch.randn(*sizes, generator=generator)  # noqa: E731
    bias = draw(outputs)
    if kind == "tiles":
        kept = torch.rand(-(-outputs // 4), -(-inputs // 4), generator=generator) < 0.6
        return block_sparse_weights(draw(outputs, inputs), kept, bias, chunk_in=4, chunk_out=4)
    if kind == "blast":
        return BLASTWeights(draw(2, outputs // 2, 3), draw(2, 3, inputs // 2), draw(2, 2, 3), bias)
    return MonarchWeights(draw(2, 4, inputs // 2), draw(4, outputs // 4, 2), inputs, outputs, bias)


@pytest.mark.parametrize("kind", ["tiles", "blast", "monarch"])
def test_structured_convolutions_run_as_their_modules(kind: str) -> None:
    torch.manual_seed(0)
    model, x = _Net().eval(), torch.randn(2, 3, 9, 8)
    assert matrix_names(model) == ["stem", "wide", "next", "head"]
    sizes = {name: tuple(one.weight.shape) for name, one in dense_weights(model).items()}
    names = ["stem", "wide", "next"] if kind == "tiles" else ["wide", "next"]
    layers = {name: _structured(*sizes[name], kind) for name in names}
    put_layers(model, layers, "test")
    assert isinstance(model.next, MatrixConv2d) and matrix_names(model)[-1] == "head"
    torch.testing.assert_close(copy.deepcopy(model)(x), model(x))
    exported = export_network(model, (x,))
    arrays = port_arrays(exported.network.inputs, (x,))
    (found,) = run_graph(exported.network, exported.weights, list(arrays.values())).values()
    with torch.no_grad():
        np.testing.assert_allclose(found, model(x).numpy(), rtol=0, atol=1e-4)
    # A second checkpoint takes the place of the first.
    put_layers(model, layers, "test")
    torch.testing.assert_close(model(x).detach().numpy(), found, rtol=0, atol=1e-4, check_dtype=False)


def test_zeros_in_front_of_a_structured_convolution_are_its_own() -> None:
    torch.manual_seed(0)
    model, x = _Net().eval(), torch.randn(1, 3, 8, 8)
    dense = len(export_network(model, (x,)).network.operators)
    put_layers(model, {"next": _structured(8, 144, "tiles")}, "test")
    assert len(export_network(model, (x,)).network.operators) == dense


def test_code_of_its_own_sees_the_zeros_in_front_of_it() -> None:
    """Its own zeros depend on the size of the image, those in front of it included."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 3, 1), nn.ZeroPad2d((0, 1, 2, 0)), SamePadded(3, 8, 3, 2)).eval()
    x = torch.randn(1, 2, 7, 8)
    put_layers(model, {"2": _structured(8, 27, "tiles")}, "test")
    exported = export_network(model, (x,))
    assert len(exported.network.operators) == 2
    arrays = port_arrays(exported.network.inputs, (x,))
    (found,) = run_graph(exported.network, exported.weights, list(arrays.values())).values()
    with torch.no_grad():
        np.testing.assert_allclose(found, model(x).numpy(), rtol=0, atol=1e-4)


def test_gradients_reach_the_structured_matrix() -> None:
    torch.manual_seed(0)
    model, x = _Net().eval(), torch.randn(1, 3, 8, 8)
    put_layers(model, {"next": _structured(8, 144, "tiles")}, "test")
    model(x).square().sum().backward()
    layer: Any = model.next
    assert layer.inner.dense.grad.abs().sum() > 0 and layer.bias.grad.abs().sum() > 0
