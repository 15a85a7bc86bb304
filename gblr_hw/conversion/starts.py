"""Layers that training begins with: lattice layers near a dense one, with everything that a family may keep."""

from __future__ import annotations

import torch
from torch import nn

from gblr_hw.layers.lattice_linear import LatticeLinear
from gblr_hw.weights.structure import Structure


@torch.no_grad()
def tiles_start(linear: nn.Linear, family: str, rows: int, cols: int) -> LatticeLinear:
    """All tiles dense, no ranks: exactly the same matrix."""
    m, n = linear.weight.shape
    layer = _empty(linear, family, Structure.full(m, n, 0, rows, cols, dense=True), rows, cols)
    assert layer.dense is not None
    layer.dense.copy_(linear.weight)
    return layer


@torch.no_grad()
def ranks_start(linear: nn.Linear, family: str, rows: int, cols: int, ranks: int | None = None) -> LatticeLinear:
    """The `ranks` largest singular values (all, if None), split evenly between the factors: every rank on every
    chunk.
    """
    m, n = linear.weight.shape
    count = min(m, n) if ranks is None else min(ranks, m, n)
    layer = _empty(linear, family, Structure.full(m, n, count, rows, cols), rows, cols)
    left, values, right = torch.linalg.svd(linear.weight.double(), full_matrices=False)
    root = values[:count].sqrt()
    layer.u.copy_(left[:, :count] * root)
    layer.v.copy_(right[:count] * root[:, None])
    return layer


def _empty(linear: nn.Linear, family: str, structure: Structure, rows: int, cols: int) -> LatticeLinear:
    """A layer of the structure with the dense one's bias, type and place, and factors that are to be filled."""
    m, n = linear.weight.shape
    layer = LatticeLinear(n, m, structure, rows, cols, bias=linear.bias is not None, family=family).to(linear.weight)
    if layer.bias is not None:
        layer.bias.copy_(linear.bias)
    return layer
