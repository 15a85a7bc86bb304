"""A program under construction: instructions by number of creation, with the keys that put them in order at the end."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from gblr_hw.lowering.emit.place_transfers import sort_keys
from simulator.program.isa import WIDE_OPERANDS, Instructions
from simulator.program.operations import After

_OPERANDS = tuple(field.name for field in fields(Instructions) if field.name != "after")


@dataclass(frozen=True, order=True)
class Ref:
    """An instruction by its place in the order: sort key, then number of creation."""

    key: int
    id: int

    @property
    def step(self) -> int:
        return self.key >> 32


def latest(refs: Iterable[Ref | None]) -> Ref | None:
    """The last of some instructions in program order, or None."""
    return max((ref for ref in refs if ref is not None), default=None)


def number(ref: Ref | None) -> int:
    """The number of an instruction, -1 for none."""
    return -1 if ref is None else ref.id


class Stream:
    """Runs of instructions; ``put`` adds one and returns its first number, ``in_order`` sorts them all."""

    def __init__(self) -> None:
        self.count = 0
        self._runs: list[tuple[np.ndarray, dict[str, npt.ArrayLike]]] = []

    def put(self, step: npt.ArrayLike, kind: int, sequence: npt.ArrayLike, **columns: npt.ArrayLike) -> list[Ref]:
        """One instruction for each entry of ``step``; columns are scalars or arrays of that length, those that are not
        given stay -1. ``after_X`` are numbers of instructions. Returns the first and the last of the run.
        """
        keys = np.atleast_1d(sort_keys(np.atleast_1d(np.asarray(step)), kind, np.asarray(sequence)))
        first = self.count
        self._runs.append((keys, columns))
        self.count += len(keys)
        return [Ref(int(keys[0]), first), Ref(int(keys[-1]), self.count - 1)]

    def in_order(self) -> Instructions:
        """The instructions sorted by key, their dependences renumbered."""
        keys = np.concatenate([run[0] for run in self._runs])
        order = np.argsort(keys, kind="stable")
        position = np.empty(len(order) + 1, dtype=np.int32)
        position[order] = np.arange(len(order), dtype=np.int32)
        position[-1] = -1  # what "no dependence" refers to
        after = np.stack([position[self._column(f"after_{a.name.lower()}", np.int64)[order]] for a in After])
        operands = {
            name: self._column(name, np.int64 if name in WIDE_OPERANDS else np.int32)[order] for name in _OPERANDS
        }
        return Instructions(after=after, **operands)

    def _column(self, name: str, dtype: npt.DTypeLike) -> np.ndarray:
        column = np.full(self.count, 0 if name == "accumulate" else -1, dtype=dtype)
        at = 0
        for keys, columns in self._runs:
            if name in columns:
                column[at : at + len(keys)] = columns[name]
            at += len(keys)
        return column
