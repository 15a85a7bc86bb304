"""Which operators run together on one block of rows, and how large a block is: chosen by cost.

The operators, in order, are cut into groups. A group works on one block of rows from its first operator to its last and
keeps what is between in the scratchpad; between groups values go through DRAM. Larger groups move fewer activations,
smaller blocks load weights more often. All cuts and block sizes that fit are weighed with the cost below, and the
cheapest sequence is found by dynamic programming.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gblr_hw.lowering.groups.blocks import per_sequence
from gblr_hw.lowering.groups.head_room import HeadRoom, pass_cycles
from gblr_hw.lowering.groups.image_windows import operand_bytes
from gblr_hw.lowering.groups.scratchpad_map import Key, ScratchRegion, map_regions, source_of, stored
from gblr_hw.lowering.groups.stages import Stage, local, stages_of
from simulator.base.arithmetic import ceil_div
from simulator.base.errors import InputError
from simulator.machine.machine import Machine
from simulator.network.network import Network, Operand, Operator
from simulator.network.network_layout import heads_of_chunk, heads_per_tile, output_chunks, region_chunks, view_chunks
from simulator.network.strided_bytes import strided_bytes
from simulator.program.schedule import LayerSchedule

LONGEST = 24  # operators in a group
_CUTS = (*range(1, 17), 20, 24, 28, 32, 40, 48, 64, 96, 128, 192, 256, 384, 512, 1024)

_MOST_DOUBLED = 6  # times, until a scratchpad that would be enough is no longer looked for


@dataclass(frozen=True)
class Group:
    """Operators [first, last), worked on ``block`` rows at a time. flat: a block may hold rows of several sequences.
    resident: all its weight tiles stay in the weight buffer, so that they are loaded once.
    """

    first: int
    last: int
    block: int
    flat: bool
    resident: bool


def fuse_groups(
    network: Network, schedules: Sequence[LayerSchedule], machine: Machine, longest: int = LONGEST
) -> tuple[Group, ...]:
    """The cheapest cut into groups of at most ``longest`` operators (1: all values go through DRAM). Raises InputError
    naming the operator that does not fit the scratchpad with a single row.
    """
    count = len(network.operators)
    planner = _Planner(network, schedules, machine)
    best: list[tuple[float, tuple[Group, ...]] | None] = [None] * (count + 1)
    best[0] = (0.0, ())
    for last in range(1, count + 1):
        for first in range(last - 1, max(-1, last - 1 - longest), -1):
            before = best[first]
            if before is None or not planner.joins(first, last):
                break
            found = planner.cheapest(first, last)
            if found is not None and (best[last] is None or before[0] + found[0] < best[last][0]):  # type: ignore[index]
                best[last] = (before[0] + found[0], (*before[1], found[1]))
        if best[last] is None:
            raise _too_large(network, schedules, last - 1, machine)
    result = best[count]
    assert result is not None
    return result[1]


@dataclass(frozen=True)
class _Work:
    """Estimated cycles of a group: of the array in each stage, of the vector unit, of the channel for ``moved`` bytes,
    and latencies. loads: operands from DRAM, each with the first operator that reads it and its bytes.
    """

    arrays: tuple[float, ...]
    vector: float
    moved: float
    channel: float
    latency: float
    loads: Mapping[Operand, tuple[int, int]]

    @property
    def array(self) -> float:
        return sum(self.arrays)

    def cost(self, waits: float) -> float:
        """The array with what it waits for, the vector unit or the channel, whichever is longest; and once more the
        shorter of array and channel, since bytes cost energy where they cost no time.
        """
        return max(self.array + waits, self.vector, self.channel) + self.latency + min(self.array, self.channel)


class _Planner:
    """Costs of candidate groups; those that are alike (as the layers of a transformer are) are worked out once."""

    def __init__(self, network: Network, schedules: Sequence[LayerSchedule], machine: Machine) -> None:
        self.network, self.schedules, self.machine = network, schedules, machine
        self._bytes: dict[tuple[int, Operand], int] = {}
        self._row_cycles = [np.unique(s.tiles.row_cycles.astype(np.int64), return_counts=True) for s in schedules]
        self._known: dict[object, tuple[float, int, bool, bool] | None] = {}
        burst = machine.dram.burst_bytes
        self._weight_bytes = [int((-(-s.tile_bytes(machine) // burst) * burst).sum()) for s in schedules]

    def joins(self, first: int, last: int) -> bool:
        """Whether operator ``first`` may run in one group with those up to ``last``: the same rows, and nothing of
        the group is read in a way that needs all of it in DRAM.
        """
        network = self.network
        head = network.operators[first]
        if (head.batch, head.tokens) != (network.operators[last - 1].batch, network.operators[last - 1].tokens):
            return False
        written = head.output
        for index in range(first + 1, last):
            for operand in network.operators[index].operands:
                if operand.indices is not None and written in network.parts(operand.indices):
                    return False
                if written in network.parts(operand.tensor) and not (
                    operand.tensor == written and local(network, network.operators[index], operand, self.machine.cols)
                ):
                    return False
        return True

    def cheapest(self, first: int, last: int) -> tuple[float, Group] | None:
        """Cost and group of the best block size for operators [first, last), or None if no block fits."""
        alike = self._signature(first, last)
        if alike not in self._known:
            self._known[alike] = self._search(first, last)
        found = self._known[alike]
        return None if found is None else (found[0], Group(first, last, *found[1:]))

    def _search(self, first: int, last: int) -> tuple[float, int, bool, bool] | None:
        network, machine = self.network, self.machine
        head = network.operators[first]
        flat = not per_sequence(network, first, last)
        rows = head.rows if flat else head.tokens
        stages = stages_of(network, first, last, machine.cols)
        resident = self._resident(first, last)
        limit = min(self._block_limit(index) for index in range(first, last))
        best: tuple[float, int, bool, bool] | None = None
        for block in self._block_sizes(first, last, rows, limit):
            blocks = ceil_div(rows, block) * (head.rows // rows)
            work = self._work(stages, block, blocks, resident)
            if best is not None and work.cost(0.0) >= best[0]:
                continue  # nor with waits
            regions = map_regions(network, stages, block, machine)
            if regions is None:
                continue
            cost = work.cost(self._waits(stages, work, regions, head.rows, blocks))
            if best is None or cost < best[0]:
                best = (cost, block, flat, resident)
        return best

    def _block_limit(self, index: int) -> int:
        """Rows of a block for which an operator's sums fit, twice: of heads that make up a chunk, all of theirs."""
        operator, limit = self.network.operators[index], block_limit(self.schedules[index], self.machine)
        if operator.kind != "mix":
            return limit
        heads = heads_of_chunk(self.network, operator, self.machine.cols)
        return max(1, min(limit, self.machine.accumulator_rows // 2 // heads))

    def _block_sizes(self, first: int, last: int, rows: int, limit: int) -> list[int]:
        side = self.machine.cols
        sizes = {ceil_div(rows, cut) for cut in _CUTS if cut <= rows} | {rows, 1}
        # Of more rows than that many blocks hold, smaller ones too, or a block of one row would be all that fits.
        sizes |= {1 << power for power in range((rows // _CUTS[-1]).bit_length() + 1)}
        for operand in (one for operator in self.network.operators[first:last] for one in operator.operands):
            if operand.access == "image" and operand.window is not None:
                # Whole rows of the output keep fewer rows of the image.
                sizes |= {operand.window.output[1] * count for count in (1, 2, 3, 4, 6, 8, 12, 16)}
        sizes = {size for size in sizes if size <= rows}
        if any(o.access == "transposed" for op in self.network.operators[first:last] for o in op.operands):
            # A block is one chunk of the tensor that is turned.
            sizes = {min(side, rows)}
        return sorted((size for size in sizes if size <= limit), reverse=True)

    def _resident(self, first: int, last: int) -> bool:
        forms = [self.schedules[index].form for index in range(first, last)]
        tiles = sum(len(self.schedules[index].tiles) for index in range(first, last))
        return "activations" not in forms and 0 < tiles <= self.machine.weight_slots

    def _work(self, stages: Sequence[Stage], block: int, blocks: int, resident: bool) -> _Work:
        """What a group in ``blocks`` blocks does, however its values lie in the scratchpad."""
        network, machine = self.network, self.machine
        side, first, last = machine.cols, stages[0].first, stages[-1].last
        vector = moved = 0.0
        arrays: list[float] = []
        loads: dict[Operand, tuple[int, int]] = {}
        for stage in stages:
            array = 0.0
            for index in range(stage.first, stage.last):
                operator = network.operators[index]
                chunks = output_chunks(network, operator, side)
                work = max(1, operator.passes) * operator.rows * chunks * side / machine.vector.lanes
                vector += work
                if operator.kind == "vector":
                    array += 0 if stage.chunked or stage.slices > 1 else work + machine.vector.latency_cycles
                else:
                    array += blocks * (self._pass_cycles(index, block) + 2 * side + work / max(1, blocks * chunks))
                    moved += self._weight_bytes[index] * (1 if resident else blocks)
                if stored(network, operator.output, last):
                    moved += operator.rows * chunks * side
                for operand in operator.operands:
                    key = source_of(network, operator, operand, first, side)
                    if isinstance(key, Operand) and operand.access != "weights" and key not in loads:
                        loads[key] = (index, self._operand_bytes(operator, operand))
                        moved += loads[key][1]
            arrays.append(array)
        latency = 2 * machine.dram_latency_cycles * (blocks if blocks > 1 else 1)
        return _Work(tuple(arrays), vector, moved, self._channel_cycles(moved), latency, loads)

    def _pass_cycles(self, index: int, block: int) -> int:
        """Cycles that the passes of a matrix operator on one block keep the array."""
        network, side, operator = self.network, self.machine.cols, self.network.operators[index]
        if operator.kind == "linear":
            cycles, counts = self._row_cycles[index]
            return int((np.maximum(cycles * block, side) * counts).sum())
        shared, of_chunk = heads_per_tile(network, operator, side), heads_of_chunk(network, operator, side)
        room = HeadRoom(block, self.machine.accumulator_rows // block)
        return len(self.schedules[index].tiles) * pass_cycles(shared, of_chunk, room, side)

    def _waits(
        self, stages: Sequence[Stage], work: _Work, regions: Mapping[Key, ScratchRegion], rows: int, blocks: int
    ) -> float:
        """Cycles for which the array has nothing to do: the last block's last chunk is stored, the first block's inputs
        come, and those of others for which there is no second place. ``rows``: of the group.
        """
        waits = self._channel_cycles(rows * self.machine.cols) / blocks
        for key, (index, size) in work.loads.items():
            if regions[key].begin == 0:
                waits += self._arrival(stages[0], regions[key], index, size, work.arrays[0]) / blocks
            if blocks > 1 and not regions[key].ahead:
                others = self._channel_cycles(work.moved - size) / max(work.array, work.channel, 1.0)
                meanwhile = self._meanwhile(stages, regions[key], index, work.arrays) * (1 - min(1.0, others))
                waits += max(0.0, self._channel_cycles(size) - meanwhile)
        return waits

    def _channel_cycles(self, moved: float) -> float:
        return moved * 1000 / self.machine.dram_bytes_per_kilocycle

    def _arrival(self, stage: Stage, region: ScratchRegion, reader: int, size: float, array: float) -> float:
        """Cycles for which the first inputs hold up the array: all of an image's rows, of other operands what comes no
        faster than the passes of one output chunk need it, and the first chunk. Both for all blocks.
        """
        load = self._channel_cycles(size)
        if region.image:
            return load
        if stage.chunked and reader > stage.first:
            return 0.0
        chunks = output_chunks(self.network, self.network.operators[reader], self.machine.cols)
        return max(load / region.chunks, load - array / chunks)

    def _meanwhile(self, stages: Sequence[Stage], region: ScratchRegion, reader: int, arrays: Sequence[float]) -> float:
        """Cycles of all blocks in which inputs for which there is no second place can arrive: while other stages run,
        and where they come chunk by chunk while the array does not need the chunk, from its last output chunk in one
        block to its first in the next.
        """
        network, mine = self.network, sum(arrays[region.begin : region.end + 1])
        stage, operator = stages[region.end], network.operators[reader]
        room = sum(arrays) - mine
        if region.image or operator.kind == "vector":
            return room + (mine if stage.chunked and reader > stage.first else 0.0)
        return room + min(1.0, 2 / output_chunks(network, operator, self.machine.cols)) * mine

    def _operand_bytes(self, operator: Operator, operand: Operand) -> int:
        """Bytes of an operand's whole view."""
        key = (operator.batch, operand)
        if key not in self._bytes:
            self._bytes[key] = self._view_bytes(operator, operand)
        return self._bytes[key]

    def _view_bytes(self, operator: Operator, operand: Operand) -> int:
        network, side = self.network, self.machine.cols
        if operand.access in ("window", "image"):
            return int(operand_bytes(network, operator, operand, side))
        chunks = view_chunks(network, operand, side)
        if operand.access != "strided":
            return operator.batch * operand.tokens * chunks * side
        # A copy into other axes reads in short runs.
        rows, burst = np.arange(operator.batch * operand.tokens), self.machine.dram.burst_bytes
        return sum(strided_bytes(network, operand, chunk, rows, side, burst) for chunk in range(chunks))

    def _signature(self, first: int, last: int) -> object:
        network = self.network
        names: dict[str, int] = {}

        def number(tensor: str) -> int:
            return names.setdefault(tensor, len(names))

        parts: list[object] = []
        for index in range(first, last):
            operator, schedule = network.operators[index], self.schedules[index]
            written = network.tensors[operator.output]
            parts.append(
                (
                    operator.kind,
                    operator.batch,
                    operator.tokens,
                    tuple((step.function, step.args) for step in operator.steps),
                    tuple((key, value.shape) for key, value in operator.constants.items()),
                    tuple(_operand_signature(operand, number(operand.tensor)) for operand in operator.operands),
                    (number(operator.output), written.groups, written.width, written.padded),
                    stored(network, operator.output, last),
                    (
                        schedule.form,
                        len(schedule.tiles),
                        self._weight_bytes[index],
                        block_limit(schedule, self.machine),
                    ),
                )
            )
        return tuple(parts)


def _operand_signature(operand: Operand, number: int) -> object:
    return (
        number,
        operand.tokens,
        operand.groups,
        operand.width,
        operand.token0,
        operand.channel0,
        operand.access,
        operand.window,
        operand.strides,
    )


def block_limit(schedule: LayerSchedule, machine: Machine) -> int:
    """Rows of a block for which a layer's sums fit, in two pieces where it has neither ranks nor activations as weights
    and so may go through the array in pieces; else twice, and its ranks' sums.
    """
    half = machine.accumulator_rows // 2
    if schedule.ranks == 0 and schedule.form != "activations":
        return 2 * half
    return min(half, machine.rank_rows_per_bank // schedule.held_slots)


def describe_groups(network: Network, groups: Sequence[Group]) -> str:
    """One line a group: its operators, its block, what it keeps."""
    lines = []
    for group in groups:
        names = [operator.name for operator in network.operators[group.first : group.last]]
        rows = network.operators[group.first].rows
        lines.append(
            f"group of {len(names)}: {names[0]} .. {names[-1]}, {rows} rows in blocks of {group.block}"
            f"{', weights stay' if group.resident else ''}"
        )
    return "\n".join(lines) + "\n"


def _too_large(network: Network, schedules: Sequence[LayerSchedule], index: int, machine: Machine) -> InputError:
    operator = network.operators[index]
    side = machine.cols
    widths = [region_chunks(network, o, side) * side for o in operator.operands if o.access != "weights"]
    written = output_chunks(network, operator, side) * side
    enough = _enough(network, schedules, machine)
    return InputError(
        f"operator '{operator.name}' on machine '{machine.name}'",
        f"rows of {' and '.join(map(str, widths))} bytes in and {written} bytes out",
        f"one row of each fits the scratchpad of {machine.scratchpad.size_bytes} bytes",
        "Use a larger machine." if enough is None else
        f"Enlarge [scratchpad] in the machine file: with kib = {enough} every operator fits.",
    )  # fmt: skip


def _enough(network: Network, schedules: Sequence[LayerSchedule], machine: Machine) -> int | None:
    """KiB of scratchpad, doubled until each operator by itself fits; None if none of these is enough."""
    left = list(range(len(network.operators)))
    for doubled in range(1, _MOST_DOUBLED + 1):
        kib = machine.scratchpad.kib << doubled
        scratchpad = machine.scratchpad.model_copy(update={"kib": kib})
        planner = _Planner(network, schedules, machine.model_copy(update={"scratchpad": scratchpad}))
        left = [index for index in left if planner.cheapest(index, index + 1) is None]
        if not left:
            return kib
    return None
