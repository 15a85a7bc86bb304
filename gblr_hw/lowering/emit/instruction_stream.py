"""A program under construction: instructions by number, with the keys that put them in order at the end.

Columns are as narrow as a program's from the start, so that ten million tiles are no different from a thousand.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from gblr_hw.lowering.emit.place_transfers import MAX_INSTRUCTIONS, sort_keys
from simulator.base.errors import InputError
from simulator.program.isa import WIDE_OPERANDS, Instructions
from simulator.program.operations import After

_OPERANDS = tuple(field.name for field in fields(Instructions) if field.name != "after")
_AFTER = tuple(f"after_{column.name.lower()}" for column in After)
_UNUSED = {name: 0 if name == "accumulate" else -1 for name in (*_OPERANDS, *_AFTER)}


@dataclass(frozen=True, order=True)
class Ref:
    """An instruction by its place in the order: sort key, then number."""

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
    """Runs of instructions with successive numbers, in which dependences are written down. ``put`` adds a run,
    ``reserve`` gives numbers to one that others wait for before it is put, ``in_order`` sorts all by their keys.

    room: instructions that are expected; more may come. Raises InputError above MAX_INSTRUCTIONS.
    """

    def __init__(self, room: int = 1024) -> None:
        self.count = 0
        self._room = 0
        self._key = np.zeros(0, dtype=np.int64)
        self._columns = {name: np.zeros(0, dtype=np.int64 if name in WIDE_OPERANDS else np.int32) for name in _UNUSED}
        self._make_room(room)

    def reserve(self, count: int) -> int:
        """The first of ``count`` numbers, all of which a later ``put`` must use."""
        first = self.count
        self.count += count
        if self.count > self._room:
            self._make_room(max(self.count, min(2 * self._room, MAX_INSTRUCTIONS)))
        return first

    def put(
        self,
        step: npt.ArrayLike,
        kind: int,
        sequence: npt.ArrayLike,
        first: int | None = None,
        **columns: npt.ArrayLike,
    ) -> tuple[Ref, Ref]:
        """One instruction for each entry of ``step``, numbered from ``first`` (reserved; the next numbers if None).

        step, kind, sequence: the sort key (place_transfers.py). Columns are scalars or arrays of that length, those
        that are not given stay -1. ``after_X`` are numbers of instructions. Returns the first and the last of the run.
        """
        keys = np.atleast_1d(sort_keys(np.atleast_1d(np.asarray(step)), kind, np.asarray(sequence)))
        begin = self.reserve(len(keys)) if first is None else first
        run = slice(begin, begin + len(keys))
        self._key[run] = keys
        for name, values in columns.items():
            self._columns[name][run] = values
        return Ref(int(keys[0]), begin), Ref(int(keys[-1]), run.stop - 1)

    def in_order(self) -> Instructions:
        """The instructions sorted by key, their dependences renumbered. The stream is empty afterwards."""
        keys = self._key[: self.count]
        assert (keys >= 0).all(), "every reserved number is put"
        order = np.argsort(keys, kind="stable")
        position = np.empty(len(order) + 1, dtype=np.int32)
        position[order] = np.arange(len(order), dtype=np.int32)
        position[-1] = -1  # what "no dependence" refers to
        # Columns go one by one, so that unsorted and sorted ones are never all there.
        after = np.stack([position[self._columns.pop(name)[order]] for name in _AFTER])
        return Instructions(after=after, **{name: self._columns.pop(name)[order] for name in _OPERANDS})

    def _make_room(self, room: int) -> None:
        if room > MAX_INSTRUCTIONS:
            raise InputError(
                "program",
                f"{room} instructions",
                f"a program has at most {MAX_INSTRUCTIONS}",
                "Lower fewer tokens or layers at a time.",
            )
        self._key = _longer(self._key, room, -1)
        for name, unused in _UNUSED.items():
            self._columns[name] = _longer(self._columns[name], room, unused)
        self._room = room


def _longer(column: np.ndarray, length: int, fill: int) -> np.ndarray:
    longer = np.full(length, fill, dtype=column.dtype)
    longer[: len(column)] = column
    return longer
