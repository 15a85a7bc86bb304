"""The table of operations: what each instruction is, once. Units, dependences, durations, checks, counted events, the
encoding and the accounts of causes follow from it (machine.md, sections 2 to 8; docs/house.md has the recipes).

How numbers are computed stands in ``simulator.numbers``, and the hardware in ``simulator.rtl``; both refuse at import
to be without an operation of this table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import TypeVar

import numpy as np

T = TypeVar("T")
Key = TypeVar("Key", bound=Enum)


class Unit(IntEnum):
    """In-order units. With fewer DMA engines, INPUT_DMA (and OUTPUT_DMA) share WEIGHT_DMA's queue (rule D1)."""

    WEIGHT_DMA = 0
    INPUT_DMA = 1
    OUTPUT_DMA = 2
    ARRAY = 3
    VECTOR = 4


class After(IntEnum):
    """The five queues of instructions, and with them the dependence columns: each is named by what produced the thing
    waited for (rule Q2).
    """

    WEIGHTS = 0
    INPUT = 1
    ARRAY = 2
    VECTOR = 3
    STORE = 4


class Place(IntEnum):
    """Where an operation's rows come from, or go to. SCRATCHPAD and ACCUMULATORS are addressed by ``src`` and ``dst``;
    a tile's ranks and its slot of the weight buffer stand in its tile table.
    """

    DRAM = 0
    PARAMETERS = 1
    WEIGHT_BUFFER = 2
    SCRATCHPAD = 3
    ACCUMULATORS = 4
    RANKS = 5


class Duration(Enum):
    """How long an operation keeps its unit: bytes over the channel (D2); rows of a tile (A1, B2); rows of sums that the
    vector unit drains (V1); passes over all elements of a vector operator (V2).
    """

    TRANSFER = "transfer"
    ROWS = "rows"
    DRAIN = "drain"
    PASSES = "passes"


class Rows(Enum):
    """What ``token0`` and ``tokens`` count: rows of the layer's result, rows of the operand that is loaded, nothing."""

    RESULT = "result"
    OPERAND = "operand"
    NONE = "none"


class Chunk(Enum):
    """What ``chunk`` is: a chunk of the layer's inputs, or of its outputs; the one on a tile's fixed side; a number of
    chunks; nothing.
    """

    INPUT = "input"
    OUTPUT = "output"
    OF_TILE = "of tile"
    COUNT = "count"
    NONE = "none"


class Op(IntEnum):
    """What an instruction does. The numbers stand in programs and in tile records (rule E4)."""

    LOAD_PARAMETERS = 0
    LOAD_INPUT = 1
    LOAD_WEIGHTS = 2
    DENSE = 3
    REDUCE = 4
    EXPAND = 5
    DRAIN = 6
    STORE = 7
    VECTOR = 8
    MIX = 9


@dataclass(frozen=True)
class Operation:
    """One entry of the table.

    queue: whose turn it takes, and in which dependence column others wait for it. reads, writes: where its rows come
    from and go to. duration: how long it keeps its unit. rows, chunk: what ``token0``, ``tokens`` and ``chunk`` mean.
    encoded: whether hardware has it (section 13); programs with other operations run in the simulator only.
    """

    queue: After
    reads: Place
    writes: Place
    duration: Duration
    rows: Rows
    chunk: Chunk
    encoded: bool

    @property
    def is_tile(self) -> bool:
        return self.queue is After.ARRAY

    @property
    def uses_ranks(self) -> bool:
        return Place.RANKS in (self.reads, self.writes)

    @property
    def lane_is_column(self) -> bool:
        """Whether a tile's stored weights lie along columns of the array: its lanes are ranks that it writes. Of a tile
        that reads ranks too, weights belong to the lanes that read.
        """
        return self.is_tile and self.writes is Place.RANKS and self.reads is not Place.RANKS


OPERATIONS: Mapping[Op, Operation] = {
    Op.LOAD_PARAMETERS: Operation(
        After.WEIGHTS, Place.DRAM, Place.PARAMETERS, Duration.TRANSFER, Rows.NONE, Chunk.NONE, encoded=True
    ),
    Op.LOAD_INPUT: Operation(
        After.INPUT, Place.DRAM, Place.SCRATCHPAD, Duration.TRANSFER, Rows.OPERAND, Chunk.INPUT, encoded=True
    ),
    Op.LOAD_WEIGHTS: Operation(
        After.WEIGHTS, Place.DRAM, Place.WEIGHT_BUFFER, Duration.TRANSFER, Rows.NONE, Chunk.NONE, encoded=True
    ),
    Op.DENSE: Operation(
        After.ARRAY, Place.SCRATCHPAD, Place.ACCUMULATORS, Duration.ROWS, Rows.RESULT, Chunk.OF_TILE, encoded=True
    ),
    Op.REDUCE: Operation(
        After.ARRAY, Place.SCRATCHPAD, Place.RANKS, Duration.ROWS, Rows.RESULT, Chunk.OF_TILE, encoded=True
    ),
    Op.EXPAND: Operation(
        After.ARRAY, Place.RANKS, Place.ACCUMULATORS, Duration.ROWS, Rows.RESULT, Chunk.OF_TILE, encoded=True
    ),
    Op.DRAIN: Operation(
        After.VECTOR, Place.ACCUMULATORS, Place.SCRATCHPAD, Duration.DRAIN, Rows.RESULT, Chunk.OUTPUT, encoded=True
    ),
    Op.STORE: Operation(
        After.STORE, Place.SCRATCHPAD, Place.DRAM, Duration.TRANSFER, Rows.RESULT, Chunk.OUTPUT, encoded=True
    ),
    Op.VECTOR: Operation(
        After.VECTOR, Place.SCRATCHPAD, Place.SCRATCHPAD, Duration.PASSES, Rows.RESULT, Chunk.COUNT, encoded=False
    ),
    Op.MIX: Operation(After.ARRAY, Place.RANKS, Place.RANKS, Duration.ROWS, Rows.RESULT, Chunk.NONE, encoded=True),
}


