"""Layers of several factors: their function, their start, from dense layers, in the place of a model's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from gblr_hw import (
    BLASTLinear,
    KroneckerLinear,
    MonarchLinear,
    TensorTrainLinear,
    load_checkpoint,
    lower,
    replace_linear,
    save_checkpoint,
)
from gblr_hw.frontend.put_weights import put_weights
from gblr_hw.lowering.split_wide import _rows
from gblr_hw.weights.collect import weights_of
from gblr_hw.weights.factors import evaluate
from simulator.base.errors import InputError
from simulator.machine.machine import Machine
from simulator.numbers.execute import execute

MAKES: list[Any] = [
    lambda **more: BLASTLinear(12, 20, (4, 3), 5, **more),
    lambda **more: MonarchLinear(14, 21, 4, **more),
    lambda **more: MonarchLinear(14, 21, (3, 2), values=6, **more),
    lambda **more: MonarchLinear(14, 21, (3, 2), arrangement="grid", **more),
    lambda **more: KroneckerLinear(12, 20, (4, 3), 2, **more),
    lambda **more: TensorTrainLinear(12, 20, (4, 3), 2, **more),
]
KINDS: dict[str, dict[str, Any]] = {
    "gblr": {},
    "blast": {"blocks": 2, "rank": 4},
    "monarch": {"blocks": 2},
    "kronecker": {"left": (2, 2)},
    "tensor_train": {"first": (2, 2), "rank": 4},
}


@pytest.mark.parametrize("make", MAKES)
@pytest.mark.parametrize("bias", [True, False])
def test_a_layer_computes_its_evaluated_matrix(make: Any, bias: bool) -> None:
    torch.manual_seed(1)
    layer = make(bias=bias)
    x = torch.randn(2, 3, layer.in_features)
    factors = evaluate(layer.weights()).in_natural_order()
    want = x.numpy() @ factors.matrix().T + (factors.bias if bias else 0.0)
    assert np.allclose(layer(x).detach(), want, atol=1e-5)
    assert np.allclose(layer.weight.detach(), factors.matrix(), atol=1e-5)
    again = type(layer).from_weights(layer.weights())
    assert torch.equal(again(x), layer(x)) and list(again.state_dict()) == list(layer.state_dict())
    layer(x).square().mean().backward()
    assert all(parameter.grad is not None for parameter in layer.parameters())


@pytest.mark.parametrize("make", MAKES)
def test_a_fresh_matrix_has_the_variance_of_a_linear_layer(make: Any) -> None:
    torch.manual_seed(0)
    layers = [make() for _ in range(200)]
    variance = float(torch.stack([layer.matrix().detach() for layer in layers]).var())
    # A Monarch layer's padded inputs and a value short or more than its share leave some room.
    assert variance == pytest.approx(1 / (3 * layers[0].in_features), rel=0.2)


def of_rank(ranks: int, m: int, n: int) -> nn.Linear:
    linear = nn.Linear(n, m)
    with torch.no_grad():
        linear.weight.copy_(torch.randn(m, ranks) @ torch.randn(ranks, n))
    return linear


def test_from_dense_is_exact_where_the_matrix_is_of_the_kind() -> None:
    torch.manual_seed(2)
    x = torch.randn(4, 12)
    linear = of_rank(3, 20, 12)
    assert torch.allclose(BLASTLinear.from_dense(linear, 4, 3)(x), linear(x), atol=1e-4)
    full = nn.Linear(12, 20)
    # As many values as a block has inputs hold any matrix.
    for arrangement, values in (("strided", 16), ("grid", 12)):
        layer = MonarchLinear.from_dense(full, 4, arrangement=arrangement, values=values)  # type: ignore[arg-type]
        assert torch.allclose(layer(x), full(x), atol=1e-4)
    assert torch.allclose(KroneckerLinear.from_dense(full, (4, 3), 12)(x), full(x), atol=1e-4)
    assert torch.allclose(TensorTrainLinear.from_dense(full, (5, 2), 10)(x), full(x), atol=1e-4)


@pytest.mark.parametrize("arrangement", ["strided", "grid"])
def test_the_nearest_monarch_layer_is_a_stationary_point(arrangement: Any) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(12, 20)
    layer = MonarchLinear.from_dense(linear, 2, arrangement=arrangement, values=4)
    (layer.matrix() - linear.weight.detach()).square().sum().backward()
    assert max(float(one.grad.abs().max()) for one in (layer.blkdiag1, layer.blkdiag2) if one.grad is not None) < 1e-5


def test_the_nearest_kronecker_product_beats_every_random_step() -> None:
    torch.manual_seed(0)
    linear = nn.Linear(6, 8)
    layer = KroneckerLinear.from_dense(linear, (2, 3), 2)
    best = float((layer.matrix() - linear.weight).detach().square().sum())
    for _ in range(200):
        other = KroneckerLinear.from_weights(layer.weights())
        with torch.no_grad():
            for factor in (other.left, other.right):
                factor.add_(0.05 * torch.randn_like(factor))
        assert float((other.matrix() - linear.weight).detach().square().sum()) >= best - 1e-6


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(8, 12)
        self.second = nn.Linear(12, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(torch.relu(self.first(x)))


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("init", ["svd", "random"])
def test_replacing_a_models_layers(kind: str, init: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = Net()
    net.first.weight.requires_grad_(False)
    assert replace_linear(net, "*", kind=kind, init=init, **KINDS[kind]) == ["first", "second"]
    assert not any(parameter.requires_grad for parameter in net.first.parameters())
    x = torch.randn(3, 8)
    want = net.eval()(x).detach()
    save_checkpoint(net, tmp_path / "net.safetensors")
    fresh = Net().eval()
    put_weights(fresh, tmp_path / "net.safetensors", gaussian=True if kind == "gblr" else None)
    assert torch.allclose(fresh(x), want, atol=1e-5)
    assert type(fresh.first) is type(net.first)
    assert list(weights_of(net)) == ["first", "second"]
    assert list(load_checkpoint(tmp_path / "net.safetensors")) == ["first", "second"]


def test_what_replace_linear_refuses() -> None:
    net = Net()
    with pytest.raises(InputError, match="kind: found 'fourier'; it is one of gblr, blast, monarch"):
        replace_linear(net, kind="fourier")
    with pytest.raises(InputError, match="options: found rank; MonarchLinear has blocks, arrangement, values"):
        replace_linear(net, kind="monarch", rank=3)
    with pytest.raises(InputError, match="out_features: found 12; 5 blocks divide it"):
        replace_linear(net, kind="blast", blocks=5)
    assert isinstance(net.first, nn.Linear)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: BLASTLinear(8, 9, 2), "out_features: found 9; 2 blocks divide it"),
        (lambda: BLASTLinear(8, 8, 0), "blocks: found 0; it must be at least 1"),
        (lambda: BLASTLinear(8, 8, 2, 0), "rank: found 0; it must be at least 1"),
        (lambda: MonarchLinear(8, 8, arrangement="rows"), "it is 'strided' or 'grid'"),  # type: ignore[arg-type]
        (lambda: MonarchLinear(8, 8, (3, 2), values=4), "3 output blocks have as many each of what 2 input blocks give"),
        (lambda: KroneckerLinear(8, 8, (3, 2)), "out_features: found 8; 3, of the first factor, divides it"),
        (lambda: TensorTrainLinear(8, 8, (2, 2), 0), "rank: found 0; it must be at least 1"),
        (lambda: TensorTrainLinear(8, 8, (2, 0)), "first: found 0; it must be at least 1"),
        (lambda: KroneckerLinear(8, 8, (2, 2, 2)), "left: found (2, 2, 2); it is a pair of whole numbers"),  # type: ignore[arg-type]
        (lambda: KroneckerLinear(8, 8, 2), "left: found 2; it is a pair of whole numbers"),  # type: ignore[arg-type]
        (lambda: BLASTLinear(8, 8, (2,)), "blocks: found (2,); it is a pair of whole numbers"),  # type: ignore[arg-type]
        (lambda: BLASTLinear(8, 8, 2, 2.5), "rank: found 2.5; it is a whole number"),  # type: ignore[arg-type]
        (lambda: MonarchLinear(8.0, 8), "in_features: found 8.0; it is a whole number"),  # type: ignore[arg-type]
        (lambda: MonarchLinear(True, 8), "in_features: found True; it is a whole number"),
    ],
)  # fmt: skip
def test_sizes_that_are_refused(make: Any, words: str) -> None:
    with pytest.raises(InputError) as caught:
        make()
    assert words in str(caught.value)


def test_a_published_checkpoint_fills_a_models_own_layers(tmp_path: Path) -> None:
    torch.manual_seed(0)
    monarch, blast = MonarchLinear(7, 12, 4, bias=False), BLASTLinear(12, 8, 2, 3)

    class Padded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(7, 12, bias=False), nn.Linear(12, 8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.second(torch.relu(self.first(x)))

    net = Padded()
    state = {f"first.{k}": v for k, v in monarch.state_dict().items()}
    state |= {f"second.{k}": v for k, v in blast.state_dict().items()}
    torch.save(state, tmp_path / "net.pt")
    assert put_weights(net, tmp_path / "net.pt") == put_weights(net, tmp_path / "net.pt")
    x = torch.randn(3, 7)
    assert torch.allclose(net(x), blast(torch.relu(monarch(x))), atol=1e-5)


@pytest.mark.parametrize("make", MAKES)
def test_a_program_computes_the_layer(make: Any) -> None:
    torch.manual_seed(0)
    layer = make()
    machine = Machine.load("edge-16")
    program = lower({"layer": layer.weights()}, machine, tokens=4)
    x = np.random.default_rng(0).normal(size=(4, layer.in_features)).astype(np.float32)
    found = execute(program, {"layer": x})["layer"]
    assert np.allclose(found, layer(torch.from_numpy(x)).detach(), atol=1e-4)


@pytest.mark.parametrize("make", MAKES)
def test_some_outputs_of_a_layer(make: Any) -> None:
    torch.manual_seed(0)
    layer = make()
    held = np.concatenate(
        [evaluate(_rows(layer.weights(), *cut)).matrix() for cut in ((0, 7), (7, layer.out_features))]
    )
    assert np.allclose(held, evaluate(layer.weights()).matrix(), atol=1e-6)
