"""Where the values of a group of operators lie in the scratchpad while it works on one block of rows.

A region holds chunk after chunk of a block's rows. Its place is its own from the stage that first writes it to the last
that reads it; places are found first fit. What the first stage loads has two places, in turn by block, so that the next
block's inputs arrive while this one is worked on, if there is room; and so has what the last stage stores, so that the
next block is drained while this one is stored.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from gblr_hw.lowering.groups.blocks import blocks_of
from gblr_hw.lowering.groups.image_windows import rows_needed
from gblr_hw.lowering.groups.stages import Stage, local, readers_of, stages_of
from simulator.machine.machine import Machine
from simulator.network.image_rows import ImageRows
from simulator.network.network import Network, Operand, Operator
from simulator.network.network_layout import output_chunks, region_chunks, region_rows

STREAM_CHUNKS = (
    8,
    4,
    2,
    1,
)  # chunk buffers of a value that passes through the scratchpad chunk by chunk: most, and least

# What a value's place is kept free of: all others; those of its stages, and of what is loaded also those of the stage
# before; or those of its stages.
Apart = Literal["always", "a stage ahead", "in use"]
_APART: tuple[Apart, ...] = get_args(Apart)

# A value in the scratchpad: a result by its tensor's name, or what a view loads from DRAM.
Key = str | Operand


@dataclass(frozen=True)
class ScratchRegion:
    """A value's part of the scratchpad. chunks: chunk buffers in it; used in turn unless it holds a row ``whole``.

    rows: rows of a buffer. begin, end: first and last stage that needs it. places: byte address of each copy; copies
    serve blocks in turn (``by_block``), or slices of heads. over: the result in whose place it lies, row by row.
    image: rows of an image that it keeps, of ``row_bytes`` each, 0 for other values; image_ahead: rows for which the
    next block's arrive meanwhile.
    """

    chunks: int
    whole: bool
    rows: int
    begin: int
    end: int
    copies: int = 1
    by_block: bool = False
    places: tuple[int, ...] = ()
    over: str | None = None
    image: int = 0
    image_ahead: int = 0
    row_bytes: int = 0

    @property
    def ahead(self) -> bool:
        """Whether the next block's inputs can arrive while this one's are read."""
        return not self.whole or self.copies > 1 or 0 < self.image == self.image_ahead

    @property
    def sliced(self) -> bool:
        """Whether a copy holds a slice of the heads."""
        return self.copies > 1 and not self.by_block

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
    """Places for every value of a group that works on ``block`` rows at a time, or None if they do not fit. What fits
    decides: whether inputs of the next block arrive meanwhile, whether operands that are needed chunk by chunk are
    there in full, and how many buffers values have that pass through chunk by chunk.
    """
    for wanted, apart in _ways(network, stages, _values(network, stages, block, machine.cols)):
        found = _placed(wanted, machine.cols, machine.scratchpad.size_bytes, apart)
        if found is not None:
            return found
    return None


def _ways(
    network: Network, stages: Sequence[Stage], values: Mapping[Key, ScratchRegion]
) -> Iterator[tuple[dict[Key, ScratchRegion], Apart]]:
    """What may be placed, most generous first, and what places are then kept free of. With the next block's inputs
    arriving meanwhile before without, more buffers before fewer; with two places for what the last stage stores before
    one.
    """
    by_chunk, in_place = _by_chunk(network, stages, values), _in_place(network, stages)
    for ahead in (True, False):
        for buffers in STREAM_CHUNKS:
            for parts in ([], by_chunk) if by_chunk else ([],):
                wanted = _regions(values, buffers, parts, in_place)
                if ahead:
                    wanted = {key: _ahead(key, region) for key, region in wanted.items()}
                in_turn = _stored_in_turn(network, stages, wanted)
                for apart in _APART:
                    yield from ((one, apart) for one in ([in_turn] if in_turn == wanted else [in_turn, wanted]))


def _ahead(key: Key, region: ScratchRegion) -> ScratchRegion:
    """A region that the next block's inputs can arrive in meanwhile: a second place, or more rows of an image."""
    if not isinstance(key, Operand) or region.begin > 0 or not region.whole:
        return region
    return replace(region, image=region.image_ahead) if region.image else replace(region, copies=2, by_block=True)


