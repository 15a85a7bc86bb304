"""The linear operators of a network computed from a checkpoint's weights, for evaluation and calibration."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache

import numpy as np

from gblr_hw.weights.factors import Factors, evaluate
from gblr_hw.weights.mixes import carried
from gblr_hw.weights.stored import LayerWeights
from simulator.base.errors import InputError


def linear_of(weights: Mapping[str, LayerWeights]) -> Callable[[str, np.ndarray], np.ndarray]:
    """``linear(name, rows (N, n)) -> (N, m)`` float64: y = W x + b with the evaluated masks, as the machine runs it.

    A convolution takes im2col rows in (k1, k2, channels) order. Raises InputError for a name that has no weights and
    for rows of another width.
    """

    @cache
    def factors(name: str) -> Factors:
        if name not in weights:
            raise InputError(
                f"operator '{name}'",
                "no weights",
                f"weights are there for {', '.join(list(weights)[:8])}",
                "Give the checkpoint that belongs to the network.",
            )
        return evaluate(weights[name]).in_natural_order()

    def linear(name: str, rows: np.ndarray) -> np.ndarray:
        layer = factors(name)
        if rows.shape[-1] != layer.in_features:
            raise InputError(
                f"operator '{name}'",
                f"rows of {rows.shape[-1]} channels",
                f"its weights read {layer.in_features}",
                "Give the checkpoint that belongs to the network.",
            )
        read = layer.v.astype(np.float64) @ rows.T
        held = carried(read, layer.mixes) if len(layer.mix_source) else read
        outputs = held.T @ layer.u.T.astype(np.float64)
        if layer.dense is not None:
            outputs += rows @ layer.dense.T.astype(np.float64)
        return outputs if layer.bias is None else outputs + layer.bias

    return linear
