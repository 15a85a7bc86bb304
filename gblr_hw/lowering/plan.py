"""What the lowering passes hand to each other: one layer, with the fields that the passes so far have filled in."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import numpy as np

from gblr_hw.factors import Factors
from gblr_hw.lattice import Structure
from simulator.isa import Op
from simulator.machine import Machine


@dataclass(frozen=True, eq=False)
class RankTile:
    """A REDUCE or EXPAND tile before it is placed: the chunk on its fixed side and the ranks on the other."""

    op: Op
    chunk: int
    ranks: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class LayerPlan:
    """One layer on its way to a schedule. ``factors`` holds the numbers; later passes add places, tiles and order.

    form: "ranks", "dense" or "mixed". block_tokens: token rows per block, 0 until chosen. rank_bank, rank_slot: (K,)
    places in rank memory. rank_tiles: REDUCE and EXPAND tiles. order: tiles in execution order, as (op, input chunk,
    output chunk, ranks).
    """

    name: str
    factors: Factors
    machine: Machine
    tokens: int
    form: str = "ranks"
    block_tokens: int = 0
    rank_bank: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    rank_slot: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    rank_tiles: tuple[RankTile, ...] = ()
    order: tuple[tuple[Op, int, int, tuple[int, ...]], ...] = ()

    @property
    def structure(self) -> Structure:
        """Chunk sets of the factors on this machine's array."""
        return Structure.of(self.factors, self.machine.rows, self.machine.cols)

    @property
    def input_chunks(self) -> int:
        return -(-self.factors.in_features // self.machine.rows)

    @property
    def output_chunks(self) -> int:
        return -(-self.factors.out_features // self.machine.cols)


def describe(plan: LayerPlan) -> str:
    """The plan as short deterministic text, for reading after any pass and for comparing in tests."""
    factors, structure = plan.factors, plan.structure
    numbers = hashlib.sha256(
        factors.u.tobytes() + factors.v.tobytes() + (b"" if factors.dense is None else factors.dense.tobytes())
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
    if plan.block_tokens:
        lines.append(f"  {plan.tokens} tokens in blocks of {plan.block_tokens}")
    lines += [
        f"  tile {t.op.name} chunk {t.chunk} ranks {','.join(map(str, t.ranks))}"
        for t in plan.rank_tiles
        if not plan.order
    ]
    for op, source, target, ranks in plan.order:
        lines.append(f"  {op.name} {source}->{target} {','.join(map(str, ranks))}".rstrip())
    return "\n".join(lines) + "\n"


def _runs(flags: np.ndarray) -> str:
    """True positions as runs: 0-3,7."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(np.int8), [0]])))
    runs = [f"{a}" if b == a + 1 else f"{a}-{b - 1}" for a, b in zip(edges[::2], edges[1::2], strict=True)]
    return ",".join(runs) or "none"


def _cells(tiles: np.ndarray) -> str:
    rows = [f"{row}:{_runs(cells)}" for row, cells in enumerate(tiles) if cells.any()]
    return " ".join(rows) or "none"
