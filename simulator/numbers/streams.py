"""Where tiles of a network read rows that do not lie behind one another: those of query heads that share a tile, and
windows of an image (machine.md, I2 and M2).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np

from simulator.machine.machine import Machine
from simulator.network.image_rows import ImageRows
from simulator.network.network import Network
from simulator.network.network_layout import head_offset, head_steps
from simulator.numbers.walk import Instruction
from simulator.program.schedule import LayerSchedule


class Streams:
    """Addresses of the rows that the tiles of a network's operators stream."""

    def __init__(self, network: Network, schedules: Sequence[LayerSchedule], machine: Machine) -> None:
        self._schedules = schedules
        self._network, self._side, self._size = network, machine.rows, machine.scratchpad.size_bytes
        self._image = cache(lambda layer: ImageRows.of(network.operators[layer].operands[0]))

    def addresses(self, ins: Instruction) -> np.ndarray | None:
        """(T, P) scratchpad bytes, -1 for a lane that reads zero; None for rows that lie behind one another."""
        if self._network.operators[ins.layer].operands[0].access == "image" and ins.src >= 0:
            return self._of_windows(ins)
        return self._of_heads(ins) if ins.other > 0 else None

    def _of_heads(self, ins: Instruction) -> np.ndarray:
        operator, side = self._network.operators[ins.layer], self._side
        step, keys = head_steps(self._network, operator, side)
        first = ins.chunk * side // keys if operator.kind == "scores" else 0
        heads = np.arange(first, first + ins.tokens // ins.other)
        apart = head_offset(step, heads, ins.other, side)
        apart = apart - apart[0]
        rows = (apart[:, None] + side * np.arange(ins.other)).reshape(-1, 1)
        found = ins.src + rows + np.arange(side)
        return np.where(found < self._size, found, -1)

    def _of_windows(self, ins: Instruction) -> np.ndarray:
        operand = self._network.operators[ins.layer].operands[0]
        channels = int(self._schedules[ins.layer].tiles.source[ins.tile]) * self._side + np.arange(self._side)
        inside = channels < operand.groups * operand.width
        rows = np.arange(ins.token0, ins.token0 + ins.tokens)
        found = ins.src + self._image(ins.layer).addresses(rows, np.where(inside, channels, 0), operand.kept)
        return np.where(inside, found, -1)
