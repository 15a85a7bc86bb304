"""Loads of a network's program: inputs of a block, parameters, weight tiles (machine.md, D1 to D4, M3, M4)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from gblr_hw.lowering.emit.emission import Block, Emission, GroupState, ParameterSizes
from gblr_hw.lowering.emit.instruction_stream import Ref, latest, number
from gblr_hw.lowering.emit.passes_of_operator import Passes
from gblr_hw.lowering.emit.place_transfers import LOAD, PARAMETERS, load_sequence, prefetch_steps, weight_keys
from gblr_hw.lowering.groups.fuse_groups import by_token
from simulator.base.arithmetic import ceil_div
from simulator.base.errors import InputError
from simulator.machine.machine import Machine
from simulator.network.network import Operand, Operator
from simulator.network.network_layout import region_rows, view_chunks
from simulator.program.operations import Op
from simulator.program.schedule import LayerSchedule

RUN_BYTES = 4  # a row of a mask: first and one past the last key it allows (machine.md, M6)
CONSTANT_BYTES = 4  # a constant of the vector unit, without a row for each token


def load_operand(e: Emission, g: GroupState, block: Block, index: int, place: int, operand: Operand) -> None:
    """The chunks of one operand of operator ``index`` (its number ``place``), unless this block has them already."""
    if operand in block.loaded:
        return
    side, region = e.side, g.regions[operand]
    row0, rows = _rows(e, block, e.network.operators[index], operand)
    step0 = e.step
    chunks = np.arange(view_chunks(e.network, operand, side))
    if operand.access == "transposed":
        chunks = np.array([block.token0 // side])
    base = address(e, g, block, operand)
    size = rows * side
    held = e.hazards.before(base, base + len(chunks) * size)
    in_place = operand.access == "rows" and operand.tokens == e.network.tensors[operand.tensor].tokens
    source = e.stored(operand.tensor, row0 + rows if in_place else None)
    waits = (held.get("array"), held.get("vector"), latest([held.get("store"), source]))
    earliest = max((ref.step + 1 for ref in waits if ref is not None), default=0)
    begin = g.begins[-2] if len(g.begins) > 1 and region.copies > 1 else max(0, step0 - prefetch_steps(e.machine))
    steps = np.maximum(begin + np.arange(len(chunks)) * max(0, step0 - begin) // len(chunks), earliest)
    first, last = e.stream.put(
        steps,
        LOAD,
        load_sequence(np.full(len(chunks), step0), is_input=True),
        op=Op.LOAD_INPUT,
        layer=index,
        tile=place,
        chunk=chunks,
        token0=row0,
        tokens=rows,
        dst=base + np.arange(len(chunks)) * size,
        dram_bytes=rows * _row_bytes(e, operand),
        after_array=number(waits[0]),
        after_vector=number(waits[1]),
        after_store=number(waits[2]),
    )
    e.hazards.use(base, base + len(chunks) * size, "input", last)
    block.loaded[operand] = (first.id + np.arange(len(chunks)), last)


def address(e: Emission, g: GroupState, block: Block, key: str | Operand, part: int = 0) -> int:
    """Where a value lies in the scratchpad: its copies serve blocks in turn, or slices of heads."""
    region = g.regions[key]
    return region.places[(part if isinstance(key, str) else block.number) % len(region.places)]


def _rows(e: Emission, block: Block, operator: Operator, operand: Operand) -> tuple[int, int]:
    """First row and rows of an operand's view that a block reads."""
    if operand.access == "transposed":
        tokens = e.network.tensors[operand.tensor].tokens
        return block.sequence * tokens, tokens
    if region_rows(e.network, operator, operand) == 1:
        return block.sequence if e.network.tensors[operand.tensor].batch > 1 else 0, 1
    return block.row0, block.rows


def _row_bytes(e: Emission, operand: Operand) -> int:
    """Bytes that a load moves for each row of a chunk (machine.md, E1): whole bursts for a gathered row; every pixel of
    an image of which a stride takes some; two chunks of a view that begins inside one. The host lays out the network's
    inputs as they are read.
    """
    side, burst = e.side, e.machine.dram.burst_bytes
    if operand.access == "gather":
        return ceil_div(side, burst) * burst
    if e.network.tensors[operand.tensor].kind == "input":
        return side
    if operand.window is not None and operand.window.stride != operand.window.kernel:
        return side * operand.window.stride[1]
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
    step = max(e.step - prefetch_steps(e.machine), 0 if user is None else user.step + 1)
    ref, _ = e.stream.put(
        min(step, e.step),
        PARAMETERS,
        e.stream.count,
        op=Op.LOAD_PARAMETERS,
        layer=index,
        dram_bytes=size,
        after_vector=number(user),
    )
    e.weights.parameter_step = ref.step
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
    """Whether a constant only lets through (0) or shuts out (far below), one run of keys a row."""
    shut = array < -1e4
    if not ((array == 0) | shut).all():
        return False
    edges = np.diff(np.pad(~shut, [(0, 0)] * (array.ndim - 1) + [(1, 1)]).astype(np.int8), axis=-1)
    return bool((np.count_nonzero(edges, axis=-1) <= 2).all())


def parameters_stay(sizes: Mapping[int, ParameterSizes]) -> bool:
    """Whether the parameters of a group's operators stay: no more than two of them have any, none by block."""
    having = [one for one in sizes.values() if one.of_block(1) > 0]
    return len(having) <= 2 and not any(one.by_block for one in having)


def load_weights(e: Emission, g: GroupState, block: Block, index: int, passes: Passes) -> tuple[np.ndarray, np.ndarray]:
    """The loads of an operator's tiles for one block; (L,) numbers and slots. The passes come next in the stream."""
    schedule, state, slots = e.schedules[index], e.weights, e.machine.weight_slots
    loads = len(passes.load_tile)
    if loads == 0:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    first_tile = e.stream.count + (0 if index in g.resident else loads)
    last_user = np.zeros(loads, dtype=np.int64)
    last_user[passes.load] = np.arange(len(passes))  # numpy keeps the last of repeated assignments
    if index in g.resident:
        ids, places, load0 = g.resident[index]
        oldest = state.loads - len(state.load_user)
        at = load0 + np.arange(loads) - oldest
        state.load_user[at], state.load_step[at] = first_tile + last_user, e.step + last_user
        return ids, places
    first_use = np.full(loads, len(passes), dtype=np.int64)
    np.minimum.at(first_use, passes.load, np.arange(len(passes)))
    uses = e.step + first_use
    keys, frees = weight_keys(e.machine, uses, first_tile + last_user, e.step + last_user, state)
    activations = schedule.form == "activations"
    source = e.stored(e.network.operators[index].operands[1].tensor) if activations else None
    if source is not None:
        keys = np.maximum(keys, source.step + 1)
    tiles = schedule.tiles
    size = tiles.weight_count if activations else tiles.record_bytes(e.machine.datatypes.weight_bits)
    places = (state.loads + np.arange(loads)) % slots
    first = e.stream.count
    e.stream.put(
        keys,
        LOAD,
        load_sequence(uses, is_input=False),
        op=Op.LOAD_WEIGHTS,
        layer=index,
        tile=passes.load_tile,
        slot=places,
        token0=block.row0 - block.token0 if activations else -1,
        dram_bytes=size[passes.load_tile],
        after_array=frees,
        after_store=number(source),
    )
    if g.group.resident:
        g.resident[index] = (first + np.arange(loads), places, state.loads)
    state.loads += loads
    return first + np.arange(loads), places
