"""What each part of a lattice layer is worth, by first order: how much the loss would feel it go."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from gblr_hw.layers.lattice_linear import LatticeLinear
from gblr_hw.projection.projection import Importance
from gblr_hw.weights.family import UNITS, Unit, complete
from simulator.base.arithmetic import ceil_div


class GroupScores:
    """Sums, over training steps, of the squared directional derivative towards removing each part.

    Removing a dense tile, or a rank's reading or writing of a chunk, moves all its weights to zero at once, so the
    loss feels sum(gradient * weight) over the part; its square, averaged over batches, is the part's term of the
    empirical Fisher matrix. Squaring entry by entry instead would treat the weights of a part as if they went one
    without the other: it overrates parts whose entries cancel, by a different factor for tiles than for ranks. A layer
    that loses whole ranks or chunks of rank groups is scored by these, and its ranks get even shares.
    """

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}

    @torch.no_grad()
    def add(self, name: str, layer: LatticeLinear) -> None:
        """Take in the gradients of one step."""
        for part in ("u", "v", "dense"):
            parameter = getattr(layer, part)
            if parameter is not None and parameter.grad is not None:
                felt = part_sums(layer, part, parameter.grad * parameter)
                score, key = _square_together(layer, part, felt), f"{name}:{part}"
                self.sums[key] = self.sums[key] + score if key in self.sums else score

    def importance(self, name: str, layer: LatticeLinear) -> Importance:
        """The sums of a layer, zero where nothing was taken in."""

        def of(part: str, like: Tensor) -> Any:
            return self.sums.get(f"{name}:{part}", torch.zeros(like.shape)).double().cpu().numpy()

        return Importance(of("dense", layer.tiles), of("v", layer.reads), of("u", layer.writes))

    def clear(self) -> None:
        self.sums.clear()


def _alone(felt: Tensor, size: int) -> Tensor:
    """Each part of a rank goes by itself."""
    return felt.square()


def _whole_ranks(felt: Tensor, size: int) -> Tensor:
    """All parts of a rank go together."""
    return (felt.sum(dim=1, keepdim=True).square() / felt.shape[1]).expand_as(felt)


def _whole_groups(felt: Tensor, size: int) -> Tensor:
    """A part goes with the same part of the other ranks of its group, `size` of them."""
    padded = nn.functional.pad(felt, (0, 0, 0, -len(felt) % size)).unflatten(0, (-1, size))
    shares = (padded.sum(dim=1, keepdim=True).square() / size).expand_as(padded)
    return shares.flatten(0, 1)[: len(felt)]


# (what the loss feels of each rank's part (K, chunks), ranks of a group) -> its score, by what goes at a time.
_SQUARES: Mapping[Unit, Callable[[Tensor, int], Tensor]] = complete(
    {"tile": _alone, "rank": _whole_ranks, "rank_group": _whole_groups, "chunk": _alone}, UNITS, "unit"
)


def _square_together(layer: LatticeLinear, part: str, felt: Tensor) -> Tensor:
    # Dense tiles go one by one whatever the ranks do.
    return _alone(felt, 1) if part == "dense" else _SQUARES[layer.unit](felt, layer.chunk_in)


def part_sums(layer: LatticeLinear, part: str, values: Tensor) -> Tensor:
    """Sum what is shaped like a parameter over its parts: v (K, C), u (K, R), dense (R, C)."""
    if part == "v":
        return _chunk_sums(values, layer.chunk_in)
    if part == "u":
        return _chunk_sums(values.T, layer.chunk_out)
    return _chunk_sums(_chunk_sums(values, layer.chunk_in).T, layer.chunk_out).T


def _chunk_sums(values: Tensor, chunk: int) -> Tensor:
    """Sum (K, channels) over chunks of channels: (K, ceil(channels / chunk))."""
    count = ceil_div(values.shape[1], chunk)
    padded = nn.functional.pad(values, (0, count * chunk - values.shape[1]))
    return padded.view(values.shape[0], count, chunk).sum(dim=2)
