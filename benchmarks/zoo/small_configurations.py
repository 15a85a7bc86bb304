"""Model types of transformers as small networks: each configuration class with its sizes made small, and example
inputs for the model that it makes. Nothing is fetched; weights are random.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from torch import nn

TOKENS = 7
# Sizes by the names that configurations give them. What has another name keeps its default, unless a configuration
# that holds a whole one inside (text_config, vision_config) names it there.
SIZES: Mapping[str, int] = {
    **dict.fromkeys(
        (
            "hidden_size", "d_model", "n_embd", "dim", "embed_dim", "emb_dim", "embedding_size", "model_dim",
            "hidden_dim",
            "decoder_hidden_size", "encoder_hidden_size", "attention_hidden_size", "word_embed_proj_dim", "input_dim",
            "projection_dim", "conv_dim", "lru_width", "time_step_rank_dim", "attention_dim", "embedding_dim",
            "text_dim", "proj_dim", "d_embed", "out_hidden_size", "mm_hidden_size", "pooler_hidden_size",
        ),
        32,
    ),
    **dict.fromkeys(
        (
            "num_hidden_layers", "n_layer", "n_layers", "num_layers", "encoder_layers", "decoder_layers",
            "num_encoder_layers", "num_decoder_layers", "num_hidden_groups", "num_blocks", "depth",
            "num_transformer_layers", "encoder_num_layers", "decoder_num_layers", "num_self_attends_per_block",
            "num_coordinate_layers", "x_layers", "r_layers", "l_layers",
        ),
        2,
    ),
    **dict.fromkeys(
        (
            "num_attention_heads", "n_head", "n_heads", "num_heads", "encoder_attention_heads",
            "decoder_attention_heads", "encoder_num_attention_heads", "decoder_num_attention_heads",
            "num_self_attention_heads", "num_cross_attention_heads", "attention_heads",
        ),
        4,
    ),
    **dict.fromkeys(("num_key_value_heads", "num_kv_heads", "n_kv_heads", "multi_query_groups"), 2),
    **dict.fromkeys(
        (
            "intermediate_size", "ffn_dim", "d_ff", "encoder_ffn_dim", "decoder_ffn_dim", "n_inner", "ffn_hidden_size",
            "moe_intermediate_size", "shared_expert_intermediate_size", "d_inner", "mlp_dim", "encoder_ffn_size",
            "dense_ffn_hidden_size", "expert_ffn_hidden_size", "shared_intermediate_size", "feedforward_size",
        ),
        48,
    ),
    **dict.fromkeys(("vocab_size", "entity_vocab_size", "speech_vocab_size", "text_vocab_size"), 96),
    **dict.fromkeys(
        ("max_position_embeddings", "n_positions", "max_source_positions", "max_target_positions", "n_ctx",
         "max_seq_len", "max_sequence_length", "original_max_position_embeddings", "seq_length", "context_length"), 64,
    ),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "moe_topk", "moe_k", "num_experts_per_token", "top_k_experts"), 2),
    **dict.fromkeys(("head_dim", "v_head_dim", "qk_nope_head_dim", "attention_head_size", "d_kv", "kv_channels"), 8),
    **dict.fromkeys(("qk_rope_head_dim",), 4),
    **dict.fromkeys(("qk_head_dim",), 12),
    **dict.fromkeys(("q_lora_rank", "kv_lora_rank", "index_head_dim"), 8),
    **dict.fromkeys(("n_group", "topk_group", "n_shared_experts"), 1),
    **dict.fromkeys(("image_size", "input_size"), 32),
    "patch_size": 8,
    "num_latents": 6,
    "d_latents": 16,
    "num_mel_bins": 16,
    "state_size": 8,
    "ssm_state_size": 8,
    "mamba_d_state": 8,
    "mamba_n_heads": 4,
    "mamba_num_heads": 4,
    "mamba_d_head": 16,
    "mamba_head_dim": 16,
    "mamba_n_groups": 1,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "attention_window": 8,
    "num_queries": 5,
    "num_buckets": 8,
    "relative_attention_num_buckets": 8,
    "block_size": 4,
    "num_labels": 5,
    "decoder_start_token_id": 1,
    "hidden_size_per_layer_input": 8,
    "vocab_size_per_layer_input": 96,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    "neck_hidden_sizes_unused": 8,
}  # fmt: skip
# Lists of sizes, one for each stage or layer.
LAYERS = ("depths", "num_layers_per_stage", "layers", "num_block_repeats_list", "layer_depths")
WIDTHS = ("hidden_sizes", "embed_dims", "neck_hidden_sizes", "encoder_hidden_sizes", "dims", "conv_dim", "tdnn_dim")
IDS = (
    "pad_token_id",
    "bos_token_id",
    "eos_token_id",
    "image_token_id",
    "cls_token_id",
    "sep_token_id",
    "mask_token_id",
)


_MROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}
_SWIN: Mapping[str, Any] = {
    "embed_dim": 24, "depths": (2, 2), "num_heads": (3, 6), "window_size": 4, "patch_size": 4, "image_size": 32,
}  # fmt: skip
_LATENT = {"head_dim": 4, "num_key_value_heads": 4, "first_k_dense_replace": 1}
_HYBRID = {"attn_layer_period": 2, "attn_layer_offset": 1, "num_hidden_layers": 2}
# What a type's configuration needs beside SIZES, given to its class.
OWN: Mapping[str, Mapping[str, Any]] = {
    "swin": _SWIN,
    "swinv2": {**_SWIN, "pretrained_window_sizes": (0, 0)},
    "swin2sr": {**_SWIN, "embed_dim": 24, "patch_size": 1, "window_size": 8},
    "maskformer-swin": _SWIN,
    "donut-swin": _SWIN,
    "gptj": {"rotary_dim": 4},
    "codegen": {"rotary_dim": 4},
    **dict.fromkeys(("deepseek_v2", "deepseek_v3", "minicpm3", "longcat_flash", "axk1", "glm4_moe_lite"), _LATENT),
    "mamba2": {"num_heads": 8, "head_dim": 8, "n_groups": 2, "hidden_size": 32},
    "convnext": {"patch_size": 2, "hidden_sizes": (16, 32), "depths": (1, 1), "num_stages": 2},
    "convnextv2": {"patch_size": 2, "hidden_sizes": (16, 32), "depths": (1, 1), "num_stages": 2},
    "efficientnet": {"width_coefficient": 0.35, "depth_coefficient": 0.3, "hidden_dim": 448, "image_size": 64},
    "levit": {
        "key_dim": (8, 8, 8), "hidden_sizes": (32, 48, 64), "num_attention_heads": (4, 6, 8), "depths": (1, 1, 1),
        "image_size": 64,
    },
    "jamba": _HYBRID,
    "bamba": {"attn_layer_indices": [1], "num_hidden_layers": 2},
    "granitemoehybrid": {"layer_types": ["mamba", "attention"], "num_hidden_layers": 2},
    "mobilevitv2": {"patch_size": 2, "image_size": 64, "width_multiplier": 0.25},
    "mobilevit": {"patch_size": 2, "image_size": 64, "hidden_sizes": [16, 24, 32]},
    "lilt": {"hidden_size": 48},
    "layoutlmv3": {"coordinate_size": 6, "shape_size": 4},
    "speech_to_text": {"conv_channels": 32, "max_source_positions": 128},
    "esm": {"vocab_size": 96, "pad_token_id": 1},
    "timesformer": {"num_frames": 2},
    "hunyuan_v1_dense": {"head_dim": 8},
    "hunyuan_v1_moe": {"head_dim": 8},
    "ministral": {"head_dim": 8},
    "dots1": {"head_dim": 8},
    "nemotron": {"num_key_value_heads": 2, "head_dim": 8},
    "bit": {"num_groups": 4, "embedding_size": 16, "hidden_sizes": [16, 32], "depths": [1, 1]},
    "reformer": {"axial_pos_embds": False},
    "recurrent_gemma": {"num_hidden_layers": 3},
    "moonshine": {
        "encoder_num_hidden_layers": 2, "decoder_num_hidden_layers": 2, "encoder_num_attention_heads": 4,
        "decoder_num_attention_heads": 4, "encoder_num_key_value_heads": 4, "decoder_num_key_value_heads": 4,
    },
    **{kind: {"rope_parameters": _MROPE} for kind in ("qwen2_vl_text", "qwen2_5_vl_text", "glm4v_text")},
    "convbert": {"head_ratio": 2},
    "vits": {
        "hidden_size": 32, "flow_size": 16, "spectrogram_bins": 17, "upsample_initial_channel": 32,
        "upsample_rates": [4, 4], "upsample_kernel_sizes": [8, 8], "resblock_kernel_sizes": [3],
        "resblock_dilation_sizes": [[1, 3]], "depth_separable_num_layers": 2, "duration_predictor_flow_bins": 4,
        "duration_predictor_num_flows": 2, "prior_encoder_num_flows": 2, "prior_encoder_num_wavenet_layers": 2,
        "posterior_encoder_num_wavenet_layers": 2,
    },
    "informer": {"prediction_length": 8, "context_length": 8},
    "segformer": {"num_attention_heads": [1, 2, 4, 8]},
    "detr": {"backbone_config": {"model_type": "resnet", "out_features": ["stage4"]}, "use_timm_backbone": False,
             "backbone": None},
    "table-transformer": {"backbone_config": {"model_type": "resnet", "out_features": ["stage4"]},
                          "use_timm_backbone": False, "backbone": None},
}  # fmt: skip


# Types whose fused attention is another function when called than when exported: PaliGemma's leaves its causal mask out
# for the kernel to know, and then tells the kernel that nothing is causal. Plain attention and the exported model
# agree.
EAGER = ("paligemma",)
# Types whose model makes masks only where the caller gives some, when it is traced.
MASKED = ("longt5", "switch_transformers")


def shrunk(config: Any, kept: Collection[str] = ()) -> Any:
    """The configuration with small sizes, and those that it holds, in place; names in ``kept`` stay."""
    for name, value in list(vars(config).items()):
        if name in kept:
            continue
        if hasattr(value, "to_dict") and hasattr(value, "model_type"):
            shrunk(value)
        elif isinstance(value, bool) or value is None:
            continue
        elif name in SIZES and isinstance(value, int):
            _set(config, name, min(value, SIZES[name]) if name in ("n_group", "topk_group") else SIZES[name])
        elif name in LAYERS and isinstance(value, (list, tuple)) and all(isinstance(one, int) for one in value):
            _set(config, name, type(value)(1 for _ in value))
        elif name in WIDTHS and isinstance(value, (list, tuple)) and all(isinstance(one, int) for one in value):
            least = min(value)
            _set(config, name, type(value)(max(8, 16 * one // least // 8 * 8) for one in value))
        elif name in IDS and isinstance(value, int):
            _set(config, name, value % 4)
        elif name == "layer_types" and isinstance(value, list):
            _set(config, name, _layer_types(value))
    return config


def _set(config: Any, name: str, value: Any) -> None:
    try:
        setattr(config, name, value)
    except (AttributeError, NotImplementedError, TypeError):
        return


def _layer_types(kinds: list[str]) -> list[str]:
    """One layer of each of two kinds, if there are two."""
    seen = list(dict.fromkeys(kinds))
    return (seen + seen)[:2]


def small_model(kind: str) -> nn.Module:
    """The model of a type: with a language model's head where the type is a decoder, else its body."""
    transformers = importlib.import_module("transformers")
    auto = importlib.import_module("transformers.models.auto.modeling_auto")
    own = OWN.get(kind, {})
    config = shrunk(transformers.CONFIG_MAPPING[kind](**own), {*own, "hidden_size"} if "embed_dim" in own else own)
    _set(config, "attn_implementation", "sdpa")
    decoder = kind in auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and kind not in auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    factory = transformers.AutoModelForCausalLM if decoder else transformers.AutoModel
    model = factory.from_config(config).eval()
    if kind in EAGER:
        model.set_attn_implementation("eager")
    return model


