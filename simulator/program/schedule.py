"""The upper level of the IR: one layer's weight tiles, ranks, banks and payload, immutable and self-checking."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import NamedTuple

import numpy as np

from simulator.base.arithmetic import ceil_div
from simulator.base.errors import refuse_program
from simulator.base.shown import Shown
from simulator.machine.machine import MAX_COLUMN_SHIFT, Machine
from simulator.program.isa import narrowed
from simulator.program.operations import GATHER_OPS, MIX_OPS, RANK_OPS, SCATTER_OPS, TILE_OPS, is_any, listed

RECORD_BYTES = 8  # tile descriptor: kind, chunk, lane count, address (machine.md, E4)
LANE_BYTES = 4  # rank address (2), first lane and last lane of its run (1 each)
SHIFT_BITS = 4  # of a column of a narrow tile
PARAMETER_BYTES = 8  # per output channel: bias and requantisation multiplier
FORMS = ("dense", "ranks", "mixed", "activations", "vector")
RANK_PARAMETER_BYTES = 4  # per place of the multiplier table: requantisation multiplier (rule E5)


@dataclass(frozen=True, eq=False, repr=False)
class TileTable(Shown):
    """The weight tiles of a layer in execution order, as columns; lanes are a ragged table behind ``lane_ptr``.

    kind (N,): one of ``operations.TILE_OPS``. source (N,): input chunk read, -1 for a tile that reads ranks. target
    (N,): output chunk, -1 for one that writes ranks. A lane of a DENSE tile is an input channel of its chunk; of a
    REDUCE tile, the rank it writes; of an EXPAND tile, the rank it reads; a MIX tile has a lane for each rank it reads
    and behind them one for each that it writes. ``lo``/``hi`` bound the lane's run of stored weights on the tile's
    other side (outputs, inputs, outputs; of a MIX the ranks written, by their place among them, and its written lanes
    have empty runs, 0 and 0). ``first`` marks a lane that overwrites the sum of the rank that it writes instead of
    adding to it. ``row_cycles`` (N,): cycles of a token row, by how many of a tile's ranks are in one bank (rule B2), 1
    for DENSE. ``gathered`` (N,): how many of a tile's lanes read ranks; None derives it where kinds have none or all.
    ``narrow`` (N,): whether a tile's weights have the machine's ``narrow_bits``; None for none. ``shift``: of each
    column that a narrow tile writes (``shift_count``), a ragged table behind ``shift_ptr`` (rule A6); None for none.
    Columns are int32 and read-only, ``lane_ptr`` is int64.
    """

    kind: np.ndarray
    source: np.ndarray
    target: np.ndarray
    row_cycles: np.ndarray
    lane_ptr: np.ndarray
    lane: np.ndarray
    first: np.ndarray
    lo: np.ndarray
    hi: np.ndarray
    gathered: np.ndarray = None  # type: ignore[assignment]  # derived where it is left out
    narrow: np.ndarray = None  # type: ignore[assignment]  # all wide where it is left out
    shift: np.ndarray = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        if self.gathered is None:
            object.__setattr__(self, "gathered", self._gathered_by_kind())
        if self.narrow is None:
            object.__setattr__(self, "narrow", np.zeros(len(self.kind), np.int32))
        if self.shift is None:
            object.__setattr__(self, "shift", np.zeros(0, np.int32))
        for field in fields(self):
            wide = field.name == "lane_ptr"
            column = narrowed(f"tile table: '{field.name}'", getattr(self, field.name), wide)
            object.__setattr__(self, field.name, column)
        count = len(self.kind)
        single = (self.source, self.target, self.row_cycles, self.gathered, self.narrow)
        if any(len(c) != count for c in single) or len(self.lane_ptr) != count + 1:
            refuse_program(
                "tile table",
                f"columns of unequal length ({count} kinds)",
                "all columns have one entry a tile, lane_ptr one more",
            )
        lanes = int(self.lane_ptr[-1])
        if (
            self.lane_ptr[0] != 0
            or (np.diff(self.lane_ptr) < 0).any()
            or any(len(c) != lanes for c in (self.lane, self.first, self.lo, self.hi))
        ):
            refuse_program(
                "tile table: 'lane_ptr'",
                self.lane_ptr[-1],
                "lane_ptr starts at 0, never falls and ends at the number of lanes",
            )
        if ((self.lo < 0) | (self.hi < self.lo)).any():
            refuse_program("tile table: 'lo', 'hi'", "a run that ends before it starts", "0 <= lo <= hi for every lane")
        if not np.isin(self.kind, TILE_OPS).all():
            refuse_program("tile table: 'kind'", sorted(set(self.kind.tolist())), f"a tile is {listed(TILE_OPS, 'or')}")
        self._check_gathered()
        self._check_narrow()

    def __len__(self) -> int:
        return len(self.kind)

    def _gathered_by_kind(self) -> np.ndarray:
        """Lanes that read ranks, where the kind alone says it: all of an EXPAND, none of a DENSE or REDUCE."""
        kind, lanes = np.asarray(self.kind), np.diff(np.asarray(self.lane_ptr))
        return np.where(np.isin(kind, GATHER_OPS), lanes, 0) if len(lanes) == len(kind) else np.zeros(len(kind))

    def _check_gathered(self) -> None:
        where = "tile table: 'gathered'"
        both = is_any(self.kind, MIX_OPS)
        wrong = both & ((self.gathered < 1) | (self.gathered >= self.lane_count))
        if wrong.any():
            at = int(np.argmax(wrong))
            refuse_program(
                where,
                f"{self.gathered[at]} of the {self.lane_count[at]} lanes of tile {at}",
                "a MIX has lanes of both kinds",
            )
        if (~both & (self.gathered != self._gathered_by_kind())).any():
            refuse_program(
                where, "a tile whose kind says otherwise", "EXPAND lanes read ranks, DENSE and REDUCE do not"
            )
        written = ~self.lane_gathers & np.repeat(both, self.lane_count)
        if (written & ((self.lo != 0) | (self.hi != 0))).any():
            refuse_program(
                "tile table: 'lo', 'hi'", "weights of a lane that a MIX writes", "they are those of its reads"
            )

    def _check_narrow(self) -> None:
        if ((self.narrow != 0) & (self.narrow != 1)).any():
            refuse_program("tile table: 'narrow'", "neither 0 nor 1", "a tile is wide (0) or narrow (1)")
        if len(self.shift) != self.shift_ptr[-1]:
            refuse_program(
                "tile table: 'shift'",
                f"{len(self.shift)} shifts",
                f"narrow tiles write {self.shift_ptr[-1]} columns, each with a shift",
            )
        if ((self.shift < 0) | (self.shift > MAX_COLUMN_SHIFT)).any():
            refuse_program(
                "tile table: 'shift'",
                int(self.shift[(self.shift < 0) | (self.shift > MAX_COLUMN_SHIFT)][0]),
                f"a column's shift lies between 0 and {MAX_COLUMN_SHIFT}",
            )

    @cached_property
    def columns_written(self) -> np.ndarray:
        """Columns that each tile writes, (N,): lanes that write ranks, or outputs up to the last that a stored weight
        reaches.
        """
        outputs = np.zeros(len(self.kind), np.int64)
        np.maximum.at(outputs, np.repeat(np.arange(len(self.kind)), self.lane_count), self.hi)
        return _read_only(np.where(is_any(self.kind, SCATTER_OPS), self.scattered, outputs))

    @cached_property
    def shift_count(self) -> np.ndarray:
        """Columns that each narrow tile writes, 0 of wide ones, (N,)."""
        narrow = self.columns_written * self.narrow if self.narrow.any() else np.zeros(len(self.kind), np.int64)
        return _read_only(narrow)

    @cached_property
    def shift_ptr(self) -> np.ndarray:
        """(N+1,) offsets of each tile's shifts."""
        return _read_only(np.concatenate([[0], np.cumsum(self.shift_count)]))

    def column_shifts(self, tile: int) -> np.ndarray:
        """Shifts of the columns that a narrow tile writes, from the first on; none of a wide one."""
        return self.shift[self.shift_ptr[tile] : self.shift_ptr[tile + 1]]

    @cached_property
    def scattered(self) -> np.ndarray:
        """Lanes of each tile that write ranks."""
        return _read_only(np.where(is_any(self.kind, SCATTER_OPS), self.lane_count - self.gathered, 0))

    @cached_property
    def lane_gathers(self) -> np.ndarray:
        """Whether a lane reads a rank, (lanes,)."""
        within = np.arange(self.lane_ptr[-1]) - np.repeat(self.lane_ptr[:-1], self.lane_count)
        return _read_only(within < np.repeat(self.gathered, self.lane_count))

    @cached_property
    def lane_scatters(self) -> np.ndarray:
        """Whether a lane writes a rank, (lanes,)."""
        return _read_only(np.repeat(is_any(self.kind, SCATTER_OPS), self.lane_count) & ~self.lane_gathers)

    @cached_property
    def lane_count(self) -> np.ndarray:
        """Lanes of each tile."""
        return _read_only(np.diff(self.lane_ptr))

    @cached_property
    def weight_ptr(self) -> np.ndarray:
        """(N+1,) offsets of each tile's weights in the payload."""
        return _read_only(self.lane_weight_ptr[self.lane_ptr])

    @cached_property
    def weight_count(self) -> np.ndarray:
        """Stored weights of each tile."""
        return _read_only(np.diff(self.weight_ptr))

    @property
    def lane_weight_ptr(self) -> np.ndarray:
        """(lanes+1,) offsets of each lane's weights in the payload."""
        return np.concatenate([[0], np.cumsum(self.hi - self.lo)])

    @cached_property
    def is_whole(self) -> np.ndarray:
        """Whether a tile has no ranks and lanes 0, 1, ... of equal runs from column 0 on, which need no table. (N,)"""
        whole = ~is_any(self.kind, RANK_OPS)
        lanes = np.flatnonzero(np.repeat(whole, self.lane_count))
        tile = np.repeat(np.arange(len(self.kind)), self.lane_count)[lanes]
        begin = self.lane_ptr[tile]
        odd = (self.lane[lanes] != lanes - begin) | (self.lo[lanes] != 0) | (self.hi[lanes] != self.hi[begin])
        result = np.array(whole)
        result[tile[odd]] = False
        return result

    def weight_bits(self, machine: Machine) -> np.ndarray:
        """Bits of each tile's weights, (N,)."""
        return _weight_bits(self.narrow, machine)

    def record_bytes(self, machine: Machine) -> np.ndarray:
        """Bytes of each tile in DRAM: descriptor, lane table (not of whole tiles), shifts of a narrow tile, packed
        weights (rule E4).
        """
        return records_of([self], machine)


