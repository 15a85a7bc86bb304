"""Who last used which bytes of the scratchpad, so that whoever writes them next waits for it."""

from __future__ import annotations

from typing import Literal

from gblr_hw.lowering.emit.instruction_stream import Ref

Class = Literal["input", "array", "vector", "store"]


class Hazards:
    """Byte ranges and the latest instruction of each class that reads or writes them. Completions of a class come in
    order (machine.md, Q4), so the latest stands for all before it.
    """

    def __init__(self) -> None:
        self._uses: list[tuple[int, int, Class, Ref]] = []

    def use(self, low: int, high: int, by: Class, ref: Ref) -> None:
        """Note that ``ref`` reads or writes bytes [low, high)."""
        self._uses = [
            use for use in self._uses if not (use[2] == by and low <= use[0] and use[1] <= high and use[3] <= ref)
        ]
        self._uses.append((low, high, by, ref))

    def before(self, low: int, high: int) -> dict[Class, Ref]:
        """The latest user of any byte of [low, high), by class."""
        found: dict[Class, Ref] = {}
        for begin, end, by, ref in self._uses:
            if begin < high and low < end and (by not in found or found[by] < ref):
                found[by] = ref
        return found
