"""The order in which tiles run, so that waits for the array's own results are hidden behind other tiles.

REDUCE tiles come first, input chunk by input chunk, as the inputs arrive, and behind them MIX tiles, level by level.
Output chunks follow one after another, which needs two accumulator buffers and no more. Inside an output chunk dense
tiles go first (they wait for no rank), then EXPAND tiles by the time at which their ranks are complete; the output
chunk that can start soonest is the first. Where ranks take turns in memory, all this is done for the ranks of one turn
after another, and what they write. If two turns are there at a time, the REDUCE tiles of one run between the MIX and
EXPAND tiles of the turn before it, whose outputs leave meanwhile.
"""

from __future__ import annotations

import numpy as np

from gblr_hw.lowering.passes.plan import LayerPlan, RankTiles, TileOrder, filled
from simulator.program.operations import Op


def order_tiles(plan: LayerPlan) -> LayerPlan:
    """Fill in order."""
    tiles, dense = plan.rank_tiles, plan.structure.tiles
    is_expand = tiles.op == Op.EXPAND
    ready = _ready(tiles, plan.factors.ranks)
    turn = _turns(tiles.chunk[is_expand], ready[is_expand], dense)
    dense_target, dense_source = np.nonzero(dense)
    kind = np.concatenate([tiles.op, np.full(len(dense_target), Op.DENSE)])
    source = np.concatenate([np.where(tiles.op == Op.REDUCE, tiles.chunk, -1), dense_source])
    target = np.concatenate([np.where(is_expand, tiles.chunk, -1), dense_target])
    # REDUCE and MIX tiles are in order; an output chunk's dense tiles come first, in the order of their inputs.
    when = np.concatenate([np.where(is_expand, ready, np.arange(len(tiles.op))), dense_source])
    turns = np.where(target < 0, -1, turn[np.maximum(target, 0)] if len(turn) else 0)
    rank_turns = _rank_turns(plan, target)
    order = np.lexsort((when, kind == Op.EXPAND, turns, rank_turns))
    if plan.ring > 1:
        order = _woven(order, plan, kind, source, target, rank_turns)
    counts = np.concatenate([np.diff(tiles.ptr), np.zeros(len(dense_target), np.int64)])
    begins = np.concatenate([tiles.ptr[:-1], np.zeros(len(dense_target), np.int64)])
    ptr = np.concatenate([[0], np.cumsum(counts[order])])
    at = np.arange(ptr[-1]) + np.repeat(begins[order] - ptr[:-1], counts[order])
    read = np.concatenate([tiles.read, np.zeros(len(dense_target), np.int64)])[order]
    return filled(plan, order=TileOrder(kind[order], source[order], target[order], ptr, tiles.rank[at], read))


def _woven(
    order: np.ndarray, plan: LayerPlan, kind: np.ndarray, source: np.ndarray, target: np.ndarray, turn: np.ndarray
) -> np.ndarray:
    """The tiles in ``order`` with those behind a turn's REDUCE tiles spread over the next one's, MIX tiles ahead of
    what writes outputs. Where the next REDUCE tiles take a turn's places, each of its tiles comes before them.

    The first turns read their inputs together, chunk by chunk as they arrive, and so do the last, whose inputs make
    room for those of the next block.
    """
    last, ring = int(turn.max(initial=0)), plan.ring
    together = [tuple(range(min(ring, last + 1)))]
    together += [(one,) for one in range(ring, last + 1)]
    if len(together) > 2 * ring:
        together[-ring:] = [tuple(range(last + 1 - ring, last + 1))]
    place = np.empty(len(order))
    for step, turns in enumerate(together):
        coming = together[step + 1] if step + 1 < len(together) else ()
        reads = order[np.isin(turn[order], turns) & (kind[order] == Op.REDUCE)]
        reads = reads[np.lexsort((turn[reads], source[reads]))] if len(turns) > 1 else reads
        _spread(place, reads, step + 0.1, step + 1)
    for step, turns in enumerate(together):
        coming = together[step + 1] if step + 1 < len(together) else ()
        for number, one in enumerate(turns):
            mine = order[(turn[order] == one) & (kind[order] != Op.REDUCE)]
            mixes, rest = mine[kind[mine] == Op.MIX], mine[kind[mine] != Op.MIX]
            if one + ring in coming:
                _spread(place, mixes, step + 1, step + 1.05)
                rest = _before_their_places_go(place, rest, plan, kind, target, turn == one + ring)
                place[rest] = np.minimum(place[rest], step + 2)
            elif coming:
                _spread(place, mixes, step + 1.1, step + 1.3)
                _spread(place, rest, step + 1.3, step + 2)
            else:  # nothing comes behind: what one turn writes leaves while the next is mixed
                _spread(place, mixes, step + 1 + number, step + 2 + number)
                _spread(place, rest, step + 2 + number, step + 3 + number)
    return np.asarray(order[np.argsort(place[order], kind="stable")])


