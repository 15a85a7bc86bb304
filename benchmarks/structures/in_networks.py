"""Families of structures in place of a whole network's dense layers, with random weights: for costs, not values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from analysis.pictures.family_marks import REFERENCE
from benchmarks.structures.formats import Case, formats
from gblr_hw.frontend.export import ExportedNetwork, export_network
from gblr_hw.frontend.put_weights import put_layers
from gblr_hw.frontend.random_gblr import random_blocks
from gblr_hw.weights.stored import DenseWeights, LayerWeights
from simulator import Machine

BLOCKS = (4, 3, 2)  # of Monarch and BLAST: the first that divides both sides of a layer
OF_THE_ARRAY = ("low rank", "block sparse", "lattice")  # whose chunks are an array's; others are the same for all


def in_family(
    weights: Mapping[str, LayerWeights], family: str, machine: Machine, share: float
) -> dict[str, LayerWeights]:
    """Dense layers that blocks divide, in a family with ``share`` of their multiplications; the others as they are."""
    torch.manual_seed(0)
    found = dict(weights)
    for name, held in weights.items():
        if not isinstance(held, DenseWeights) or family == REFERENCE:
            continue
        outputs, inputs = held.weight.shape
        blocks = next((count for count in BLOCKS if outputs % count == inputs % count == 0), None)
        rank = round(share * outputs * inputs / (outputs + inputs))
        if blocks is None or rank < blocks:
            continue
        if family == "GBLR":
            made: LayerWeights = random_blocks(inputs, outputs, share, torch.Generator().manual_seed(0))
        else:
            made = formats(Case(name, inputs, outputs, 1, blocks, rank), machine)[family]()
        found[name] = replace(made, bias=held.bias)  # type: ignore[type-var]
    return found


def exported_in_family(
    model: nn.Module,
    inputs: tuple[Tensor, ...],
    dense: Mapping[str, LayerWeights],
    family: str,
    machine: Machine,
    share: float,
) -> ExportedNetwork:
    """A network, whose weights are ``dense``, with a family in their places. The model's own layers are replaced."""
    made = {key: held for key, held in in_family(dense, family, machine, share).items() if held is not dense[key]}
    # Modules where there is one: the export then knows in which order its outputs are best stored.
    own = {key: held for key, held in made.items() if _is_product(model, key)}
    put_layers(model, own, family)
    exported = export_network(model, inputs)
    others = {key: held for key, held in made.items() if key not in own}
    return replace(exported, weights={**exported.weights, **others})


def _is_product(model: nn.Module, name: str) -> bool:
    """Whether a module of that name is a matrix: a patch embedding's convolution is none."""
    weight = getattr(dict(model.named_modules()).get(name), "weight", None)
    return weight is not None and weight.dim() == 2
