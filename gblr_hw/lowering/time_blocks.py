"""The rows of a block of a network that is one linear operator, by time instead of by estimated cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from gblr_hw.lowering.emit.emit_network import emit_network, with_blocks
from gblr_hw.lowering.groups.fuse_groups import Group, block_limit
from gblr_hw.lowering.groups.scratchpad_map import map_regions
from gblr_hw.lowering.groups.stages import stages_of
from gblr_hw.lowering.passes.block_tokens import FINER_CUTS, WORTH_LOADS, ends_are_long
from simulator.base.arithmetic import ceil_div
from simulator.machine.machine import Machine
from simulator.network.network import Network
from simulator.program.schedule import LayerSchedule
from simulator.timing.durations import time_instructions
from simulator.timing.engine import run_engine


def with_timed_block(
    network: Network, schedules: Sequence[LayerSchedule], groups: tuple[Group, ...], machine: Machine
) -> tuple[Group, ...]:
    """The groups; of one linear operator that reads rows as they lie, in the block that runs fastest of the one chosen,
    the larger ones of equal cuts and a few smaller ones, as a layer of a checkpoint has.
    """
    operator = network.operators[0]
    if len(network.operators) > 1 or operator.kind != "linear" or operator.operands[0].access != "rows":
        return groups
    (chosen,) = groups
    rows = operator.rows if chosen.flat else operator.tokens
    limit, stages = block_limit(schedules[0], machine), stages_of(network, 0, 1, machine.cols)
    blocks, schedule = ceil_div(rows, chosen.block), schedules[0]
    cuts = set(range(1, blocks))
    least_cycles = len(schedule.tiles) * blocks * max(chosen.block, machine.rows)
    if ends_are_long(machine, chosen.block, schedule.in_features + schedule.out_features, least_cycles):
        cuts |= {count * least for count in FINER_CUTS for least in (ceil_div(rows, limit), blocks)}
    others = [
        replace(chosen, block=size)
        for size in sorted({ceil_div(rows, count) for count in cuts} - {chosen.block})
        if machine.rows <= size <= limit and map_regions(network, stages, size, machine) is not None
    ]
    if not others:
        return groups
    cycles = {group: _cycles(network, schedules, group, machine) for group in (chosen, *others)}
    best, largest = min(cycles, key=lambda one: cycles[one]), max(cycles, key=lambda one: one.block)
    stay = len(schedule.tiles) <= machine.weight_slots
    return (best if stay or cycles[best] < (1 - WORTH_LOADS) * cycles[largest] else largest,)


def _cycles(network: Network, schedules: Sequence[LayerSchedule], group: Group, machine: Machine) -> int:
    instructions = emit_network(network, with_blocks(schedules, (group,)), (group,), machine)
    return int(run_engine(time_instructions(instructions, [schedules[0].tiles], machine)).done.max())
