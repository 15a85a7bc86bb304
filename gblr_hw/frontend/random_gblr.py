"""Random GBLR layers in place of a model's own, at a fraction of the multiplications: for costs, not values."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from gblr_hw.layers.conv import GBLRConv2d
from gblr_hw.layers.linear import GBLRLinear
from gblr_hw.layers.replace import set_module
from gblr_hw.weights.collect import is_conv1d
from gblr_hw.weights.stored import ConvWeights, GBLRWeights
from simulator.base.errors import InputError


def random_blocks(inputs: int, outputs: int, fraction: float, generator: torch.Generator) -> GBLRWeights:
    """A layer of min(inputs, outputs) blocks of rank 1 whose multiplications are ``fraction`` of inputs x outputs, to a
    block's width.

    Widths are exponential, cut at 1, and scaled to the budget; locations uniform; entries of the matrix have about the
    variance of nn.Linear's. No Gaussian, no bias.
    """
    blocks = min(inputs, outputs)
    draws = torch.empty(2, blocks).exponential_(1.0, generator=generator)
    sides = torch.tensor([[inputs], [outputs]])
    low, high = 0.0, float(max(inputs, outputs))
    for _ in range(60):
        middle = (low + high) / 2
        if _multiplications(draws * middle, sides) <= fraction * inputs * outputs:
            low = middle
        else:
            high = middle
    widths = _snapped(draws * low, sides) / sides
    covered = max(1.0, float((widths[0] * widths[1]).sum()))
    scale = (3 * inputs * covered) ** -0.25
    first = torch.empty(blocks, 1, inputs).normal_(0, scale, generator=generator)
    second = torch.empty(blocks, outputs, 1).normal_(0, scale, generator=generator)
    locations = torch.rand(2, blocks, generator=generator)
    return GBLRWeights(widths, locations, first, second, None, 1.0, False)


def _snapped(widths: Tensor, sides: Tensor) -> Tensor:
    """Channels of each interval; evaluation empties one of a single channel, so none has less than two."""
    return torch.minimum((widths * sides).round().clamp(min=2), sides)


def _multiplications(widths: Tensor, sides: Tensor) -> float:
    cols, rows = _snapped(widths, sides).double()
    return float(torch.minimum(cols + rows, cols * rows).sum())


def check_fraction(fraction: float) -> None:
    """Raise InputError for a fraction outside (0, 1]."""
    if not 0 < fraction <= 1:
        raise InputError("fraction", str(fraction), "it lies in (0, 1]", "Use e.g. 0.3.")


def replace_by_random_gblr(
    model: nn.Module, fraction: float, *, seed: int = 0, exclude: str | Iterable[str] = ()
) -> list[str]:
    """Put random GBLR layers in place of every linear layer and ungrouped convolution of a model, and return their
    names.

    fraction: multiplications of each relative to dense. exclude: shell patterns on names. Linear layers are nn.Linear
    and the transposed ones of transformers (Conv1D); convolutions become "unfolded" ones. Biases are kept. The same
    seed gives the same layers. Raises InputError for a fraction outside (0, 1].
    """
    check_fraction(fraction)
    patterns = [exclude] if isinstance(exclude, str) else list(exclude)
    generator = torch.Generator().manual_seed(seed)
    names = []
    for name, module in list(model.named_modules()):
        if not name or any(fnmatchcase(name, one) for one in patterns):
            continue
        new = _replacement(module, fraction, generator)
        if new is None:
            continue
        set_module(model, name, new.to(next(module.parameters()).dtype).train(module.training))
        names.append(name)
    return names


def _replacement(module: nn.Module, fraction: float, generator: torch.Generator) -> nn.Module | None:
    if isinstance(module, nn.Conv2d):
        return _convolution(module, fraction, generator)
    if isinstance(module, NonDynamicallyQuantizableLinear):
        return None
    transposed = is_conv1d(module)
    if not isinstance(module, nn.Linear) and not transposed:
        return None
    layer: Any = module
    outputs, inputs = layer.weight.shape[::-1] if transposed else layer.weight.shape
    blocks = random_blocks(inputs, outputs, fraction, generator)
    return GBLRLinear.from_weights(replace(blocks, bias=layer.bias))


def _convolution(module: nn.Conv2d, fraction: float, generator: torch.Generator) -> nn.Module | None:
    if module.groups != 1 or module.padding_mode != "zeros":
        return None
    kernel: Any = module.kernel_size
    inputs, outputs = kernel[0] * kernel[1] * module.in_channels, module.out_channels
    part = random_blocks(inputs, outputs, fraction, generator)
    weights = ConvWeights((part,), "unfolded", kernel, module.in_channels, outputs, module.bias)
    sizes: dict[str, Any] = {name: getattr(module, name) for name in ("stride", "padding", "dilation")}
    return GBLRConv2d.from_weights(weights, **sizes)
