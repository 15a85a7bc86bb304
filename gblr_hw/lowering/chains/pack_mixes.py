"""Mixes become MIX tiles: blocks of ranks that are mixed into each other, as many to a tile as have room.

Mixes into ranks of one level and turn run together, behind those of the levels before. Ranks that edges connect make a
block. A block that fits the array shares a tile with others, along the diagonal; a larger one is cut into parts of P x
Q, whose sums add up in rank memory. What a tile writes takes the places of what it reads, where nobody reads that
again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from gblr_hw.lowering.passes.plan import LayerPlan, RankTiles, filled, no_tiles
from gblr_hw.weights.factors import Factors
from gblr_hw.weights.mixes import mix_levels
from simulator.program.operations import Op

_OPEN_TILES = 64  # that a block is tried in, the latest ones


@dataclass
class _Tile:
    """A tile that is being filled: ranks read and written, and the blocks that they come from."""

    reads: list[np.ndarray] = field(default_factory=list)
    writes: list[np.ndarray] = field(default_factory=list)
    blocks: set[int] = field(default_factory=set)
    read: int = 0
    written: int = 0


@dataclass(frozen=True, eq=False)
class _Part:
    """Ranks of block ``block`` that one tile reads and writes."""

    block: int
    reads: np.ndarray
    writes: np.ndarray


def pack_mixes(plan: LayerPlan) -> LayerPlan:
    """Fill in rank_tiles with the MIX tiles, level by level, and shares."""
    factors, machine = plan.factors, plan.machine
    if len(factors.mix_source) == 0:
        return filled(plan, rank_tiles=no_tiles(), shares=np.zeros(0, np.int64))
    level = mix_levels(factors.ranks, factors.mix_source, factors.mix_target)[factors.mix_target]
    turn = plan.turn_of[factors.mix_target]
    tiles: list[_Tile] = []
    for now, one in np.unique(np.stack([turn, level]), axis=1).T:
        edges = (turn == now) & (level == one)
        parts = _parts(factors.mix_source[edges], factors.mix_target[edges], machine.rows, machine.cols)
        tiles += _packed(parts, machine.rows, machine.cols)
    counts = np.array([tile.read + tile.written for tile in tiles], dtype=np.int64)
    every = np.ones(len(tiles), dtype=np.int64)
    rank = np.concatenate([ranks for tile in tiles for ranks in (*tile.reads, *tile.writes)])
    read = np.array([tile.read for tile in tiles], dtype=np.int64)
    ptr = np.concatenate([[0], np.cumsum(counts)])
    found = RankTiles(every * int(Op.MIX), -every, ptr, rank, read)
    return filled(plan, rank_tiles=found, shares=_shares(found, factors))


def _parts(source: np.ndarray, target: np.ndarray, rows: int, cols: int) -> list[_Part]:
    """The blocks that edges make, cut where they are larger than rows x cols; parts without edges are left out."""
    sources, s = np.unique(source, return_inverse=True)
    targets, t = np.unique(target, return_inverse=True)
    sides = len(sources) + len(targets)
    graph = coo_array((np.ones(len(s), np.int8), (s, len(sources) + t)), shape=(sides, sides))
    _, block = connected_components(graph, directed=False)
    of_source, of_target = block[: len(sources)], block[len(sources) :]
    # Where a rank stands among its block's, and so which piece of the block it is in.
    row, col = _place_within(of_source) // rows, _place_within(of_target) // cols
    cells, cell = np.unique(np.stack([of_source[s], col[t], row[s]]), axis=1, return_inverse=True)
    order = np.argsort(cell.ravel(), kind="stable")
    edges = np.split(order, np.searchsorted(cell.ravel()[order], np.arange(1, cells.shape[1])))
    return [
        _Part(number, np.unique(source[mine]), np.unique(target[mine]))
        for number, mine in zip(cells[0].tolist(), edges, strict=True)
    ]


def _place_within(block: np.ndarray) -> np.ndarray:
    """0, 1, ... for the entries of each block, in order."""
    order = np.argsort(block, kind="stable")
    place = np.empty(len(block), dtype=np.int64)
    place[order] = np.arange(len(block)) - np.searchsorted(block[order], block[order], side="left")
    return place


def _packed(parts: list[_Part], rows: int, cols: int) -> list[_Tile]:
    """First fit, larger parts first; parts of one block never share a tile, where a rank would have two lanes."""
    tiles: list[_Tile] = []
    for part in sorted(parts, key=lambda part: (-len(part.reads) * len(part.writes), part.block)):
        for tile in tiles[-_OPEN_TILES:]:
            fits = tile.read + len(part.reads) <= rows and tile.written + len(part.writes) <= cols
            if fits and part.block not in tile.blocks:
                break
        else:
            tile = _Tile()
            tiles.append(tile)
        tile.reads.append(part.reads)
        tile.writes.append(part.writes)
        tile.blocks.add(part.block)
        tile.read += len(part.reads)
        tile.written += len(part.writes)
    return tiles


def _shares(tiles: RankTiles, factors: Factors) -> np.ndarray:
    """The rank whose place each rank takes, -1 for none, (K,): one that the same tile reads for the last time, row by
    row ahead of what it writes. No place is taken twice.
    """
    tile = np.repeat(np.arange(len(tiles.op)), np.diff(tiles.ptr))
    reads = np.arange(len(tile)) - tiles.ptr[tile] < tiles.read[tile]
    last_read, first_write = np.full((2, factors.ranks), -1, dtype=np.int64)
    last_read[tiles.rank[reads]] = tile[reads]  # numpy keeps the last of repeated assignments
    first_write[tiles.rank[~reads][::-1]] = tile[~reads][::-1]
    last_read[factors.writes.any(axis=1)] = -1
    first_write[factors.reads.any(axis=1)] = -1
    shares = np.full(factors.ranks, -1, dtype=np.int64)
    for number, (begin, end) in enumerate(pairwise(tiles.ptr.tolist())):
        mine, cut = tiles.rank[begin:end], int(tiles.read[number])
        left = [rank for rank in mine[:cut].tolist() if last_read[rank] == number and shares[rank] < 0]
        taking = [rank for rank in mine[cut:].tolist() if first_write[rank] == number]
        pairs = min(len(left), len(taking))
        shares[taking[:pairs]] = left[:pairs]
    return shares
