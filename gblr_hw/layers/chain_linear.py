"""What linear layers with a matrix of several factors share: parameters named as in their files, copies, the matrix."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Generic, Self, TypeVar

import torch
from torch import Tensor, nn

from gblr_hw.weights.chains import BLASTWeights, KroneckerWeights, MonarchWeights, TensorTrainWeights
from gblr_hw.weights.checks import check_positive
from simulator.base.errors import InputError

Stored = TypeVar("Stored", BLASTWeights, MonarchWeights, KroneckerWeights, TensorTrainWeights)


class ChainLinear(nn.Module, Generic[Stored]):
    """A linear layer whose parameters are the tensors of one kind of weights, of the same names and shapes.

    A class gives ``kind``, the weights, ``factors``, the names of their tensors but the bias, and ``settings``, names
    of what else they hold; and ``product``, x times the matrix.
    """

    kind: ClassVar[type]
    factors: ClassVar[tuple[str, ...]]
    settings: ClassVar[tuple[str, ...]] = ()

    in_features: int
    out_features: int
    bias: nn.Parameter | None

    def product(self, inputs: Tensor) -> Tensor:
        """inputs (N, n) times the matrix: (N, m)."""
        raise NotImplementedError

    def forward(self, inputs: Tensor) -> Tensor:
        """inputs (..., n) -> (..., m)."""
        outputs = self.product(inputs.reshape(-1, self.in_features))
        outputs = outputs.reshape(*inputs.shape[:-1], self.out_features)
        return outputs if self.bias is None else outputs + self.bias

    def matrix(self) -> Tensor:
        """W (m, n)."""
        factor = getattr(self, self.factors[0])
        return self.product(torch.eye(self.in_features, device=factor.device, dtype=factor.dtype)).T

    @property
    def weight(self) -> Tensor:
        """W, under nn.Linear's name, for code that reads a linear layer's weight instead of calling it."""
        return self.matrix()

    def weights(self) -> Stored:
        """A copy of the layer's tensors."""
        tensors = {name: getattr(self, name).detach().clone() for name in self.factors}
        bias = None if self.bias is None else self.bias.detach().clone()
        stored: Stored = self.kind(**tensors, bias=bias, **{name: getattr(self, name) for name in self.settings})
        return stored

    @classmethod
    def from_weights(cls, weights: Stored) -> Self:
        """A layer that holds a copy of `weights`."""
        layer = cls.__new__(cls)
        nn.Module.__init__(layer)
        layer.in_features, layer.out_features = weights.in_features, weights.out_features
        for name in cls.settings:
            setattr(layer, name, getattr(weights, name))
        for name in cls.factors:
            setattr(layer, name, nn.Parameter(getattr(weights, name).detach().clone()))
        layer.bias = None if weights.bias is None else nn.Parameter(weights.bias.detach().clone())
        return layer

    def _make(self, shapes: Mapping[str, tuple[int, ...]], bias: bool, reads: int, **options: Any) -> None:
        """New parameters of these shapes and a bias, so that the matrix has the variance of nn.Linear's default, 1 / (3
        n): an output sums ``reads`` products of as many numbers as there are factors.
        """
        # All factors share the scale, so that none learns faster.
        bound = math.sqrt(3.0) * (1 / (3 * reads)) ** (0.5 / len(shapes))
        for name, shape in shapes.items():
            setattr(self, name, nn.Parameter(torch.empty(shape, **options).uniform_(-bound, bound)))
        limit = 1 / math.sqrt(self.in_features)
        self.bias = nn.Parameter(torch.empty(self.out_features, **options).uniform_(-limit, limit)) if bias else None

    def extra_repr(self) -> str:
        shapes = ", ".join(f"{name}={tuple(getattr(self, name).shape)}" for name in self.factors)
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, {shapes}, bias={self.bias is not None}"
        )


def block_pair(name: str, blocks: int | tuple[int, int]) -> tuple[int, int]:
    """Blocks of outputs and of inputs, from one number for both or a pair. Raises InputError for others."""
    return size_pair(name, blocks if isinstance(blocks, tuple | list) else (blocks, blocks))


def size_pair(name: str, sizes: tuple[int, int] | list[int]) -> tuple[int, int]:
    """Two sizes, of outputs and of inputs. Raises InputError for others and below 1."""
    if not isinstance(sizes, tuple | list) or len(sizes) != 2:
        rule = "it is a pair of whole numbers, of outputs and of inputs"
        raise InputError(name, repr(sizes), rule, f"Give it as {name}=(2, 2).")
    outputs, inputs = sizes
    check_positive(name, outputs)
    check_positive(name, inputs)
    return outputs, inputs
