"""Loads of a network's program: inputs of a block, parameters, weight tiles (machine.md, D1 to D4, M3, M4)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from gblr_hw.lowering.emit.emission import Block, Emission, GroupState, ParameterSizes
from gblr_hw.lowering.emit.instruction_stream import Ref, latest, number
from gblr_hw.lowering.emit.passes_of_operator import Passes
from gblr_hw.lowering.emit.place_transfers import (
    DRAIN,
    LOAD,
    input_throttle,
    load_sequence,
    prefetch_steps,
    sort_keys,
)
from gblr_hw.lowering.emit.runs_of_layer import BlockRows, WeightLoads, put_inputs, put_parameters, put_weights
from gblr_hw.lowering.emit.scratch_hazards import Class
from gblr_hw.lowering.groups.blocks import by_token
from gblr_hw.lowering.groups.image_windows import image_bytes, window_row_bytes
from gblr_hw.lowering.groups.scratchpad_map import ScratchRegion
from simulator.base.arithmetic import ceil_div
from simulator.base.errors import InputError
from simulator.machine.machine import Machine
from simulator.network.image_rows import ImageRows, image_chunks
from simulator.network.network import Operand, Operator
from simulator.network.network_layout import read_by_all, region_rows, view_chunks
from simulator.network.operand_views import operand_window
from simulator.network.strided_bytes import strided_bytes
from simulator.program.operations import Op
from simulator.program.schedule import LayerSchedule
from simulator.timing.durations import channel_cycles

RUN_BYTES = 4  # a row of a mask: first and one past the last key it allows (machine.md, M6)
CONSTANT_BYTES = 4  # a constant of the vector unit, without a row for each token


@dataclass(frozen=True, eq=False)
class FirstUse:
    """When a matrix operator first reads the chunks of its operand. passes: (C,) passes from its first, chunks beyond
    those that it reads left out. first_tile: number of its first pass.
    """

    passes: np.ndarray
    first_tile: int

    @staticmethod
    def of(passes: Passes, first_tile: int) -> FirstUse:
        reading = np.flatnonzero(passes.reads)
        chunks = passes.source[reading] // passes.pieces
        first = np.full(int(chunks.max(initial=-1)) + 1, max(0, len(passes) - 1))
        np.minimum.at(first, chunks, reading)
        return FirstUse(first, first_tile)

    def of_chunks(self, chunks: np.ndarray) -> np.ndarray:
        last = int(self.passes.max(initial=0))
        return np.append(self.passes, last)[np.minimum(chunks, len(self.passes))]


def load_operand(
    e: Emission, g: GroupState, block: Block, index: int, place: int, operand: Operand, use: FirstUse | None
) -> None:
    """The chunks of one operand of operator ``index`` (its number ``place``), unless this block has them already: in
    the order of their first ``use``, or all before the operator begins.
    """
    if operand in block.loaded:
        return
    if operand.access == "image":
        load_image(e, g, block, index, place, operand)
        return
    side, region = e.side, g.regions[operand]
    row0, rows = _rows(e, block, e.network.operators[index], operand)
    step0 = e.step
    chunks = np.arange(view_chunks(e.network, operand, side))
    if operand.access == "transposed":
        chunks = np.array([block.token0 // side])
    base = address(e, g, block, operand)
    size = rows * side
    held = e.hazards.before_each(base, size, len(chunks))
    if g.group.resident and (reader := latest(one.get("array") for one in held)) is not None:
        # While weights come that stay, inputs of a block that is not the next would only be in their way.
        held = [{**one, "array": reader} for one in held]
    waits, earliest = _waits(e, operand, row0 + rows, held)
    first_use = np.zeros(len(chunks), dtype=np.int64) if use is None else use.of_chunks(chunks)
    begin = _ahead_since(e, g, region, earliest)
    if begin >= 0:
        steps = begin + np.arange(len(chunks)) * max(0, step0 - begin) // len(chunks)
    else:
        steps = np.maximum(0, step0 + first_use - prefetch_steps(e.machine))
    moved = _bytes(e, operand, chunks, row0, rows)
    if use is not None and block.number == 0 and begin < 0:
        later = _throttle(e, use, first_use, moved)
        waits[0] = np.where(later >= 0, use.first_tile + later, waits[0])
        steps = np.where(later >= 0, np.maximum(steps, step0 + later + 1), steps)
    steps = np.maximum(steps, earliest)
    first, last = put_inputs(
        e.stream,
        BlockRows(index, row0, rows),
        steps,
        step0 + first_use,
        chunks,
        base + np.arange(len(chunks)) * size,
        moved,
        after_array=waits[0],
        after_vector=waits[1],
        after_store=waits[2],
        operand=place,
    )
    keys = sort_keys(steps, LOAD, load_sequence(step0 + first_use, is_input=True))
    latest_load = int(np.lexsort((np.arange(len(chunks)), keys))[-1])
    last = Ref(int(keys[latest_load]), first.id + latest_load)
    e.hazards.use(base, base + len(chunks) * size, "input", last)
    block.loaded[operand] = (first.id + np.arange(len(chunks)), last)


def _ahead_since(e: Emission, g: GroupState, region: ScratchRegion, earliest: np.ndarray) -> int:
    """The step from which an operand comes evenly until it is needed, or -1: through the block before where it has a
    second place, through the stage before where it and its place have been there since that began.
    """
    if len(g.begins) > 1 and region.copies > 1:
        return g.begins[-2]
    if len(e.stages) > 1 and int(earliest.max()) <= e.stages[-2]:
        return e.stages[-2]
    return -1


def _waits(
    e: Emission, operand: Operand, end: int, held: list[dict[Class, Ref]]
) -> tuple[list[np.ndarray], np.ndarray]:
    """What the loads of an operand's rows up to ``end`` wait for, given who uses the bytes that each goes to: numbers
    by class (array, vector, store), and the first step at which each may stand.
    """
    in_place = operand.access == "rows" and operand.tokens == e.network.tensors[operand.tensor].tokens
    source = e.stored(operand.tensor, end if in_place else None)
    named = None if operand.indices is None else e.stored(operand.indices)
    refs = [(one.get("array"), one.get("vector"), latest([one.get("store"), source, named])) for one in held]
    earliest = [max((ref.step + 1 for ref in one if ref is not None), default=0) for one in refs]
    return [np.array([number(ref) for ref in column]) for column in zip(*refs, strict=True)], np.array(earliest)


def _throttle(e: Emission, use: FirstUse, first_use: np.ndarray, moved: int | np.ndarray) -> np.ndarray:
    """For each chunk of a group's first inputs the pass that must be done before it is asked for, or -1."""
    order = np.argsort(first_use, kind="stable")
    cycles = channel_cycles(e.machine, np.atleast_1d(moved)[:1])
    result = np.full(len(first_use), -1)
    result[order] = input_throttle(e.machine, first_use[order], int(cycles[0]))
    return result