def example_inputs(model: Any) -> dict[str, torch.Tensor]:
    """Keyword arguments for one call: of those that the model's ``forward`` takes, the fewest with which it runs."""
    config = model.config
    names = list(inspect.signature(model.forward).parameters)
    known = {name: make for name, make in _makers(config).items() if name in names}
    main = getattr(model, "main_input_name", "input_ids")
    first = main if main in known else next(iter(known))
    tries = [[first], [first, "decoder_input_ids"], [first, "bbox"], [first, "pixel_values"], [first, "input_ids"],
             [first, "decoder_input_values"], [first, "bbox", "pixel_values"], [*known]]  # fmt: skip
    failure: Exception = ValueError("no inputs")
    for chosen in tries:
        if any(name not in known for name in chosen):
            continue
        inputs = {name: known[name]() for name in dict.fromkeys(chosen)}
        if config.model_type in MASKED:
            inputs["attention_mask"] = torch.ones(1, TOKENS, dtype=torch.long)
        try:
            with torch.no_grad():
                model(**inputs)
        except Exception as error:
            failure = failure if len(chosen) > 1 else error
            continue
        return inputs
    raise failure


def _makers(config: Any) -> dict[str, Callable[[], torch.Tensor]]:
    features = getattr(config, "num_mel_bins", getattr(config, "input_feat_per_channel", 16))
    return {
        "input_ids": lambda: torch.randint(5, 90, (1, TOKENS)),
        "pixel_values": lambda: _images(config),
        "input_values": lambda: _sound(config),
        "input_features": lambda: torch.randn(
            (1, 64, 80) if config.model_type == "speech_to_text" else (1, features, 128)
        ),
        "past_values": lambda: torch.randn(1, config.context_length, getattr(config, "num_input_channels", 1)),
        "decoder_input_ids": lambda: torch.randint(5, 90, (1, TOKENS)),
        "bbox": lambda: torch.zeros(1, TOKENS, 4, dtype=torch.long),
    }


def _sound(config: Any) -> torch.Tensor:
    return torch.randn(1, config.max_length, 16) if hasattr(config, "max_length") else torch.randn(1, 2000)


def _images(config: Any) -> torch.Tensor:
    sizes = getattr(config, "vision_config", config)
    side: Any = getattr(sizes, "image_size", 32)
    height, width = (side, side) if isinstance(side, int) else (side[0], side[-1])
    frames = (getattr(config, "num_frames", 2),) if config.model_type in ("timesformer",) else ()
    return torch.randn(1, *frames, getattr(sizes, "num_channels", 3), height, width)


def model_types() -> list[str]:
    """Every type that an auto class makes a model of."""
    auto = importlib.import_module("transformers.models.auto.modeling_auto")
    return sorted({*auto.MODEL_MAPPING_NAMES, *auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES})
