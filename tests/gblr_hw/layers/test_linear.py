"""GBLRLinear against the authors' own layers, a plain computation, and nn.Linear's manners."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from gblr_hw.layers.linear import GBLRLinear, factored_is_cheaper
from gblr_hw.weights.factors import evaluate
from gblr_hw.weights.multiplications import hardware_multiplications
from simulator.base.arithmetic import ceil_div
from simulator.base.errors import InputError

REFERENCE = Path(__file__).parents[2] / "data" / "reference"
NAMES = ["gaussian_rank2_64x128", "no_gaussian_33x57"]


def reference(name: str) -> tuple[GBLRLinear, dict[str, torch.Tensor]]:
    state = torch.load(REFERENCE / f"{name}.pt", weights_only=True)
    with np.load(REFERENCE / f"{name}.npz") as archive:
        wanted = {key: torch.from_numpy(archive[key]) for key in archive.files}
    return GBLRLinear.from_state(state, gaussian=bool(wanted["gaussian"])), wanted


def relative(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float(((found - wanted).abs().max() / wanted.abs().max()).detach())


@pytest.mark.parametrize("name", NAMES)
def test_outputs_and_count_of_the_authors_code(name: str) -> None:
    layer, wanted = reference(name)
    layer.eval()
    assert relative(layer(wanted["x"]), wanted["y"]) < 1e-5
    assert relative(layer.matrix(), wanted["W"]) < 1e-5
    weights = layer.weights()
    assert relative(torch.from_numpy(evaluate(weights).matrix()), wanted["W"]) < 1e-5
    assert layer.flops() == int(wanted["flops"])
    # The hardware runs the entries below zero too, which that count leaves out.
    assert hardware_multiplications(weights) == (3408 if wanted["gaussian"] else 516)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_of_the_authors_code(name: str) -> None:
    layer, wanted = reference(name)
    layer.train()
    (layer(wanted["x"]) ** 2).mean().backward()
    for parameter, key in ((layer.widths, "gw"), (layer.locations, "gl"), (layer.lr_weight1, "gv")):
        torch.testing.assert_close(parameter.grad, wanted[key], rtol=1e-3, atol=1e-7)


def test_state_dict_has_the_published_keys_and_loads_strictly() -> None:
    state = torch.load(REFERENCE / f"{NAMES[0]}.pt", weights_only=True)
    layer = GBLRLinear.from_state(state, gaussian=True)
    assert {key: tuple(value.shape) for key, value in layer.state_dict().items()} == {
        key: tuple(value.shape) for key, value in state.items()
    }
    fresh = GBLRLinear(64, 128, blocks=32, rank=2)
    fresh.load_state_dict(state)
    assert all(torch.equal(fresh.state_dict()[key], state[key]) for key in state)


def test_other_layers_of_the_published_kind() -> None:
    """Sizes, ranks and sigmas beyond the two references, against a float64 evaluation of the formula."""
    for seed, (n, m, blocks, rank) in enumerate([(2, 3, 1, 1), (31, 8, 5, 3), (64, 65, 9, 2), (127, 30, 17, 4)]):
        for gaussian in (False, True):
            torch.manual_seed(seed)
            layer = GBLRLinear(n, m, blocks, rank, gaussian=gaussian, sigma=20.0).eval()
            with torch.no_grad():
                layer.widths.uniform_(-0.1, 1.1)
            exact = copy.deepcopy(layer).double()
            inputs = torch.randn(3, n)
            assert relative(layer(inputs), exact(inputs.double())) < 1e-5
            layer.train()
            exact.train()
            (layer(inputs) ** 2).mean().backward()
            (exact(inputs.double()) ** 2).mean().backward()
            for one, two in zip(layer.parameters(), exact.parameters(), strict=True):
                torch.testing.assert_close(
                    one.grad.double(), two.grad, rtol=1e-3, atol=max(1e-7, 1e-5 * float(two.grad.abs().max()))
                )


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
def test_copies_and_state_dicts_hold_the_whole_layer(copied: Callable[[GBLRLinear], GBLRLinear]) -> None:
    layer = GBLRLinear(7, 5, 3, 2, sigma=4.0).eval()
    again = copied(layer)
    assert torch.equal(again.matrix(), layer.matrix())
    fresh = GBLRLinear(7, 5, 3, 2).eval()
    fresh.load_state_dict(layer.state_dict())
    assert torch.equal(fresh.matrix(), layer.matrix())
    with torch.no_grad():
        again.widths.fill_(0.0)
    assert not torch.equal(again.matrix(), layer.matrix())
    assert {name for name, _ in layer.named_parameters()} == {"widths", "locations", "lr_weight1", "lr_weight2", "bias"}


@settings(deadline=None, max_examples=40)
@given(
    n=st.sampled_from([1, 2, 5, 16, 33]),
    m=st.sampled_from([1, 3, 8, 31]),
    blocks=st.integers(1, 6),
    rank=st.integers(1, 3),
    gaussian=st.booleans(),
    training=st.booleans(),
    straight=st.booleans(),
    tokens=st.sampled_from([0, 1, 200]),
)
def test_forward_is_the_sum_over_blocks(
    n: int, m: int, blocks: int, rank: int, gaussian: bool, training: bool, straight: bool, tokens: int
) -> None:
    torch.manual_seed(n * 100 + m)
    layer = GBLRLinear(n, m, blocks, rank, gaussian=gaussian, straight_through=straight, sigma=5.0).train(training)
    nn.init.uniform_(layer.widths)
    mask_in, mask_out = layer.masks()
    matrix = sum(
        (mask_out[k][:, None] * layer.lr_weight2[k]) @ (layer.lr_weight1[k] * mask_in[k]) for k in range(blocks)
    )
    inputs = torch.randn(2, tokens, n)
    torch.testing.assert_close(layer(inputs), inputs @ matrix.T + layer.bias, rtol=1e-4, atol=1e-5)
    if not training:
        factors = evaluate(layer.weights())
        np.testing.assert_allclose(factors.matrix(), matrix.detach().numpy(), rtol=1e-5, atol=1e-6)
        assert not factors.v[~factors.reads].any()
        assert not factors.u.T[~factors.writes].any()


def test_both_orders_of_multiplication_are_used() -> None:
    assert factored_is_cheaper(tokens=1, rows=64, cols=64, ranks=64)
    assert not factored_is_cheaper(tokens=1000, rows=64, cols=64, ranks=64)
    assert factored_is_cheaper(tokens=1000, rows=64, cols=64, ranks=8)


def test_fresh_layer_has_the_variance_of_a_fresh_linear() -> None:
    torch.manual_seed(0)
    layer = GBLRLinear(256, 256, gaussian=False)
    assert layer.blocks == 256
    spread = float((layer.matrix().std() / nn.Linear(256, 256).weight.std()).detach())
    assert 0.8 < spread < 1.25


@pytest.mark.parametrize("gaussian", [False, True])
@pytest.mark.parametrize(("shape", "rank"), [((7, 12), 1), ((13, 5), 2), ((1, 4), 1), ((6, 6), 4)])
def test_from_dense_keeps_the_function(shape: tuple[int, int], rank: int, gaussian: bool) -> None:
    torch.manual_seed(1)
    linear = nn.Linear(*shape)
    blocks = ceil_div(min(shape), rank)
    layer = GBLRLinear.from_dense(linear, blocks, rank, gaussian=gaussian)
    inputs = torch.randn(9, shape[0])
    torch.testing.assert_close(layer(inputs), linear(inputs), rtol=1e-4, atol=1e-5)
    if shape[0] > 1:
        torch.testing.assert_close(layer.eval()(inputs), linear(inputs), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("training", [True, False])
def test_compiled_in_one_graph_with_equal_results(backend: str, training: bool) -> None:
    torch._dynamo.reset()
    torch.manual_seed(2)
    model = nn.Sequential(GBLRLinear(12, 20, 5), nn.GELU(), GBLRLinear(20, 7, 4, 2, gaussian=False)).train(training)
    compiled = torch.compile(model, backend=backend, fullgraph=True)
    inputs = torch.randn(3, 12)
    wanted, found = model(inputs), compiled(inputs)
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-6)
    found.sum().backward()
    gradients = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    wanted.sum().backward()
    for found_gradient, parameter in zip(gradients, model.parameters(), strict=True):
        assert (found_gradient is None) == (parameter.grad is None)
        if found_gradient is not None:
            torch.testing.assert_close(found_gradient, parameter.grad, rtol=1e-5, atol=1e-6)


def test_autocast_gives_the_lower_type_and_finite_gradients() -> None:
    layer = GBLRLinear(16, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = layer(torch.randn(3, 16))
    assert output.dtype == torch.bfloat16
    output.float().sum().backward()
    assert torch.isfinite(layer.widths.grad).all()


def test_half_precision_keeps_the_masks_of_wide_layers() -> None:
    layer = GBLRLinear(1024, 4, 2, sigma=200.0).eval()
    with torch.no_grad():
        layer.widths.fill_(0.25)
        layer.locations.fill_(0.5)
    wanted = layer.masks()[0]
    assert torch.equal(layer.to(torch.bfloat16).masks()[0], wanted)


def test_half_precision_layer_runs_and_its_weights_are_copies() -> None:
    layer = GBLRLinear(16, 8).to(torch.bfloat16)
    assert layer(torch.randn(3, 16, dtype=torch.bfloat16)).dtype == torch.bfloat16
    weights = layer.weights()
    with torch.no_grad():
        layer.widths.zero_()
    assert float(weights.widths.min()) == 0.5


def test_weight_stands_in_for_a_linears_weight() -> None:
    layer = GBLRLinear(6, 4).eval()
    assert torch.equal(layer.weight, layer.matrix())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"widths": torch.zeros(2, 3)}, r"tensor 'widths': found shape \(2, 3\); lr_weight1 has 20 blocks"),
        ({"locations": torch.zeros(20, 2)}, r"tensor 'locations': found shape \(20, 2\)"),
        ({"lr_weight2": torch.full((20, 57, 1), float("nan"))}, "tensor 'lr_weight2': found nan at index"),
        ({"bias": torch.zeros(3)}, r"the layer has 57 outputs, so it must be \(57,\)"),
        ({"freq_in": torch.zeros(17)}, "tensor 'freq_in'"),
        (
            {"sigma": torch.tensor(0.0)},
            "sigma: found 0.0; the Gaussian's standard deviation must be positive and finite",
        ),
        ({"sigma": torch.tensor(float("inf"))}, "sigma: found inf"),
        ({"sigma": torch.tensor(1j)}, r"tensor 'sigma': found torch.complex64"),
        (
            {"widths": torch.full((2, 20), 9.0)},
            r"'widths': found 9 at index \(0, 0\); a width is a fraction of the chan",
        ),
        ({"locations": torch.full((2, 20), -99.0)}, r"'locations': found -99 .* must lie in \[-64, 64\]"),
        (
            {"widths": torch.ones(2, 20, dtype=torch.int32)},
            r"'widths': found dtype torch.int32; weights are tensors of re",
        ),
        ({"lr_weight1": torch.ones(20, 1, 33) * 1j}, r"'lr_weight1': found dtype torch.complex64"),
        ({"bias": np.zeros(57)}, "tensor 'bias': found a ndarray"),
        ({"extra": torch.zeros(1)}, "unknown tensors extra"),
    ],
)
def test_malformed_state_is_refused(change: dict[str, torch.Tensor], message: str) -> None:
    state = torch.load(REFERENCE / f"{NAMES[1]}.pt", weights_only=True) | change
    with pytest.raises(InputError, match=message):
        GBLRLinear.from_state(state, gaussian=False)


def test_missing_knowledge_is_refused() -> None:
    state = torch.load(REFERENCE / f"{NAMES[1]}.pt", weights_only=True)
    with pytest.raises(InputError, match="Pass gaussian=True or gaussian=False"):
        GBLRLinear.from_state(state, gaussian=None)
    del state["widths"]
    with pytest.raises(InputError, match="found no widths"):
        GBLRLinear.from_state(state, gaussian=False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"in_features": 0}, "in_features: found 0"),
        ({"blocks": 0}, "blocks: found 0"),
        ({"rank": -1}, "rank: found -1"),
        ({"sigma": 0.0}, "sigma"),
        ({"init_width": 1.5}, "init_width"),
    ],
)
def test_bad_sizes_are_refused(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        GBLRLinear(**({"in_features": 4, "out_features": 4} | arguments))
