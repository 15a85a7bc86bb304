"""Multiplications of a whole network's matrix operators."""

from __future__ import annotations

from collections.abc import Mapping

from gblr_hw.weights.multiplications import multiplications
from gblr_hw.weights.stored import DenseWeights, LayerWeights
from simulator.network.network import Network, Operator


def multiplications_of(network: Network, weights: Mapping[str, LayerWeights]) -> dict[str, int]:
    """Multiplications of each matrix operator by name, in order: a layer's per row (`counts.multiplications`) times its
    rows, and for products of activations rows x groups x width x what is summed.

    For a dense model their sum is half of what torch.utils.flop_counter counts (a multiplication and an addition
    each), except that: the flop counter counts a grouped convolution without the zeros of its block-diagonal matrix,
    which are counted here; it counts a product of constants, which is computed once and does not appear here; and it
    does not see inside the CPU's fused attention (count under ``sdpa_kernel(SDPBackend.MATH)``). Both leave out vector
    operators, and both count masked scores as any other.
    """
    return {
        operator.name: _of(network, operator, weights) for operator in network.operators if operator.kind != "vector"
    }


def _of(network: Network, operator: Operator, weights: Mapping[str, LayerWeights]) -> int:
    if operator.kind == "linear":
        layer = weights[operator.name]
        entries = layer.weight.numel() if isinstance(layer, DenseWeights) else multiplications(layer)
        return operator.rows * entries
    rows, stationary = operator.operands
    kept = stationary.tokens if operator.kind == "scores" else stationary.width
    return operator.rows * rows.groups * rows.width * kept
