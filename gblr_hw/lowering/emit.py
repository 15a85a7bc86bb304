"""Pass 11: schedules become the flattened program: addresses, buffers in rotation, explicit dependences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from gblr_hw.lowering.block_tokens import check_parameters, input_half_bytes, output_half_bytes
from gblr_hw.lowering.place_transfers import (
    DRAIN,
    LOAD,
    PARAMETERS,
    TILE,
    NetworkState,
    input_keys,
    input_throttle,
    load_sequence,
    prefetch_steps,
    weight_keys,
)
from simulator.isa import OPERANDS, After, Instructions, Op
from simulator.machine import Machine
from simulator.program import Program
from simulator.schedule import LayerSchedule
from simulator.timing import channel_cycles

_OPERANDS = ("op", *OPERANDS)
_AFTER = tuple(f"after_{column.name.lower()}" for column in After)
_KEYS = ("step", "rank", "sequence")


def emit(schedules: Sequence[LayerSchedule], machine: Machine, tokens: int, provenance: Mapping[str, str]) -> Program:
    """The program that runs ``schedules`` one after another on ``machine``."""
    instructions = emit_instructions(schedules, machine, tokens)
    return Program(machine, tokens, tuple(schedules), instructions, dict(provenance))


def emit_instructions(schedules: Sequence[LayerSchedule], machine: Machine, tokens: int) -> Instructions:
    """The instructions of that program."""
    state = NetworkState()
    groups: list[dict[str, np.ndarray]] = []
    for index, layer in enumerate(schedules):
        _emit_layer(index, layer, machine, tokens, state, groups)
    columns = {name: np.concatenate([group[name] for group in groups]) for name in (*_OPERANDS, *_AFTER, *_KEYS, "id")}
    order = np.lexsort((columns["sequence"], columns["rank"], columns["step"]))
    position = np.empty(len(order), dtype=np.int64)
    position[columns["id"][order]] = np.arange(len(order))
    after = np.stack([columns[name][order] for name in _AFTER])
    after = np.where(after >= 0, position[np.maximum(after, 0)], -1)
    return Instructions(after=after, **{name: columns[name][order] for name in _OPERANDS})


def _new_ids(state: NetworkState, count: int) -> np.ndarray:
    ids = state.ids + np.arange(count, dtype=np.int64)
    state.ids += count
    return ids


def _group(groups: list[dict[str, np.ndarray]], ids: np.ndarray, **columns: object) -> np.ndarray:
    """Append instructions of one kind, one for each id; columns not given are -1. Returns the ids."""
    count = len(ids)
    group = {name: np.full(count, -1, dtype=np.int64) for name in (*_OPERANDS, *_AFTER, *_KEYS)}
    group["accumulate"] = np.zeros(count, dtype=np.int64)
    group["id"] = ids
    for name, values in columns.items():
        group[name] = np.broadcast_to(np.asarray(values, dtype=np.int64), (count,))
    groups.append(group)
    return ids


def _emit_layer(
    index: int,
    layer: LayerSchedule,
    machine: Machine,
    tokens: int,
    state: NetworkState,
    groups: list[dict[str, np.ndarray]],
) -> None:
    count, size = len(layer.tiles), layer.block_tokens
    starts = np.arange(0, tokens, size)
    span = max(1, count)
    begin = state.step
    parameters = _emit_parameters(index, layer, machine, state, groups)
    state.layer_steps.append(begin)
    previous_store = state.store_ids[-1] if state.store_ids else -1
    tile_ids = _new_ids(state, len(starts) * count).reshape(len(starts), count)
    load_ids = _emit_weights(index, layer, machine, state, groups, tile_ids, begin, span)
    block_start = begin
    for block, token0 in enumerate(starts.tolist()):
        where = {"layer": index, "token0": token0, "tokens": min(size, tokens - token0)}
        inputs = _emit_inputs(
            layer, machine, state, groups, where, tile_ids[block], block_start, block, span, previous_store
        )
        waits_vector = _emit_drains(
            layer, machine, state, groups, where, tile_ids[block], parameters, block_start, span, previous_store
        )
        loads = load_ids[min(block, len(load_ids) - 1)] if count else np.zeros(0, np.int64)
        _emit_tiles(layer, groups, where, tile_ids[block], loads, inputs, waits_vector, block_start)
        readers = tile_ids[block][layer.tiles.kind != Op.EXPAND]
        state.block_user.append(int(readers[-1]) if len(readers) else -1)
        state.blocks += 1
        block_start += span
    state.step = block_start
    state.layer_drains.append(state.drain_ids[-1])


def _emit_parameters(
    index: int, layer: LayerSchedule, machine: Machine, state: NetworkState, groups: list[dict[str, np.ndarray]]
) -> int:
    """One transfer of biases and multipliers into the half of the parameter memory that the layer before last used
    (rule M4).
    """
    earliest = state.layer_steps[-1] if state.layer_steps else 0
    state.parameter_step = max(state.step - prefetch_steps(machine), earliest)
    user = state.layer_drains[-2] if len(state.layer_drains) > 1 else -1
    parameter_bytes = layer.parameter_bytes(machine.multiplier_row)
    check_parameters(layer.name, parameter_bytes, machine)
    ids = _group(
        groups,
        _new_ids(state, 1),
        op=Op.LOAD_PARAMETERS,
        layer=index,
        dram_bytes=parameter_bytes,
        after_vector=user,
        step=state.parameter_step,
        rank=PARAMETERS,
        sequence=index,
    )
    return int(ids[0])


def _emit_weights(
    index: int,
    layer: LayerSchedule,
    machine: Machine,
    state: NetworkState,
    groups: list[dict[str, np.ndarray]],
    tile_ids: np.ndarray,
    begin: int,
    span: int,
) -> np.ndarray:
    """Weight loads, (blocks or 1, tiles) ids: once if the tiles fit the weight buffer, else once a token block."""
    blocks, count = tile_ids.shape
    resident = count <= machine.weight_slots
    rounds = 1 if resident else blocks
    if count == 0:
        return np.zeros((1, 0), np.int64)
    uses = begin + (np.arange(rounds)[:, None] * span + np.arange(count)).ravel()
    users = tile_ids[-1] if resident else tile_ids.ravel()
    last_steps = uses + (blocks - 1) * span if resident else uses
    state.load_user = np.concatenate([state.load_user, users])
    state.load_step = np.concatenate([state.load_step, last_steps])
    steps, frees = weight_keys(machine, uses, state)
    number = state.loads + np.arange(len(uses))
    state.loads += len(uses)
    ids = _group(
        groups,
        _new_ids(state, len(uses)),
        op=Op.LOAD_WEIGHTS,
        layer=index,
        tile=np.tile(np.arange(count), rounds),
        slot=number % machine.weight_slots,
        dram_bytes=np.tile(layer.tiles.record_bytes(machine.datatypes.weight_bits), rounds),
        after_array=frees,
        step=steps,
        rank=LOAD,
        sequence=load_sequence(uses, is_input=False),
    )
    return np.stack([ids, number % machine.weight_slots]).reshape(2, rounds, count).transpose(1, 0, 2)


def _emit_inputs(
    layer: LayerSchedule,
    machine: Machine,
    state: NetworkState,
    groups: list[dict[str, np.ndarray]],
    where: dict[str, int],
    tile_ids: np.ndarray,
    block_start: int,
    block: int,
    span: int,
    previous_store: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Loads of the input chunks that some tile reads; (chunks,) ids and scratchpad addresses, -1 where not read."""
    chunks = -(-layer.in_features // machine.rows)
    tiles = layer.tiles
    reading = np.flatnonzero(tiles.kind != Op.EXPAND)
    read, first = np.unique(tiles.source[reading], return_index=True)
    by_use = np.argsort(first, kind="stable")
    read, first_use = read[by_use], reading[first[by_use]]
    base = (state.blocks % 2) * input_half_bytes(machine)
    addresses = np.full(chunks, -1, dtype=np.int64)
    addresses[read] = base + read * where["tokens"] * machine.rows
    users = np.full(len(read), state.block_user[state.blocks - 2] if state.blocks >= 2 else -1)
    steps = input_keys(first_use, block_start, block_start - span, block == 0, machine)
    if block == 0:
        chunk_cycles = int(channel_cycles(machine, np.array([where["tokens"] * machine.rows]))[0])
        throttle = input_throttle(machine, first_use, chunk_cycles)
        users = np.where(throttle >= 0, tile_ids[np.maximum(throttle, 0)] if len(tile_ids) else -1, users)
        steps = np.where(throttle >= 0, np.maximum(steps, block_start + throttle + 1), steps)
    ids = np.full(chunks, -1, dtype=np.int64)
    ids[read] = _group(
        groups,
        _new_ids(state, len(read)),
        op=Op.LOAD_INPUT,
        chunk=read,
        dst=addresses[read],
        dram_bytes=where["tokens"] * machine.rows,
        after_array=users,
        after_store=previous_store,
        step=steps,
        rank=LOAD,
        sequence=load_sequence(block_start + first_use, is_input=True),
        **where,
    )
    return ids, addresses


def _emit_drains(
    layer: LayerSchedule,
    machine: Machine,
    state: NetworkState,
    groups: list[dict[str, np.ndarray]],
    where: dict[str, int],
    tile_ids: np.ndarray,
    parameters: int,
    block_start: int,
    span: int,
    previous_store: int,
) -> np.ndarray:
    """Drains and stores of a block's output chunks. Returns (chunks, 2): the drain that each chunk's accumulator waits
    for, its row.
    """
    chunks = -(-layer.out_features // machine.cols)
    target = layer.tiles.target
    last = np.full(chunks, -1, dtype=np.int64)
    written = target >= 0
    last[target[written]] = np.flatnonzero(written)  # numpy keeps the last of repeated assignments
    finish = np.where(last >= 0, last, span - 1)
    order = np.lexsort((last < 0, finish))  # chunks without sums are drained at the end
    number = state.drains + np.arange(chunks)
    rows = (number % 2) * (machine.accumulator_rows // 2)
    buffers = machine.scratchpad.size_bytes - (2 - number % 2) * output_half_bytes(machine)
    drain_ids, store_ids = _new_ids(state, chunks), _new_ids(state, chunks)
    state.drain_ids += drain_ids.tolist()
    state.store_ids += store_ids.tolist()
    state.drains += chunks
    history = np.array([-1, -1, *state.drain_ids]), np.array([-1, -1, *state.store_ids])
    has_sums = last[order] >= 0
    steps = block_start + finish[order]
    _group(
        groups,
        drain_ids,
        op=Op.DRAIN,
        chunk=order,
        src=rows,
        dst=buffers,
        accumulate=has_sums,
        after_weights=parameters,
        after_array=np.where(has_sums, tile_ids[last[order]] if len(tile_ids) else -1, -1),
        after_store=np.where(number >= 2, history[1][number], previous_store),
        step=steps,
        rank=DRAIN,
        sequence=2 * number + 1,
        **where,
    )
    # A store stands right before the next drain, and the block's last one right behind its own.
    store_steps = np.concatenate([steps[1:], steps[-1:]])
    store_sequence = np.concatenate([2 * number[1:], 2 * number[-1:] + 2])
    _group(
        groups,
        store_ids,
        op=Op.STORE,
        chunk=order,
        src=buffers,
        dram_bytes=where["tokens"] * machine.cols,
        after_vector=drain_ids,
        step=store_steps,
        rank=DRAIN,
        sequence=store_sequence,
        **where,
    )
    table = np.empty((chunks, 2), dtype=np.int64)
    table[order, 0], table[order, 1] = history[0][number], rows
    return table


def _emit_tiles(
    layer: LayerSchedule,
    groups: list[dict[str, np.ndarray]],
    where: dict[str, int],
    tile_ids: np.ndarray,
    loads: np.ndarray,
    inputs: tuple[np.ndarray, np.ndarray],
    waits_vector: np.ndarray,
    block_start: int,
) -> None:
    tiles = layer.tiles
    count = len(tiles)
    if count == 0:
        return
    reads = tiles.kind != Op.EXPAND
    writes = tiles.kind != Op.REDUCE
    first = np.zeros(count, dtype=bool)
    _, earliest = np.unique(tiles.target[writes], return_index=True)
    first[np.flatnonzero(writes)[earliest]] = True
    rank_ready = last_reduce(layer)
    source, target = np.where(reads, tiles.source, 0), np.where(writes, tiles.target, 0)
    _group(
        groups,
        tile_ids,
        op=tiles.kind,
        tile=np.arange(count),
        chunk=np.where(writes, tiles.target, tiles.source),
        src=np.where(reads, inputs[1][source], -1),
        dst=np.where(writes, waits_vector[target, 1], -1),
        slot=loads[1],
        accumulate=writes & ~first,
        row_cycles=tiles.row_cycles,
        after_weights=loads[0],
        after_input=np.where(reads, inputs[0][source], -1),
        after_array=np.where(rank_ready >= 0, tile_ids[np.maximum(rank_ready, 0)], -1),
        after_vector=np.where(first, waits_vector[target, 0], -1),
        step=block_start + np.arange(count),
        rank=TILE,
        sequence=0,
        **where,
    )


def last_reduce(layer: LayerSchedule) -> np.ndarray:
    """For each EXPAND tile, the last REDUCE tile that adds to any of its ranks; -1 for other tiles. (N,)"""
    tiles = layer.tiles
    tile = np.repeat(np.arange(len(tiles)), tiles.lane_count)
    kind = tiles.kind[tile]
    complete = np.full(layer.ranks, -1, dtype=np.int64)
    is_reduce, is_expand = kind == Op.REDUCE, kind == Op.EXPAND
    np.maximum.at(complete, tiles.lane[is_reduce], tile[is_reduce])
    result = np.full(len(tiles), -1, dtype=np.int64)
    np.maximum.at(result, tile[is_expand], complete[tiles.lane[is_expand]])
    return result
