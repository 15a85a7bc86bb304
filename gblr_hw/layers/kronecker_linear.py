"""KroneckerLinear and TensorTrainLinear: sums of Kronecker products, by term or as two cores."""

from __future__ import annotations

from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from gblr_hw.layers.chain_linear import ChainLinear, size_pair
from gblr_hw.weights.chains import KroneckerWeights, TensorTrainWeights
from gblr_hw.weights.checks import check_positive
from simulator.base.errors import InputError


class KroneckerLinear(ChainLinear[KroneckerWeights]):
    """``y = (sum_t left[t] (x) right[t]) x + bias``.

    Parameters
    ----------
    in_features n, out_features m.
    left: (m1, n1), the size of the left factors, which divides (m, n); the right ones are (m / m1, n / n1).
    terms: products in the sum.
    bias: add a learned bias (m,).

    Parameters: left (t, m1, n1), right (t, m2, n2), bias (m). Raises InputError on sizes below 1 and a left factor that
    does not divide.
    """

    kind: ClassVar[type] = KroneckerWeights
    factors: ClassVar[tuple[str, ...]] = ("left", "right")
    left: nn.Parameter
    right: nn.Parameter

    def __init__(
        self,
        in_features: int,
        out_features: int,
        left: tuple[int, int],
        terms: int = 1,
        *,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_positive("terms", terms)
        left = size_pair("left", left)
        (m1, n1), (m2, n2) = left, _right_size(in_features, out_features, left)
        self.in_features, self.out_features = in_features, out_features
        shapes = {"left": (terms, m1, n1), "right": (terms, m2, n2)}
        self._make(shapes, bias, terms * in_features, device=device, dtype=dtype)

    @classmethod
    @torch.no_grad()
    def from_dense(cls, linear: nn.Linear, left: tuple[int, int], terms: int = 1) -> Self:
        """The nearest sum of `terms` products to `linear` (Van Loan and Pitsianis, 1993)."""
        weight, has_bias = linear.weight.detach(), linear.bias is not None
        m, n = weight.shape
        layer = cls(n, m, left, terms, bias=has_bias, device=weight.device, dtype=weight.dtype)
        outer, inner = nearest_products(weight, left, terms)
        layer.left.copy_(outer.permute(2, 0, 1))
        layer.right.copy_(inner)
        if layer.bias is not None:
            layer.bias.copy_(linear.bias)
        return layer

    def product(self, inputs: Tensor) -> Tensor:
        """inputs (N, n) times the matrix: (N, m)."""
        inner = torch.einsum("njb,tab->njat", inputs.reshape(len(inputs), self.left.shape[2], -1), self.right)
        return torch.einsum("njat,tij->nia", inner, self.left).reshape(len(inputs), self.out_features)


class TensorTrainLinear(ChainLinear[TensorTrainWeights]):
    """Two cores: ``W[(i1, i2), (j1, j2)] = sum_r core1[0, i1, j1, r] core2[r, i2, j2, 0]``.

    Parameters
    ----------
    in_features n, out_features m.
    first: (m1, n1), outputs and inputs of the first core, which divide (m, n).
    rank: r between the cores.
    bias: add a learned bias (m,).

    Parameters: core1 (1, m1, n1, r), core2 (r, m2, n2, 1), bias (m). Raises InputError on sizes below 1 and a first
    core that does not divide.
    """

    kind: ClassVar[type] = TensorTrainWeights
    factors: ClassVar[tuple[str, ...]] = ("core1", "core2")
    core1: nn.Parameter
    core2: nn.Parameter

    def __init__(
        self,
        in_features: int,
        out_features: int,
        first: tuple[int, int],
        rank: int = 4,
        *,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_positive("rank", rank)
        first = size_pair("first", first)
        (m1, n1), (m2, n2) = first, _right_size(in_features, out_features, first)
        self.in_features, self.out_features = in_features, out_features
        shapes = {"core1": (1, m1, n1, rank), "core2": (rank, m2, n2, 1)}
        self._make(shapes, bias, rank * in_features, device=device, dtype=dtype)

    @classmethod
    @torch.no_grad()
    def from_dense(cls, linear: nn.Linear, first: tuple[int, int], rank: int = 4) -> Self:
        """The nearest train of this rank to `linear`."""
        weight, has_bias = linear.weight.detach(), linear.bias is not None
        m, n = weight.shape
        layer = cls(n, m, first, rank, bias=has_bias, device=weight.device, dtype=weight.dtype)
        outer, inner = nearest_products(weight, first, rank)
        layer.core1.copy_(outer[None])
        layer.core2.copy_(inner[..., None])
        if layer.bias is not None:
            layer.bias.copy_(linear.bias)
        return layer

    def product(self, inputs: Tensor) -> Tensor:
        """inputs (N, n) times the matrix: (N, m)."""
        blocks = inputs.reshape(len(inputs), self.core1.shape[2], -1)
        inner = torch.einsum("njb,rab->njar", blocks, self.core2[..., 0])
        return torch.einsum("njar,ijr->nia", inner, self.core1[0]).reshape(len(inputs), self.out_features)


def nearest_products(weight: Tensor, outer: tuple[int, int], terms: int) -> tuple[Tensor, Tensor]:
    """Left factors (m1, n1, t) and right ones (t, m2, n2) of the nearest sum of Kronecker products to a matrix: its
    blocks as rows of another matrix, and that one's leading singular triplets, zeros for what it does not have.
    """
    (m, n), (m1, n1) = weight.shape, outer
    rows = weight.double().reshape(m1, m // m1, n1, n // n1).permute(0, 2, 1, 3).reshape(m1 * n1, -1)
    left, values, right = torch.linalg.svd(rows, full_matrices=False)
    kept = min(terms, len(values))
    root = values[:kept].sqrt()
    lefts, rights = rows.new_zeros(m1 * n1, terms), rows.new_zeros(terms, rows.shape[1])
    lefts[:, :kept], rights[:kept] = left[:, :kept] * root, root[:, None] * right[:kept]
    return lefts.reshape(m1, n1, terms), rights.reshape(terms, m // m1, n // n1)


def _right_size(in_features: int, out_features: int, left: tuple[int, int]) -> tuple[int, int]:
    for name, size, part in (("out_features", out_features, left[0]), ("in_features", in_features, left[1])):
        check_positive(name, size)
        if size % part:
            raise InputError(name, str(size), f"{part}, of the first factor, divides it", "Choose another factor.")
    return out_features // left[0], in_features // left[1]
