"""Whether a layer runs faster in smaller blocks of rows than it must: one rule for a checkpoint's layers and for a
network that is one operator.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from gblr_hw.lowering.passes.block_tokens import FINER_CUTS
from simulator.base.arithmetic import ceil_div
from simulator.machine.machine import Machine
from simulator.program.isa import Instructions
from simulator.program.schedule import TileTable
from simulator.timing.durations import channel_cycles, time_instructions
from simulator.timing.engine import run_engine

# What part of the cycles smaller blocks must save where weights do not stay in their buffer and are loaded for each.
_WORTH_LOADS = 0.03

# Smaller blocks are timed where the ends of a layer take more than this share of what its array takes alone.
_LONG_ENDS = 0.03


@dataclass(frozen=True)
class Cut:
    """A layer in equal blocks: ``block`` of ``rows`` each. counts: numbers of blocks that are cut finer, its own or
    also the least. features: inputs and outputs of a row. tiles: of its weights. array_cycles: a lower bound of what
    its array takes alone.
    """

    machine: Machine
    rows: int
    block: int
    counts: tuple[int, ...]
    features: int
    tiles: int
    array_cycles: int

    def finer(self) -> list[int]:
        """Rows of smaller blocks that may gain, where the first block's inputs and the last one's outputs take long
        beside the array; larger ones first.
        """
        ends = channel_cycles(self.machine, np.array([self.block * self.features]))[0]
        if ends <= _LONG_ENDS * self.array_cycles:
            return []
        sizes = {ceil_div(self.rows, count * cuts) for count in self.counts for cuts in FINER_CUTS}
        return sorted((size for size in sizes if size >= self.machine.rows), reverse=True)


def finer_block(cut: Cut, others: Iterable[int], cost: Callable[[int], tuple[int, int]]) -> int:
    """Rows of the block that runs fastest, of the layer's own and ``others``.

    Weights that do not stay in their buffer are loaded again for each block, which costs energy: smaller blocks than
    the largest are then to gain something. cost: cycles and DRAM bytes of the layer in blocks of so many rows; not
    asked where there are no others. Ties go to fewer bytes, then to the layer's own block, then to the first.
    """
    sizes = tuple(dict.fromkeys((cut.block, *others)))
    if len(sizes) == 1:
        return cut.block
    costs = {size: cost(size) for size in sizes}
    best, largest = min(sizes, key=lambda size: costs[size]), max(sizes)
    stay = cut.tiles <= cut.machine.weight_slots
    return best if stay or costs[best][0] < (1 - _WORTH_LOADS) * costs[largest][0] else largest


def cycles_and_bytes(instructions: Instructions, tables: Sequence[TileTable], machine: Machine) -> tuple[int, int]:
    """Latency in cycles and DRAM bytes of instructions whose layers have these tables of tiles."""
    events = run_engine(time_instructions(instructions, tables, machine))
    return int(events.done.max()), int(np.maximum(instructions.dram_bytes, 0).sum())
