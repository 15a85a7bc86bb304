"""Machines with scatter: the ranks of each chunk are dealt to as few tiles as hold them, one of a bank to a tile."""

from __future__ import annotations

import numpy as np

from gblr_hw.lowering.passes.plan import LayerPlan, RankTiles, filled
from simulator.base.arithmetic import ceil_div
from simulator.program.operations import Op


def pack_ranks(plan: LayerPlan) -> LayerPlan:
    """Add to rank_tiles, around those of mixes: ceil(n_c / Q) REDUCE tiles for an input chunk, ceil(n_r / P) EXPAND
    tiles for an output chunk; where ranks take turns in memory, as many for the ranks of each turn.
    """
    structure, machine = plan.structure, plan.machine
    reduce = _deal(Op.REDUCE, structure.reads, plan, machine.cols)
    expand = _deal(Op.EXPAND, structure.writes, plan, machine.rows)
    return filled(plan, rank_tiles=RankTiles.joined([reduce, plan.rank_tiles, expand]))


def _deal(op: Op, members: np.ndarray, plan: LayerPlan, lanes: int) -> RankTiles:
    """Deal each chunk's ranks of a turn, sorted by bank, to ceil(n / lanes) tiles in turn: the ranks of a bank land in
    different tiles. members: (K, chunks) bool.
    """
    bank, turn, chunks = plan.rank_bank, plan.turn_of, members.shape[1]
    real, rank = np.nonzero(members.T)
    chunk = turn[rank] * chunks + real
    by_bank = np.lexsort((rank, bank[rank], chunk))
    chunk, real, rank = chunk[by_bank], real[by_bank], rank[by_bank]
    size = np.bincount(chunk, minlength=plan.turns * chunks)
    tiles = ceil_div(size, lanes)
    position = np.arange(len(rank)) - (np.cumsum(size) - size)[chunk]
    tile = (np.cumsum(tiles) - tiles)[chunk] + position % np.maximum(tiles, 1)[chunk]
    by_tile = np.lexsort((rank, tile))
    return RankTiles.grouped(op, real[by_tile], tile[by_tile], rank[by_tile])
