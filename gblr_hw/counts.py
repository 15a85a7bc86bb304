"""Multiplications per token, as the paper counts them: per block the lesser of low rank and dense, support and not
width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gblr_hw.collect import weights_of
from gblr_hw.factors import evaluate
from gblr_hw.mask import MASK_THRESHOLD, gaudi_mask
from gblr_hw.weights import ConvWeights, GBLRWeights, LayerWeights
from simulator.errors import InputError


def multiplications(layer: LayerWeights | nn.Module) -> int:
    """Multiplications per token that the hardware would do: of a layer's weights, or of all layers of a module.

    Each block costs min(r (|R| + |C|), |R| |C|), R and C the supports that the evaluated masks leave; a dense layer m
    n; a convolution is counted per output position. Source: arXiv 2310.18882, section 3.
    """
    if isinstance(layer, nn.Module):
        return sum(multiplications_by_layer(layer).values())
    return evaluate(layer).multiplications


def multiplications_by_layer(model: nn.Module) -> dict[str, int]:
    """`multiplications` of each layer of a model by name."""
    return {name: evaluate(weights).multiplications for name, weights in weights_of(model).items()}


def dense_multiplications(layer: LayerWeights | nn.Module) -> int:
    """Multiplications per token if every layer were dense: the reference that fractions are given of."""
    if isinstance(layer, nn.Module):
        return sum(weights.in_features * weights.out_features for weights in weights_of(layer).values())
    return layer.in_features * layer.out_features


def published_multiplications(weights: LayerWeights) -> int:
    """The authors' own count for a GBLR layer or convolution, to the last digit of their code.

    It differs from `multiplications` in three ways. Entries below -1e-3 (the ringing beside a mask with the Gaussian)
    are run but not counted. The support is the ceiling of n times a float32 mean, which for some n is one more than the
    support itself. And the masks are in float32, so that an entry within rounding of 1e-3 may fall on the other side.
    Raises InputError for other kinds of layer, which their code does not count.
    """
    if isinstance(weights, ConvWeights):
        return sum(published_multiplications(part) for part in weights.parts)
    if not isinstance(weights, GBLRWeights):
        raise InputError("layer", weights.family, "the published count is of GBLR layers", "Use multiplications().")
    cols, rows = _published_support(weights, 0), _published_support(weights, 1)
    return int(torch.minimum(weights.rank * (rows + cols), rows * cols).sum())


def _published_support(weights: GBLRWeights, side: int) -> Tensor:
    """Channels per block (K,) that the authors count on the inputs (side 0) or the outputs (1); none up to one channel
    wide.
    """
    channels = (weights.in_features, weights.out_features)[side]
    sigma = weights.sigma if weights.gaussian else None
    counts = torch.round(weights.widths[side].detach().cpu().float() * channels)
    starts = torch.round(weights.locations[side].detach().cpu().float() * channels)
    counts = torch.where(counts <= 1, torch.zeros_like(counts), counts)
    mask = gaudi_mask(counts / channels, starts / channels, channels, sigma=sigma)
    return torch.ceil((mask > MASK_THRESHOLD).float().mean(dim=1) * channels)
