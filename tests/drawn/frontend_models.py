"""Small networks of every architecture that the front end's tests run, and how a graph is held against its model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from gblr_hw.frontend import ExportedNetwork, export_network
from gblr_hw.frontend.sources import Request, bert, gpt2, llama_block, mixer, vit
from gblr_hw.models.mlp_mixer import MixerShape
from gblr_hw.models.resnet import ResNet
from gblr_hw.models.vit import ViT, ViTShape
from tests.oracles.run_graph import run_graph

VIT = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24,
    "image_size": 12, "patch_size": 4, "num_labels": 5,
}  # fmt: skip
BERT = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24,
    "vocab_size": 31, "max_position_embeddings": 20,
}  # fmt: skip
GPT2 = {"n_embd": 16, "n_layer": 2, "n_head": 2, "vocab_size": 31, "n_positions": 20}
LLAMA = {"hidden_size": 24, "num_attention_heads": 6, "num_key_value_heads": 2, "intermediate_size": 40}

Built = tuple[nn.Module, tuple[torch.Tensor, ...]]

MODELS: dict[str, Callable[[], Built]] = {
    "vit": lambda: vit(Request(2, 0, 0), VIT),
    "bert": lambda: bert(Request(2, 7, 0), BERT),
    "bert_masked": lambda: _masked(bert(Request(2, 7, 0), BERT)),
    "gpt2_prefill": lambda: gpt2(Request(2, 7, 0), GPT2),
    "gpt2_decode": lambda: gpt2(Request(2, 1, 5), GPT2),
    "llama": lambda: llama_block(Request(2, 7, 0), LLAMA),
    "llama_decode": lambda: llama_block(Request(2, 1, 5), LLAMA),
    "mixer": lambda: mixer(Request(2, 0, 0), MixerShape(8, 2, 12, 2, 9, 20, 5)),
    "resnet": lambda: (ResNet((6, 10), (1, 2), 5), (torch.randn(2, 3, 20, 24),)),
    "digits_vit": lambda: (ViT(ViTShape(width=16, heads=2)), (torch.randn(2, 8, 8),)),
}


def _masked(built: Built) -> Built:
    model, (ids,) = built
    mask = torch.ones_like(ids)
    mask[0, 4:] = 0
    return model, (ids, mask)


def small_model(name: str) -> Built:
    """A model in evaluation mode and float64, with norm statistics that are not the initial ones, and its inputs."""
    torch.manual_seed(0)
    model, inputs = MODELS[name]()
    return settled(model, inputs)


def settled(model: nn.Module, inputs: tuple[torch.Tensor, ...]) -> Built:
    """The same in evaluation mode and float64."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2.0)
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
    doubles = tuple(one.double() if one.is_floating_point() else one for one in inputs)
    return model.double().eval(), doubles


def outputs_of(model: nn.Module, inputs: tuple[torch.Tensor, ...]) -> list[np.ndarray]:
    """What torch computes, flattened."""
    with torch.no_grad():
        result: Any = model(*inputs)
    result = result.to_tuple() if hasattr(result, "to_tuple") else result
    leaves = torch.utils._pytree.tree_leaves(result)
    return [leaf.numpy() for leaf in leaves if isinstance(leaf, torch.Tensor)]


def check(
    model: nn.Module, inputs: tuple[torch.Tensor, ...], tolerance: float = 1e-10, **options: Any
) -> ExportedNetwork:
    """Export a model, and assert that its graph computes what torch does."""
    exported = export_network(model, inputs, **options)
    found = run_graph(exported.network, exported.weights, [one.numpy() for one in inputs])
    wanted = outputs_of(model, inputs)
    assert len(found) == len(wanted)
    for got, want in zip(found.values(), wanted, strict=True):
        assert got.shape == want.shape
        np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance * max(1.0, float(np.abs(want).max())))
    return exported
