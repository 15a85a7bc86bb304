"""GBLRLinear: a drop-in for nn.Linear whose matrix is a sum of blocks on learned cyclic intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from gblr_hw.files.published import DEFAULT_SIGMA, gblr_from_state
from gblr_hw.weights.checks import check_positive, check_sigma
from gblr_hw.weights.mask import evaluation_mask, frequencies, gaudi_mask, snap
from gblr_hw.weights.multiplications import published_multiplications
from gblr_hw.weights.stored import GBLRWeights
from simulator.base.errors import InputError


class GBLRLinear(nn.Module):
    """``y = W x + bias`` with ``W = sum_k (a_k * U_k) (b_k * V_k)``, the masks a, b learned (arXiv 2310.18882, equation
    2).

    Parameters
    ----------
    in_features n, out_features m.
    blocks: K; by default min(m, n) // rank, at least 1.
    rank: r of each block.
    gaussian: use the Gaussian term of the mask; sigma: its standard deviation in frequencies (a buffer, annealed by
    hooks).
    bias: add a learned bias (m,).
    straight_through: while training, round widths and locations to 1/n with the gradient of the identity; off, they
    stay real.
    init_width: width of every block at first; half-width blocks at the default K and r make a square layer cost what
    dense does.

    Parameters and buffers have the names and shapes of the published layout: widths (2, K), locations (2, K),
    lr_weight1 (K, r, n), lr_weight2 (K, m, r), bias (m,), freq_in, freq_out, sigma. Widths start at init_width,
    locations uniformly, and the factors so that W has the variance of nn.Linear's default, 1 / (3 n). In evaluation
    mode the masks follow the evaluation rules (`gblr_hw.weights.mask.evaluation_mask`). Raises InputError on sizes
    below 1, sigma <= 0 or init_width outside (0, 1].
    """

    sigma: Tensor
    freq_in: Tensor
    freq_out: Tensor

    def __init__(
        self,
        in_features: int,
        out_features: int,
        blocks: int | None = None,
        rank: int = 1,
        *,
        gaussian: bool = True,
        bias: bool = True,
        straight_through: bool = True,
        sigma: float = DEFAULT_SIGMA,
        init_width: float = 0.5,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        for name, size in (("in_features", in_features), ("out_features", out_features), ("rank", rank)):
            check_positive(name, size)
        blocks = max(1, min(in_features, out_features) // rank) if blocks is None else blocks
        check_positive("blocks", blocks)
        check_sigma(sigma)
        if not 0 < init_width <= 1:
            raise InputError(
                "init_width", str(init_width), "a width is a fraction of the channels, in (0, 1]", "Use 0.5."
            )
        self.in_features, self.out_features = in_features, out_features
        self.blocks, self.rank = blocks, rank
        self.gaussian, self.straight_through, self.init_width = gaussian, straight_through, init_width
        options: dict[str, Any] = {"device": device, "dtype": dtype}
        self.widths = nn.Parameter(torch.empty(2, blocks, **options))
        self.locations = nn.Parameter(torch.empty(2, blocks, **options))
        self.lr_weight1 = nn.Parameter(torch.empty(blocks, rank, in_features, **options))
        self.lr_weight2 = nn.Parameter(torch.empty(blocks, out_features, rank, **options))
        self.bias = nn.Parameter(torch.empty(out_features, **options)) if bias else None
        self.register_buffer("freq_in", frequencies(in_features, device))
        self.register_buffer("freq_out", frequencies(out_features, device))
        self.register_buffer("sigma", torch.tensor(float(sigma), device=device))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new parameters, as the class docstring says."""
        # An entry of W is covered by K w^2 blocks on average, each adding r products of two independent factors.
        terms = max(1.0, self.blocks * self.init_width**2) * self.rank
        bound = math.sqrt(3.0) * (1 / (3 * self.in_features * terms)) ** 0.25
        nn.init.constant_(self.widths, self.init_width)
        nn.init.uniform_(self.locations, 0.0, 1.0)
        nn.init.uniform_(self.lr_weight1, -bound, bound)
        nn.init.uniform_(self.lr_weight2, -bound, bound)
        if self.bias is not None:
            limit = 1 / math.sqrt(self.in_features)
            nn.init.uniform_(self.bias, -limit, limit)

    @classmethod
    def from_weights(cls, weights: GBLRWeights, *, straight_through: bool = True) -> Self:
        """A layer that holds a copy of `weights`."""
        layer = cls(
            weights.in_features,
            weights.out_features,
            weights.blocks,
            weights.rank,
            gaussian=weights.gaussian,
            bias=weights.bias is not None,
            straight_through=straight_through,
            sigma=weights.sigma,
            device=weights.lr_weight1.device,
            dtype=weights.lr_weight1.dtype,
        )
        # Not copied into the fresh ones: widths in double precision stay so (see `evaluation_mask`).
        for name in ("widths", "locations", "lr_weight1", "lr_weight2", "bias"):
            if (value := getattr(weights, name)) is not None:
                setattr(layer, name, nn.Parameter(value.detach().clone()))
        return layer

    @classmethod
    def from_state(cls, mapping: Mapping[str, Tensor], *, gaussian: bool | None, straight_through: bool = True) -> Self:
        """A layer from the published keys of one layer (``widths`` ...). gaussian is not in the file: say True or
        False.

        Raises InputError on missing or unknown keys, wrong shapes, NaN or infinite values, or gaussian=None.
        """
        return cls.from_weights(gblr_from_state(mapping, gaussian), straight_through=straight_through)

    @classmethod
    def from_dense(
        cls,
        linear: nn.Linear,
        blocks: int | None = None,
        rank: int = 1,
        *,
        init_width: float = 1.0,
        **options: Any,
    ) -> Self:
        """A layer whose blocks hold the leading blocks * rank singular triplets of `linear` at full width.

        Exact if blocks * rank >= min(m, n); ranks beyond that start with zero expand factors. options go to the
        constructor (gaussian, sigma, straight_through). Raises InputError if init_width is not 1: a narrower block
        would cut the matrix.
        """
        if init_width != 1.0:
            raise InputError("init_width", str(init_width), "blocks taken from a dense layer are full", "Leave it out.")
        weight = linear.weight.detach()
        has_bias = linear.bias is not None
        sizes = (linear.in_features, linear.out_features)
        layer = cls(*sizes, blocks, rank, bias=has_bias, init_width=1.0, device=weight.device, **options)
        left, values, right = torch.linalg.svd(weight.double(), full_matrices=False)
        kept = min(len(values), layer.blocks * rank)
        root = values[:kept].sqrt()
        with torch.no_grad():
            reduce = layer.lr_weight1.view(layer.blocks * rank, sizes[0])
            reduce[:kept] = (root[:, None] * right[:kept]).to(reduce.dtype)
            expand = torch.zeros(sizes[1], layer.blocks * rank, dtype=torch.float64, device=weight.device)
            expand[:, :kept] = left[:, :kept] * root
            layer.lr_weight2.copy_(expand.view(sizes[1], layer.blocks, rank).transpose(0, 1))
            if layer.bias is not None:
                layer.bias.copy_(linear.bias)
        return layer.to(weight.dtype)

    def masks(self) -> tuple[Tensor, Tensor]:
        """Masks of the inputs (K, n) and of the outputs (K, m), float32 or better, by the rules of the current mode."""
        sigma = self.sigma if self.gaussian else None
        masks = []
        # The frequency buffers belong to the layout alone: half precision would round them, so they are not read.
        for index, channels in enumerate((self.in_features, self.out_features)):
            widths, locations = self.widths[index], self.locations[index]
            if not self.training:
                masks.append(evaluation_mask(widths, locations, channels, sigma=sigma))
                continue
            if self.straight_through:
                widths, locations = snap(widths, channels), snap(locations, channels)
            masks.append(gaudi_mask(widths, locations, channels, sigma=sigma))
        return masks[0], masks[1]

    def factors(self) -> tuple[Tensor, Tensor]:
        """Masked factors u (m, K r) and v (K r, n) with W = u v, in the dtype of the parameters."""
        mask_in, mask_out = self.masks()
        v = self.lr_weight1 * mask_in.to(self.lr_weight1.dtype).unsqueeze(1)
        u = self.lr_weight2 * mask_out.to(self.lr_weight2.dtype).unsqueeze(2)
        ranks = self.blocks * self.rank
        return u.transpose(0, 1).reshape(self.out_features, ranks), v.reshape(ranks, self.in_features)

    def matrix(self) -> Tensor:
        """W (m, n) by the rules of the current mode."""
        u, v = self.factors()
        return u @ v

    @property
    def weight(self) -> Tensor:
        """W, under nn.Linear's name, for code that reads a linear layer's weight instead of calling it."""
        return self.matrix()

    def forward(self, inputs: Tensor) -> Tensor:
        """inputs (..., n) -> (..., m); goes through the factors, or builds W first, whichever multiplies less."""
        u, v = self.factors()
        tokens = inputs.numel() // self.in_features
        if factored_is_cheaper(tokens, self.out_features, self.in_features, self.blocks * self.rank):
            return functional.linear(functional.linear(inputs, v), u, self.bias)
        return functional.linear(inputs, u @ v, self.bias)

    def weights(self) -> GBLRWeights:
        """A copy of the layer's tensors."""
        return GBLRWeights(
            widths=self.widths.detach().clone(),
            locations=self.locations.detach().clone(),
            lr_weight1=self.lr_weight1.detach().clone(),
            lr_weight2=self.lr_weight2.detach().clone(),
            bias=None if self.bias is None else self.bias.detach().clone(),
            sigma=float(self.sigma),
            gaussian=self.gaussian,
        )

    def flops(self) -> int:
        """Multiplications per token in evaluation mode, as the authors' code counts them (whatever the current mode).

        `gblr_hw.weights.multiplications.hardware_multiplications` counts what the hardware runs.
        """
        return published_multiplications(self.weights())

    def extra_repr(self) -> str:
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"blocks={self.blocks}, rank={self.rank}, "
            f"gaussian={self.gaussian}, bias={self.bias is not None}"
        )


def factored_is_cheaper(tokens: int, rows: int, cols: int, ranks: int) -> bool:
    """Whether tokens * ranks * (rows + cols) is at most ranks * rows * cols + tokens * rows * cols (building W
    first).
    """
    return tokens * ranks * (rows + cols) <= (ranks + tokens) * rows * cols


def gblr_layers(model: nn.Module) -> list[GBLRLinear]:
    """The model's GBLR layers in order, those inside convolutions included."""
    return [module for module in model.modules() if isinstance(module, GBLRLinear)]