def records_of(tables: Sequence[TileTable], machine: Machine) -> np.ndarray:
    """``TileTable.record_bytes`` of one table behind the other, (tiles of all,): a table at a time would be slow."""

    def joined(columns: Iterable[np.ndarray]) -> np.ndarray:
        return np.concatenate([np.zeros(0, np.int64), *columns])

    lanes, weights = joined(t.lane_count for t in tables), joined(t.weight_count for t in tables)
    narrow, whole = joined(t.narrow for t in tables), joined(t.is_whole for t in tables)
    bits = _weight_bits(narrow, machine)
    lane_table = np.where(whole == 1, 0, LANE_BYTES * lanes)
    return RECORD_BYTES + lane_table + narrow * shift_bytes(machine) + ceil_div(weights * bits, 8)


def _weight_bits(narrow: np.ndarray, machine: Machine) -> np.ndarray:
    types = machine.datatypes
    return np.where(narrow == 1, types.narrow_bits, types.weight_bits)


def shift_bytes(machine: Machine) -> int:
    """Bytes of the shifts in a narrow tile's record: one for each column of the array (rule E4)."""
    return ceil_div(machine.cols * SHIFT_BITS, 8)


def _read_only(column: np.ndarray) -> np.ndarray:
    column.setflags(write=False)
    return column


