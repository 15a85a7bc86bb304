"""Machines with scatter: the ranks of each chunk are dealt to as few tiles as hold them, one of a bank to a tile."""

from __future__ import annotations

import numpy as np

from gblr_hw.lowering.passes.plan import LayerPlan, RankTiles, filled
from simulator.base.arithmetic import ceil_div
from simulator.program.operations import Op


def pack_ranks(plan: LayerPlan) -> LayerPlan:
    """Add to rank_tiles, around those of mixes: ceil(n_c / Q) REDUCE tiles for an input chunk, ceil(n_r / P) EXPAND
    tiles for an output chunk.
    """
    structure, machine = plan.structure, plan.machine
    reduce = _deal(Op.REDUCE, structure.reads, plan.rank_bank, machine.cols)
    expand = _deal(Op.EXPAND, structure.writes, plan.rank_bank, machine.rows)
    return filled(plan, rank_tiles=RankTiles.joined([reduce, plan.rank_tiles, expand]))


def _deal(op: Op, members: np.ndarray, bank: np.ndarray, lanes: int) -> RankTiles:
    """Deal each chunk's ranks, sorted by bank, to ceil(n / lanes) tiles in turn: the ranks of a bank land in different
    tiles. members: (K, chunks) bool.
    """
    chunk, rank = np.nonzero(members.T)
    by_bank = np.lexsort((rank, bank[rank], chunk))
    chunk, rank = chunk[by_bank], rank[by_bank]
    size = members.sum(axis=0)
    tiles = ceil_div(size, lanes)
    position = np.arange(len(rank)) - (np.cumsum(size) - size)[chunk]
    tile = (np.cumsum(tiles) - tiles)[chunk] + position % np.maximum(tiles, 1)[chunk]
    by_tile = np.lexsort((rank, tile))
    return RankTiles.grouped(op, chunk[by_tile], tile[by_tile], rank[by_tile])
