"""Pass 6 (machines with scatter): the ranks of each chunk are dealt to as few tiles as hold them, one of a bank to a
tile.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from gblr_hw.lowering.plan import LayerPlan, RankTile
from simulator.isa import Op


def pack_ranks(plan: LayerPlan) -> LayerPlan:
    """Fill in rank_tiles: ceil(n_c / Q) REDUCE tiles for an input chunk, ceil(n_r / P) EXPAND tiles for an output
    chunk.
    """
    structure, machine = plan.structure, plan.machine
    tiles = []
    for op, members, lanes in ((Op.REDUCE, structure.reads, machine.cols), (Op.EXPAND, structure.writes, machine.rows)):
        for chunk in range(members.shape[1]):
            ranks = np.flatnonzero(members[:, chunk])
            tiles += [RankTile(op, chunk, dealt) for dealt in _deal(ranks, plan.rank_bank, lanes)]
    return replace(plan, rank_tiles=tuple(tiles))


def _deal(ranks: np.ndarray, bank: np.ndarray, lanes: int) -> list[tuple[int, ...]]:
    """Deal ranks, sorted by bank, to ceil(n / lanes) tiles in turn: the ranks of a bank land in different tiles."""
    count = -(-len(ranks) // lanes)
    by_bank = ranks[np.argsort(bank[ranks], kind="stable")]
    return [tuple(sorted(by_bank[tile::count].tolist())) for tile in range(count)]