def _stored_in_turn(
    network: Network, stages: Sequence[Stage], wanted: Mapping[Key, ScratchRegion]
) -> dict[Key, ScratchRegion]:
    """The regions, two for what the last stage stores and for what lies in its place."""
    found, last = dict(wanted), stages[-1]
    for operator in network.operators[last.first : last.last]:
        key = _under(wanted, operator.output)
        if not wanted[key].sliced and isinstance(key, str) and stored(network, key, last.last):
            found[operator.output] = replace(found[operator.output], copies=2, by_block=True)
    return found


def _regions(
    values: Mapping[Key, ScratchRegion], buffers: int, by_chunk: Sequence[Key], in_place: Mapping[str, str]
) -> dict[Key, ScratchRegion]:
    """Values with ``buffers`` for those that pass through chunk by chunk, to which those ``by_chunk`` belong too, and
    the regions of results in whose place others lie for those.
    """
    found = dict(values)
    for key in by_chunk:
        found[key] = replace(found[key], whole=False)
    found = {key: region if region.whole else _streamed(region, buffers) for key, region in found.items()}
    for mine, behind in in_place.items():
        found[mine] = replace(found[behind], over=behind)
    return found


def _in_place(network: Network, stages: Sequence[Stage]) -> dict[str, str]:
    """Results that only the operator behind them needs, chunk by chunk, with the one that it makes of them in place;
    of a chain the last first.
    """
    found = {}
    for stage in stages:
        for index in range(stage.last - 2, stage.first - 1, -1) if stage.chunked else ():
            mine, behind = network.operators[index].output, network.operators[index + 1].output
            if readers_of(network, mine) == [index + 1] and not stored(network, mine, stages[-1].last):
                found[mine] = behind
    return found


def _by_chunk(network: Network, stages: Sequence[Stage], values: Mapping[Key, ScratchRegion]) -> list[Key]:
    """Operands that a single follower of a matrix operator reads, chunk by chunk."""
    reads = [
        (operand, stage.chunked and index > stage.first)
        for stage in stages
        for index in range(stage.first, stage.last)
        for operand in network.operators[index].operands
        if operand in values
    ]
    counts = Counter(operand for operand, _ in reads)
    return [operand for operand, follows in reads if follows and counts[operand] == 1]


def _values(network: Network, stages: Sequence[Stage], block: int, side: int) -> dict[Key, ScratchRegion]:
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
    return found


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


def _streamed(region: ScratchRegion, buffers: int) -> ScratchRegion:
    return replace(region, chunks=min(region.chunks, buffers), whole=region.chunks <= buffers)


def _placed(
    wanted: dict[Key, ScratchRegion], side: int, size_bytes: int, apart: Apart
) -> dict[Key, ScratchRegion] | None:
    """First fit, in order of first use; None if something does not fit. apart: "always" takes no place twice, so
    that no stage waits for a later one of the block before.
    """
    taken: list[tuple[int, int, int, int]] = []  # address, end address, first and last stage
    found: dict[Key, ScratchRegion] = {}
    for key, region in sorted(wanted.items(), key=lambda item: item[1].begin):
        if region.over is not None:
            continue
        # Rows of an image stay from block to block.
        always = apart == "always" or region.image > 0 or region.by_block
        ahead = apart == "a stage ahead" and isinstance(key, Operand)
        lives = (0, 1 << 30) if always else (region.begin - ahead, region.end)
        places = []
        for _ in range(region.copies):
            place = _first_gap(taken, region.size_bytes(side), lives, size_bytes)
            if place is None:
                return None
            places.append(place)
            taken.append((place, place + region.size_bytes(side), *lives))
        found[key] = replace(region, places=tuple(places))
    for key, region in wanted.items():
        if region.over is not None:
            found[key] = replace(region, places=found[_under(wanted, key)].places)
    return found


def _under(wanted: Mapping[Key, ScratchRegion], key: Key) -> Key:
    """The value in whose place another one lies in the end."""
    over = wanted[key].over
    return key if over is None else _under(wanted, over)


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
