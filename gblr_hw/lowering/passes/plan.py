"""What the lowering passes hand to each other: one layer, with the fields that the passes so far have filled in."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np

from gblr_hw.weights.factors import Factors, structure_of
from gblr_hw.weights.structure import Structure
from simulator.base.arithmetic import ceil_div
from simulator.machine.machine import Machine
from simulator.program.operations import GATHER_OPS, Op


@dataclass(frozen=True, eq=False)
class RankTiles:
    """REDUCE, EXPAND and MIX tiles before they are placed, as columns; ranks are a ragged table behind ``ptr``.

    op (N,): Op.REDUCE, EXPAND or MIX. chunk (N,): the chunk on the tile's fixed side, -1 for MIX. ptr (N+1,) and rank:
    its ranks, of a MIX those that it reads and then those that it writes. read (N,): how many it reads.
    """

    op: np.ndarray
    chunk: np.ndarray
    ptr: np.ndarray
    rank: np.ndarray
    read: np.ndarray

    @staticmethod
    def grouped(op: Op, chunk: np.ndarray, tile: np.ndarray, rank: np.ndarray) -> RankTiles:
        """From one row for each pair of tile and rank, sorted by tile: its chunk, its tile's number, its rank."""
        first = np.flatnonzero(np.diff(tile, prepend=-1))
        ptr = np.append(first, len(tile))
        read = np.diff(ptr) if op in GATHER_OPS else np.zeros(len(first), np.int64)
        return RankTiles(np.full(len(first), op), chunk[first], ptr, rank, read)

    @staticmethod
    def joined(parts: Sequence[RankTiles]) -> RankTiles:
        """The tiles of all parts, in order."""
        counts = np.concatenate([np.diff(part.ptr) for part in parts])
        names = ("op", "chunk", "rank", "read")
        op, chunk, rank, read = (np.concatenate([getattr(part, name) for part in parts]) for name in names)
        return RankTiles(op, chunk, np.concatenate([[0], np.cumsum(counts)]), rank, read)


@dataclass(frozen=True, eq=False)
class TileOrder:
    """All tiles in execution order, as columns; DENSE tiles have no ranks.

    kind (N,): Op. source, target (N,): input and output chunk, -1 for none. ptr (N+1,) and rank: ranks of each tile.
    read (N,): how many of its ranks a tile reads; they come first.
    """

    kind: np.ndarray
    source: np.ndarray
    target: np.ndarray
    ptr: np.ndarray
    rank: np.ndarray
    read: np.ndarray


def no_tiles() -> RankTiles:
    """No tiles of ranks, or none yet."""
    nothing = np.zeros(0, np.int64)
    return RankTiles(nothing, nothing, np.zeros(1, np.int64), nothing, nothing)


@dataclass(frozen=True, eq=False)
class LayerPlan:
    """One layer on its way to a schedule. ``factors`` holds the numbers; later passes add places, tiles and order.

    form: "ranks", "dense" or "mixed". block_tokens: token rows per block, 0 until chosen. rank_bank, rank_slot: (K,)
    places in rank memory. rank_tiles: tiles of ranks. shares (K,): the rank whose place a rank takes once that one has
    been read, -1 for none; () for nobody. turn (K,): ranks of one turn are in memory together; () for a single one.
    ring: turns that have places of their own, so that ranks of turn t + ring take those of turn t.
    one_input: a block may take more than an input buffer, and has both.
    held_slots: slots in rank memory, 0 for all. order: all tiles in execution order, None until chosen.
    narrow: kinds of tiles that are narrow.
    """

    name: str
    factors: Factors
    machine: Machine
    tokens: int
    form: str = "ranks"
    block_tokens: int = 0
    rank_bank: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    rank_slot: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    rank_tiles: RankTiles = field(default_factory=no_tiles)
    shares: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    turn: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    ring: int = 1
    one_input: bool = False
    held_slots: int = 0
    order: TileOrder | None = None
    narrow: tuple[Op, ...] = ()

    @cached_property
    def structure(self) -> Structure:
        """Chunk sets of the factors on this machine's array."""
        return structure_of(self.factors, self.machine.rows, self.machine.cols)

    @property
    def turns(self) -> int:
        """Turns in which ranks are in memory, 1 at least."""
        return int(self.turn.max(initial=0)) + 1

    @property
    def turn_of(self) -> np.ndarray:
        """The turn of each rank, (K,)."""
        return self.turn if len(self.turn) else np.zeros(self.factors.ranks, np.int64)

    @property
    def places(self) -> int:
        """Places in rank memory that the ranks of the largest turn need."""
        own = self.turn_of if not len(self.shares) else self.turn_of[self.shares < 0]
        return int(np.bincount(own, minlength=1).max())

    @property
    def input_chunks(self) -> int:
        return ceil_div(self.factors.in_features, self.machine.rows)

    @property
    def output_chunks(self) -> int:
        return ceil_div(self.factors.out_features, self.machine.cols)


