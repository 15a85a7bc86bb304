"""Put lattice layers in the place of a network's linear layers, computing what they computed."""

from __future__ import annotations

import re
from typing import Literal

import torch
from torch import nn

from gblr_hw.layers.lattice_linear import LatticeLinear
from gblr_hw.weights.factors import Factors, structure_of
from gblr_hw.weights.structure import Structure
from simulator.base.errors import InputError

Start = Literal["block_sparse", "low_rank", "block_low_rank", "lattice"]


def linear_names(model: nn.Module, pattern: str) -> list[str]:
    """Names of the nn.Linear modules whose whole name matches a regular expression. InputError when none does."""
    names = [n for n, m in model.named_modules() if isinstance(m, nn.Linear) and re.fullmatch(pattern, n)]
    if not names:
        raise InputError(
            "layer pattern", repr(pattern), "it must match a linear layer", "List names with named_modules()."
        )
    return names


def set_module(model: nn.Module, name: str, module: nn.Module) -> None:
    """Replace the submodule called `name`."""
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)


@torch.no_grad()
def lattice_from_linear(
    linear: nn.Linear, family: Start, rows: int, cols: int, ranks: int | None = None
) -> LatticeLinear:
    """A lattice layer that starts from a dense one.

    block_sparse: all tiles dense, no ranks: exactly the same matrix. low_rank, block_low_rank, lattice: the `ranks`
    (all, if None) largest singular values, split evenly between the factors, every rank on every chunk.
    """
    m, n = linear.weight.shape
    count = 0 if family == "block_sparse" else min(m, n) if ranks is None else min(ranks, m, n)
    structure = Structure.full(m, n, count, rows, cols, dense=family == "block_sparse")
    module = LatticeLinear(n, m, structure, rows, cols, bias=linear.bias is not None, family=family).to(linear.weight)
    if module.dense is not None:
        module.dense.copy_(linear.weight)
    if count:
        left, values, right = torch.linalg.svd(linear.weight.double(), full_matrices=False)
        root = values[:count].sqrt()
        module.u.copy_(left[:, :count] * root)
        module.v.copy_(right[:count] * root[:, None])
    if module.bias is not None:
        module.bias.copy_(linear.bias)
    return module


@torch.no_grad()
def lattice_from_factors(factors: Factors, rows: int, cols: int, family: str = "lattice") -> LatticeLinear:
    """A lattice layer that computes the same as evaluated factors; ranks that touch nothing are left out.

    Entries of a touched chunk outside a rank's support start at zero and are free to grow: their tile is paid for.
    """
    structure = structure_of(factors, rows, cols)
    alive = structure.reads.any(axis=1)
    structure = Structure(structure.tiles, structure.reads[alive], structure.writes[alive])
    module = LatticeLinear(
        factors.in_features, factors.out_features, structure, rows, cols, bias=factors.bias is not None, family=family
    )
    module.u.copy_(torch.from_numpy(factors.u[:, alive]))
    module.v.copy_(torch.from_numpy(factors.v[alive]))
    if module.dense is not None and factors.dense is not None:
        module.dense.copy_(torch.from_numpy(factors.dense))
    if module.bias is not None and factors.bias is not None:
        module.bias.copy_(torch.from_numpy(factors.bias))
    return module
