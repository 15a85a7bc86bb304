"""MonarchLinear: two block-diagonal factors with a permutation between, in both published arrangements."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from gblr_hw.files.published_chains import monarch_from_state
from gblr_hw.layers.chain_linear import ChainLinear, block_pair
from gblr_hw.weights.chains import MonarchArrangement, MonarchWeights
from gblr_hw.weights.checks import check_positive
from simulator.base.arithmetic import ceil_div
from simulator.base.errors import InputError


class MonarchLinear(ChainLinear[MonarchWeights]):
    """``y = blkdiag2 P blkdiag1 x + bias`` (Dao et al., ICML 2022).

    Parameters
    ----------
    in_features n, out_features m: padded to a multiple of their blocks.
    blocks: blocks of outputs and of inputs, one number for both or (l, k).
    arrangement: "strided", as published: outputs of one block are l apart; "grid": l x k blocks of low rank side by
        side (`MonarchWeights`).
    values: q, what a block of the first factor gives. By default the lesser of a block's inputs and outputs, as
        published; in a grid the nearest multiple of l.
    bias: add a learned bias (m,).

    Parameters have the names and shapes of the published layout: blkdiag1 (k, q, p), blkdiag2 (l, s, r), bias (m).
    Raises InputError on sizes below 1, an unknown arrangement, and values that the blocks cannot share.
    """

    kind: ClassVar[type] = MonarchWeights
    factors: ClassVar[tuple[str, ...]] = ("blkdiag1", "blkdiag2")
    settings: ClassVar[tuple[str, ...]] = ("in_features", "out_features", "arrangement")
    blkdiag1: nn.Parameter
    blkdiag2: nn.Parameter
    arrangement: MonarchArrangement

    def __init__(
        self,
        in_features: int,
        out_features: int,
        blocks: int | tuple[int, int] = 4,
        *,
        arrangement: MonarchArrangement = "strided",
        values: int | None = None,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        for name, size in (("in_features", in_features), ("out_features", out_features)):
            check_positive(name, size)
        if arrangement not in ("strided", "grid"):
            raise InputError("arrangement", repr(arrangement), "it is 'strided' or 'grid'", "Choose one of them.")
        b_out, b_in = block_pair("blocks", blocks)
        p, s = ceil_div(in_features, b_in), ceil_div(out_features, b_out)
        if values is None:
            values = min(p, s) if arrangement == "strided" else b_out * max(1, round(min(p, s) / b_out))
        check_positive("values", values)
        shared = b_in * values if arrangement == "strided" else values
        if shared % b_out:
            rule = f"{b_out} output blocks have as many each of what {b_in} input blocks give"
            raise InputError("values", str(values), rule, "Choose another number.")
        self.in_features, self.out_features, self.arrangement = in_features, out_features, arrangement
        r = b_in * values // b_out
        shapes = {"blkdiag1": (b_in, values, p), "blkdiag2": (b_out, s, r)}
        self._make(shapes, bias, r * p, device=device, dtype=dtype)

    @classmethod
    def from_state(
        cls, mapping: Mapping[str, Tensor], *, in_features: int | None = None, out_features: int | None = None
    ) -> Self:
        """A layer from the published keys of one layer. Sizes are the factors' unless they are said, as they must be
        where inputs are padded (or outputs, of a layer without a bias).

        Raises InputError on missing or unknown keys, shapes that do not multiply, and numbers that are not finite or no
        floating point.
        """
        whole = monarch_from_state(mapping)
        m = whole.out_features if out_features is None else out_features
        n = whole.in_features if in_features is None else in_features
        return cls.from_weights(monarch_from_state(mapping, (m, n)))

    @classmethod
    @torch.no_grad()
    def from_dense(
        cls,
        linear: nn.Linear,
        blocks: int | tuple[int, int] = 4,
        *,
        arrangement: MonarchArrangement = "strided",
        values: int | None = None,
    ) -> Self:
        """The nearest layer to `linear`: each pair of blocks has its own values, which hold its singular triplets."""
        weight = linear.weight.detach()
        m, n = weight.shape
        layer = cls(
            n, m, blocks, arrangement=arrangement, values=values, bias=linear.bias is not None, device=weight.device,
            dtype=weight.dtype,
        )  # fmt: skip
        (k, q, p), (l, s, _) = layer.blkdiag1.shape, layer.blkdiag2.shape  # noqa: E741
        stored = layer.weights()
        places, channels = stored.places(), stored.channels()
        whole = functional.pad(weight.double(), (0, k * p - n, 0, l * s - m))
        for factor in (layer.blkdiag1, layer.blkdiag2):
            factor.zero_()
        for into in range(k):
            for out in range(l):
                own = torch.nonzero(places[out] // q == into)[:, 0]
                block = whole[channels[out], into * p : (into + 1) * p]
                left, values_of, right = torch.linalg.svd(block, full_matrices=False)
                kept = min(len(own), len(values_of))
                root, own = values_of[:kept].sqrt(), own[:kept]
                layer.blkdiag1[into, places[out, own] % q] = (root[:, None] * right[:kept]).to(weight.dtype)
                layer.blkdiag2[out, :, own] = (left[:, :kept] * root).to(weight.dtype)
        if layer.bias is not None:
            layer.bias.copy_(linear.bias)
        return layer

    def product(self, inputs: Tensor) -> Tensor:
        """inputs (N, n) times the matrix: (N, m)."""
        (k, q, p), (l, s, r) = self.blkdiag1.shape, self.blkdiag2.shape  # noqa: E741
        padded = functional.pad(inputs, (0, k * p - self.in_features))
        values = torch.einsum("nkp,kqp->nkq", padded.reshape(-1, k, p), self.blkdiag1)
        if self.arrangement == "strided":
            outputs = torch.einsum("nrl,lsr->nsl", values.reshape(-1, r, l), self.blkdiag2)
        else:
            shared = values.reshape(-1, k, l, q // l).transpose(1, 2).reshape(-1, l, r)
            outputs = torch.einsum("nlr,lsr->nls", shared, self.blkdiag2)
        return outputs.reshape(-1, l * s)[:, : self.out_features]
