"""How many ranks touch each chunk: exactly, from evaluated masks, and smoothly, from widths and locations."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from gblr_hw.cost.gaussian_support import gaussian_support
from gblr_hw.layers.linear import GBLRLinear
from gblr_hw.lowering.passes.group_ranks import group_numbers
from gblr_hw.weights.mask import evaluation_interval
from simulator.machine.machine import Machine
from simulator.program.operations import TILE_OPS, Op

# A Gaussian-blurred edge falls below the evaluation threshold of 1e-3 this many standard deviations outside the
# interval.
_EDGE_SIGMAS = 3.09
# Ends are evaluated at whole channels: an overlap of less than this, in channels, is rounded to none.
_ROUNDED_AWAY = 0.5
# How far behind the outermost of a group's ends others begin to share its gradient, in transitions of a touch.
_NEAR_AN_END = 0.5


def _nothing() -> Tensor:
    return torch.zeros(())


@dataclass(frozen=True)
class LayerCounts:
    """What the closed form needs of a layer, as tensors. C input chunks, R output chunks; ranks, not blocks.

    reading (C,), writing (R,): ranks per chunk. reduce_tiles, expand_tiles: (C,), (R,) tiles per chunk. dense_tiles:
    scalar. chunks_read: scalar, input chunks that any tile reads. ranks: ranks alive. Scalars of ranks that are mixed:
    MIX tiles, their lanes that read and that write, and ranks that lie where others lay. Stored weights, scalars by
    kind of tile: reduce_weights, expand_weights, dense_weights, mix_weights.
    """

    reading: Tensor
    writing: Tensor
    reduce_tiles: Tensor
    expand_tiles: Tensor
    dense_tiles: Tensor
    chunks_read: Tensor
    ranks: Tensor
    reduce_weights: Tensor
    expand_weights: Tensor
    dense_weights: Tensor = field(default_factory=_nothing)
    mix_weights: Tensor = field(default_factory=_nothing)
    mix_tiles: Tensor = field(default_factory=_nothing)
    mix_reading: Tensor = field(default_factory=_nothing)
    mix_writing: Tensor = field(default_factory=_nothing)
    sharing: Tensor = field(default_factory=_nothing)

    def tiles_of(self, kind: Op) -> Tensor:
        """Tiles of a kind, a scalar."""
        found: Tensor = getattr(self, f"{kind.name.lower()}_tiles")
        return found.sum()

    def weights_of(self, kind: Op) -> Tensor:
        """Stored weights of tiles of a kind, a scalar."""
        found: Tensor = getattr(self, f"{kind.name.lower()}_weights")
        return found

    @property
    def weights(self) -> Tensor:
        """Stored weights of all tiles, a scalar."""
        return torch.stack([self.weights_of(kind) for kind in TILE_OPS]).sum()


@dataclass(frozen=True)
class PlacedLayer:
    """A GBLR layer inside a layer's input: its inputs begin at channel ``offset`` of ``in_features``."""

    layer: GBLRLinear
    offset: int
    in_features: int


@dataclass(frozen=True)
class Sides:
    """Touches and lengths of both sides, one row a rank: (K, C), (K, R), (K,), (K,)."""

    reads: Tensor
    writes: Tensor
    read_length: Tensor
    write_length: Tensor


def exact_sides(parts: tuple[PlacedLayer, ...], rows: int, cols: int) -> Sides:
    """Touches (0 or 1) and support sizes of the evaluated masks; a rank with an empty side touches nothing."""
    found = []
    with torch.no_grad():
        for part in parts:
            layer = part.layer
            reads, read_length = _exact_side(layer, 0, part.offset, part.in_features, rows)
            writes, write_length = _exact_side(layer, 1, 0, layer.out_features, cols)
            alive = ((read_length > 0) & (write_length > 0)).float()
            columns = (reads * alive[:, None], writes * alive[:, None], read_length * alive, write_length * alive)
            found.append(tuple(t.float().repeat_interleave(layer.rank, dim=0) for t in columns))
    return Sides(*(torch.cat(column) for column in zip(*found, strict=True)))


