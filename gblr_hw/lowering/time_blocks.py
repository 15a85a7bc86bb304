"""The rows of a block of a network that is one linear operator, by time instead of by estimated cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from gblr_hw.lowering.emit.emit_network import emit_network, with_blocks
from gblr_hw.lowering.finer_blocks import Cut, cycles_and_bytes, finer_block
from gblr_hw.lowering.groups.fuse_groups import Group, block_limit
from gblr_hw.lowering.groups.scratchpad_map import map_regions
from gblr_hw.lowering.groups.stages import stages_of
from simulator.base.arithmetic import ceil_div
from simulator.machine.machine import Machine
from simulator.network.network import Network
from simulator.program.schedule import LayerSchedule


def with_timed_block(
    network: Network, schedules: Sequence[LayerSchedule], groups: tuple[Group, ...], machine: Machine
) -> tuple[Group, ...]:
    """The groups; of one linear operator that reads rows as they lie, in the block that runs fastest of the one chosen,
    the larger ones of equal cuts and a few smaller ones, as a layer of a checkpoint has.
    """
    operator = network.operators[0]
    if len(network.operators) > 1 or operator.kind != "linear" or operator.operands[0].access != "rows":
        return groups
    (chosen,), schedule = groups, schedules[0]
    rows = operator.rows if chosen.flat else operator.tokens
    limit, stages = block_limit(schedule, machine), stages_of(network, 0, 1, machine.cols)
    blocks, features = ceil_div(rows, chosen.block), schedule.in_features + schedule.out_features
    least_cycles = len(schedule.tiles) * blocks * max(chosen.block, machine.rows)
    counts = (ceil_div(rows, limit), blocks)
    cut = Cut(machine, rows, chosen.block, counts, features, len(schedule.tiles), least_cycles)
    larger = [ceil_div(rows, count) for count in range(1, blocks)]
    others = [
        size
        for size in (*larger, *cut.finer())
        if machine.rows <= size <= limit and map_regions(network, stages, size, machine) is not None
    ]

    def cost(size: int) -> tuple[int, int]:
        one = (replace(chosen, block=size),)
        instructions = emit_network(network, with_blocks(schedules, one), one, machine)
        return cycles_and_bytes(instructions, [schedule.tiles], machine)

    return (replace(chosen, block=finer_block(cut, others, cost)),)
