"""Which windows are read from rows of the image in the scratchpad, and how many rows are kept there.

Taken from DRAM (im2col), a window brings every pixel once for each kernel position, in rows that fill the array. Out of
the image's own rows each pixel comes once, but a row of the array is as many runs of bytes as it reaches into rows of
the image, and takes a cycle for each (machine.md, B2). So a few channels under a large kernel are better taken from
DRAM, and everything else is not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from simulator.machine.machine import Machine
from simulator.network.image_rows import ImageRows, image_chunks
from simulator.network.network import Network, Operand, Operator
from simulator.network.network_layout import output_chunks, view_chunks
from simulator.program.operations import Place, reads, writes
from simulator.program.schedule import LayerSchedule, TileTable


def with_images(
    network: Network, schedules: Sequence[LayerSchedule], machine: Machine
) -> tuple[Network, list[LayerSchedule]]:
    """The network with windows that are cheaper so read as images, and the schedules with the cycles of their rows."""
    operators, changed = [], []
    for operator, schedule in zip(network.operators, schedules, strict=True):
        if operator.kind == "linear":
            _, operand, taken = _best(network, operator, schedule, machine)
            operators.append(replace(operator, operands=(operand, *operator.operands[1:])))
            changed.append(taken)
        else:
            seen = tuple(_as_image(network, operator, operand, machine) for operand in operator.operands)
            operators.append(replace(operator, operands=seen))
            changed.append(schedule)
    return replace(network, operators=tuple(operators)), changed


def _best(
    network: Network, operator: Operator, schedule: LayerSchedule, machine: Machine
) -> tuple[float, Operand, LayerSchedule]:
    """The cheaper way to read a linear operator's windows: its cost, operand and schedule."""
    operand = operator.operands[0]
    ways = [(_cost(network, operator, operand, schedule, machine), operand, schedule)]
    image = _as_image(network, operator, operand, machine)
    if image is not operand:
        timed = replace(schedule, tiles=_with_runs(schedule.tiles, image, machine.rows))
        ways.append((_cost(network, operator, image, timed, machine), image, timed))
    return min(ways, key=lambda way: way[0])


def linear_cost(network: Network, operator: Operator, schedule: LayerSchedule, machine: Machine) -> float:
    """Estimated cycles of a linear operator on windows, on the array."""
    return _best(network, operator, schedule, machine)[0]


def vector_cost(network: Network, operator: Operator, machine: Machine) -> float:
    """Estimated cycles of an operator of the vector unit on windows."""
    side, operand = machine.cols, _as_image(network, operator, operator.operands[0], machine)
    chunks = max(view_chunks(network, operand, side), output_chunks(network, operator, side))
    work = operator.passes * operator.rows * chunks * side / machine.vector.lanes
    channel = operand_bytes(network, operator, operand, side) * 1000 / machine.dram_bytes_per_kilocycle
    return max(work, channel) + 0.05 * min(work, channel)


def _as_image(network: Network, operator: Operator, operand: Operand, machine: Machine) -> Operand:
    """The operand read as an image, if its rows can be: whole chunks of a tensor that is not padded, an image for each
    sequence, and at least twice as much room as a window needs.
    """
    if operand.access != "window":
        return operand
    tensor, image = network.tensors[operand.tensor], ImageRows.of(operand)
    fits = 2 * image.rows.reach * image.row_bytes <= machine.scratchpad.size_bytes
    plain = not tensor.padded and operand.channel0 % machine.cols == 0 and tensor.batch == operator.batch
    return replace(operand, access="image") if fits and plain else operand


def _cost(network: Network, operator: Operator, operand: Operand, schedule: LayerSchedule, machine: Machine) -> float:
    """Cycles of array or channel, whichever is longer, and a little of the other."""
    array = int(schedule.tiles.row_cycles.astype(np.int64).sum()) * operator.rows
    channel = operand_bytes(network, operator, operand, machine.cols) * 1000 / machine.dram_bytes_per_kilocycle
    return max(array, channel) + 0.05 * min(array, channel)


def operand_bytes(network: Network, operator: Operator, operand: Operand, side: int) -> int:
    """Bytes that all of an operand's windows, or all rows of its images, move once (machine.md, E1)."""
    if operand.access == "image":
        return image_bytes(network, operand, 0, operator.batch * ImageRows.of(operand).rows.size, side).sum()
    chunks = np.arange(view_chunks(network, operand, side))
    return operator.batch * operand.tokens * int(window_row_bytes(network, operand, chunks, side).sum())


def window_row_bytes(network: Network, operand: Operand, chunks: np.ndarray, side: int) -> np.ndarray:
    """Bytes that a load of windows moves for each row of each of the ``chunks``: every pixel of an image of which a
    stride takes some; of the network's inputs, which the host lays out as they are read, what a window has.
    """
    window, tensor = operand.window, network.tensors[operand.tensor]
    if tensor.kind == "input":
        held = np.full(len(chunks), side) if tensor.padded else operand.groups * operand.width - chunks * side
        return np.minimum(held, side)
    apart = window is not None and window.stride != window.kernel
    return np.full(len(chunks), side * window.stride[1] if apart and window is not None else side)


def image_bytes(network: Network, operand: Operand, row0: int, rows: int, side: int) -> np.ndarray:
    """(chunks,) bytes that padded rows of an image move: whole chunks, but of the network's inputs, which the host lays
    out as they are read, just what is read.
    """
    packed = network.tensors[operand.tensor].kind == "input"
    pixels = ImageRows.of(operand).moved_pixels(row0, rows, packed)
    chunks = np.arange(image_chunks(operand, side))
    return pixels * (np.minimum(side, operand.width - chunks * side) if packed else np.full(len(chunks), side))


def _with_runs(tiles: TileTable, operand: Operand, side: int) -> TileTable:
    """The tiles with a cycle a row for each run of bytes that a row is read in."""
    image, known = ImageRows.of(operand), {}
    cycles = np.array(tiles.row_cycles)
    by_rank = writes(tiles.kind, Place.RANKS)
    for tile in np.flatnonzero(reads(tiles.kind, Place.SCRATCHPAD)).tolist():
        lanes = slice(tiles.lane_ptr[tile], tiles.lane_ptr[tile + 1])
        used = _inputs(tiles, lanes) if by_rank[tile] else tiles.lane[lanes]
        key = (int(tiles.source[tile]), used.tobytes())
        if key not in known:
            known[key] = image.runs(key[0] * side + np.sort(used).astype(np.int64)) if len(used) else 1
        cycles[tile] = max(cycles[tile], known[key])
    return replace(tiles, row_cycles=cycles)


def _inputs(tiles: TileTable, lanes: slice) -> np.ndarray:
    """Input lanes that the runs of a tile's ranks cover."""
    low, high = tiles.lo[lanes], tiles.hi[lanes]
    covered = np.zeros(int(high.max(initial=0)) + 1, dtype=np.int64)
    np.add.at(covered, low, 1)
    np.add.at(covered, high, -1)
    return np.flatnonzero(np.cumsum(covered) > 0).astype(np.int32)


def rows_needed(operand: Operand, blocks: np.ndarray, ahead: bool) -> int:
    """Rows that the region of an image keeps for the windows of blocks [(first output row, rows)] (N, 2), worked on in
    order; ``ahead``: and for those of the next block, so that they arrive meanwhile.
    """
    image = ImageRows.of(operand)
    first = image.first_row(blocks[:, 0])
    end = image.first_row(blocks.sum(axis=1) - 1) + image.rows.reach
    own = int((end - first).max())
    return max(own, int((end[1:] - first[:-1]).max())) if ahead and len(blocks) > 1 else own
