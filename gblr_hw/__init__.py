"""GBLR networks on a block low-rank accelerator: layers, checkpoints, conversion, lowering, cost, training.

Names are imported when they are first used, so that ``gblr-hw --help`` does not wait for torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gblr_hw.conversion.conversion import convert
    from gblr_hw.conversion.conversion_in_order import convert_in_order
    from gblr_hw.cost.hardware_cost import HardwareCost
    from gblr_hw.files.checkpoint import load_checkpoint, save_checkpoint
    from gblr_hw.layers.conv import GBLRConv2d
    from gblr_hw.layers.linear import GBLRLinear
    from gblr_hw.layers.replace import replace_linear
    from gblr_hw.lowering.pipeline import lower
    from gblr_hw.weights.multiplications import multiplications

_HOMES = {
    "GBLRConv2d": "gblr_hw.layers.conv",
    "GBLRLinear": "gblr_hw.layers.linear",
    "HardwareCost": "gblr_hw.cost.hardware_cost",
    "convert": "gblr_hw.conversion.conversion",
    "convert_in_order": "gblr_hw.conversion.conversion_in_order",
    "load_checkpoint": "gblr_hw.files.checkpoint",
    "lower": "gblr_hw.lowering.pipeline",
    "multiplications": "gblr_hw.weights.multiplications",
    "replace_linear": "gblr_hw.layers.replace",
    "save_checkpoint": "gblr_hw.files.checkpoint",
}

__all__ = [
    "GBLRConv2d",
    "GBLRLinear",
    "HardwareCost",
    "convert",
    "convert_in_order",
    "load_checkpoint",
    "lower",
    "multiplications",
    "replace_linear",
    "save_checkpoint",
]


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'gblr_hw' has no attribute '{name}'")
