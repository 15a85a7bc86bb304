"""Where the values of a group of operators lie in the scratchpad while it works on one block of rows.

A region holds chunk after chunk of a block's rows. Its place is its own from the stage that first writes it to the last
that reads it; places are found first fit. What the first stage loads has two places, in turn by block, so that the next
block's inputs arrive while this one is worked on, if there is room.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from gblr_hw.lowering.groups.blocks import blocks_of
from gblr_hw.lowering.groups.image_windows import rows_needed
from gblr_hw.lowering.groups.stages import Stage, local, readers_of, stages_of
from simulator.machine.machine import Machine
from simulator.network.image_rows import ImageRows
from simulator.network.network import Network, Operand, Operator
from simulator.network.network_layout import output_chunks, region_chunks, region_rows

STREAM_CHUNKS = 4  # chunk buffers of a value that passes through the scratchpad chunk by chunk

# A value in the scratchpad: a result by its tensor's name, or what a view loads from DRAM.
Key = str | Operand


@dataclass(frozen=True)
class ScratchRegion:
    """A value's part of the scratchpad. chunks: chunk buffers in it; used in turn unless it holds a row ``whole``.

    rows: rows of a buffer. begin, end: first and last stage that needs it. places: byte address of each copy; copies
    serve blocks in turn, or slices of heads. over: the result whose place it takes, row by row. image: rows of an image
    that it keeps, of ``row_bytes`` each, 0 for other values; image_ahead: rows for which the next block's arrive
    meanwhile.
    """

    chunks: int
    whole: bool
    rows: int
    begin: int
    end: int
    copies: int = 1
    places: tuple[int, ...] = ()
    over: str | None = None
    image: int = 0
    image_ahead: int = 0
    row_bytes: int = 0

    def size_bytes(self, side: int) -> int:
        if self.image:
            return self.image * self.row_bytes
        return self.chunks * self.rows * side


def stored(network: Network, tensor: str, last: int) -> bool:
    """Whether a result goes to DRAM: it lies in a larger tensor, or something behind operator ``last`` reads it."""
    return network.tensors[tensor].within is not None or any(r >= last for r in readers_of(network, tensor))


def source_of(network: Network, operator: Operator, operand: Operand, first: int, side: int) -> Key:
    """What of the scratchpad serves an operand of a group that begins at operator ``first``: the result of the group
    that it is a view of, or its own load.
    """
    writer = network.writer.get(operand.tensor, -1)
    return operand.tensor if writer >= first and local(network, operator, operand, side) else operand


def map_regions(
    network: Network, stages: Sequence[Stage], block: int, machine: Machine
) -> dict[Key, ScratchRegion] | None:
    """Places for every value of a group that works on ``block`` rows at a time, or None if they do not fit."""
    side, size_bytes = machine.cols, machine.scratchpad.size_bytes
    wanted = _regions(network, stages, block, side)
    ahead = {
        key: _ahead(key, region) if isinstance(key, Operand) and region.begin == 0 else region
        for key, region in wanted.items()
    }
    return _placed(ahead, side, size_bytes) or _placed(wanted, side, size_bytes)


def _ahead(operand: Operand, region: ScratchRegion) -> ScratchRegion:
    """A region that the next block's inputs can arrive in meanwhile: a second place, or more rows of an image."""
    return replace(region, image=region.image_ahead) if region.image else replace(region, copies=2)


def _regions(network: Network, stages: Sequence[Stage], block: int, side: int) -> dict[Key, ScratchRegion]:
    found: dict[Key, ScratchRegion] = {}
    for number, stage in enumerate(stages):
        for index in range(stage.first, stage.last):
            operator = network.operators[index]
            for operand in operator.operands:
                if operand.access == "weights":
                    continue
                key = source_of(network, operator, operand, stages[0].first, side)
                region = found.get(key) or _loaded(network, operator, operand, number, block, side, stages)
                outside = isinstance(key, Operand) or network.writer[key] < stage.first
                found[key] = replace(region, end=number, whole=region.whole or outside)
            found[operator.output] = _written(network, operator, stage, number, block, side)
    return {key: region if region.whole else _streamed(region) for key, region in found.items()}


