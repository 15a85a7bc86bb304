"""Put lattice layers in the place of a network's linear layers, computing what they computed."""

from __future__ import annotations

import re

import torch
from torch import nn

from gblr_hw.layers.lattice_linear import LatticeLinear
from gblr_hw.weights.factors import Factors, structure_of
from gblr_hw.weights.structure import Structure
from simulator.base.errors import InputError


def matching_linears(model: nn.Module, pattern: str) -> list[str]:
    """Names of the nn.Linear modules whose whole name matches a regular expression. InputError when none does."""
    names = [n for n, m in model.named_modules() if isinstance(m, nn.Linear) and re.fullmatch(pattern, n)]
    if not names:
        raise InputError(
            "layer pattern", repr(pattern), "it must match a linear layer", "List names with named_modules()."
        )
    return names


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
