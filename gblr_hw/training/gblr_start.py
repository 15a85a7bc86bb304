"""Start a GBLR layer from a dense one: random intervals, factors fitted to the matrix."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from gblr_hw.conversion.fit.refit import refit_expand, refit_reduce
from gblr_hw.layers.linear import GBLRLinear
from gblr_hw.weights.mask import evaluation_mask

_SWEEPS = 8


@torch.no_grad()
def gblr_from_linear(linear: nn.Linear, *, blocks: int | None = None, width: float = 0.5, seed: int = 0) -> GBLRLinear:
    """A GBLR layer (rank 1, no Gaussian) near a dense one: `blocks` intervals of mean `width` at random places.

    Widths are spread by half their mean either way. With the default K = min(m, n) and width 0.5 a square layer costs
    the multiplications of the dense one. Intervals of full width would follow the matrix exactly, but all blocks would
    then be alike, and a penalty that shrinks them alike reaches every chunk's edge, and the network's end, at the same
    moment.
    """
    m, n = linear.weight.shape
    count = min(m, n) if blocks is None else blocks
    layer = GBLRLinear(n, m, count, gaussian=False, bias=linear.bias is not None, init_width=width)
    random = torch.Generator().manual_seed(seed)
    layer.widths.copy_((width * (0.5 + torch.rand(2, count, generator=random))).clamp(max=1.0))
    layer.locations.copy_(torch.rand(2, count, generator=random))
    reads = evaluation_mask(layer.widths[0], layer.locations[0], n).bool().numpy()
    writes = evaluation_mask(layer.widths[1], layer.locations[1], m).bool().numpy()
    target = linear.weight.double().numpy()
    v = np.random.default_rng(seed).normal(size=(count, n)) * reads
    u = refit_expand(target, v, writes, 1)
    for _ in range(_SWEEPS):
        v = refit_reduce(target, u, v, reads, 1)
        u = refit_expand(target, v, writes, 1)
    # The product is all that is fitted: share its scale evenly, or one factor learns much faster than the other.
    balance = np.sqrt((np.linalg.norm(u, axis=0) + 1e-12) / (np.linalg.norm(v, axis=1) + 1e-12))
    layer.lr_weight1.copy_(torch.from_numpy((v * balance[:, None])[:, None, :]))
    layer.lr_weight2.copy_(torch.from_numpy((u / balance).T[:, :, None]))
    if layer.bias is not None:
        layer.bias.copy_(linear.bias)
    return layer