def _loaded(
    network: Network,
    operator: Operator,
    operand: Operand,
    number: int,
    block: int,
    side: int,
    stages: Sequence[Stage],
) -> ScratchRegion:
    if operand.access == "image":
        blocks = blocks_of(network, stages[0].first, stages[-1].last, block)
        kept = [operand.kept or rows_needed(operand, blocks, ahead) for ahead in (False, True)]
        return ScratchRegion(
            1,
            True,
            block,
            number,
            number,
            image=kept[0],
            image_ahead=kept[1],
            row_bytes=ImageRows.of(operand).row_bytes,
        )
    rows = region_rows(network, operator, operand) or block
    return ScratchRegion(region_chunks(network, operand, side), True, rows, number, number)


def _written(network: Network, operator: Operator, stage: Stage, number: int, block: int, side: int) -> ScratchRegion:
    chunks = output_chunks(network, operator, side)
    if stage.slices > 1 and operator.output != network.operators[stage.last - 1].output:
        # What softmax reads nobody needs any more: it works in place.
        over = operator.operands[0].tensor if operator.kind == "vector" else None
        return ScratchRegion(chunks // stage.slices, True, block, number, number, copies=2, over=over)
    # Chunk by chunk only what is drained, and only for those who follow it that way.
    at_once = not stage.chunked and (operator.kind == "vector" or stage.last - stage.first > 1)
    return ScratchRegion(chunks, at_once, block, number, number)


def _streamed(region: ScratchRegion) -> ScratchRegion:
    return replace(region, chunks=min(region.chunks, STREAM_CHUNKS), whole=region.chunks <= STREAM_CHUNKS)


def _placed(wanted: dict[Key, ScratchRegion], side: int, size_bytes: int) -> dict[Key, ScratchRegion] | None:
    """First fit, in order of first use; None if something does not fit."""
    taken: list[tuple[int, int, int, int]] = []  # address, end address, first and last stage
    found: dict[Key, ScratchRegion] = {}
    for key, region in sorted(wanted.items(), key=lambda item: item[1].begin):
        if region.over is not None:
            found[key] = replace(region, places=found[region.over].places)
            continue
        # Rows of an image stay from block to block.
        always = region.image > 0 or (region.copies > 1 and isinstance(key, Operand))
        lives = (0, 1 << 30) if always else (region.begin, region.end)
        places = []
        for _ in range(region.copies):
            place = _first_gap(taken, region.size_bytes(side), lives, size_bytes)
            if place is None:
                return None
            places.append(place)
            taken.append((place, place + region.size_bytes(side), *lives))
        found[key] = replace(region, places=tuple(places))
    return found


def _first_gap(
    taken: list[tuple[int, int, int, int]], size: int, lives: tuple[int, int], size_bytes: int
) -> int | None:
    place = 0
    for low, high, begin, end in sorted(taken):
        if begin <= lives[1] and lives[0] <= end:
            if place + size <= low:
                break
            place = max(place, high)
    return place if place + size <= size_bytes else None


def with_kept_rows(network: Network, runs: Sequence[tuple[int, int, int]], machine: Machine) -> Network:
    """The network with the rows of images that its groups, (first operator, one past the last, block) each, keep."""
    operators = list(network.operators)
    for first, last, block in runs:
        regions = map_regions(network, stages_of(network, first, last, machine.cols), block, machine)
        assert regions is not None, "a group fits"
        for index in range(first, last):
            operators[index] = replace(
                operators[index],
                operands=tuple(
                    replace(one, kept=regions[one].image) if one.access == "image" else one
                    for one in operators[index].operands
                ),
            )
    return replace(network, operators=tuple(operators))
