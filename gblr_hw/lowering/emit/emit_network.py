"""Groups of operators become instructions: block by block, stage by stage, some heads at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from gblr_hw.lowering.emit.emission import Block, Emission, GroupState
from gblr_hw.lowering.emit.emit_loads import parameter_sizes, parameters_stay
from gblr_hw.lowering.emit.emit_operators import emit_matrix, emit_vector
from gblr_hw.lowering.emit.operand_source import Part
from gblr_hw.lowering.emit.passes_of_operator import Passes, head_passes, in_pieces, linear_passes
from gblr_hw.lowering.groups.blocks import pieces_of
from gblr_hw.lowering.groups.fuse_groups import Group
from gblr_hw.lowering.groups.head_room import HeadRoom
from gblr_hw.lowering.groups.scratchpad_map import map_regions
from gblr_hw.lowering.groups.stages import Stage, stages_of
from simulator.base.arithmetic import ceil_div
from simulator.base.memory import check_memory
from simulator.machine.machine import Machine
from simulator.network.network import Network
from simulator.program.isa import Instructions
from simulator.program.schedule import LayerSchedule

# A pass is an instruction of 72 bytes at least, which is there twice while instructions are put in order.
PASS_BYTES = 2 * 72


def emit_network(
    network: Network,
    schedules: Sequence[LayerSchedule],
    groups: Sequence[Group],
    machine: Machine,
    progress: Callable[[int, int, str], None] | None = None,
) -> Instructions:
    """The instructions of a network's program. ``schedules``: one an operator, with the block of its group. Raises
    InputError if they take more memory than there is.
    """
    passes = least_passes(network, schedules, groups)
    check_memory(
        "program", f"{passes:,} passes at least", PASS_BYTES * passes, "Give fewer sequences or images at once."
    )
    e = Emission(network, schedules, machine)
    for done, group in enumerate(groups):
        if progress is not None:
            progress(done, len(groups), network.operators[group.first].name)
        _emit_group(e, group)
    return e.stream.in_order()


def least_passes(network: Network, schedules: Sequence[LayerSchedule], groups: Sequence[Group]) -> int:
    """Of a program: each block of a group's rows meets each tile, or the vector unit once."""
    return sum(
        _block_count(network, group) * sum(max(1, len(one.tiles)) for one in schedules[group.first : group.last])
        for group in groups
    )


def _block_count(network: Network, group: Group) -> int:
    head = network.operators[group.first]
    return ceil_div(head.rows, group.block) if group.flat else head.batch * ceil_div(head.tokens, group.block)


def _emit_group(e: Emission, group: Group) -> None:
    stages = stages_of(e.network, group.first, group.last, e.side)
    regions = map_regions(e.network, stages, group.block, e.machine)
    assert regions is not None, "fuse_groups tried this block"
    sizes = {
        index: parameter_sizes(e.network.operators[index], e.schedules[index], e.machine)
        for index in range(group.first, group.last)
    }
    rows = ceil_div(group.block, pieces_of(group.block, e.machine))
    accumulators = e.machine.accumulator_rows // rows
    g = GroupState(group, regions, rows, accumulators, e.last_drain, sizes, parameters_stay(sizes))
    templates: dict[tuple[int, int, int], Passes] = {}
    for block in _blocks(e, group):
        g.begins.append(e.step)
        for stage in stages:
            e.stages.append(e.step)
            _emit_stage(e, g, block, stage, templates)


def _blocks(e: Emission, group: Group) -> list[Block]:
    head = e.network.operators[group.first]
    rows, sequences = (head.rows, 1) if group.flat else (head.tokens, head.batch)
    blocks: list[Block] = []
    for sequence in range(sequences):
        for first in range(0, rows, group.block):
            count = min(group.block, rows - first)
            blocks.append(Block(len(blocks), sequence * rows + first, count, sequence, first))
    return blocks


def _emit_stage(
    e: Emission, g: GroupState, block: Block, stage: Stage, templates: dict[tuple[int, int, int], Passes]
) -> None:
    if stage.chunked:
        _matrix(e, g, block, tuple(range(stage.first, stage.last)), Part(), templates)
        return
    if stage.slices == 1:
        for index in range(stage.first, stage.last):
            _one(e, g, block, index, Part(), templates)
        return
    # Scores of the next heads are worked out while the vector unit is busy with those of these.
    for number in range(stage.slices + 1):
        if number < stage.slices:
            for index in range(stage.first, stage.last - 1):
                _one(e, g, block, index, Part(number, stage.slices), templates)
        if number > 0:
            _one(e, g, block, stage.last - 1, Part(number - 1, stage.slices), templates)


def _one(
    e: Emission, g: GroupState, block: Block, index: int, part: Part, templates: dict[tuple[int, int, int], Passes]
) -> None:
    if e.network.operators[index].kind == "vector":
        emit_vector(e, g, block, index, part)
    else:
        _matrix(e, g, block, (index,), part, templates)


def _matrix(
    e: Emission,
    g: GroupState,
    block: Block,
    indices: tuple[int, ...],
    part: Part,
    templates: dict[tuple[int, int, int], Passes],
) -> None:
    index = indices[0]
    pieces = ceil_div(block.rows, g.piece_rows)
    key = (index, part.number, pieces)
    if key not in templates:
        schedule = e.schedules[index]
        templates[key] = (
            in_pieces(linear_passes(schedule, e.machine), pieces)
            if e.network.operators[index].kind == "linear"
            else head_passes(
                e.network,
                index,
                schedule,
                e.side,
                (part.number, part.of),
                HeadRoom(g.group.block, g.accumulators),
            )
        )
    emit_matrix(e, g, block, indices, templates[key], part)


def with_blocks(schedules: Sequence[LayerSchedule], groups: Sequence[Group]) -> tuple[LayerSchedule, ...]:
    """The schedules with the blocks of their groups: ranks' sums then lie that many rows apart (machine.md, M4)."""
    result = list(schedules)
    for group in groups:
        for index in range(group.first, group.last):
            result[index] = replace(result[index], block_tokens=group.block)
    return tuple(result)
