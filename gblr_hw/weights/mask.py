"""The Gaudi mask (Gaussian-Dirichlet): a differentiable cyclic interval on n channels.

Lee & Kim, ICLR 2024, arXiv 2310.18882, equation (7). Written in the frequency domain, the derivative with respect to
the width does not vanish at width 0, so that an empty block can come back while training.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

MASK_THRESHOLD = 1e-3


def frequencies(channels: int, device: torch.device | str | None = None) -> Tensor:
    """Frequencies 0 .. n/2 of a real signal of n channels, (n // 2 + 1,) float32; a buffer of the published layout."""
    return torch.arange(channels // 2 + 1, dtype=torch.float32, device=device)


def _at_least_float32(tensor: Tensor) -> Tensor:
    # The phases reach n * pi: half precision would place the interval at the wrong channels.
    return tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.float()


def snap(values: Tensor, channels: int, *, straight_through: bool = True) -> Tensor:
    """Round to multiples of 1/n; with straight_through the gradient is that of the identity, else it is zero."""
    values = _at_least_float32(values)
    snapped = torch.round(values * channels) / channels
    # The difference is exactly zero, so that the value is exactly the rounded one.
    return snapped.detach() + (values - values.detach()) if straight_through else snapped


def gaudi_mask(widths: Tensor, locations: Tensor, channels: int, *, sigma: Tensor | float | None = None) -> Tensor:
    """Mask of each block, exactly as given: no rounding, no threshold.

    widths (K,) and locations (K,), normalised to [0, 1]; channels n; sigma: the standard deviation of the Gaussian term
    in frequencies, None leaves the term out. Returns (K, n) in the dtype of widths (float32 for half precision). With
    width q/n, location s/n and no Gaussian it is one on channels s .. s+q-1 (cyclic) and zero elsewhere. Differentiable
    in widths and locations, also at width 0. Source: arXiv 2310.18882, equation (7).
    """
    if widths.numel() == 0:  # no FFT library takes an empty batch
        return widths.new_zeros(0, channels)
    with torch.autocast(device_type=widths.device.type, enabled=False):
        w = _at_least_float32(widths).unsqueeze(-1)
        l = _at_least_float32(locations).unsqueeze(-1)  # noqa: E741 - the paper's symbol
        f = frequencies(channels, w.device).to(w.dtype)
        sigma = sigma.to(w.dtype) if isinstance(sigma, Tensor) else sigma
        # The order of the float32 operations is that of the published layers: gradients near zero then agree too.
        phase = math.pi * f * (1 / channels - w) - f * (l * 2 * math.pi)
        decay = torch.zeros_like(phase) if sigma is None else (-0.5 / sigma**2 * f**2).expand_as(phase)
        spectrum = w * torch.sinc(f * w) / torch.sinc(f / channels) * torch.exp(torch.complex(decay, phase))
        return torch.fft.irfft(spectrum, n=channels, norm="forward")


def evaluation_mask(widths: Tensor, locations: Tensor, channels: int, *, sigma: Tensor | float | None = None) -> Tensor:
    """Mask of each block by the evaluation rules: what the hardware runs.

    Shapes as `gaudi_mask`; returns float32 (K, n). Widths are rounded to 1/n, widths of at most 1/n are then zero (so
    up to 1.5/n as stored), locations are rounded, and entries below 1e-3 in magnitude are zero. Not differentiable.
    Without the Gaussian that is an interval of exact zeros and ones, and made as one; the published layers go through
    the frequency domain in float32, so that their ones are off by up to 1e-6 (n = 64) or 5e-5 (n = 3072).
    """
    counts, starts = evaluation_interval(widths, locations, channels)
    if sigma is None:
        offset = torch.arange(channels, device=counts.device, dtype=torch.int32) - starts.int()[:, None]
        offset = torch.where(offset < 0, offset + channels, offset)
        laps = counts.int()[:, None] - offset + (channels - 1)  # wider than the cycle, an interval overlaps itself
        return torch.div(laps, channels, rounding_mode="floor").float()
    mask = gaudi_mask(counts / channels, starts / channels, channels, sigma=sigma)
    return torch.where(mask.abs() < MASK_THRESHOLD, torch.zeros_like(mask), mask).detach().float()


def evaluation_interval(widths: Tensor, locations: Tensor, channels: int) -> tuple[Tensor, Tensor]:
    """Channels and first channel of each block's interval as it is evaluated, whole numbers as floats, (K,) each."""
    counts = torch.round(_at_least_float32(widths) * channels)
    counts = torch.where(counts <= 1, torch.zeros_like(counts), counts)
    return counts, torch.round(_at_least_float32(locations) * channels) % channels
