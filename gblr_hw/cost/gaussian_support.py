"""Where evaluated masks with the Gaussian are not zero, made once a width: one width has one mask, moved around."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from gblr_hw.weights.mask import MASK_THRESHOLD, gaudi_mask

# Masks that are made at a time: a few megabytes of spectra.
_AT_A_TIME = 64


class GaussianSupport:
    """Supports of masks of ``channels`` channels at one ``sigma``, filled in as widths are asked for.

    Masks are made in double precision: an entry within float32's rounding of the threshold may be on its other side in
    `evaluation_mask`.
    """

    def __init__(self, channels: int, sigma: float) -> None:
        self.channels, self.sigma = channels, sigma
        self._row = torch.full((channels + 1,), -1)  # where each width stands in the table
        self._before = torch.zeros(0, channels + 1, dtype=torch.int32)

    def before(self, counts: Tensor) -> Tensor:
        """Of the mask of each width, whole channels (K,), first channel 0: entries of the support before each channel
        and of all of it, (K, channels + 1).
        """
        widths = counts.cpu().nan_to_num().clamp(0, self.channels).long()
        missing = torch.unique(widths[self._row[widths] < 0])
        if len(missing):
            made = [self._made(part) for part in missing.split(_AT_A_TIME)]
            self._row[missing] = len(self._before) + torch.arange(len(missing))
            self._before = torch.cat([self._before, *made])
        return self._before[self._row[widths]]

    def _made(self, widths: Tensor) -> Tensor:
        shares = widths.double() / self.channels
        mask = gaudi_mask(shares, torch.zeros_like(shares), self.channels, sigma=self.sigma)
        ends = (mask.abs() >= MASK_THRESHOLD).cumsum(1)
        return torch.nn.functional.pad(ends, (1, 0)).int()

    def touches(self, counts: Tensor, starts: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """Whether the mask of each width and first channel (K,) has support in each range of channels [low, high) (C,):
        (K, C) bool; and the size of its support, (K,). A range without channels is not touched.
        """
        before, first = self.before(counts), starts.cpu().nan_to_num().long()[:, None]
        size = before[:, -1:]
        begin = torch.remainder(low.cpu().long() - first, self.channels)
        end = begin + (high - low).cpu().long().clamp(min=0)
        inside = before.gather(1, end.clamp(max=self.channels)) - before.gather(1, begin)
        around = before.gather(1, (end - self.channels).clamp(min=0))
        return ((inside + around) > 0).to(counts.device), size[:, 0].float().to(counts.device)


@lru_cache(maxsize=8)
def gaussian_support(channels: int, sigma: float) -> GaussianSupport:
    """The supports of a size and sigma, kept for the next call."""
    return GaussianSupport(channels, sigma)
