"""What a VECTOR reads and writes in the scratchpad: regions of [chunk][row][C] bytes, cut into the values that an
operator's steps know, and put together again.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from simulator.errors import InputError
from simulator.evaluate_network import fitted
from simulator.network import Network, Operand, Operator
from simulator.network_layout import region_rows
from simulator.operand_views import channel_places
from simulator.vector_steps import run_steps


@dataclass(frozen=True, eq=False)
class Region:
    """Places of the channels of a region's rows: of all groups, or of those of one head alone (``shape`` is theirs,
    groups and width), and the chunks that a row takes.
    """

    places: np.ndarray
    shape: tuple[int, int]
    chunks: int


@dataclass(frozen=True)
class VectorPass:
    """One VECTOR: its operator's output rows (T,), the group that it handles or -1, and where its regions begin."""

    rows: np.ndarray
    group: int
    addresses: tuple[int, int]
    dst: int


class VectorOperator:
    """A vector operator of a network on an array of side C, ready to run on a scratchpad."""

    def __init__(self, network: Network, operator: Operator, side: int) -> None:
        if not 1 <= len(operator.operands) <= 2:
            raise InputError(
                f"operator '{operator.name}'",
                f"{len(operator.operands)} operands",
                "a VECTOR instruction has one or two",
                "The program is damaged or not ours: lower the model again.",
            )
        self.operator, self._network, self._side = operator, network, side
        self._output = network.tensors[operator.output]
        groups = [operand.groups for operand in operator.operands]
        self._groups = max(self._output.groups, *groups, 1)

    def read(self, scratchpad: np.ndarray, run: VectorPass, which: int) -> np.ndarray:
        """(1, T or 1, groups, width) stored numbers of operand ``which``."""
        operand = self.operator.operands[which]
        tensor, address = self._network.tensors[operand.tensor], run.addresses[which]
        if operand.access == "transposed":
            return self._read_transposed(scratchpad, run, operand, address)
        region = self._region(operand.groups, operand.width, tensor.padded, run.group)
        count = region_rows(self._network, self.operator, operand) or len(run.rows)
        rows = self._rows(scratchpad, address, region.chunks, count)
        return rows[:, region.places].reshape(1, count, *region.shape)

    def _read_transposed(self, scratchpad: np.ndarray, run: VectorPass, operand: Operand, address: int) -> np.ndarray:
        """All tokens of the chunks that hold the output rows' channels; a region row is a token of the tensor."""
        tensor, side = self._network.tensors[operand.tensor], self._side
        places = channel_places(tensor.groups, tensor.width, tensor.padded, side)
        mine = places[operand.token0 + run.rows % self.operator.tokens]
        first = mine.min() // side
        rows = self._rows(scratchpad, address, int(mine.max() // side - first) + 1, tensor.tokens)
        count = operand.groups * operand.width
        view = rows[operand.channel0 : operand.channel0 + count, mine - first * side].T
        view = view.reshape(1, len(run.rows), operand.groups, operand.width)
        return view if run.group < 0 else view[:, :, self._group_of(operand.groups, run.group)]

    def compute(self, values: list[np.ndarray], run: VectorPass) -> np.ndarray:
        """(T, groups, width) of the output's rows, or of the one group that ``run`` handles."""
        batch, token = np.divmod(run.rows, self.operator.tokens)
        constants = {}
        for name, array in self._constants.items():
            part = array[batch % array.shape[0], token % array.shape[1]][None]
            constants[name] = part if run.group < 0 else part[:, :, self._group_of(part.shape[2], run.group)]
        with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
            result = run_steps(self.operator.steps, values, constants)
        groups = self._output.groups if run.group < 0 else 1
        return fitted(self.operator, result, (1, len(run.rows), groups, self._output.width))[0]

    def write(self, scratchpad: np.ndarray, run: VectorPass, stored: np.ndarray) -> None:
        """Put (T, groups, width) stored numbers into the output's region; lanes without a channel become zero."""
        output = self._output
        region = self._region(output.groups, output.width, output.padded, run.group)
        rows = np.zeros((len(stored), region.chunks * self._side))
        rows[:, region.places] = stored.reshape(len(stored), -1)
        chunks = rows.reshape(len(stored), region.chunks, self._side).transpose(1, 0, 2)
        self._bytes(scratchpad, run.dst, chunks.size)[:] = chunks.reshape(-1)

    @cached_property
    def _constants(self) -> dict[str, np.ndarray]:
        """Constants with all four axes."""
        arrays = {name: np.asarray(array, dtype=np.float64) for name, array in self.operator.constants.items()}
        return {name: array.reshape((1,) * (4 - array.ndim) + array.shape) for name, array in arrays.items()}

    def _group_of(self, groups: int, group: int) -> slice:
        mine = group * groups // self._groups
        return slice(mine, mine + 1)

    def _region(self, groups: int, width: int, padded: bool, group: int) -> Region:
        places = channel_places(groups, width, padded, self._side)
        if group >= 0:
            mine = self._group_of(groups, group).start
            places = places[mine * width : (mine + 1) * width]
            if places[0] % self._side:
                raise InputError(
                    f"operator '{self.operator.name}'",
                    f"group {group} at channel {places[0]}",
                    f"a VECTOR of one group needs groups that begin at a chunk's edge, a multiple of {self._side}",
                    "The program is damaged or not ours: lower the model again.",
                )
            places, groups = places - places[0], 1
        return Region(places, (groups, width), int(places[-1]) // self._side + 1)

    def _rows(self, scratchpad: np.ndarray, address: int, chunks: int, rows: int) -> np.ndarray:
        """(rows, chunks x C) of a region."""
        region = self._bytes(scratchpad, address, chunks * rows * self._side)
        return region.reshape(chunks, rows, self._side).transpose(1, 0, 2).reshape(rows, -1)

    def _bytes(self, scratchpad: np.ndarray, address: int, count: int) -> np.ndarray:
        if address < 0 or address + count > len(scratchpad):
            raise InputError(
                f"operator '{self.operator.name}'",
                f"a region of {count} bytes at {address}",
                f"it lies in the scratchpad of {len(scratchpad)} bytes",
                "The program is damaged or not ours: lower the model again.",
            )
        return scratchpad[address : address + count]
