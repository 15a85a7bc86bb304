"""The instruction set: operations, the units that run them, and the columns of an instruction (machine.md, sections 2
and 7).
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import IntEnum

import numpy as np

from simulator.base.columns import kernel_input
from simulator.base.errors import NOT_OURS, InputError


class Op(IntEnum):
    """What an instruction does. The three tile kinds are one pass through the array each; VECTOR stands in programs of
    whole networks only.
    """

    LOAD_PARAMETERS = 0
    LOAD_INPUT = 1
    LOAD_WEIGHTS = 2
    DENSE = 3
    REDUCE = 4
    EXPAND = 5
    DRAIN = 6
    STORE = 7
    VECTOR = 8


class Unit(IntEnum):
    """In-order units. With fewer DMA engines, INPUT_DMA (and OUTPUT_DMA) share WEIGHT_DMA's queue (rule D1)."""

    WEIGHT_DMA = 0
    INPUT_DMA = 1
    OUTPUT_DMA = 2
    ARRAY = 3
    VECTOR = 4


class After(IntEnum):
    """The five dependence columns, named by what produced the thing waited for (rule Q2)."""

    WEIGHTS = 0
    INPUT = 1
    ARRAY = 2
    VECTOR = 3
    STORE = 4


_NARROW = np.iinfo(np.int32)

TILE_OPS = (Op.DENSE, Op.REDUCE, Op.EXPAND)
TRANSFER_OPS = (Op.LOAD_PARAMETERS, Op.LOAD_INPUT, Op.LOAD_WEIGHTS, Op.STORE)
VECTOR_OPS = (Op.DRAIN, Op.VECTOR)

# Operations allowed as the producer in each dependence column.
PRODUCERS: dict[After, tuple[Op, ...]] = {
    After.WEIGHTS: (Op.LOAD_WEIGHTS, Op.LOAD_PARAMETERS),
    After.INPUT: (Op.LOAD_INPUT,),
    After.ARRAY: TILE_OPS,
    After.VECTOR: VECTOR_OPS,
    After.STORE: (Op.STORE,),
}

_UNITS_BY_ENGINES = {
    1: (Unit.WEIGHT_DMA, Unit.WEIGHT_DMA, Unit.WEIGHT_DMA),
    2: (Unit.WEIGHT_DMA, Unit.WEIGHT_DMA, Unit.OUTPUT_DMA),
    3: (Unit.WEIGHT_DMA, Unit.INPUT_DMA, Unit.OUTPUT_DMA),
}


def unit_of_op(dma_engines: int) -> np.ndarray:
    """The unit that runs each operation, indexed by Op, for a machine with 1, 2 or 3 DMA engines (rule D1)."""
    weights, inputs, stores = _UNITS_BY_ENGINES[dma_engines]
    table = {
        Op.LOAD_PARAMETERS: weights,
        Op.LOAD_INPUT: inputs,
        Op.LOAD_WEIGHTS: weights,
        Op.STORE: stores,
        Op.DENSE: Unit.ARRAY,
        Op.REDUCE: Unit.ARRAY,
        Op.EXPAND: Unit.ARRAY,
        Op.DRAIN: Unit.VECTOR,
        Op.VECTOR: Unit.VECTOR,
    }
    return np.array([table[op] for op in Op], dtype=np.int64)


def is_any(op: np.ndarray, ops: tuple[Op, ...]) -> np.ndarray:
    """Which of a column of known operations are one of ``ops``: a table look-up, several times faster than a search."""
    table = np.zeros(len(Op), dtype=bool)
    table[list(ops)] = True
    return table[op]


WIDE_OPERANDS = ("src", "dst", "other", "dram_bytes")  # int64, the others are int32


def narrowed(where: str, values: np.ndarray, wide: bool = False) -> np.ndarray:
    """A read-only, contiguous int32 column (int64 if ``wide``), sharing memory if it is one; InputError if it does not
    fit.
    """
    column = np.asarray(values)
    if not wide and column.dtype != np.int32:
        outside = (column < _NARROW.min) | (column > _NARROW.max)
        if outside.any():
            raise InputError(
                where,
                str(int(column[outside][0])),
                f"it lies between {_NARROW.min} and {_NARROW.max}",
                NOT_OURS,
            )
    return kernel_input(column, np.int64 if wide else np.int32)


