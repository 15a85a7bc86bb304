"""What every token block of a layer needs to know of its tiles, found once a layer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simulator.base.arithmetic import ceil_div
from simulator.machine.machine import Machine
from simulator.program.operations import Op
from simulator.program.schedule import LayerSchedule


@dataclass(frozen=True, eq=False)
class LayerFacts:
    """read (C',): input chunks that some tile reads, in order of use, and first_use (C',): the tile that is first to.

    drained (R,): output chunks in the order in which they are drained; finish (R,): the tile after which each of them
    is, and has_sums (R,): whether a tile adds to it at all. opens (N,): whether a tile is the first of its output
    chunk. rank_ready (N,): the last REDUCE tile that adds to any of an EXPAND tile's ranks, -1 for others. last_reader:
    the last tile that reads inputs, -1 for none. blocks: token blocks. resident: whether all weights fit the buffer.
    """

    read: np.ndarray
    first_use: np.ndarray
    drained: np.ndarray
    finish: np.ndarray
    has_sums: np.ndarray
    opens: np.ndarray
    rank_ready: np.ndarray
    last_reader: int
    blocks: int
    resident: bool
    instructions: int


def layer_facts(layer: LayerSchedule, machine: Machine, tokens: int) -> LayerFacts:
    """The facts of one layer, and how many instructions ``tokens`` rows of it take."""
    tiles, count = layer.tiles, len(layer.tiles)
    reading = np.flatnonzero(tiles.kind != Op.EXPAND)
    read, first = np.unique(tiles.source[reading], return_index=True)
    by_use = np.argsort(first, kind="stable")
    chunks = ceil_div(layer.out_features, machine.cols)
    writing = np.flatnonzero(tiles.kind != Op.REDUCE)
    last = np.full(chunks, -1, dtype=np.int64)
    last[tiles.target[writing]] = writing  # numpy keeps the last of repeated assignments
    finish = np.where(last >= 0, last, max(1, count) - 1)
    drained = np.lexsort((last < 0, finish))  # chunks without sums are drained at the end
    opens = np.zeros(count, dtype=bool)
    _, earliest = np.unique(tiles.target[writing], return_index=True)
    opens[writing[earliest]] = True
    blocks = ceil_div(tokens, layer.block_tokens)
    resident = count <= machine.weight_slots
    loads = count if resident else count * blocks
    return LayerFacts(
        read=read[by_use],
        first_use=reading[first[by_use]],
        drained=drained,
        finish=finish[drained],
        has_sums=last[drained] >= 0,
        opens=opens,
        rank_ready=_rank_ready(layer),
        last_reader=int(reading[-1]) if len(reading) else -1,
        blocks=blocks,
        resident=resident,
        instructions=1 + loads + blocks * (count + len(read) + 2 * chunks),
    )


def _rank_ready(layer: LayerSchedule) -> np.ndarray:
    """For each EXPAND tile, the last REDUCE tile that adds to any of its ranks; -1 for other tiles. (N,)"""
    tiles = layer.tiles
    result = np.full(len(tiles), -1, dtype=np.int64)
    expands = np.flatnonzero((tiles.kind == Op.EXPAND) & (tiles.lane_count > 0))
    if len(expands) == 0:
        return result
    tile = np.repeat(np.arange(len(tiles)), tiles.lane_count)
    kind = tiles.kind[tile]
    complete = np.full(layer.ranks, -1, dtype=np.int64)
    reduced = kind == Op.REDUCE
    complete[tiles.lane[reduced]] = tile[reduced]  # numpy keeps the last of repeated assignments
    expanded = np.flatnonzero(kind == Op.EXPAND)
    lanes = tiles.lane_count[expands]
    result[expands] = np.maximum.reduceat(complete[tiles.lane[expanded]], np.cumsum(lanes) - lanes)
    return result
