"""Pass 7: the order in which tiles run, so that waits for the array's own results are hidden behind other tiles.

REDUCE tiles come first, input chunk by input chunk, as the inputs arrive. Output chunks follow one after another, which
needs two accumulator buffers and no more. Inside an output chunk dense tiles go first (they wait for no rank), then
EXPAND tiles by the time at which their ranks are complete; the output chunk that can start soonest is the first.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from gblr_hw.lowering.plan import LayerPlan, RankTile
from simulator.isa import Op


def order_tiles(plan: LayerPlan) -> LayerPlan:
    """Fill in order: (op, input chunk or -1, output chunk or -1, ranks) in execution order."""
    reduces = [tile for tile in plan.rank_tiles if tile.op == Op.REDUCE]
    expands: dict[int, list[RankTile]] = {}
    for tile in plan.rank_tiles:
        if tile.op == Op.EXPAND:
            expands.setdefault(tile.chunk, []).append(tile)
    complete = np.full(plan.factors.ranks, -1, dtype=np.int64)
    for position, tile in enumerate(reduces):
        complete[list(tile.ranks)] = position
    ready = {id(tile): int(complete[list(tile.ranks)].max()) for tiles in expands.values() for tile in tiles}
    dense = plan.structure.tiles
    order = [(Op.REDUCE, tile.chunk, -1, tile.ranks) for tile in reduces]
    chunks = [r for r in range(plan.output_chunks) if dense[r].any() or r in expands]
    for r in _soonest_first(chunks, expands, dense, ready):
        order += [(Op.DENSE, int(c), r, ()) for c in np.flatnonzero(dense[r])]
        order += [(Op.EXPAND, -1, r, tile.ranks) for tile in sorted(expands.get(r, []), key=lambda t: ready[id(t)])]
    return replace(plan, order=tuple(order))


def _soonest_first(
    chunks: list[int], expands: dict[int, list[RankTile]], dense: np.ndarray, ready: dict[int, int]
) -> list[int]:
    """Chunks in order, but for the one put first: the chunk with most dense tiles before its first wait, then the
    earliest ranks.
    """
    if not chunks:
        return []

    def wait(r: int) -> tuple[int, int, int]:
        first = min((ready[id(tile)] for tile in expands.get(r, [])), default=-1)
        return (-int(dense[r].sum()), first, r)

    first = min(chunks, key=wait)
    return [first, *(r for r in chunks if r != first)]