def _exact_side(layer: GBLRLinear, index: int, offset: int, channels: int, side: int) -> tuple[Tensor, Tensor]:
    """Touches (K, chunks) of one side of a layer that begins at `offset` of `channels`, and support sizes (K,)."""
    widths, locations = layer.widths[index].detach(), layer.locations[index].detach()
    cycle = layer.out_features if index else layer.in_features
    counts, starts = evaluation_interval(widths, locations, cycle)
    first, last = _chunk_bounds(channels, side, counts)
    low, high = (first - offset).clamp(min=0), (last - offset).clamp(max=cycle)
    if layer.gaussian:
        return gaussian_support(cycle, float(layer.sigma)).touches(counts, starts, low, high)
    # Either the chunk begins inside the interval, or the interval inside the chunk.
    inside = torch.remainder(low - starts[:, None], cycle) < counts[:, None]
    around = torch.remainder(starts[:, None] - low, cycle) < high - low
    return (inside | around) & (low < high) & (counts[:, None] > 0), counts.clamp(max=cycle)


def smooth_sides(parts: tuple[PlacedLayer, ...], rows: int, cols: int, softness: float) -> Sides:
    """The same as differentiable functions of widths and locations.

    A chunk is touched as its overlap with the interval, in channels, passes through a sigmoid of scale ``softness``
    chunks; a side of length L counts as alive by 1 - exp(-L), so that the gradient at width 0 is not zero.
    """
    found = []
    for part in parts:
        layer = part.layer
        sigma = float(layer.sigma) if layer.gaussian else None
        reach_in, length_in = _reach(layer.widths[0], layer.in_features, sigma)
        reach_out, length_out = _reach(layer.widths[1], layer.out_features, sigma)
        alive = -torch.expm1(-length_in) * -torch.expm1(-length_out)
        chunks_in = _chunk_bounds(part.in_features, rows, length_in)
        chunks_out = _chunk_bounds(layer.out_features, cols, length_out)
        start_in = layer.locations[0] * layer.in_features - (reach_in - length_in) / 2
        start_out = layer.locations[1] * layer.out_features - (reach_out - length_out) / 2
        reads = _touch(start_in, reach_in, layer.in_features, part.offset, chunks_in, softness * rows) * alive[:, None]
        writes = _touch(start_out, reach_out, layer.out_features, 0, chunks_out, softness * cols) * alive[:, None]
        columns = (reads, writes, reach_in * alive, reach_out * alive)
        found.append(tuple(t.repeat_interleave(layer.rank, dim=0) for t in columns))
    return Sides(*(torch.cat(column) for column in zip(*found, strict=True)))


def _reach(widths: Tensor, channels: int, sigma: float | None) -> tuple[Tensor, Tensor]:
    """Length that the evaluated mask covers, blurred edges included, and the interval's own length; both in channels,
    (K,).
    """
    length = widths.to(torch.promote_types(widths.dtype, torch.float32)).clamp(0, 1) * channels
    if sigma is None:
        return length, length
    edge = _EDGE_SIGMAS * channels / (2 * math.pi * sigma)
    return (length + 2 * edge * -torch.expm1(-length)).clamp(max=channels), length


