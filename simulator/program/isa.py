"""The columns of instructions, and every rule that a column can break by itself (machine.md, sections 2 and 7)."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from simulator.base.columns import kernel_input
from simulator.base.errors import NOT_OURS, InputError
from simulator.base.shown import Shown
from simulator.program.operations import (
    PRODUCERS,
    TILE_OPS,
    TRANSFER_OPS,
    VECTOR_OPERATOR_OPS,
    After,
    Chunk,
    Op,
    Place,
    Rows,
    is_any,
    ops_where,
    reads,
    writes,
)

_NARROW = np.iinfo(np.int32)

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


@dataclass(frozen=True, eq=False, repr=False)
class Instructions(Shown):
    """The flattened program: integer columns of one length N, in program order. Unused operands are -1.

    op: Op. layer: index into the program's layers. tile: row of that layer's tile table (LOAD_WEIGHTS and tiles), the
    operand that a LOAD_INPUT brings, or the group that a VECTOR handles (-1 for all). chunk: input chunk (LOAD_INPUT),
    output chunk (DRAIN, STORE) or number of chunks (VECTOR). token0, tokens: the token block; a LOAD_WEIGHTS of
    activations has the first row of its sequence in token0. src, dst: scratchpad byte address, or accumulator row, as
    the operation reads and writes (rule I2). other: scratchpad byte address of a VECTOR's second operand, or rows of
    each query head of a tile or a DRAIN (-1: of one head). slot: weight-buffer slot. accumulate: 0 overwrites the
    accumulator, 1 adds to it; a DRAIN with 0 has no sums to read and writes the bias alone. dram_bytes: what a transfer
    moves. row_cycles: cycles per token row (rule B2), or a VECTOR's
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
_WITH_ROWS = ops_where(lambda entry: entry.rows is not Rows.NONE)
_COUNTING = ops_where(lambda entry: entry.chunk is Chunk.COUNT)


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
    is_tile, of_vector = is_any(ins.op, TILE_OPS), is_any(ins.op, VECTOR_OPERATOR_OPS)
    refuse(ins.layer < 0, "layer", ins.layer, "a layer index is not negative")
    names_tile = is_tile | writes(ins.op, Place.WEIGHT_BUFFER)
    refuse(names_tile & (ins.tile < 0), "tile", ins.tile, "a tile index is not negative")
    is_transfer = is_any(ins.op, TRANSFER_OPS)
    refuse(is_transfer & (ins.dram_bytes <= 0), "dram_bytes", ins.dram_bytes, "a transfer moves at least one byte")
    works = is_any(ins.op, _WITH_ROWS)
    refuse(works & (ins.tokens <= 0), "tokens", ins.tokens, "a token block holds at least one token")
    refuse(works & (ins.token0 < 0), "token0", ins.token0, "a token index is not negative")
    refuse(is_tile & (ins.row_cycles <= 0), "row_cycles", ins.row_cycles, "a token row takes at least one cycle")
    refuse(of_vector & (ins.row_cycles <= 0), "row_cycles", ins.row_cycles, "a VECTOR makes at least one pass")
    refuse(is_any(ins.op, _COUNTING) & (ins.chunk <= 0), "chunk", ins.chunk, "a VECTOR processes at least one chunk")
    of_heads = (is_tile & reads(ins.op, Place.SCRATCHPAD)) | reads(ins.op, Place.ACCUMULATORS)
    rule = "only a VECTOR has a second operand, and only tiles and drains have rows of each query head"
    refuse((ins.other < -1) | (~(of_vector | of_heads) & (ins.other >= 0)), "other", ins.other, rule)
    refuse(of_heads & (ins.other == 0), "other", ins.other, "a query head has at least one row")
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