def load_in_turn(
    e: Emission,
    block: Block,
    index: int,
    place: int,
    chunks: np.ndarray,
    buffers: tuple[int, int, int],
    readers: np.ndarray,
    behind: tuple[np.ndarray, np.ndarray],
) -> np.ndarray:
    """Loads of ``chunks`` of an operand in the order in which a follower reads them; their numbers. buffers: first
    address, bytes and number of those that they have in turn. readers: (C,) the instructions that read each. behind:
    steps and sequences, (C,) each, that stand behind those.
    """
    operand = e.network.operators[index].operands[place]
    base, size, count = buffers
    row0, rows = _rows(e, block, e.network.operators[index], operand)
    turn = np.arange(len(chunks))
    held = e.hazards.before_each(base, size, count)
    waits, earliest = _waits(e, operand, row0 + rows, [held[at] if at < count else {} for at in turn.tolist()])
    first = e.stream.reserve(len(chunks))
    moved = _bytes(e, operand, chunks, row0, rows)
    waits[1][count:] = readers[:-count]
    ahead = np.maximum(earliest, max(0, e.step - prefetch_steps(e.machine)))[:count]
    for part, (steps, kind, sequence) in (
        (slice(0, count), (ahead, LOAD, load_sequence(np.full(count, e.step), is_input=True))),
        (slice(count, None), (behind[0][:-count], DRAIN, behind[1][:-count])),
    ):
        _, last = e.stream.put(
            steps,
            kind,
            sequence,
            first + part.start,
            op=Op.LOAD_INPUT,
            layer=index,
            tile=place,
            chunk=chunks[part],
            token0=row0,
            tokens=rows,
            dst=base + turn[part] % count * size,
            dram_bytes=moved,
            after_array=waits[0][part],
            after_vector=waits[1][part],
            after_store=waits[2][part],
        )
    e.hazards.use(base, base + count * size, "input", last)
    return first + turn


