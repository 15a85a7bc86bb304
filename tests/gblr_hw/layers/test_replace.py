"""Swapping the linear layers of a model by name."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gblr_hw.layers.linear import GBLRLinear
from gblr_hw.layers.replace import linear_names, replace_linear
from gblr_hw.weights.collect import weights_of
from simulator.base.errors import InputError


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 6)
        self.second = nn.Sequential(nn.GELU(), self.first)
        self.head = nn.Linear(6, 3, bias=False)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.head(self.second(self.first(inputs)))


def test_the_function_of_the_model_is_kept_and_tied_layers_stay_tied() -> None:
    torch.manual_seed(0)
    model = Tied().eval()
    inputs = torch.randn(4, 6)
    wanted = model(inputs)
    assert replace_linear(model, "*", gaussian=False) == ["first", "second.1", "head"]
    assert model.first is model.second[1]
    assert isinstance(model.head, GBLRLinear)
    assert model.head.bias is None
    assert not model.head.training
    torch.testing.assert_close(model(inputs), wanted, rtol=1e-4, atol=1e-5)
    assert list(weights_of(model)) == ["first", "head"]


def test_patterns_exclusion_and_options() -> None:
    model = nn.ModuleDict({"mlp": nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 4)), "head": nn.Linear(4, 2)})
    model["head"].weight.requires_grad_(False)
    assert replace_linear(model, ["mlp.*", "head"], exclude="*.1", init="random", blocks=3, init_width=0.25) == [
        "mlp.0",
        "head",
    ]
    assert isinstance(model["mlp"][1], nn.Linear)
    assert float(model["mlp"][0].widths.detach().max()) == 0.25
    assert model["mlp"][0].blocks == 3
    assert not any(p.requires_grad for p in model["head"].parameters())


def test_a_tied_layer_with_one_excluded_name_is_left() -> None:
    model = Tied()
    assert replace_linear(model, "*", exclude="second.*") == ["head"]
    assert isinstance(model.first, nn.Linear)


def test_attention_and_encoder_layers_still_run() -> None:
    torch.manual_seed(0)
    model = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    inputs = torch.randn(2, 3, 8)
    wanted = model(inputs)
    assert linear_names(model) == ["linear1", "linear2"]
    replace_linear(model, "linear*", gaussian=False)
    with torch.no_grad():
        torch.testing.assert_close(model(inputs), wanted, rtol=1e-4, atol=1e-5)
    assert list(weights_of(model)) == ["self_attn.in_proj", "self_attn.out_proj", "linear1", "linear2"]


def test_no_match_lists_the_candidates_and_changes_nothing() -> None:
    model = Tied()
    with pytest.raises(InputError, match=r"pattern: found 'fc\*'.*there are: first, second.1, head"):
        replace_linear(model, ["head", "fc*"])
    assert isinstance(model.head, nn.Linear)
    with pytest.raises(InputError, match="there are: none"):
        replace_linear(nn.Sequential(nn.ReLU()), "*")
    with pytest.raises(InputError, match="init: found 'zero'"):
        replace_linear(model, init="zero")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="rank: found 0"):
        replace_linear(model, rank=0)
    assert isinstance(model.first, nn.Linear)


def test_weights_of_names_what_it_cannot_do() -> None:
    with pytest.raises(InputError, match=r"layer 'conv': convolution: found groups=4"):
        weights_of(nn.ModuleDict({"conv": nn.Conv2d(4, 4, 3, groups=4)}))
    model = nn.ModuleDict({"conv": nn.Conv2d(4, 4, 3, groups=4), "fc": nn.Linear(2, 2)})
    assert list(weights_of(model, exclude="conv")) == ["fc"]
    with pytest.raises(InputError, match="at least one layer"):
        weights_of(nn.ReLU())
    assert list(weights_of(nn.Linear(2, 3))) == ["layer"]
    broken = nn.Linear(2, 2)
    nn.init.constant_(broken.weight, float("inf"))
    with pytest.raises(InputError, match=r"layer '0': tensor 'weight': found inf at index \(0, 0\)"):
        weights_of(nn.Sequential(broken))


def test_weights_of_convolution_is_in_im2col_order() -> None:
    conv = nn.Conv2d(2, 3, (1, 2))
    matrix = weights_of(conv)["layer"].weight
    assert torch.equal(matrix[:, 2 * 1 + 0], conv.weight.detach()[:, 0, 0, 1])


@pytest.mark.parametrize("init", ["svd", "random"])
@pytest.mark.parametrize(("kind", "size", "name"), [
    ("kronecker", "left", "KroneckerLinear"), ("tensor_train", "first", "TensorTrainLinear"),
])  # fmt: skip
def test_sizes_without_a_default_are_asked_for_and_the_remedy_works(kind, size, name, init) -> None:
    model = nn.Sequential(nn.Linear(15, 8), nn.ReLU(), nn.Linear(8, 4))
    with pytest.raises(InputError) as caught:
        replace_linear(model, kind=kind, init=init)
    assert str(caught.value) == (
        f"options: found no {size}; {name} has no default for its sizes: outputs and inputs of its first factor, which "
        f"divide the 8 outputs and 15 inputs of the layer. Give them, as {size}=(2, 3)."
    )
    assert isinstance(model[0], nn.Linear) and isinstance(model[2], nn.Linear)
    assert replace_linear(model, "0", kind=kind, init=init, **{size: (2, 3)}) == ["0"]
