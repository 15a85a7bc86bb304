"""The memories around the array: scratchpad, accumulators and rank memory, and how much of them a program uses."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simulator.machine.machine import Machine
from simulator.program.check_places import scratchpad_bytes
from simulator.program.operations import Place, reads, writes
from simulator.program.schedule import LayerSchedule


@dataclass(frozen=True)
class MemorySizes:
    """Bytes of the scratchpad, rows of the accumulators, banks of the rank memory and rows of each."""

    scratchpad: int
    accumulator_rows: int
    banks: int
    rank_rows: int

    @staticmethod
    def of(machine: Machine) -> MemorySizes:
        return MemorySizes(
            machine.scratchpad.size_bytes,
            machine.accumulator_rows,
            machine.rank_memory.banks,
            machine.rank_rows_per_bank,
        )


class OnChip:
    """Scratchpad, accumulator and rank memory, for ``runs`` at once; a float64 for every byte or sum, ``fill`` before
    anything is written.
    """

    def __init__(self, sizes: MemorySizes, cols: int, runs: int, fill: float) -> None:
        self.scratchpad = np.full((runs, sizes.scratchpad), fill)
        self.accumulator = np.full((runs, sizes.accumulator_rows, cols), fill)
        self.rank = np.full((runs, sizes.banks, sizes.rank_rows), fill)

    def read_rows(self, address: int, tokens: int, side: int) -> np.ndarray:
        """(runs, tokens, side) of a chunk in the scratchpad."""
        return self.scratchpad[:, address : address + tokens * side].reshape(-1, tokens, side)

    def write_rows(self, address: int, block: np.ndarray) -> None:
        """Put a chunk's (runs, tokens, side) into the scratchpad."""
        self.scratchpad[:, address : address + block[0].size] = block.reshape(len(block), -1)


def used_memory(
    columns: dict[str, np.ndarray], layer: LayerSchedule, machine: Machine
) -> tuple[MemorySizes, dict[str, np.ndarray]]:
    """Sizes of memories that hold no more than one plain layer's instructions address, and their ``src`` and ``dst``
    there. columns: of those instructions, by name.

    What lies between the ranges that instructions address is left out. Two of them touch the same byte as before, so
    that a program that reads what it should not still does. (A VECTOR's regions depend on its operator: networks have
    none of this.)
    """
    size, op = scratchpad_bytes(columns["op"], columns["tokens"], machine), columns["op"]
    moved = {"src": columns["src"].copy(), "dst": columns["dst"].copy()}
    total = {}
    for place, length in ((Place.SCRATCHPAD, size), (Place.ACCUMULATORS, columns["tokens"])):
        used = {"src": reads(op, place), "dst": writes(op, place)}
        begins = np.concatenate([columns[name][mask] for name, mask in used.items()])
        places, total[place] = _close_together(begins, np.concatenate([length[mask] for mask in used.values()]))
        sources = int(used["src"].sum())
        moved["src"][used["src"]], moved["dst"][used["dst"]] = places[:sources], places[sources:]
    rank_rows = (int(layer.memory_slot.max(initial=-1)) + 1) * layer.block_tokens
    banks = int(layer.rank_bank.max(initial=-1)) + 1
    return MemorySizes(total[Place.SCRATCHPAD], total[Place.ACCUMULATORS], banks, rank_rows), moved


def _close_together(begin: np.ndarray, length: np.ndarray) -> tuple[np.ndarray, int]:
    """New begins of ranges [begin, begin + length) once the gaps that none of them covers are closed, and the end."""
    if len(begin) == 0:
        return begin, 0
    order = np.argsort(begin, kind="stable")
    first, reach = begin[order], np.maximum.accumulate((begin + length)[order])
    gap = np.append(first[0], np.maximum(first[1:] - reach[:-1], 0))  # in front of each range
    places = np.empty_like(begin)
    places[order] = first - np.cumsum(gap)
    return places, int(reach[-1] - gap.sum())