@dataclass(frozen=True, eq=False)
class Instructions:
    """The flattened program: integer columns of one length N, in program order. Unused operands are -1.

    op: Op. layer: index into the program's layers. tile: row of that layer's tile table (LOAD_WEIGHTS and tiles), the
    operand that a LOAD_INPUT brings, or the group that a VECTOR handles (-1 for all). chunk: input chunk (LOAD_INPUT),
    output chunk (DRAIN, STORE) or number of chunks (VECTOR). token0, tokens: the token block; a LOAD_WEIGHTS of
    activations has the first row of its sequence in token0. src, dst: scratchpad byte address, or accumulator row, as
    the operation reads and writes (rule I2). other: scratchpad byte address of a VECTOR's second operand. slot:
    weight-buffer slot. accumulate: 0 overwrites the accumulator, 1 adds to it; a DRAIN with 0 has no sums to read and
    writes the bias alone. dram_bytes: what a transfer moves. row_cycles: cycles per token row (rule B2), or a VECTOR's
    passes (rule V2). after: (5, N) instruction indices that must be done first, -1 for none, one row for each
    ``After``. Columns are int32 and read-only, but for ``src``, ``dst``, ``other`` and ``dram_bytes``, which are int64:
    a program has tens of millions of rows, and addresses of large memories need more than 32 bits.
    """

    op: np.ndarray
    layer: np.ndarray
    tile: np.ndarray
    chunk: np.ndarray
    token0: np.ndarray
    tokens: np.ndarray
    src: np.ndarray
    dst: np.ndarray
    other: np.ndarray
    slot: np.ndarray
    accumulate: np.ndarray
    dram_bytes: np.ndarray
    row_cycles: np.ndarray
    after: np.ndarray

    def __post_init__(self) -> None:
        count = len(self.op)
        for field in fields(self):
            column = narrowed(f"program: column '{field.name}'", getattr(self, field.name), field.name in WIDE_OPERANDS)
            expected = (len(After), count) if field.name == "after" else (count,)
            if column.shape != expected:
                raise InputError(
                    f"program: column '{field.name}'",
                    f"shape {column.shape}",
                    f"it must have shape {expected}",
                    "Lower the checkpoint again.",
                )
            object.__setattr__(self, field.name, column)
        _check_columns(self)

    def __len__(self) -> int:
        return len(self.op)


# Operand columns in the order of the encoding and of listings; -1 means "not used".
OPERANDS = tuple(field.name for field in fields(Instructions) if field.name not in ("op", "after"))


def _check_columns(ins: Instructions) -> None:
    """Every rule that a column can break by itself: known operations, non-negative sizes, dependences on earlier
    producers.
    """

    def refuse(mask: np.ndarray, column: str, values: np.ndarray, rule: str) -> None:
        if mask.any():
            at = int(np.argmax(mask))
            raise InputError(
                f"program: instruction {at}: field '{column}'",
                str(int(values[at])),
                rule,
                NOT_OURS,
            )

    refuse(
        (ins.op < 0) | (ins.op >= len(Op)),
        "op",
        ins.op,
        f"operations are 0 to {len(Op) - 1} ({', '.join(o.name for o in Op)})",
    )
    is_tile = is_any(ins.op, TILE_OPS)
    is_transfer = is_any(ins.op, TRANSFER_OPS)
    refuse(ins.layer < 0, "layer", ins.layer, "a layer index is not negative")
    refuse((is_tile | (ins.op == Op.LOAD_WEIGHTS)) & (ins.tile < 0), "tile", ins.tile, "a tile index is not negative")
    refuse(is_transfer & (ins.dram_bytes <= 0), "dram_bytes", ins.dram_bytes, "a transfer moves at least one byte")
    is_vector = ins.op == Op.VECTOR
    works = is_tile | is_any(ins.op, (Op.DRAIN, Op.STORE, Op.LOAD_INPUT, Op.VECTOR))
    refuse(works & (ins.tokens <= 0), "tokens", ins.tokens, "a token block holds at least one token")
    refuse(works & (ins.token0 < 0), "token0", ins.token0, "a token index is not negative")
    refuse(is_tile & (ins.row_cycles <= 0), "row_cycles", ins.row_cycles, "a token row takes at least one cycle")
    refuse(is_vector & (ins.row_cycles <= 0), "row_cycles", ins.row_cycles, "a VECTOR makes at least one pass")
    refuse(is_vector & (ins.chunk <= 0), "chunk", ins.chunk, "a VECTOR processes at least one chunk")
    refuse((ins.other < -1) | (~is_vector & (ins.other >= 0)), "other", ins.other, "only a VECTOR has a second operand")
    refuse((ins.accumulate < 0) | (ins.accumulate > 1), "accumulate", ins.accumulate, "accumulate is 0 or 1")
    position = np.arange(len(ins))
    for column, producers in PRODUCERS.items():
        wait = ins.after[column]
        name = f"after.{column.name.lower()}"
        refuse(
            (wait < -1) | (wait >= position), name, wait, "a dependence names an earlier instruction, or -1 for none"
        )
        named = wait >= 0
        wrong = np.zeros(len(ins), dtype=bool)
        wrong[named] = ~is_any(ins.op[wait[named]], producers)
        refuse(wrong, name, wait, f"it must name one of {', '.join(p.name for p in producers)}")
    stores = ins.after[After.STORE]
    refuse(is_tile & (stores >= 0), "after.store", stores, "a tile waits for no store (rule Q2)")