@dataclass(frozen=True, eq=False, repr=False)
class Payload(Shown):
    """The numbers of a layer, packed as the tile table orders them.

    codes (W,) int8 and values (W,) float32: the same stored weights quantised and exact. A rank sum is divided by
    ``rank_divisor[k]`` to become an activation code; accumulators count in ``row_step[i]`` times the input step (rule
    N3). ``input_step`` and ``output_step`` are activation steps from calibration, 0 when they are taken from the data
    (rule N1). bias (m,) float32.
    """

    codes: np.ndarray
    values: np.ndarray
    row_step: np.ndarray
    rank_divisor: np.ndarray
    bias: np.ndarray
    input_step: float
    output_step: float

    def __post_init__(self) -> None:
        kinds = {
            "codes": np.int8,
            "values": np.float32,
            "row_step": np.float64,
            "rank_divisor": np.float64,
            "bias": np.float32,
        }
        for name, dtype in kinds.items():
            column = np.ascontiguousarray(getattr(self, name), dtype=dtype)
            if column.dtype.kind == "f" and not np.isfinite(column).all():
                refuse_program(f"payload: '{name}'", "NaN or infinity", "every stored number is finite")
            column.setflags(write=False)
            object.__setattr__(self, name, column)
        for name in ("input_step", "output_step"):
            if not (np.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                refuse_program(
                    f"payload: '{name}'", getattr(self, name), "an activation step is finite and not negative"
                )


def stored_weights(form: str, tiles: TileTable) -> int:
    """Weights in the payload of a layer of this form: those of its tiles, none if they hold activations."""
    return 0 if form == "activations" else int(tiles.weight_ptr[-1])


class Slice(NamedTuple):
    """Outputs [first, last) of the layer of that name."""

    layer: str
    first: int
    last: int


@dataclass(frozen=True, eq=False, repr=False)
class LayerSchedule(Shown):
    """One layer y = W x + bias laid out for a machine: its tiles, its ranks' places in rank memory, its token blocks.
    In the program of a whole network it is one of the operators.

    ``rank_bank`` and ``rank_slot`` (K,): rank k's sum for token t of a block lies in that bank at row ``slot *
    block_tokens + t``. ``held_slots``: so many slots are in memory (all, if it is left out); slot s lies where slot s
    mod held_slots does, and has a multiplier of its own (rule M4). ``form`` is "dense", "ranks" or
    "mixed"; "activations" if the tiles are filled from stored activations (DENSE tiles, no codes, no values); "vector"
    if there are none. ``output_order`` (m,): output p of the schedule, in the tiles and in DRAM, is the layer's output
    ``output_order[p]`` (rule E1). ``sources``: outputs of layers before it that are its inputs, side by side; () for
    inputs of its own.
    """

    name: str
    form: str
    in_features: int
    out_features: int
    ranks: int
    block_tokens: int
    multiplications: int
    tiles: TileTable
    rank_bank: np.ndarray
    rank_slot: np.ndarray
    payload: Payload
    output_order: np.ndarray = None  # type: ignore[assignment]  # the natural one where it is left out
    held_slots: int = 0
    sources: tuple[Slice, ...] = ()

    def __post_init__(self) -> None:
        for name in ("rank_bank", "rank_slot"):
            column = np.ascontiguousarray(getattr(self, name), dtype=np.int64)
            column.setflags(write=False)
            object.__setattr__(self, name, column)
        where = f"layer '{self.name}'"
        if self.held_slots == 0:
            object.__setattr__(self, "held_slots", max(1, self.slots))
        natural = np.arange(max(0, self.out_features))
        order = np.array(natural if self.output_order is None else self.output_order, dtype=np.int64)
        object.__setattr__(self, "output_order", _read_only(order))
        for name in ("in_features", "out_features", "block_tokens"):
            if getattr(self, name) < 1:
                refuse_program(f"{where}: '{name}'", getattr(self, name), "sizes are at least 1")
        if (
            len(self.rank_bank) != self.ranks
            or len(self.rank_slot) != self.ranks
            or len(self.payload.rank_divisor) != self.ranks
        ):
            refuse_program(
                f"{where}: rank table", len(self.rank_bank), f"it must have one row for each of {self.ranks} ranks"
            )
        if len(self.payload.row_step) != self.out_features or len(self.payload.bias) != self.out_features:
            refuse_program(
                f"{where}: output parameters",
                len(self.payload.bias),
                f"one entry for each of {self.out_features} outputs",
            )
        if not np.array_equal(np.sort(order), natural):
            refuse_program(f"{where}: 'output_order'", f"{len(order)} entries", "it names each output once")
        self._check_form(where)
        weights = stored_weights(self.form, self.tiles)
        if len(self.payload.codes) != weights or len(self.payload.values) != weights:
            refuse_program(f"{where}: payload", len(self.payload.codes), f"the tile table describes {weights} weights")
        self._check_lanes(where)

    def _check_form(self, where: str) -> None:
        if self.form not in FORMS:
            refuse_program(f"{where}: 'form'", self.form, f"a form is one of {', '.join(FORMS)}")
        if self.form in ("activations", "vector") and self.ranks:
            refuse_program(f"{where}: 'ranks'", self.ranks, f"a layer of form {self.form} has no ranks")
        if self.form == "vector" and len(self.tiles):
            refuse_program(f"{where}: tile table", f"{len(self.tiles)} tiles", "a layer of form vector has none")
        if self.form == "activations" and is_any(self.tiles.kind, RANK_OPS).any():
            refuse_program(f"{where}: 'kind'", listed(RANK_OPS, "or"), "tiles of activations are DENSE")
        if self.form == "activations" and self.tiles.narrow.any():
            refuse_program(f"{where}: 'narrow'", "a narrow tile", "tiles of activations are wide (machine.md, rule A6)")

    def tile_bytes(self, machine: Machine) -> np.ndarray:
        """Bytes of DRAM that the load of each tile moves: its record, or the codes that a tile of activations holds
        (rule E4).
        """
        if self.form == "activations":
            return self.tiles.weight_count
        return self.tiles.record_bytes(machine)

    def _check_lanes(self, where: str) -> None:
        tiles = self.tiles
        kind = np.repeat(tiles.kind, tiles.lane_count)
        ranks = tiles.lane[is_any(kind, RANK_OPS)]
        if len(ranks) and (ranks.min() < 0 or ranks.max() >= self.ranks):
            refuse_program(f"{where}: lane", int(ranks.max()), f"ranks are numbered 0 to {self.ranks - 1}")

    @property
    def reorders(self) -> bool:
        """Whether outputs are stored in another order than the layer's."""
        return bool((np.diff(self.output_order) < 0).any())

    @property
    def slots(self) -> int:
        """Slots of ranks, each with a row of the multiplier table."""
        return int(self.rank_slot.max(initial=-1)) + 1

    @property
    def shares_places(self) -> bool:
        """Whether some slot lies where another does."""
        return self.held_slots < self.slots

    @cached_property
    def memory_slot(self) -> np.ndarray:
        """The slot of rank memory in which each rank's sums lie, (K,)."""
        return _read_only(self.rank_slot % self.held_slots)

    @cached_property
    def first_slot(self) -> np.ndarray:
        """The multiple of ``held_slots`` from which on a tile's slots are counted, 0 for one without ranks. (N,)"""
        return _read_only(self._turns(np.minimum) * self.held_slots)

    @cached_property
    def last_slot(self) -> np.ndarray:
        """The multiple of ``held_slots`` that the last of a tile's slots is counted from, as ``first_slot``. (N,)"""
        return _read_only(self._turns(np.maximum) * self.held_slots)

    def _turns(self, of: np.ufunc) -> np.ndarray:
        """How often the slots went round before those of each tile, the least or the most of them. (N,)"""
        tiles, turns = self.tiles, np.zeros(len(self.tiles), dtype=np.int64)
        ranked = np.flatnonzero(is_any(tiles.kind, RANK_OPS) & (tiles.lane_count > 0))
        if len(ranked):
            lanes = np.repeat(is_any(tiles.kind, RANK_OPS), tiles.lane_count)
            turn = self.rank_slot[tiles.lane[lanes]] // self.held_slots
            counts = tiles.lane_count[ranked]
            turns[ranked] = of.reduceat(turn, np.cumsum(counts) - counts)
        return turns

    def parameter_bytes(self, multiplier_row: int) -> int:
        """Bytes of biases and requantisation multipliers that the layer loads once (rule E5).

        ``multiplier_row``: the machine's places in a row of its table of rank multipliers.
        """
        return PARAMETER_BYTES * self.out_features + RANK_PARAMETER_BYTES * self.slots * multiplier_row
