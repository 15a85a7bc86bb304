"""GBLRConv2d: a drop-in for nn.Conv2d in the two published arrangements."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from gblr_hw.files.published import layers_from_state
from gblr_hw.layers.linear import GBLRLinear, factored_is_cheaper
from gblr_hw.weights.checks import check_positive
from gblr_hw.weights.multiplications import published_multiplications
from gblr_hw.weights.stored import Arrangement, ConvWeights
from simulator.base.errors import InputError

Pair = int | tuple[int, int]


def _pair(name: str, value: Pair, least: int) -> tuple[int, int]:
    pair = (value, value) if isinstance(value, int) else tuple(value)
    if len(pair) != 2 or min(pair) < least:
        raise InputError(name, repr(value), f"it is one or two integers of at least {least}", "Correct it.")
    return pair


class GBLRConv2d(nn.Module):
    """A 2-D convolution whose kernel is GBLR. inputs (B, ic, H, W) -> (B, oc, H', W'), as nn.Conv2d.

    Parameters
    ----------
    in_channels ic, out_channels oc, kernel_size (k1, k2), stride, padding (also "same", "valid"), dilation, bias: as
    nn.Conv2d; groups must be 1 and padding_mode "zeros".
    arrangement: "positions" has one GBLR layer (oc x ic) per kernel position, in `gaudi_modules`, whose outputs are
    summed; "unfolded" has one (oc x (k1 k2 ic)) in `gaudi_module`, its inputs in (k1, k2, ic) order.
    blocks, rank, gaussian, straight_through, sigma, init_width: of each such layer, as GBLRLinear.

    State dict names are the published ones. Raises InputError on groups or padding modes that are not supported, and
    bad sizes.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Pair,
        stride: Pair = 1,
        padding: Pair | str = 0,
        dilation: Pair = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        *,
        arrangement: Arrangement = "unfolded",
        blocks: int | None = None,
        rank: int = 1,
        gaussian: bool = True,
        straight_through: bool = True,
        sigma: float = 100.0,
        init_width: float = 0.5,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_positive("in_channels", in_channels)
        check_positive("out_channels", out_channels)
        for name, value, allowed in (("groups", groups, 1), ("padding_mode", padding_mode, "zeros")):
            if value != allowed:
                raise InputError(
                    name, repr(value), f"a GBLR convolution has {name}={allowed!r}", "Keep nn.Conv2d there."
                )
        if arrangement not in ("positions", "unfolded"):
            raise InputError("arrangement", repr(arrangement), "it is 'positions' or 'unfolded'", "Choose one of them.")
        if isinstance(padding, str) and padding not in ("same", "valid"):
            raise InputError("padding", repr(padding), "as a word it is 'same' or 'valid'", "Or give integers.")
        self.in_channels, self.out_channels = in_channels, out_channels
        self.kernel_size = _pair("kernel_size", kernel_size, 1)
        self.stride, self.dilation = _pair("stride", stride, 1), _pair("dilation", dilation, 1)
        self.padding = padding if isinstance(padding, str) else _pair("padding", padding, 0)
        self.arrangement: Arrangement = arrangement
        positions = self.kernel_size[0] * self.kernel_size[1]

        def part(inputs: int) -> GBLRLinear:
            return GBLRLinear(
                inputs, out_channels, blocks, rank, gaussian=gaussian, bias=False, straight_through=straight_through,
                sigma=sigma, init_width=init_width, device=device, dtype=dtype,
            )  # fmt: skip

        if arrangement == "positions":
            self.gaudi_modules = nn.ModuleList(part(in_channels) for _ in range(positions))
        else:
            self.gaudi_module = part(positions * in_channels)
        self.bias = nn.Parameter(torch.empty(out_channels, device=device, dtype=dtype)) if bias else None
        self._reset_sums(positions)

    def _reset_sums(self, positions: int) -> None:
        # The positions' outputs are summed: each drew its factors for its own ic inputs, the sum has k1 k2 ic of them.
        limit = 1 / math.sqrt(positions * self.in_channels)
        with torch.no_grad():
            if self.arrangement == "positions":
                for part in self.parts:
                    part.lr_weight1.div_(math.sqrt(positions))
            if self.bias is not None:
                self.bias.uniform_(-limit, limit)

    @property
    def parts(self) -> tuple[GBLRLinear, ...]:
        """The GBLR layers: one per kernel position in row-major order, or the single unfolded one."""
        if self.arrangement == "positions":
            return tuple(part for part in self.gaudi_modules if isinstance(part, GBLRLinear))
        return (self.gaudi_module,)

    @classmethod
    def from_weights(
        cls,
        weights: ConvWeights,
        *,
        stride: Pair = 1,
        padding: Pair | str = 0,
        dilation: Pair = 1,
        straight_through: bool = True,
    ) -> Self:
        """A convolution that holds a copy of `weights`."""
        first = weights.parts[0]
        layer = cls(
            weights.in_channels, weights.out_channels, weights.kernel, stride, padding, dilation,
            bias=weights.bias is not None, arrangement=weights.arrangement, blocks=first.blocks, rank=first.rank,
        )  # fmt: skip
        parts = [GBLRLinear.from_weights(part, straight_through=straight_through) for part in weights.parts]
        if layer.arrangement == "positions":
            layer.gaudi_modules = nn.ModuleList(parts)
        else:
            layer.gaudi_module = parts[0]
        if layer.bias is not None and weights.bias is not None:
            layer.bias = nn.Parameter(weights.bias.detach().clone())
        return layer

    @classmethod
    def from_state(
        cls,
        mapping: Mapping[str, Tensor],
        *,
        gaussian: bool | None,
        kernel_size: Pair,
        stride: Pair = 1,
        padding: Pair | str = 0,
        dilation: Pair = 1,
        straight_through: bool = True,
    ) -> Self:
        """A convolution from the published keys of one layer (``gaudi_modules.0.widths`` ... or ``gaudi_module.widths``
        ...).

        gaussian, kernel_size, stride, padding and dilation are not in the file. Raises InputError on keys that are no
        such convolution, malformed tensors, or gaussian=None.
        """
        kernel = _pair("kernel_size", kernel_size, 1)
        layers, _ = layers_from_state(
            {f"layer.{key}": tensor for key, tensor in mapping.items()}, gaussian, {"layer": kernel}
        )
        weights = layers["layer"]
        if not isinstance(weights, ConvWeights):
            raise InputError(
                "convolution",
                f"keys {', '.join(sorted(mapping)[:3])} ...",
                "a published convolution has keys 'gaudi_modules.<i>.widths' or 'gaudi_module.widths'",
                "Use GBLRLinear.from_state for a linear layer.",
            )
        options = {"stride": stride, "padding": padding, "dilation": dilation}
        return cls.from_weights(weights, straight_through=straight_through, **options)  # type: ignore[arg-type]

    def kernel(self) -> Tensor:
        """The kernel (oc, ic, k1, k2) by the rules of the current mode."""
        return self._as_kernel(torch.cat([part.matrix() for part in self.parts], dim=1))

    @property
    def weight(self) -> Tensor:
        """The kernel, under nn.Conv2d's name."""
        return self.kernel()

    def _as_kernel(self, matrix: Tensor) -> Tensor:
        # Both arrangements have, side by side, k1 k2 groups of ic columns.
        return matrix.reshape(matrix.shape[0], *self.kernel_size, self.in_channels).permute(0, 3, 1, 2)

    def forward(self, inputs: Tensor) -> Tensor:
        if self.arrangement == "unfolded":
            u, v = self.gaudi_module.factors()
            # A stride only skips positions; how many outputs padding adds hardly matters for the choice.
            outputs = inputs[..., :1, :, :].numel() // (self.stride[0] * self.stride[1])
            if factored_is_cheaper(outputs, self.out_channels, v.shape[1], v.shape[0]):
                reduced = functional.conv2d(inputs, self._as_kernel(v), None, self.stride, self.padding, self.dilation)
                return functional.conv2d(reduced, u[:, :, None, None], self.bias)
            kernel = self._as_kernel(u @ v)
        else:
            kernel = self.kernel()
        return functional.conv2d(inputs, kernel, self.bias, self.stride, self.padding, self.dilation)

    def weights(self) -> ConvWeights:
        """A copy of the layer's tensors."""
        return ConvWeights(
            parts=tuple(part.weights() for part in self.parts),
            arrangement=self.arrangement,
            kernel=self.kernel_size,
            in_channels=self.in_channels,
            out_channels=self.out_channels,
            bias=None if self.bias is None else self.bias.detach().clone(),
        )

    def flops(self) -> int:
        """Multiplications per output position, as `GBLRLinear.flops`."""
        return published_multiplications(self.weights())

    def extra_repr(self) -> str:
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}, "
            f"padding={self.padding}, dilation={self.dilation}, arrangement={self.arrangement!r}"
        )