def _before_their_places_go(
    place: np.ndarray, tiles: np.ndarray, plan: LayerPlan, kind: np.ndarray, target: np.ndarray, next_turn: np.ndarray
) -> np.ndarray:
    """Put tiles that write outputs, chunk by chunk, spread between those that take their ranks' places, each before the
    first that takes one of its chunk's. Returns them in their order.
    """
    ranks = plan.rank_tiles
    number = plan.rank_bank * plan.held_slots + plan.rank_slot % plan.held_slots
    taken = np.full(int(number.max()) + 1, np.inf)
    of_tile = np.repeat(np.arange(len(ranks.op)), np.diff(ranks.ptr))
    taking = next_turn[of_tile] & (kind[of_tile] == Op.REDUCE)
    np.minimum.at(taken, number[ranks.rank[taking]], place[of_tile[taking]])
    begin, end = taken[np.isfinite(taken)].min(), taken[np.isfinite(taken)].max()
    until = np.full(plan.output_chunks, np.inf)
    for tile in tiles[tiles < len(ranks.op)].tolist():
        mine = taken[number[ranks.rank[ranks.ptr[tile] : ranks.ptr[tile + 1]]]]
        until[target[tile]] = min(until[target[tile]], float(mine.min()))
    tiles = tiles[np.lexsort((np.arange(len(tiles)), target[tiles], until[target[tiles]]))]
    even = begin + (np.arange(len(tiles)) + 0.5) / max(1, len(tiles)) * (end - begin)
    # A hair before: at one place the earlier turn's tile goes first.
    place[tiles] = np.minimum(even, np.nextafter(until[target[tiles]], -np.inf))
    return tiles


def _spread(place: np.ndarray, tiles: np.ndarray, begin: float, end: float) -> None:
    """Put the tiles in equal steps between two places."""
    place[tiles] = begin + (np.arange(len(tiles)) + 0.5) / max(1, len(tiles)) * (end - begin)


def _rank_turns(plan: LayerPlan, target: np.ndarray) -> np.ndarray:
    """In which of the ranks' turns each tile runs: rank tiles, then dense ones, which write ``target``. (N,)"""
    tiles = plan.rank_tiles
    turn = np.zeros(len(target), dtype=np.int64)
    turn[: len(tiles.op)] = plan.turn_of[tiles.rank[tiles.ptr[:-1]]]
    of_chunk = np.zeros(plan.output_chunks, dtype=np.int64)
    written = target[: len(tiles.op)]
    of_chunk[written[written >= 0]] = turn[: len(tiles.op)][written >= 0]
    turn[len(tiles.op) :] = of_chunk[target[len(tiles.op) :]]
    return turn


def _ready(tiles: RankTiles, ranks: int) -> np.ndarray:
    """For each tile, the number of the last tile that adds to any rank that it reads; -1 for none. (N,)"""
    tile = np.repeat(np.arange(len(tiles.op)), np.diff(tiles.ptr))
    reads = np.arange(len(tile)) - tiles.ptr[tile] < tiles.read[tile]
    complete = np.full(ranks, -1, dtype=np.int64)
    complete[tiles.rank[~reads]] = tile[~reads]  # numpy keeps the last of repeated assignments
    ready = np.full(len(tiles.op), -1, dtype=np.int64)
    np.maximum.at(ready, tile[reads], complete[tiles.rank[reads]])
    return ready


def _turns(expand_chunk: np.ndarray, ready: np.ndarray, dense: np.ndarray) -> np.ndarray:
    """The turn of each output chunk: they run in order, but for the one put first. That is the chunk with most dense
    tiles before its first wait, then the earliest ranks. (R,)
    """
    chunks = len(dense)
    never = np.iinfo(np.int64).max
    first = np.full(chunks, never)
    np.minimum.at(first, expand_chunk, ready)
    dense_tiles = dense.sum(axis=1)
    used = (dense_tiles > 0) | (first < never)
    turn = np.arange(1, chunks + 1)
    if used.any():
        waits = np.where(first < never, first, -1)
        turn[np.lexsort((turn, waits, -dense_tiles, ~used))[0]] = 0
    return turn
