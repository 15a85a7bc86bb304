"""Instruction words in hardware: fetch, fields, and what an instruction waits for (rules E6, E7, Q1 to Q4)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from amaranth.hdl import Module, Mux, Signal, Value

from simulator.program.encoding import (
    ACCUMULATE_BIT,
    CHUNK_BIT,
    COMPLETION_CLASSES,
    HALF_BIT,
    REDUCE_BIT,
    ROW_CYCLES_BIT,
    WORDS,
)
from simulator.program.operations import Op

WORD_BITS = 32 * len(WORDS)
COUNTERS = tuple(COMPLETION_CLASSES)


class InstructionWord:
    """A 64-byte word and its fields as slices."""

    def __init__(self, word: Value) -> None:
        self.word = word
        control: Value = word[:32]
        self.op = control[:4]
        self.accumulate, self.half = control[ACCUMULATE_BIT], control[HALF_BIT]
        self.waits_for_reduce = control[REDUCE_BIT]
        self.row_cycles = control[ROW_CYCLES_BIT:]
        place: Value = self.field("place")
        self.slot, self.chunk = place[:CHUNK_BIT], place[CHUNK_BIT:]

    def field(self, name: str) -> Value:
        """The 32-bit word called ``name`` in ``simulator.program.encoding.WORDS``."""
        return self.word.word_select(WORDS.index(name), 32)

    def is_any(self, ops: Iterable[Op]) -> Value:
        return is_any(self.op, ops)


def is_any(field: Value, ops: Iterable[Op]) -> Value:
    """Whether an operation's number (4 bits) is one of ``ops``."""
    return field.matches(*map(int, ops))


class InstructionQueue:
    """The head of a stream that lies in a program memory outside: ``pc`` asks, ``word`` answers in the same cycle."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.pc, self.length = Signal(32, name=f"{name}_pc"), Signal(32, name=f"{name}_length")
        self.word = Signal(WORD_BITS, name=f"{name}_word")
        self.head = InstructionWord(self.word)
        self.valid = self.pc < self.length

    def advance(self, m: Module, when: Value) -> None:
        """Go on to the next word behind cycles in which ``when`` holds."""
        with m.If(when):
            m.d.sync += self.pc.eq(self.pc + 1)

    def seen(self, completed: Mapping[str, Signal], *columns: str) -> Value:
        """Whether the completions awaited in ``columns`` (weights, input, array, vector, store) have been counted."""
        met: Value = self.valid
        for column in columns:
            count = completed[column] if column != "array" else None
            if count is None:
                count = Mux(self.head.waits_for_reduce, completed["reduce"], completed["sum"])
            met = met & (count >= self.head.field(f"wait_{column}"))
        return met
