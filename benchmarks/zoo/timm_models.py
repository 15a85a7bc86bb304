"""Architectures of timm as small networks: one of each of its modules, shallow and narrow where the module's factory
takes such arguments, on small images. Nothing is fetched; weights are random.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

PREFIX = "timm:"
# Given to every factory, the first of these that it takes.
_SMALLER: tuple[Mapping[str, Any], ...] = ({"img_size": 64}, {})
# What a module's smallest model needs to be small: its name, and arguments.
MODELS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "beit": ("beit_base_patch16_224", {"embed_dim": 48, "depth": 2, "num_heads": 3}),
    "cait": ("cait_xxs24_224", {"embed_dim": 48, "depth": 2, "num_heads": 3}),
    "coat": ("coat_lite_tiny", {}),
    "convit": ("convit_tiny", {"embed_dim": 48, "depth": 2, "num_heads": 3, "local_up_to_layer": 1}),
    "convmixer": ("convmixer_768_32", {}),
    "convnext": ("convnext_atto", {"depths": (1, 1, 1, 1), "dims": (16, 24, 32, 48)}),
    "crossvit": ("crossvit_tiny_240", {}),
    "davit": ("davit_tiny", {"depths": (1, 1, 1, 1), "embed_dims": (24, 48, 96, 192), "num_heads": (1, 2, 4, 8),
                             "img_size": None}),
    "deit": ("deit_tiny_patch16_224", {"embed_dim": 48, "depth": 2, "num_heads": 3}),
    "densenet": ("densenet121", {"growth_rate": 8, "block_config": (2, 2, 2, 2)}),
    "dla": ("dla46_c", {}),
    "edgenext": ("edgenext_xx_small", {}),
    "efficientnet": ("efficientnet_lite0", {}),
    "efficientvit_mit": ("efficientvit_b0", {}),
    "eva": ("eva02_tiny_patch14_224", {"embed_dim": 48, "depth": 2, "num_heads": 3, "img_size": 56}),
    "fastvit": ("fastvit_t8", {}),
    "focalnet": ("focalnet_tiny_srf", {}),
    "ghostnet": ("ghostnet_050", {}),
    "hgnet": ("hgnetv2_b0", {}),
    "hiera": ("hiera_tiny_224", {"embed_dim": 24, "num_heads": 1, "stages": (1, 1, 1, 1), "img_size": (64, 64)}),
    "inception_next": ("inception_next_atto", {}),
    "levit": ("levit_128s", {}),
    "mambaout": ("mambaout_femto", {}),
    "maxxvit": ("maxvit_rmlp_pico_rw_256", {"img_size": 128}),
    "metaformer": ("poolformer_s12", {}),
    "mlp_mixer": ("mixer_s32_224", {}),
    "mobilenetv3": ("mobilenetv3_small_050", {}),
    "mobilevit": ("mobilevit_xxs", {"img_size": None}),
    "mvitv2": ("mvitv2_tiny", {}),
    "nfnet": ("nf_regnet_b0", {}),
    "pit": ("pit_ti_224", {"img_size": 64}),
    "pvt_v2": ("pvt_v2_b0", {}),
    "regnet": ("regnetx_002", {}),
    "repvit": ("repvit_m0_9", {}),
    "res2net": ("res2net50_26w_4s", {"base_width": 6}),
    "resnest": ("resnest14d", {}),
    "resnet": ("resnet10t", {}),
    "resnetv2": ("resnetv2_50", {"layers": (1, 1, 1, 1), "channels": (32, 64, 96, 128)}),
    "rexnet": ("rexnet_100", {"width_mult": 0.5}),
    "senet": ("legacy_seresnet18", {}),
    "sknet": ("skresnet18", {}),
    "swin_transformer": ("swin_tiny_patch4_window7_224", {"embed_dim": 24, "depths": (2, 2), "num_heads": (2, 4),
                                                          "window_size": 4}),
    "swin_transformer_v2": ("swinv2_tiny_window8_256", {"embed_dim": 24, "depths": (2, 2), "num_heads": (2, 4),
                                                        "window_size": 4}),
    "tiny_vit": ("tiny_vit_5m_224", {"img_size": None}),
    "tnt": ("tnt_s_patch16_224", {"embed_dim": 48, "inner_dim": 12, "depth": 2, "num_heads_outer": 3}),
    "twins": ("twins_svt_small", {"depths": (1, 1, 1, 1), "embed_dims": (16, 32, 48, 64)}),
    "visformer": ("visformer_tiny", {}),
    "vision_transformer": ("vit_tiny_patch16_224", {"embed_dim": 48, "depth": 2, "num_heads": 3}),
    "vovnet": ("ese_vovnet19b_slim_dw", {}),
    "xception": ("legacy_xception", {}),
    "xcit": ("xcit_nano_12_p16_224", {"embed_dim": 48, "depth": 2, "num_heads": 3}),
}  # fmt: skip
# These have no argument for the images' side, and take any.
_ANY_SIDE = 64


def timm_names() -> tuple[list[str], str]:
    """Names of networks, and why there are none: timm is no package that gblr-hw needs."""
    try:
        _timm()
    except ImportError as error:
        return [], f"timm is not installed ({error}): pip install timm torchvision"
    return [f"{PREFIX}{one}" for one in MODELS], ""


def _timm() -> Any:
    """The package. It imports torchvision, whose compiled operators are found only beside the build of torch that they
    were made for; then only their names are missing, no model here calls them, and declaring two is enough.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return importlib.import_module("timm")
        except RuntimeError as error:
            if "torchvision::nms" not in str(error):
                raise
        for name in ("nms", "qnms"):
            torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        return importlib.import_module("timm")


def small_timm(name: str) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """The model of a name with this file's prefix, and an image."""
    timm = _timm()
    model_name, options = MODELS[name.removeprefix(PREFIX)]
    failure: Exception = ValueError(name)
    for smaller in _tries(options):
        try:
            model = timm.create_model(model_name, num_classes=8, **smaller).eval()
            sides = smaller.get("img_size") or _ANY_SIDE
            image = torch.randn(1, 3, *(sides if isinstance(sides, tuple) else (sides, sides)))
            with torch.no_grad():
                model(image)
        except Exception as error:
            failure = error
            continue
        return model, (image,)
    raise failure


def _tries(options: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    given = {key: value for key, value in options.items() if value is not None}
    for smaller in _SMALLER:
        yield {**({} if "img_size" in options else smaller), **given}
