"""What a VECTOR reads and writes in the scratchpad: regions of [chunk][row][C] bytes, cut into the values that an
operator's steps know, and put together again.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from simulator.base.arithmetic import ceil_div
from simulator.base.errors import NOT_OURS, InputError
from simulator.network.evaluate_network import fitted
from simulator.network.image_rows import ImageRows
from simulator.network.network import Network, Operand, Operator
from simulator.network.network_layout import keeps_padding, region_rows
from simulator.network.operand_views import channel_places
from simulator.network.vector_steps import run_steps


@dataclass(frozen=True, eq=False)
class Region:
    """Places of the channels of a region's rows, ``shape`` = (groups, width) of them, and the chunks of a row."""

    places: np.ndarray
    shape: tuple[int, int]
    chunks: int


@dataclass(frozen=True)
class VectorPass:
    """One VECTOR: its operator's output rows (T,), the first of the output's chunks that it computes (-1: all of them)
    and how many, and where its regions begin.
    """

    rows: np.ndarray
    chunk: int
    chunks: int
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
                NOT_OURS,
            )
        self.operator, self._network, self._side = operator, network, side
        self._output = network.tensors[operator.output]
        self._group_chunks = ceil_div(self._output.width, side)

    def read(self, scratchpad: np.ndarray, run: VectorPass, which: int) -> np.ndarray:
        """(1, T or 1, groups, width) stored numbers of operand ``which``."""
        operand = self.operator.operands[which]
        address = run.addresses[which]
        if operand.access == "image":
            return self._read_windows(scratchpad, run, operand, address)
        if operand.access == "transposed":
            return self._read_transposed(scratchpad, run, operand, address)
        region = self._region(operand.groups, operand.width, keeps_padding(self._network, operand), run)
        count = region_rows(self._network, self.operator, operand) or len(run.rows)
        rows = self._rows(scratchpad, address, region.chunks, count)
        return rows[:, region.places].reshape(1, count, *region.shape)

    def _read_windows(self, scratchpad: np.ndarray, run: VectorPass, operand: Operand, address: int) -> np.ndarray:
        """Windows of the output rows, out of the image's rows."""
        channels = np.arange(operand.groups * operand.width)
        places = address + ImageRows.of(operand).addresses(run.rows, channels, operand.kept)
        return scratchpad[places].reshape(1, len(run.rows), operand.groups, operand.width)

    def _read_transposed(self, scratchpad: np.ndarray, run: VectorPass, operand: Operand, address: int) -> np.ndarray:
        """All tokens of the chunks that hold the output rows' channels; a region row is a token of the tensor."""
        tensor, side = self._network.tensors[operand.tensor], self._side
        places = channel_places(tensor.groups, tensor.width, tensor.padded, side)
        mine = places[operand.token0 + run.rows % self.operator.tokens]
        first = mine.min() // side
        rows = self._rows(scratchpad, address, int(mine.max() // side - first) + 1, tensor.tokens)
        count = operand.groups * operand.width
        view = rows[operand.channel0 : operand.channel0 + count, mine - first * side].T
        return view.reshape(1, len(run.rows), operand.groups, operand.width)

    def compute(self, values: list[np.ndarray], run: VectorPass) -> np.ndarray:
        """(T, groups, width) of the output's rows, or of the groups or channels whose chunks ``run`` computes."""
        batch, token = np.divmod(run.rows, self.operator.tokens)
        constants = {}
        for name, array in self._constants.items():
            part = array[batch % array.shape[0], token % array.shape[1]][None]
            constants[name] = self._constant_part(part, run)
        with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
            result = run_steps(self.operator.steps, values, constants)
        shape = self._region(self._output.groups, self._output.width, self._output.padded, run).shape
        return fitted(self.operator, result, (1, len(run.rows), *shape))[0]

    def write(self, scratchpad: np.ndarray, run: VectorPass, stored: np.ndarray) -> None:
        """Put (T, groups, width) stored numbers into the output's region; lanes without a channel become zero."""
        output = self._output
        region = self._region(output.groups, output.width, output.padded, run)
        rows = np.zeros((len(stored), region.chunks * self._side))
        rows[:, region.places] = stored.reshape(len(stored), -1)
        chunks = rows.reshape(len(stored), region.chunks, self._side).transpose(1, 0, 2)
        self._bytes(scratchpad, run.dst, chunks.size)[:] = chunks.reshape(-1)

    @cached_property
    def _constants(self) -> dict[str, np.ndarray]:
        """Constants with all four axes."""
        arrays = {name: np.asarray(array, dtype=np.float64) for name, array in self.operator.constants.items()}
        return {name: array.reshape((1,) * (4 - array.ndim) + array.shape) for name, array in arrays.items()}

    def _constant_part(self, array: np.ndarray, run: VectorPass) -> np.ndarray:
        """The part of a constant (1, tokens, groups, width) that belongs to the chunks that ``run`` computes."""
        if run.chunk < 0:
            return array
        if self._output.padded:
            return array if array.shape[2] == 1 else array[:, :, self._groups_of(run)]
        if array.shape[2:] == (1, 1):
            return array
        whole = np.broadcast_to(array, (*array.shape[:2], self._output.groups, self._output.width))
        first = run.chunk * self._side
        return whole.reshape(*array.shape[:2], 1, -1)[..., first : first + run.chunks * self._side]

    def _groups_of(self, run: VectorPass) -> slice:
        """The groups of a padded output whose chunks ``run`` computes."""
        if run.chunk % self._group_chunks or run.chunks % self._group_chunks:
            raise InputError(
                f"operator '{self.operator.name}'",
                f"chunks {run.chunk} to {run.chunk + run.chunks - 1}",
                f"a VECTOR on padded groups computes whole ones, of {self._group_chunks} chunks",
                NOT_OURS,
            )
        return slice(run.chunk // self._group_chunks, (run.chunk + run.chunks) // self._group_chunks)

    def _region(self, groups: int, width: int, padded: bool, run: VectorPass) -> Region:
        """A region of a value of ``groups`` x ``width``: of all of it, or the part that goes with the output's chunks
        (a value that is broadcast over the output's groups is whole).
        """
        places = channel_places(groups, width, padded, self._side)
        if run.chunk >= 0 and self._output.padded and groups > 1:
            mine = self._groups_of(run)
            places, groups = places[mine.start * width : mine.stop * width], mine.stop - mine.start
        elif run.chunk >= 0 and groups * width == self._output.groups * self._output.width:
            places = places[run.chunk * self._side : (run.chunk + run.chunks) * self._side]
            groups, width = 1, len(places)
        places = places - places[0]
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
                NOT_OURS,
            )
        return scratchpad[address : address + count]
