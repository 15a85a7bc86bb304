"""Who last used which bytes of the scratchpad, so that whoever writes them next waits for it."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from gblr_hw.lowering.emit.instruction_stream import Ref

Class = Literal["input", "array", "vector", "store"]


class _Use(NamedTuple):
    """Bytes [low, high) and the last instruction of a class that uses any of them; with ``parts``, (N, 2) key and
    number of the last one that uses each of N equal parts.
    """

    low: int
    high: int
    by: Class
    ref: Ref
    earliest: Ref
    parts: np.ndarray | None = None

    def of(self, low: int, high: int) -> Ref:
        """The last use of any byte of [low, high)."""
        if self.parts is None or (low <= self.low and self.high <= high):
            return self.ref
        size = (self.high - self.low) // len(self.parts)
        first, last = max(0, (low - self.low) // size), min(len(self.parts), -((self.low - high) // size))
        return max(Ref(*one) for one in self.parts[first:last].tolist())


class Hazards:
    """Byte ranges and the latest instruction of each class that reads or writes them. Completions of a class come in
    order (machine.md, Q4), so the latest stands for all before it.
    """

    def __init__(self) -> None:
        self._uses: list[_Use] = []

    def use(self, low: int, high: int, by: Class, ref: Ref) -> None:
        """Note that ``ref`` reads or writes bytes [low, high)."""
        self._note(_Use(low, high, by, ref, ref))

    def use_parts(self, low: int, high: int, by: Class, keys: np.ndarray, ids: np.ndarray) -> None:
        """Note who reads or writes equal parts of [low, high) last, by sort key and number, (N,) each."""
        parts = np.stack([keys, ids], axis=1)
        order = np.lexsort((ids, keys))
        first, last = (Ref(*parts[order[at]].tolist()) for at in (0, -1))
        self._note(_Use(low, high, by, last, first, parts))

    def _note(self, new: _Use) -> None:
        self._uses = [
            use
            for use in self._uses
            if not (use.by == new.by and new.low <= use.low and use.high <= new.high and use.ref <= new.earliest)
        ]
        self._uses.append(new)

    def before(self, low: int, high: int) -> dict[Class, Ref]:
        """The latest user of any byte of [low, high), by class."""
        found: dict[Class, Ref] = {}
        for use in self._uses:
            if use.low < high and low < use.high:
                ref = use.of(low, high)
                if use.by not in found or found[use.by] < ref:
                    found[use.by] = ref
        return found

    def before_each(self, low: int, size: int, count: int) -> list[dict[Class, Ref]]:
        """``before`` of ``count`` runs of ``size`` bytes, the first of which begins at ``low``."""
        near = Hazards()
        near._uses = [use for use in self._uses if use.low < low + size * count and low < use.high]
        if all(use.parts is None and use.low <= low and low + size * count <= use.high for use in near._uses):
            return [near.before(low, low + size * count)] * count
        return [near.before(at, at + size) for at in range(low, low + size * count, size)]