def load_image(e: Emission, g: GroupState, block: Block, index: int, place: int, operand: Operand) -> None:
    """The rows of an image that a block's windows need and the blocks before it did not, to the places of rows that no
    window needs any more.
    """
    image = ImageRows.of(operand)
    begin, end = image.needed(block.row0, block.rows)
    chunks = image_chunks(operand, e.side)
    if operand in g.images:
        known, last = g.images[operand]
        begin = max(begin, known)
    if begin < end:
        ranges = kept_ranges(image, operand.kept, begin, end, address(e, g, block, operand))
        held = [e.hazards.before(*one) for one in ranges]
        source = e.stored(operand.tensor, image_end(e, operand, end))
        waits = [latest(one.get(user) for one in held) for user in ("array", "vector", "store")]
        waits[2] = latest([waits[2], source])
        earliest = max((ref.step + 1 for ref in waits if ref is not None), default=0)
        ahead = g.begins[-2] if len(g.begins) > 1 else max(0, e.step - prefetch_steps(e.machine))
        spread = ahead + np.arange(chunks) * max(0, e.step - ahead) // chunks
        _, last = put_inputs(
            e.stream,
            BlockRows(index, begin, end - begin),
            np.maximum(spread, earliest),
            np.full(chunks, e.step),
            np.arange(chunks),
            np.full(chunks, address(e, g, block, operand)),
            np.maximum(image_bytes(e.network, operand, begin, end - begin, e.side), 1),
            after_array=number(waits[0]),
            after_vector=number(waits[1]),
            after_store=number(waits[2]),
            operand=place,
        )
        for one in ranges:
            e.hazards.use(*one, "input", last)
        g.images[operand] = (end, last)
    block.loaded[operand] = (np.full(view_chunks(e.network, operand, e.side), last.id), last)


def image_end(e: Emission, operand: Operand, end: int) -> int | None:
    """One past the last row of its tensor that padded rows up to ``end`` of an operand's images hold; None for images
    that are a part of their tensor.
    """
    rows, columns = operand_window(operand).image
    if operand.token0 or rows * columns != e.network.tensors[operand.tensor].tokens:
        return None
    which, down, _ = ImageRows.of(operand).pixels(0, end)
    held = np.flatnonzero(down >= 0)
    return (int(which[held[-1]]) * rows + int(down[held[-1]]) + 1) * columns if len(held) else 0


def kept_ranges(image: ImageRows, kept: int, begin: int, end: int, base: int) -> list[tuple[int, int]]:
    """Bytes [low, high) of padded rows [begin, end), kept at ``base``: one run, or two around the region's end."""
    first, count = begin % kept, min(end - begin, kept)
    runs = [(first, min(kept, first + count)), (0, max(0, first + count - kept))]
    return [(base + low * image.row_bytes, base + high * image.row_bytes) for low, high in runs if low < high]


def address(e: Emission, g: GroupState, block: Block, key: str | Operand, part: int = 0) -> int:
    """Where a value lies in the scratchpad: its copies serve blocks in turn, or slices of heads."""
    region = g.regions[key]
    return region.places[(block.number if region.by_block else part) % len(region.places)]


def _rows(e: Emission, block: Block, operator: Operator, operand: Operand) -> tuple[int, int]:
    """First row and rows of an operand's view that a block reads."""
    if operand.access == "transposed":
        tokens = e.network.tensors[operand.tensor].tokens
        return block.sequence * tokens, tokens
    if region_rows(e.network, operator, operand) == 1:
        return block.sequence if e.network.tensors[operand.tensor].batch > 1 else 0, 1
    return block.token0 if read_by_all(e.network, operator, operand) else block.row0, block.rows


def _bytes(e: Emission, operand: Operand, chunks: np.ndarray, row0: int, rows: int) -> int | np.ndarray:
    """Bytes that loads of ``rows`` rows from ``row0`` on move, of each of the chunks."""
    if operand.access == "window":
        return rows * window_row_bytes(e.network, operand, chunks, e.side)
    if operand.access != "strided":
        return rows * _row_bytes(e, operand)
    taken, burst = np.arange(row0, row0 + rows), e.machine.dram.burst_bytes
    return np.array([strided_bytes(e.network, operand, int(one), taken, e.side, burst) for one in chunks])


def _row_bytes(e: Emission, operand: Operand) -> int:
    """Bytes that a load moves for each row of a chunk (machine.md, E1): whole bursts for a gathered row; two chunks of
    a view that begins inside one. The host lays out the network's inputs as they are read.
    """
    side, burst = e.side, e.machine.dram.burst_bytes
    if operand.access == "gather":
        return ceil_div(side, burst) * burst
    if e.network.tensors[operand.tensor].kind == "input":
        return side
    return 2 * side if operand.channel0 % side and operand.access == "rows" else side


