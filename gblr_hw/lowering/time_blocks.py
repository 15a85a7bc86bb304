"""The rows of a block of a network that is one linear operator, by time instead of by estimated cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from gblr_hw.lowering.emit.emit_network import emit_network, with_blocks
from gblr_hw.lowering.groups.fuse_groups import Group, block_limit
from gblr_hw.lowering.groups.scratchpad_map import map_regions
from gblr_hw.lowering.groups.stages import stages_of
from simulator.base.arithmetic import ceil_div
from simulator.machine.machine import Machine
from simulator.network.network import Network
from simulator.program.schedule import LayerSchedule
from simulator.timing.durations import time_instructions
from simulator.timing.engine import run_engine


def with_timed_block(
    network: Network, schedules: Sequence[LayerSchedule], groups: tuple[Group, ...], machine: Machine
) -> tuple[Group, ...]:
    """The groups; of one linear operator that reads rows as they lie, in the block that runs fastest of the one chosen
    and the larger ones of equal cuts. Its forms were timed too, and a layer of a checkpoint has the largest block.
    """
    operator = network.operators[0]
    if len(network.operators) > 1 or operator.kind != "linear" or operator.operands[0].access != "rows":
        return groups
    (chosen,) = groups
    rows = operator.rows if chosen.flat else operator.tokens
    limit, stages = block_limit(schedules[0], machine), stages_of(network, 0, 1, machine.cols)
    sizes = {ceil_div(rows, cuts) for cuts in range(1, ceil_div(rows, chosen.block))}
    larger = [
        replace(chosen, block=size)
        for size in sorted(sizes)
        if chosen.block < size <= limit and map_regions(network, stages, size, machine) is not None
    ]
    if not larger:
        return groups
    return (min((chosen, *larger), key=lambda group: _cycles(network, schedules, group, machine)),)


def _cycles(network: Network, schedules: Sequence[LayerSchedule], group: Group, machine: Machine) -> int:
    instructions = emit_network(network, with_blocks(schedules, (group,)), (group,), machine)
    return int(run_engine(time_instructions(instructions, [schedules[0].tiles], machine)).done.max())
