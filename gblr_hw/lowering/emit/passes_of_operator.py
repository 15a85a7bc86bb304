"""The passes that a layer or a matrix operator makes through the array for one block of rows, in order: what emission
repeats.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from simulator.base.arithmetic import ceil_div
from simulator.machine.machine import Machine
from simulator.network.network import Network
from simulator.network.network_layout import head_stride, heads_per_tile
from simulator.program.operations import Op, Place, reads, writes
from simulator.program.schedule import LayerSchedule


@dataclass(frozen=True, eq=False)
class Passes:
    """N passes with L loads of weight tiles and R output chunks; chunks are those of a whole row.

    tile (N,): row of the tile table. load (N,): which of the loads holds its weights. load_tile (L,). source, target
    (N,): chunk read and written, -1 for none. opens (N,): whether a pass is the first of its output chunk. rank_ready
    (N,): the last pass that adds to any of the ranks that it reads, -1 for none. drained (R,): output chunks in the
    order in which they are complete, finish (R,): the pass after which each is, has_sums (R,): whether any adds to it.
    """

    kind: np.ndarray
    tile: np.ndarray
    load: np.ndarray
    load_tile: np.ndarray
    source: np.ndarray
    target: np.ndarray
    row_cycles: np.ndarray
    opens: np.ndarray
    rank_ready: np.ndarray
    drained: np.ndarray
    finish: np.ndarray
    has_sums: np.ndarray

    def __len__(self) -> int:
        return len(self.tile)

    # What every block asks for again.

    @cached_property
    def reads(self) -> np.ndarray:
        return self.source >= 0

    @cached_property
    def writes(self) -> np.ndarray:
        return self.target >= 0

    @cached_property
    def source_or_0(self) -> np.ndarray:
        return np.maximum(self.source, 0)

    @cached_property
    def target_or_0(self) -> np.ndarray:
        return np.maximum(self.target, 0)

    @cached_property
    def fixed_chunk(self) -> np.ndarray:
        """The chunk on a tile's fixed side: the one that it writes, or reads where it writes ranks."""
        return np.where(self.writes, self.target, self.source)


def linear_passes(schedule: LayerSchedule, machine: Machine) -> Passes:
    """Every tile once, in the order of the schedule."""
    tiles, count = schedule.tiles, len(schedule.tiles)
    every = np.arange(count)
    writing = np.flatnonzero(writes(tiles.kind, Place.ACCUMULATORS))
    last = np.full(ceil_div(schedule.out_features, machine.cols), -1, dtype=np.int64)
    last[tiles.target[writing]] = writing  # numpy keeps the last of repeated assignments
    finish = np.where(last >= 0, last, max(1, count) - 1)
    drained = np.lexsort((last < 0, finish))  # chunks without sums are drained at the end
    opens = np.zeros(count, dtype=bool)
    _, earliest = np.unique(tiles.target[writing], return_index=True)
    opens[writing[earliest]] = True
    return Passes(
        kind=tiles.kind,
        tile=every,
        load=every,
        load_tile=every,
        source=np.where(reads(tiles.kind, Place.SCRATCHPAD), tiles.source, -1),
        target=np.where(writes(tiles.kind, Place.ACCUMULATORS), tiles.target, -1),
        row_cycles=tiles.row_cycles,
        opens=opens,
        rank_ready=_rank_ready(schedule),
        drained=drained,
        finish=finish[drained],
        has_sums=last[drained] >= 0,
    )


def _rank_ready(layer: LayerSchedule) -> np.ndarray:
    """For each tile, the last tile that adds to any of the ranks that it reads; -1 without any. (N,)"""
    tiles = layer.tiles
    result = np.full(len(tiles), -1, dtype=np.int64)
    tile = np.repeat(np.arange(len(tiles)), tiles.lane_count)
    complete = np.full(layer.ranks, -1, dtype=np.int64)
    written, read = tiles.lane_scatters, np.flatnonzero(tiles.lane_gathers)
    complete[tiles.lane[written]] = tile[written]  # numpy keeps the last of repeated assignments
    gathering = np.flatnonzero(tiles.gathered)
    if len(gathering):
        counts = tiles.gathered[gathering]
        result[gathering] = np.maximum.reduceat(complete[tiles.lane[read]], np.cumsum(counts) - counts)
    return result


def head_passes(
    network: Network, index: int, schedule: LayerSchedule, side: int, part: tuple[int, int], accumulators: int
) -> Passes:
    """Passes of scores or mix for slice ``part`` = (number, of how many) of the query heads.

    The query heads that share a tile run behind one another while it is loaded, as many as there are ``accumulators``
    for (half of them: the others are being drained); if that is not all, the tile is loaded again.
    """
    operator, tiles = network.operators[index], schedule.tiles
    reads, weights = operator.operands
    scores = operator.kind == "scores"
    chunks = head_stride(network, operator, side) // side
    keys = ceil_div(weights.tokens, side)
    shared = heads_per_tile(network, operator, side)
    source_stride, target_stride = (chunks, keys) if scores else (keys, chunks)
    heads = reads.groups // part[1]
    query = (tiles.target if scores else tiles.source) // keys
    mine = np.flatnonzero((query >= part[0] * heads) & (query < (part[0] + 1) * heads))
    at_once = max(1, min(shared, accumulators // 2))
    columns: list[tuple[int, int, int, int]] = []  # tile, load, source, target
    loads: list[int] = []
    # Tiles of one output chunk lie in a row.
    for rows in np.split(mine, np.flatnonzero(np.diff(tiles.target[mine])) + 1):
        target = int(tiles.target[rows[0]])
        for first in range(0, shared, at_once):
            for tile in rows.tolist():
                loads.append(tile)
                columns += [
                    (tile, len(loads) - 1, int(tiles.source[tile]) + q * source_stride, target + q * target_stride)
                    for q in range(first, min(shared, first + at_once))
                ]
    tile, load, source, into = np.array(columns, dtype=np.int64).reshape(-1, 4).T
    _, first_at = np.unique(into, return_index=True)
    opens = np.zeros(len(tile), dtype=bool)
    opens[first_at] = True
    last_of = {int(chunk): at for at, chunk in enumerate(into.tolist())}
    drained = sorted(last_of, key=lambda chunk: last_of[chunk])
    return Passes(
        kind=np.full(len(tile), int(Op.DENSE)),
        tile=tile,
        load=load,
        load_tile=np.array(loads, dtype=np.int64),
        source=source,
        target=into,
        row_cycles=np.ones(len(tile), dtype=np.int64),
        opens=opens,
        rank_ready=np.full(len(tile), -1),
        drained=np.array(drained, dtype=np.int64),
        finish=np.array([last_of[chunk] for chunk in drained], dtype=np.int64),
        has_sums=np.ones(len(drained), dtype=bool),
    )
