"""GBLRConv2d in both arrangements against an explicit dense convolution with the reconstructed kernel."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from gblr_hw.layers.conv import GBLRConv2d
from gblr_hw.weights.factors import evaluate
from gblr_hw.weights.stored import Arrangement, ConvWeights
from simulator.base.errors import InputError

ARRANGEMENTS: tuple[Arrangement, ...] = ("positions", "unfolded")


def explicit_kernel(layer: GBLRConv2d) -> torch.Tensor:
    """The kernel entry by entry from each part's matrix."""
    k1, k2 = layer.kernel_size
    kernel = torch.zeros(layer.out_channels, layer.in_channels, k1, k2)
    matrices = [part.matrix().detach() for part in layer.parts]
    for i in range(k1):
        for j in range(k2):
            for c in range(layer.in_channels):
                position = i * k2 + j
                if layer.arrangement == "positions":
                    kernel[:, c, i, j] = matrices[position][:, c]
                else:
                    kernel[:, c, i, j] = matrices[0][:, position * layer.in_channels + c]
    return kernel


@settings(deadline=None, max_examples=40)
@given(
    arrangement=st.sampled_from(ARRANGEMENTS),
    channels=st.tuples(st.integers(1, 5), st.integers(1, 6)),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    stride=st.sampled_from([1, 2, (1, 2)]),
    padding=st.sampled_from([0, 1, (0, 2), "valid"]),
    dilation=st.sampled_from([1, 2]),
    bias=st.booleans(),
    training=st.booleans(),
    blocks=st.integers(1, 4),
    size=st.sampled_from([5, 24]),
)
def test_forward_is_the_dense_convolution(
    arrangement: Arrangement,
    channels: tuple[int, int],
    kernel: tuple[int, int],
    stride: Any,
    padding: Any,
    dilation: int,
    bias: bool,
    training: bool,
    blocks: int,
    size: int,
) -> None:
    torch.manual_seed(blocks)
    options = {"stride": stride, "padding": padding, "dilation": dilation, "bias": bias}
    layer = GBLRConv2d(*channels, kernel, arrangement=arrangement, blocks=blocks, rank=2, **options).train(training)
    inputs = torch.randn(2, channels[0], size, size)
    wanted = functional.conv2d(inputs, explicit_kernel(layer), layer.bias, stride, padding, dilation)
    torch.testing.assert_close(layer(inputs), wanted, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(layer.weight, explicit_kernel(layer), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("arrangement", ARRANGEMENTS)
def test_evaluated_as_a_linear_layer_over_im2col_rows(arrangement: Arrangement) -> None:
    torch.manual_seed(0)
    layer = GBLRConv2d(3, 5, (2, 3), arrangement=arrangement, blocks=4, rank=2).eval()
    inputs = torch.randn(1, 3, 6, 7)
    factors = evaluate(layer.weights())
    # unfold gives (ic, k1, k2) rows; the layer reads (k1, k2, ic).
    columns = functional.unfold(inputs, (2, 3))[0].reshape(3, 6, -1).transpose(0, 1).reshape(18, -1)
    wanted = layer(inputs)[0].reshape(5, -1).detach().numpy()
    found = factors.matrix() @ columns.numpy() + factors.bias[:, None]
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
    assert factors.in_features == 18
    assert factors.family == f"conv_{arrangement}"


@pytest.mark.parametrize("arrangement", ARRANGEMENTS)
def test_published_names_round_trip(arrangement: Arrangement) -> None:
    layer = GBLRConv2d(4, 6, 3, padding=1, arrangement=arrangement, blocks=3).eval()
    state = layer.state_dict()
    first = "gaudi_modules.0.widths" if arrangement == "positions" else "gaudi_module.widths"
    assert first in state
    again = GBLRConv2d.from_state(state, gaussian=True, kernel_size=3, padding=1).eval()
    inputs = torch.randn(2, 4, 5, 5)
    assert torch.equal(again(inputs), layer(inputs))
    assert set(again.state_dict()) == set(state)


def test_fresh_convolution_has_the_variance_of_a_fresh_conv2d() -> None:
    torch.manual_seed(0)
    for arrangement in ARRANGEMENTS:
        layer = GBLRConv2d(64, 64, 3, arrangement=arrangement, gaussian=False)
        spread = float((layer.kernel().std() / nn.Conv2d(64, 64, 3).weight.std()).detach())
        assert 0.7 < spread < 1.4, arrangement


def test_compiled_in_one_graph() -> None:
    torch._dynamo.reset()
    model = GBLRConv2d(3, 4, 3, padding="same", arrangement="positions", blocks=2)
    inputs = torch.randn(1, 3, 5, 5)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(inputs), model(inputs), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"groups": 3}, "groups: found 3; a GBLR convolution has groups=1"),
        ({"padding_mode": "reflect"}, "padding_mode"),
        ({"arrangement": "rows"}, "it is 'positions' or 'unfolded'"),
        ({"padding": "full"}, "'same' or 'valid'"),
        ({"stride": 0}, "stride: found 0"),
        ({"in_channels": 0}, "in_channels: found 0"),
    ],
)
def test_what_it_does_not_do_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        GBLRConv2d(**({"in_channels": 3, "out_channels": 3, "kernel_size": 2} | options))


def test_wrong_parts_are_refused() -> None:
    weights = GBLRConv2d(3, 4, 2, arrangement="positions").weights()
    with pytest.raises(InputError, match="a 3 x 3 kernel arranged as 'positions' has 9"):
        ConvWeights(weights.parts, "positions", (3, 3), 3, 4)
    with pytest.raises(InputError, match="it must have 5 inputs and 4 outputs"):
        ConvWeights(weights.parts, "positions", (2, 2), 5, 4)
    with pytest.raises(InputError, match="a published convolution has keys"):
        GBLRConv2d.from_state(nn.Linear(4, 3).state_dict(), gaussian=True, kernel_size=2)
