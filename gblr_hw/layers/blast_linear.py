"""BLASTLinear: shared bases of input and output blocks, and a diagonal for each pair of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from gblr_hw.files.published_chains import blast_from_state
from gblr_hw.layers.chain_linear import ChainLinear, block_pair
from gblr_hw.weights.chains import BLASTWeights
from gblr_hw.weights.checks import check_positive
from simulator.base.errors import InputError


class BLASTLinear(ChainLinear[BLASTWeights]):
    """``y_i = B_i sum_j D_ij * (C_j x_j) + bias_i`` (Lee et al., NeurIPS 2024).

    Parameters
    ----------
    in_features n, out_features m.
    blocks: blocks of outputs and of inputs, one number for both or (b_out, b_in); they divide m and n.
    rank: r, columns of every basis.
    bias: add a learned bias (m,).

    Parameters have the names and shapes of the published layout: B (b_out, m / b_out, r), C (b_in, r, n / b_in), D
    (b_out, b_in, r), bias (m). Raises InputError on sizes below 1 and blocks that do not divide.
    """

    kind: ClassVar[type] = BLASTWeights
    factors: ClassVar[tuple[str, ...]] = ("B", "C", "D")
    B: nn.Parameter
    C: nn.Parameter
    D: nn.Parameter

    def __init__(
        self,
        in_features: int,
        out_features: int,
        blocks: int | tuple[int, int] = 4,
        rank: int = 16,
        *,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        for name, size in (("in_features", in_features), ("out_features", out_features), ("rank", rank)):
            check_positive(name, size)
        b_out, b_in = block_pair("blocks", blocks)
        for count, name, size in ((b_out, "out_features", out_features), (b_in, "in_features", in_features)):
            if size % count:
                raise InputError(name, str(size), f"{count} blocks divide it", "Choose another number of blocks.")
        self.in_features, self.out_features = in_features, out_features
        shapes = {
            "B": (b_out, out_features // b_out, rank),
            "C": (b_in, rank, in_features // b_in),
            "D": (b_out, b_in, rank),
        }
        self._make(shapes, bias, rank * in_features, device=device, dtype=dtype)

    @classmethod
    def from_state(cls, mapping: Mapping[str, Tensor]) -> Self:
        """A layer from the published keys of one layer. Raises InputError on missing or unknown keys, shapes that do
        not multiply, and numbers that are not finite or no floating point.
        """
        return cls.from_weights(blast_from_state(mapping))

    @classmethod
    @torch.no_grad()
    def from_dense(cls, linear: nn.Linear, blocks: int | tuple[int, int] = 4, rank: int = 16) -> Self:
        """A layer with the leading `rank` singular triplets of `linear`, all diagonals one: exact if there are no more.

        `gblr_hw.convert` finds better ones, which use their diagonals.
        """
        weight = linear.weight.detach()
        has_bias = linear.bias is not None
        m, n = weight.shape
        layer = cls(n, m, blocks, rank, bias=has_bias, device=weight.device, dtype=weight.dtype)
        left, values, right = torch.linalg.svd(weight.double(), full_matrices=False)
        kept = min(rank, len(values))
        root = values[:kept].sqrt()
        for factor in (layer.B, layer.C):
            factor.zero_()
        (b_out, p, _), (b_in, _, q) = layer.B.shape, layer.C.shape
        layer.B[..., :kept] = (left[:, :kept] * root).reshape(b_out, p, kept).to(weight.dtype)
        right = (root[:, None] * right[:kept]).reshape(kept, b_in, q)
        layer.C[:, :kept] = right.permute(1, 0, 2).to(weight.dtype)
        layer.D.fill_(1.0)
        if layer.bias is not None:
            layer.bias.copy_(linear.bias)
        return layer

    def product(self, inputs: Tensor) -> Tensor:
        """inputs (N, n) times the matrix: (N, m)."""
        inner = torch.einsum("njp,jrp->njr", inputs.reshape(len(inputs), len(self.C), -1), self.C)
        outer = torch.einsum("njr,ijr->nir", inner, self.D)
        return torch.einsum("nir,ipr->nip", outer, self.B).reshape(len(inputs), self.out_features)
