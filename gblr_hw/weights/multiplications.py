"""Multiplications per token, as the paper counts them: per block the lesser of low rank and dense, support and not
width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gblr_hw.weights.collect import weights_of
from gblr_hw.weights.factors import evaluate, evaluated_masks
from gblr_hw.weights.mask import MASK_THRESHOLD
from gblr_hw.weights.stored import ConvWeights, GBLRWeights, LayerWeights
from simulator.base.errors import InputError


def multiplications(layer: LayerWeights | nn.Module) -> int:
    """Multiplications per token as the paper counts them: of a layer's weights, or of all layers of a module.

    GBLR layers and convolutions by the authors' own count (`published_multiplications`), others by their entries: a
    dense layer m n, a block min(r (|R| + |C|), |R| |C|). A convolution is counted per output position.
    """
    if isinstance(layer, nn.Module):
        return sum(multiplications_by_layer(layer).values())
    if isinstance(layer, GBLRWeights | ConvWeights):
        return published_multiplications(layer)
    return evaluate(layer).multiplications


def multiplications_by_layer(model: nn.Module) -> dict[str, int]:
    """`multiplications` of each layer of a model by name."""
    return {name: multiplications(weights) for name, weights in weights_of(model).items()}


def hardware_multiplications(layer: LayerWeights | nn.Module) -> int:
    """Multiplications per token that the hardware must do: as the paper counts, but over every entry that is not zero.

    R and C are the whole supports that the evaluated masks leave. Source: arXiv 2310.18882, section 3.
    """
    if isinstance(layer, nn.Module):
        return sum(evaluate(weights).multiplications for weights in weights_of(layer).values())
    return evaluate(layer).multiplications


def dense_multiplications(layer: LayerWeights | nn.Module) -> int:
    """Multiplications per token if every layer were dense: the reference that fractions are given of."""
    if isinstance(layer, nn.Module):
        return sum(weights.in_features * weights.out_features for weights in weights_of(layer).values())
    return layer.in_features * layer.out_features


def published_multiplications(weights: LayerWeights) -> int:
    """The authors' own count for a GBLR layer or convolution, to the last digit of their code.

    `hardware_multiplications` differs in two ways. Entries below -1e-3 (ringing beside a mask with the Gaussian) are
    run but not counted. And the support is the ceiling of n times a float32 mean, which for some n is one more than the
    support itself. Raises InputError for other kinds of layer, which their code does not count.
    """
    if isinstance(weights, ConvWeights):
        return sum(published_multiplications(part) for part in weights.parts)
    if not isinstance(weights, GBLRWeights):
        raise InputError("layer", weights.family, "the published count is of GBLR layers", "Use multiplications().")
    mask_in, mask_out = evaluated_masks(weights)
    rows, cols = _published_support(mask_out), _published_support(mask_in)
    return int(torch.minimum(weights.rank * (rows + cols), rows * cols).sum())


def _published_support(mask: Tensor) -> Tensor:
    return torch.ceil((mask > MASK_THRESHOLD).float().mean(dim=1) * mask.shape[1])
