"""The passes that a matrix operator makes through the array for one block of rows, in order: what emission repeats."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gblr_hw.lowering.emit.layer_facts import layer_facts
from simulator.base.arithmetic import ceil_div
from simulator.machine.machine import Machine
from simulator.network.network import Network
from simulator.network.network_layout import head_stride, heads_per_tile
from simulator.program.operations import Op
from simulator.program.schedule import LayerSchedule


@dataclass(frozen=True, eq=False)
class Passes:
    """N passes with L loads of weight tiles and R output chunks; chunks are those of a whole row.

    tile (N,): row of the tile table. load (N,): which of the loads holds its weights. load_tile (L,). source, target
    (N,): chunk read and written, -1 for none. opens (N,): whether a pass is the first of its output chunk. rank_ready
    (N,): the last pass that adds to any of an EXPAND tile's ranks, -1 for others. drained (R,): output chunks in the
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


def linear_passes(schedule: LayerSchedule, machine: Machine) -> Passes:
    """Every tile once, in the order of the schedule."""
    facts, tiles = layer_facts(schedule, machine, 1), schedule.tiles
    every = np.arange(len(tiles))
    return Passes(
        kind=tiles.kind,
        tile=every,
        load=every,
        load_tile=every,
        source=np.where(tiles.kind != Op.EXPAND, tiles.source, -1),
        target=np.where(tiles.kind != Op.REDUCE, tiles.target, -1),
        row_cycles=tiles.row_cycles,
        opens=facts.opens,
        rank_ready=facts.rank_ready,
        drained=facts.drained,
        finish=facts.finish,
        has_sums=facts.has_sums,
    )


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