def complete(table: Mapping[Key, T], keys: type[Key] | Iterable[Key], where: str) -> Mapping[Key, T]:
    """``table`` itself, if it has an entry for every key and no other: what a module makes of the operations cannot
    forget one. Raises TypeError, at import, naming the table and what is missing or too much.
    """
    wanted, found = set(keys), set(table)
    if wanted != found:
        missing, unknown = (sorted(k.name for k in part) for part in (wanted - found, found - wanted))
        raise TypeError(f"{where}: no entry for {', '.join(missing) or 'none'}; unknown entries {unknown or 'none'}")
    return table


complete(OPERATIONS, Op, "simulator.program.operations.OPERATIONS")


def ops_where(holds: Callable[[Operation], bool]) -> tuple[Op, ...]:
    """The operations whose entry fulfils a condition, in order of their numbers."""
    return tuple(op for op in Op if holds(OPERATIONS[op]))


def listed(ops: tuple[Op, ...], word: str) -> str:
    """Names of operations for a sentence: "DENSE, REDUCE and EXPAND"."""
    *before, last = (op.name for op in ops)
    return f"{', '.join(before)} {word} {last}" if before else last


def by_op(value: Callable[[Operation], int | bool]) -> np.ndarray:
    """A value for each operation, (operations,) int64, indexed by Op: what kernels read instead of the table."""
    return np.array([int(value(OPERATIONS[op])) for op in Op], dtype=np.int64)


TILE_OPS = ops_where(lambda entry: entry.is_tile)
TRANSFER_OPS = ops_where(lambda entry: entry.duration is Duration.TRANSFER)
VECTOR_OPS = ops_where(lambda entry: entry.queue is After.VECTOR)
RANK_OPS = ops_where(lambda entry: entry.uses_ranks)  # tiles with a lane table
GATHER_OPS = ops_where(lambda entry: entry.is_tile and entry.reads is Place.RANKS)
SCATTER_OPS = ops_where(lambda entry: entry.is_tile and entry.writes is Place.RANKS)
MIX_OPS = tuple(op for op in GATHER_OPS if op in SCATTER_OPS)  # lanes that read ranks, behind them lanes that write
COLUMN_OPS = ops_where(lambda entry: entry.lane_is_column)
RESULT_ROW_OPS = ops_where(lambda entry: entry.rows is Rows.RESULT)
INPUT_CHUNK_OPS = ops_where(lambda entry: entry.chunk is Chunk.INPUT)
OUTPUT_CHUNK_OPS = ops_where(lambda entry: entry.chunk is Chunk.OUTPUT)
VECTOR_OPERATOR_OPS = ops_where(lambda entry: entry.duration is Duration.PASSES)
# Operations allowed as the producer in each dependence column.
PRODUCERS: Mapping[After, tuple[Op, ...]] = {
    column: tuple(op for op in Op if OPERATIONS[op].queue is column) for column in After
}

_UNITS_BY_ENGINES = {
    1: (Unit.WEIGHT_DMA, Unit.WEIGHT_DMA, Unit.WEIGHT_DMA),
    2: (Unit.WEIGHT_DMA, Unit.WEIGHT_DMA, Unit.OUTPUT_DMA),
    3: (Unit.WEIGHT_DMA, Unit.INPUT_DMA, Unit.OUTPUT_DMA),
}


def unit_of_op(dma_engines: int) -> np.ndarray:
    """The unit that runs each operation, indexed by Op, for a machine with 1, 2 or 3 DMA engines (rule D1)."""
    weights, inputs, stores = _UNITS_BY_ENGINES[dma_engines]
    units = {
        After.WEIGHTS: weights,
        After.INPUT: inputs,
        After.STORE: stores,
        After.ARRAY: Unit.ARRAY,
        After.VECTOR: Unit.VECTOR,
    }
    return by_op(lambda entry: units[entry.queue])


def is_any(op: np.ndarray, ops: tuple[Op, ...]) -> np.ndarray:
    """Which of a column of known operations are one of ``ops``: a table look-up, several times faster than a search."""
    table = np.zeros(len(Op), dtype=bool)
    table[list(ops)] = True
    return table[op]


_READING = {place: by_op(lambda entry, place=place: entry.reads is place) != 0 for place in Place}  # type: ignore[misc]
_WRITING = {place: by_op(lambda entry, place=place: entry.writes is place) != 0 for place in Place}  # type: ignore[misc]


def reads(op: np.ndarray, place: Place) -> np.ndarray:
    """Which of a column of known operations take their rows from ``place``."""
    return _READING[place][op]


def writes(op: np.ndarray, place: Place) -> np.ndarray:
    """Which of a column of known operations put their rows into ``place``."""
    return _WRITING[place][op]
