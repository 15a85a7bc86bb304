"""An operand of an operator in the scratchpad: loaded if it comes from DRAM, and who reads it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gblr_hw.lowering.emit.emission import Block, Emission, GroupState
from gblr_hw.lowering.emit.emit_loads import FirstUse, address, kept_ranges, load_operand
from gblr_hw.lowering.emit.instruction_stream import Ref
from gblr_hw.lowering.emit.scratch_hazards import Class
from gblr_hw.lowering.groups.scratchpad_map import source_of
from simulator.network.image_rows import ImageRows
from simulator.network.network import Operand
from simulator.network.network_layout import view_chunks


@dataclass(frozen=True)
class Part:
    """Part ``number`` of ``of`` of the heads; all at once is part 0 of 1."""

    number: int = 0
    of: int = 1


@dataclass(frozen=True)
class Source:
    """An operand in the scratchpad: its address, the loads of its chunks (by chunk) if DRAM is where it comes from,
    the last of them, the last instruction of the vector unit that wrote it, its first chunk here, its chunks, and the
    bytes [low, high) that its readers read. buffers: chunk buffers that its chunks have in turn, each loaded behind the
    reader of the one before it; 0 if all are there at once. apart: bytes between chunks, 0 for windows of an image.
    """

    place: int
    loads: np.ndarray | None
    loaded: Ref | None
    written: Ref | None
    first_chunk: int
    chunks: int
    ranges: tuple[tuple[int, int], ...]
    apart: int
    buffers: int = 0

    def addresses(self, pieces: int, piece_bytes: int) -> np.ndarray:
        """Where each piece of each chunk begins; windows of an image are all read from its rows' begin."""
        chunk, piece = np.divmod(np.arange(self.chunks * pieces), pieces)
        return self.place + chunk * self.apart + (piece * piece_bytes if self.apart else 0)


def source_for(
    e: Emission, g: GroupState, block: Block, index: int, place: int, part: Part, use: FirstUse | None = None
) -> Source:
    """The operand of an operator, loaded if nobody has done that, unless it passes through a few buffers."""
    operator = e.network.operators[index]
    operand = operator.operands[place]
    key = source_of(e.network, operator, operand, g.group.first, e.side)
    if isinstance(key, Operand):
        base, region = address(e, g, block, key), g.regions[key]
        if not region.whole:
            size = block.rows * e.side
            ranges = ((base, base + region.chunks * size),)
            return Source(base, None, None, None, 0, region.chunks, ranges, size, region.chunks)
        load_operand(e, g, block, index, place, operand, use)
        loads, last = block.loaded[operand]
        if operand.access == "image":
            image = ImageRows.of(operand)
            read = kept_ranges(image, operand.kept, *image.needed(block.row0, block.rows), base)
            return Source(base, loads, last, None, 0, len(loads), tuple(read), 0)
        size = block.rows * e.side
        return Source(base, loads, last, None, 0, len(loads), ((base, base + len(loads) * size),), size)
    begin = operand.channel0 // e.side
    sliced = g.regions[key].sliced
    chunks = view_chunks(e.network, operand, e.side)
    here = address(e, g, block, key, part.number) + begin * block.rows * e.side
    first = part.number * (chunks // part.of) if sliced else 0
    chunks, size = chunks // part.of if sliced else chunks, block.rows * e.side
    written = block.written[turn(g, key, part)]
    return Source(here, None, None, written, first, chunks, ((here, here + chunks * size),), size)


def turn(g: GroupState, name: str, part: Part) -> tuple[str, int]:
    """A result and which of its region's copies a part of the heads uses."""
    region = g.regions[name]
    return name, part.number % region.copies if region.sliced else 0


def used(e: Emission, source: Source, by: Class, ref: Ref) -> None:
    for low, high in source.ranges:
        e.hazards.use(low, high, by, ref)


def used_parts(e: Emission, source: Source, by: Class, keys: np.ndarray, ids: np.ndarray, chunks: np.ndarray) -> None:
    """Note that instructions with these sort keys and numbers, in order, read ``chunks`` of a source."""
    last = np.full(source.chunks, -1)
    last[chunks] = np.arange(len(ids))  # numpy keeps the last of repeated assignments
    # What nobody reads is free with the first.
    at = np.maximum(last, 0)
    ((low, high),) = source.ranges
    e.hazards.use_parts(low, high, by, keys[at], ids[at])
