"""Regrowth: between projections, tiles that the loss asks for most come back from zero."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gblr_hw.layers.lattice_linear import LatticeLinear
from gblr_hw.training.shrink.importance import part_sums
from gblr_hw.weights.structure import Structure

_PARTS = {"dense": "tiles", "v": "reads", "u": "writes"}


class OpenGradients:
    """Sums of the gradients that the parameters would have without masks, and the masking that a step needs."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}

    @torch.no_grad()
    def take(self, name: str, layer: LatticeLinear) -> None:
        """Add one step's gradients, then mask them."""
        for part in _PARTS:
            parameter = getattr(layer, part)
            if parameter is not None and parameter.grad is not None:
                key = f"{name}:{part}"
                self.sums[key] = self.sums[key] + parameter.grad if key in self.sums else parameter.grad.clone()
                parameter.grad.mul_(getattr(layer, f"{part}_mask"))


@dataclass(frozen=True, eq=False)
class _Candidate:
    """A tile that could come back: what a step would gain, and the entries of the structure's array to set."""

    gain: float
    layer: str
    array: str
    entries: tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]


def regrow(layers: Mapping[str, LatticeLinear], gradients: OpenGradients, tiles: int) -> None:
    """Bring back up to `tiles` whole tiles, the ones with the largest summed gradients, starting from zero.

    A tile is a dense one, or one chunk for as many living ranks as an array holds that do not touch it. All kinds have
    rows x cols weights, and an adaptive optimiser moves each by about the learning rate, so the sum of the gradients'
    magnitudes compares them: it is what one step gains (after Evci et al., "Rigging the lottery", ICML 2020).
    """
    found = [one for name, layer in layers.items() for one in _candidates(name, layer, gradients)]
    found.sort(key=lambda one: -one.gain)
    grown = {name: {a: getattr(layer.structure, a).copy() for a in _PARTS.values()} for name, layer in layers.items()}
    for one in found[:tiles]:
        grown[one.layer][one.array][one.entries] = True
    for name, layer in layers.items():
        layer.set_structure(layer.structure)  # what momentum moved outside goes back to zero
        layer.set_structure(Structure(**grown[name]))


def _candidates(name: str, layer: LatticeLinear, gradients: OpenGradients) -> list[_Candidate]:
    structure, found = layer.structure, []
    alive = structure.reads.any(axis=1)
    for part, array in _PARTS.items():
        if f"{name}:{part}" not in gradients.sums:
            continue
        gains = part_sums(layer, part, gradients.sums[f"{name}:{part}"].abs()).double().cpu().numpy()
        held = getattr(structure, array)
        if part == "dense":
            found += [_Candidate(gains[r, c], name, array, (r, c)) for r, c in np.argwhere(~held)]
            continue
        seats = layer.chunk_out if part == "v" else layer.chunk_in
        for chunk in range(held.shape[1]):
            absent = np.flatnonzero(~held[:, chunk] & alive)
            best = absent[np.argsort(-gains[absent, chunk], kind="stable")[:seats]]
            if len(best) == seats:
                found.append(_Candidate(gains[best, chunk].sum(), name, array, (best, np.full(seats, chunk))))
    return found
