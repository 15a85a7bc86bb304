"""The passes that a layer or a matrix operator makes through the array for one block of rows, in order: what emission
repeats.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from gblr_hw.lowering.groups.head_room import HeadRoom, heads_at_once, heads_in_pass
from simulator.base.arithmetic import ceil_div
from simulator.machine.machine import Machine
from simulator.network.network import Network
from simulator.network.network_layout import head_steps, heads_of_chunk, heads_per_tile
from simulator.program.operations import Op, Place, reads, writes
from simulator.program.schedule import LayerSchedule


@dataclass(frozen=True, eq=False)
class Heads:
    """Query heads of N passes and R output chunks; without any, a pass has one and so has a chunk.

    count (N,): heads whose rows a pass streams behind one another; source and target of the pass are the first one's.
    lane (N,): lane of its chunk at which the first head's channels begin. last_source, last_target (N,): the last
    head's chunks. row (N,): the first head's number in its output chunk, whose heads have sums of their own.
    buffer (R,): accumulator buffers between a drained chunk's and those of the first chunk of its pass. of_chunk: heads
    of a drained chunk.
    """

    count: np.ndarray
    lane: np.ndarray
    last_source: np.ndarray
    last_target: np.ndarray
    row: np.ndarray
    buffer: np.ndarray
    of_chunk: int

    @staticmethod
    def none(source: np.ndarray, target: np.ndarray, drained: int) -> Heads:
        count = len(source)
        last_source, last_target = np.maximum(source, 0), np.maximum(target, 0)
        nothing = np.zeros(count, dtype=np.int64)
        return Heads(nothing + 1, nothing, last_source, last_target, nothing, np.zeros(drained, dtype=np.int64), 1)


@dataclass(frozen=True, eq=False)
class Passes:
    """N passes with L loads of weight tiles and R output chunks; chunks are those of a whole row.

    tile (N,): row of the tile table. load (N,): which of the loads holds its weights. load_tile (L,). source, target
    (N,): chunk read and written, -1 for none. opens (N,): whether a pass is the first of its output chunk. rank_ready
    (N,): the last pass that adds to any of the ranks that it reads, -1 for none. drained (R,): output chunks in the
    order in which they are complete, finish (R,): the pass after which each is, has_sums (R,): whether any adds to it.

    With P ``pieces`` every chunk of a block is P runs of rows, each with passes and sums of its own: source, target and
    drained then count runs, those of a chunk behind one another (run p of chunk c is c P + p).
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
    heads: Heads
    pieces: int = 1

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
        return np.where(self.writes, self.target, self.source) // self.pieces

    @cached_property
    def drained_chunk(self) -> np.ndarray:
        """(R,) the chunk of each run of rows that is drained."""
        return self.drained // self.pieces

    @cached_property
    def drained_piece(self) -> np.ndarray:
        """(R,) which of its chunk's runs each is."""
        return self.drained % self.pieces

    @cached_property
    def piece(self) -> np.ndarray:
        """(N,) which run of a chunk's rows each pass has."""
        return np.arange(len(self)) % self.pieces


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
    source = np.where(reads(tiles.kind, Place.SCRATCHPAD), tiles.source, -1)
    target = np.where(writes(tiles.kind, Place.ACCUMULATORS), tiles.target, -1)
    return Passes(
        kind=tiles.kind,
        tile=every,
        load=every,
        load_tile=every,
        source=source,
        target=target,
        row_cycles=tiles.row_cycles,
        opens=opens,
        rank_ready=_rank_ready(schedule),
        drained=drained,
        finish=finish[drained],
        has_sums=last[drained] >= 0,
        heads=Heads.none(source, target, len(drained)),
    )