def filled(plan: LayerPlan, **fields: Any) -> LayerPlan:
    """The plan with more fields filled in; what is known of its factors' structure is kept."""
    result = replace(plan, **fields)
    if "structure" in plan.__dict__:
        result.__dict__["structure"] = plan.structure
    return result


def describe(plan: LayerPlan) -> str:
    """The plan as short deterministic text, for reading after any pass and for comparing in tests."""
    factors, structure = plan.factors, plan.structure
    numbers = hashlib.sha256(
        factors.u.tobytes()
        + factors.v.tobytes()
        + (b"" if factors.dense is None else factors.dense.tobytes())
        + factors.mix_value.tobytes()
    )
    lines = [
        f'layer "{plan.name}" {factors.out_features} x {factors.in_features}, {factors.ranks} ranks, form {plan.form}, '
        f"{factors.multiplications} multiplications, numbers {numbers.hexdigest()[:12]}",
        f"  dense tiles {int(structure.tiles.sum())} of {structure.tiles.size}: " + _cells(structure.tiles),
    ]
    for rank in range(factors.ranks):
        place = f" at {plan.rank_bank[rank]}.{plan.rank_slot[rank]}" if len(plan.rank_bank) else ""
        lines.append(
            f"  rank {rank} reads {_runs(structure.reads[rank])} writes {_runs(structure.writes[rank])}{place}"
        )
    bounds = np.searchsorted(factors.mix_target, np.arange(factors.ranks + 1)).tolist()
    for rank, (begin, end) in enumerate(pairwise(bounds)):
        if begin < end:
            lines.append(f"  rank {rank} is mixed from {','.join(map(str, factors.mix_source[begin:end]))}")
    if plan.block_tokens:
        lines.append(f"  {plan.tokens} tokens in blocks of {plan.block_tokens}")
    if plan.order is None:
        tiles = plan.rank_tiles
        for op, chunk, ranks in zip(tiles.op, tiles.chunk, np.split(tiles.rank, tiles.ptr[1:-1]), strict=False):
            lines.append(f"  tile {Op(op).name} chunk {chunk} ranks {','.join(map(str, ranks))}")
    else:
        order = plan.order
        ranks_of = np.split(order.rank, order.ptr[1:-1])
        for kind, source, target, ranks in zip(order.kind, order.source, order.target, ranks_of, strict=False):
            lines.append(f"  {Op(kind).name} {source}->{target} {','.join(map(str, ranks))}".rstrip())
    return "\n".join(lines) + "\n"


def _runs(flags: np.ndarray) -> str:
    """True positions as runs: 0-3,7."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(np.int8), [0]])))
    runs = [f"{a}" if b == a + 1 else f"{a}-{b - 1}" for a, b in zip(edges[::2], edges[1::2], strict=True)]
    return ",".join(runs) or "none"


def _cells(tiles: np.ndarray) -> str:
    rows = [f"{row}:{_runs(cells)}" for row, cells in enumerate(tiles) if cells.any()]
    return " ".join(rows) or "none"
