"""GBLR networks on a block low-rank accelerator: layers, checkpoints, conversion, lowering, cost, training.

Names are imported when they are first used, so that ``gblr-hw --help`` does not wait for torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gblr_hw.advice.advise import advise
    from gblr_hw.conversion.covariances import collect_covariances
    from gblr_hw.conversion.in_order.conversion_in_order import convert_in_order
    from gblr_hw.conversion.in_order.convert_model import convert
    from gblr_hw.cost.hardware_cost import HardwareCost
    from gblr_hw.files.checkpoint import load_checkpoint, save_checkpoint
    from gblr_hw.layers.blast_linear import BLASTLinear
    from gblr_hw.layers.conv import GBLRConv2d
    from gblr_hw.layers.kronecker_linear import KroneckerLinear, TensorTrainLinear
    from gblr_hw.layers.linear import GBLRLinear
    from gblr_hw.layers.monarch_linear import MonarchLinear
    from gblr_hw.layers.packed_linear import pack
    from gblr_hw.layers.replace import replace_linear
    from gblr_hw.lowering.pipeline import lower
    from gblr_hw.page.compare import compare
    from gblr_hw.page.front import front
    from gblr_hw.page.report import report
    from gblr_hw.sweeps.sweep import sweep
    from gblr_hw.training.fit_to_latency import fit_to_latency
    from gblr_hw.training.latency_target import LatencyTarget
    from gblr_hw.training.networks import train_network
    from gblr_hw.training.recipe import Recipe
    from gblr_hw.weights.from_factors import (
        block_grid_weights,
        block_sparse_weights,
        low_rank_weights,
        monarch_weights,
    )
    from gblr_hw.weights.multiplications import multiplications

_HOMES = {
    "BLASTLinear": "gblr_hw.layers.blast_linear",
    "GBLRConv2d": "gblr_hw.layers.conv",
    "GBLRLinear": "gblr_hw.layers.linear",
    "HardwareCost": "gblr_hw.cost.hardware_cost",
    "LatencyTarget": "gblr_hw.training.latency_target",
    "KroneckerLinear": "gblr_hw.layers.kronecker_linear",
    "MonarchLinear": "gblr_hw.layers.monarch_linear",
    "TensorTrainLinear": "gblr_hw.layers.kronecker_linear",
    "Recipe": "gblr_hw.training.recipe",
    "advise": "gblr_hw.advice.advise",
    "block_grid_weights": "gblr_hw.weights.from_factors",
    "block_sparse_weights": "gblr_hw.weights.from_factors",
    "collect_covariances": "gblr_hw.conversion.covariances",
    "compare": "gblr_hw.page.compare",
    "convert": "gblr_hw.conversion.in_order.convert_model",
    "convert_in_order": "gblr_hw.conversion.in_order.conversion_in_order",
    "load_checkpoint": "gblr_hw.files.checkpoint",
    "fit_to_latency": "gblr_hw.training.fit_to_latency",
    "front": "gblr_hw.page.front",
    "low_rank_weights": "gblr_hw.weights.from_factors",
    "lower": "gblr_hw.lowering.pipeline",
    "monarch_weights": "gblr_hw.weights.from_factors",
    "multiplications": "gblr_hw.weights.multiplications",
    "pack": "gblr_hw.layers.packed_linear",
    "report": "gblr_hw.page.report",
    "replace_linear": "gblr_hw.layers.replace",
    "save_checkpoint": "gblr_hw.files.checkpoint",
    "sweep": "gblr_hw.sweeps.sweep",
    "train_network": "gblr_hw.training.networks",
}

__all__ = [
    "BLASTLinear",
    "GBLRConv2d",
    "GBLRLinear",
    "HardwareCost",
    "KroneckerLinear",
    "LatencyTarget",
    "MonarchLinear",
    "Recipe",
    "TensorTrainLinear",
    "advise",
    "block_grid_weights",
    "block_sparse_weights",
    "collect_covariances",
    "compare",
    "convert",
    "convert_in_order",
    "fit_to_latency",
    "front",
    "load_checkpoint",
    "low_rank_weights",
    "lower",
    "monarch_weights",
    "multiplications",
    "pack",
    "replace_linear",
    "report",
    "save_checkpoint",
    "sweep",
    "train_network",
]


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import version

        return version("gblr-hw")
    if name in _HOMES:
        import_module("analysis")  # which brings the pictures that `plot` draws
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'gblr_hw' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