def load_parameters(e: Emission, g: GroupState, block: Block, index: int) -> Ref | None:
    """Biases, multipliers or constants of an operator into the half of the parameter memory that is not in use (M4).

    None for an operator without any. They are loaded once a group if all of its operators' fit the two halves. Raises
    InputError if they do not fit theirs.
    """
    size = g.sizes[index].of_block(block.rows)
    if size == 0:
        return None
    _check_fit(e, index, g.sizes[index], block.rows)
    if index in g.parameters and g.parameters_stay:
        return g.parameters[index][0]
    user = e.parameter_users[-2] if len(e.parameter_users) > 1 else None
    free = 0 if user is None else user.step + 1
    ref = put_parameters(e.stream, e.loads, e.machine, index, size, e.step, number(user), free)
    e.parameter_users.append(None)
    g.parameters[index] = (ref, len(e.parameter_users) - 1)
    return ref


def used_parameters(e: Emission, g: GroupState, index: int, by: Ref) -> None:
    """Note that ``by`` uses the parameters of an operator."""
    if index in g.parameters:
        e.parameter_users[g.parameters[index][1]] = by


def _check_fit(e: Emission, index: int, sizes: ParameterSizes, rows: int) -> None:
    held = sizes.held + sizes.held_a_row * rows
    if held > e.machine.parameter_half_bytes:
        raise InputError(
            f"operator '{e.network.operators[index].name}' on machine '{e.machine.name}'",
            f"{held} bytes of parameters",
            f"half of vector.parameter_kib holds {e.machine.parameter_half_bytes}",
            "Enlarge 'vector.parameter_kib' in the machine file.",
        )


def parameter_sizes(operator: Operator, schedule: LayerSchedule, machine: Machine) -> ParameterSizes:
    """What an operator's parameters take. Scores and mix have one multiplier, which is no table; constants of the
    vector unit with a row for each token stream through the memory as codes, but a mask is held as one run a row
    (machine.md, M6).
    """
    if operator.kind != "vector":
        table = 0 if schedule.form == "activations" else schedule.parameter_bytes(machine.multiplier_row)
        return ParameterSizes(held=table)
    held = held_a_row = streamed_a_row = 0
    for array in operator.constants.values():
        if not by_token(array):
            held += CONSTANT_BYTES * array.size if array.size > 1 else 0
        elif is_mask(array):
            held_a_row += RUN_BYTES
        else:
            streamed_a_row += array.shape[2] * array.shape[3]
    return ParameterSizes(held, held_a_row, streamed_a_row)


def is_mask(array: np.ndarray) -> bool:
    """Whether a constant only lets through (0 that is added, infinity where the smaller counts) or shuts out (far
    below), one run of keys a row.
    """
    shut = array < -1e4
    if not any(((array == through) | shut).all() for through in (0.0, np.inf)):
        return False
    edges = np.diff(np.pad(~shut, [(0, 0)] * (array.ndim - 1) + [(1, 1)]).astype(np.int8), axis=-1)
    return bool((np.count_nonzero(edges, axis=-1) <= 2).all())


def parameters_stay(sizes: Mapping[int, ParameterSizes]) -> bool:
    """Whether the parameters of a group's operators stay: no more than two of them have any, none by block."""
    having = [one for one in sizes.values() if one.of_block(1) > 0]
    return len(having) <= 2 and not any(one.by_block for one in having)


def load_weights(
    e: Emission, g: GroupState, block: Block, index: int, passes: Passes, first_tile: int
) -> tuple[np.ndarray, np.ndarray]:
    """The loads of an operator's tiles for one block; (L,) numbers and slots. The passes have the numbers from
    ``first_tile`` on.
    """
    schedule, state, loads = e.schedules[index], e.loads, len(passes.load_tile)
    last_pass = np.zeros(loads, dtype=np.int64)
    last_pass[passes.load] = np.arange(len(passes))  # numpy keeps the last of repeated assignments
    user, last_step = first_tile + last_pass, e.step + last_pass
    if index in g.resident:
        ids, slots, load0 = g.resident[index]
        at = load0 + np.arange(loads) - (state.loads - len(state.load_user))
        state.load_user[at], state.load_step[at] = user, last_step
        return ids, slots
    first_pass = np.full(loads, len(passes), dtype=np.int64)
    np.minimum.at(first_pass, passes.load, np.arange(len(passes)))
    activations = schedule.form == "activations"
    moved = schedule.tile_bytes(e.machine)[passes.load_tile]
    load0 = state.loads
    ids, slots = put_weights(
        e.stream,
        state,
        e.machine,
        index,
        WeightLoads(passes.load_tile, moved, e.step + first_pass, user, last_step),
        token0=block.row0 - block.token0 if activations else -1,
        source=e.stored(e.network.operators[index].operands[1].tensor) if activations else None,
    )
    if g.group.resident:
        g.resident[index] = (ids, slots, load0)
    return ids, slots
