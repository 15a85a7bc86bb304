"""Rows of an image in the scratchpad, and where windows find their elements in them (machine.md, M2 and E1).

The region of an "image" operand holds rows of the padded image, each pixel's channels behind those of the pixel before
it. Row y has the place y mod ``kept``: rows take the places of those that no window needs any more, so that each comes
from DRAM once. Images of a batch follow one another. Along a side where the kernel has one place, only the rows or
columns that it reads are there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simulator.base.arithmetic import ceil_div
from simulator.network.network import Operand
from simulator.network.operand_views import operand_window


@dataclass(frozen=True)
class _Side:
    """One side of the padded image: its ``size`` places, ``stride`` from one output position to the next, ``dilation``
    from one kernel place to the next. Place p is the image's p * step - padding.
    """

    size: int
    stride: int
    dilation: int
    step: int
    padding: int
    image: int
    kernel: int

    @property
    def reach(self) -> int:
        """Places from a window's first to its last."""
        return (self.kernel - 1) * self.dilation + 1

    def image_places(self, places: np.ndarray) -> np.ndarray:
        """The image's place of each, -1 beyond it."""
        found = places * self.step - self.padding
        return np.where((found >= 0) & (found < self.image), found, -1)


@dataclass(frozen=True)
class ImageRows:
    """The rows of an operand's padded images. ``pixel``: bytes of one."""

    rows: _Side
    columns: _Side
    output: tuple[int, int]
    pixel: int

    @staticmethod
    def of(operand: Operand) -> ImageRows:
        window = operand_window(operand)
        sides = []
        for axis in range(2):
            alone = window.kernel[axis] == 1
            stride, dilation = (1, 1) if alone else (window.stride[axis], window.dilation[axis])
            reach = (window.kernel[axis] - 1) * dilation + 1
            sides.append(
                _Side(
                    size=(window.output[axis] - 1) * stride + reach,
                    stride=stride,
                    dilation=dilation,
                    step=window.stride[axis] if alone else 1,
                    padding=window.padding[axis],
                    image=window.image[axis],
                    kernel=window.kernel[axis],
                )
            )
        return ImageRows(sides[0], sides[1], window.output, operand.width)

    @property
    def row_bytes(self) -> int:
        return self.columns.size * self.pixel

    def first_row(self, row: np.ndarray | int) -> np.ndarray:
        """Padded row, counted over all images, that the window of an output row begins in."""
        image, place = np.divmod(row, self.output[0] * self.output[1])
        return image * self.rows.size + place // self.output[1] * self.rows.stride

    def needed(self, row0: int, rows: int) -> tuple[int, int]:
        """First padded row, and one past the last, of the windows of ``rows`` output rows from ``row0`` on."""
        return int(self.first_row(row0)), int(self.first_row(row0 + rows - 1)) + self.rows.reach

    def addresses(self, rows: np.ndarray, channels: np.ndarray, kept: int) -> np.ndarray:
        """(rows, channels) bytes from the region's begin to channels of the windows of output rows; ``kept``: rows of
        the region.
        """
        position, channel = np.divmod(channels, self.pixel)
        down, across = np.divmod(position, self.columns.kernel)
        row = (self.first_row(rows)[:, None] + down * self.rows.dilation) % kept
        column = (rows % self.output[1])[:, None] * self.columns.stride + across * self.columns.dilation
        return row * self.row_bytes + column * self.pixel + channel

    def runs(self, channels: np.ndarray) -> int:
        """Runs of bytes behind one another in which lanes of the array meet a window's ``channels``, in order."""
        position, channel = np.divmod(channels, self.pixel)
        down, across = np.divmod(position, self.columns.kernel)
        shift = across * self.columns.dilation * self.pixel + channel - channels
        return int(np.count_nonzero((np.diff(shift) != 0) | (np.diff(down) != 0))) + 1

    def pixels(self, row0: int, rows: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Where the pixels of padded rows come from: image of the batch and its row, -1 beyond it, (rows,) each, and
        its columns, -1 beyond it, (columns,).
        """
        image, row = np.divmod(np.arange(row0, row0 + rows), self.rows.size)
        return image, self.rows.image_places(row), self.columns.image_places(np.arange(self.columns.size))

    def moved_pixels(self, row0: int, rows: int, packed: bool) -> int:
        """Pixels that come from DRAM for padded rows: of each of the image's rows among them, those from the first
        column that is read to the last, or just those that are (``packed``).
        """
        _, down, across = self.pixels(row0, rows)
        read = across[across >= 0]
        columns = 0 if not len(read) else len(read) if packed else int(read[-1] - read[0]) + 1
        return int(np.count_nonzero(down >= 0)) * columns


def image_chunks(operand: Operand, side: int) -> int:
    """Chunks of an image's channels, as they are loaded."""
    return ceil_div(operand.width, side)