def in_pieces(passes: Passes, pieces: int) -> Passes:
    """A linear operator's passes without ranks, each once for each of a block's ``pieces`` while its tile is loaded."""
    if pieces == 1:
        return passes

    def apart(values: np.ndarray) -> np.ndarray:
        runs = values[:, None] * pieces + np.arange(pieces)
        return np.where(values[:, None] < 0, -1, runs).ravel()

    source, target, drained = apart(passes.source), apart(passes.target), apart(passes.drained)
    return Passes(
        kind=np.repeat(passes.kind, pieces),
        tile=np.repeat(passes.tile, pieces),
        load=np.repeat(passes.load, pieces),
        load_tile=passes.load_tile,
        source=source,
        target=target,
        row_cycles=np.repeat(passes.row_cycles, pieces),
        opens=np.repeat(passes.opens, pieces),
        rank_ready=np.repeat(passes.rank_ready, pieces),
        drained=drained,
        finish=np.where(np.repeat(passes.has_sums, pieces), apart(passes.finish), max(1, len(source)) - 1),
        has_sums=np.repeat(passes.has_sums, pieces),
        heads=Heads.none(source, target, len(drained)),
        pieces=pieces,
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
    network: Network, index: int, schedule: LayerSchedule, side: int, part: tuple[int, int], room: HeadRoom
) -> Passes:
    """Passes of scores or mix for slice ``part`` = (number, of how many) of the query heads.

    The query heads that share a tile run while it is loaded, in one pass or behind one another, as many as there are
    accumulators for (half of them: the others are being drained); if that is not all, the tile is loaded again.
    """
    operator, tiles = network.operators[index], schedule.tiles
    reads, weights = operator.operands
    keys = ceil_div(weights.tokens, side)
    shared, of_chunk = heads_per_tile(network, operator, side), heads_of_chunk(network, operator, side)
    heads = reads.groups // part[1]
    query = (tiles.target if operator.kind == "scores" else tiles.source) // keys
    mine = np.flatnonzero((query >= part[0] * heads) & (query < (part[0] + 1) * heads))
    at_once, in_pass = heads_at_once(shared, of_chunk, room), heads_in_pass(shared, of_chunk, room, side)
    columns: list[tuple[int, int, int, int]] = []  # tile, load, heads between the tile's first and the pass's, heads
    loads: list[int] = []
    # Tiles of one output chunk lie in a row.
    for rows in np.split(mine, np.flatnonzero(np.diff(tiles.target[mine])) + 1):
        for first in range(0, shared, at_once):
            last = min(shared, first + at_once)
            for tile in rows.tolist():
                columns += [(tile, len(loads), q, min(in_pass, last - q)) for q in range(first, last, in_pass)]
                loads.append(tile)
    tile, load, behind, count = np.array(columns, dtype=np.int64).reshape(-1, 4).T
    read, written = head_steps(network, operator, side)
    source, lane = _head_place(tiles.source[tile], behind, read, side)
    into, column = _head_place(tiles.target[tile], behind, written, side)
    last_into = _head_place(tiles.target[tile], behind + count - 1, written, side)[0]
    row = column // written if of_chunk > 1 else column * 0
    drained, finish, buffer = _drained(into, last_into, written, of_chunk, side)
    return Passes(
        kind=np.full(len(tile), int(Op.DENSE)),
        tile=tile,
        load=load,
        load_tile=np.array(loads, dtype=np.int64),
        source=source,
        target=into,
        row_cycles=np.ones(len(tile), dtype=np.int64),
        opens=_first_of_each(into * of_chunk + row),
        rank_ready=np.full(len(tile), -1),
        drained=drained,
        finish=finish,
        has_sums=np.ones(len(finish), dtype=bool),
        heads=Heads(
            count=count,
            lane=lane,
            last_source=_head_place(tiles.source[tile], behind + count - 1, read, side)[0],
            last_target=last_into,
            row=row,
            buffer=buffer,
            of_chunk=of_chunk,
        ),
    )


def _head_place(chunk: np.ndarray, behind: np.ndarray, step: int, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Chunk and lane of the query heads that stand ``behind`` those that begin at the edge of a chunk."""
    return chunk + behind * step // side, behind * step % side


def _first_of_each(values: np.ndarray) -> np.ndarray:
    """Whether each is the first of its value."""
    first = np.zeros(len(values), dtype=bool)
    first[np.unique(values, return_index=True)[1]] = True
    return first


def _drained(
    into: np.ndarray, last_into: np.ndarray, step: int, of_chunk: int, side: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Output chunks in the order in which they are complete, the pass after which each is, and the accumulator buffers
    between its own and those of its pass's first chunk.
    """
    last_of = {int(chunk): at for at, chunk in enumerate(into.tolist())}
    apart = max(1, step // side)
    drained: list[int] = []
    finish: list[int] = []
    buffer: list[int] = []
    for at in sorted(last_of.values()):
        chunks = range(int(into[at]), int(last_into[at]) + 1, apart)
        drained += chunks
        finish += [at] * len(chunks)
        buffer += [number * of_chunk for number in range(len(chunks))]
    return tuple(np.array(column, dtype=np.int64) for column in (drained, finish, buffer))  # type: ignore[return-value]