def _chunk_bounds(channels: int, side: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """First channels of all chunks, and the channels after their last ones."""
    first = torch.arange(0, channels, side, device=like.device, dtype=like.dtype)
    return first, (first + side).clamp(max=channels)


def _touch(
    start: Tensor, length: Tensor, cycle: int, offset: int, chunks: tuple[Tensor, Tensor], scale: float
) -> Tensor:
    """Smooth touch (K, chunks) of the cyclic interval [start, start + length) of ``cycle`` channels at ``offset``."""
    low, high = (chunks[0] - offset).clamp(min=0), (chunks[1] - offset).clamp(max=cycle)
    centre = (start + length / 2)[:, None] - (low + high) / 2
    distance = torch.remainder(centre + cycle / 2, cycle) - cycle / 2
    overlap = (length[:, None] + (high - low)) / 2 - distance.abs() - _ROUNDED_AWAY
    return torch.sigmoid(overlap / scale) * (low < high)


def exact_ceil(x: Tensor) -> Tensor:
    """Whole tiles."""
    return torch.ceil(x)


def smooth_ceil(x: Tensor) -> Tensor:
    """A smooth stand-in for ceil: 0 at 0, x + 1/2 (ceil's mean) for larger x, steepest at 0, where a whole tile can be
    saved.
    """
    return x - torch.expm1(-4.0 * x) / 2


def exact_counts(sides: Sides, machine: Machine) -> LayerCounts:
    """Counts for a machine, of touches that are 0 or 1: ranks packed by chunk, or in the groups that lowering makes."""
    if machine.scatter:
        return count_scattered(sides, machine.rows, machine.cols, smooth=False)
    return count_grouped(sides, lowering_groups(sides, machine.group_size), smooth=False)


def both_counts(exact: Sides, smooth: Sides, machine: Machine) -> tuple[LayerCounts, LayerCounts]:
    """Exact counts, and differentiable ones of the same ranks; where ranks are grouped, of the same groups."""
    if machine.scatter:
        rows, cols = machine.rows, machine.cols
        return count_scattered(exact, rows, cols, smooth=False), count_scattered(smooth, rows, cols, smooth=True)
    groups = lowering_groups(exact, machine.group_size)
    return count_grouped(exact, groups, smooth=False), count_grouped(smooth, groups, smooth=True)


def count_scattered(sides: Sides, rows: int, cols: int, *, smooth: bool) -> LayerCounts:
    """Counts for a machine that packs the ranks of each chunk."""
    ceil = smooth_ceil if smooth else exact_ceil
    reading, writing = sides.reads.sum(0), sides.writes.sum(0)
    return _counts(sides, reading, writing, ceil(reading / cols), ceil(writing / rows), smooth=smooth)


def count_grouped(sides: Sides, groups: Tensor, *, smooth: bool) -> LayerCounts:
    """Counts for a plain machine. groups (groups, most): the ranks of each group, -1 behind its last one.

    A group runs a tile for every chunk that any of its ranks touches: smoothly, the furthest reaching rank decides, and
    those whose ends lie close behind its end share its gradient.
    """
    tiles = []
    for side in (sides.reads, sides.writes):
        members = torch.where((groups >= 0)[..., None], side[groups.clamp(min=0)], 0.0)
        tiles.append((_soft_union(members) if smooth else members.amax(dim=1)).sum(0))
    return _counts(sides, sides.reads.sum(0), sides.writes.sum(0), tiles[0], tiles[1], smooth=smooth)


def _soft_union(members: Tensor) -> Tensor:
    """Touches (groups, chunks) by any of the ranks (groups, most, chunks): the soft maximum of how far the ranks reach
    into a chunk, which touches are the sigmoid of.
    """
    reach = torch.logit(members, eps=1e-6)
    return torch.sigmoid(_NEAR_AN_END * torch.logsumexp(reach / _NEAR_AN_END, dim=1))


def lowering_groups(sides: Sides, group_size: int) -> Tensor:
    """The ranks of each group that lowering makes of exact touches, (groups, group_size), -1 behind the last ones.
    Ranks that touch nothing are in none.
    """
    touch = torch.cat([sides.reads, sides.writes], dim=1).bool().cpu().numpy()
    alive = np.flatnonzero(touch.any(axis=1))
    group = group_numbers(touch[alive], group_size)
    order = np.argsort(group, kind="stable")
    found = np.full((int(group.max(initial=-1)) + 1, group_size), -1)
    place = np.arange(len(order)) - np.searchsorted(group[order], group[order])
    found[group[order], place] = alive[order]
    return torch.as_tensor(found, device=sides.reads.device)


def _counts(
    sides: Sides, reading: Tensor, writing: Tensor, reduce_tiles: Tensor, expand_tiles: Tensor, *, smooth: bool
) -> LayerCounts:
    alive = sides.reads.amax(dim=1) if len(sides.reads) else sides.reads.sum(1)
    read = -torch.expm1(-reading) if smooth else (reading > 0).float()
    zero = reading.new_zeros(())
    return LayerCounts(
        reading=reading,
        writing=writing,
        reduce_tiles=reduce_tiles,
        expand_tiles=expand_tiles,
        dense_tiles=zero,
        chunks_read=read.sum(),
        ranks=alive.sum(),
        reduce_weights=sides.read_length.sum(),
        expand_weights=sides.write_length.sum(),
    )
