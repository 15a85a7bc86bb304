"""Pass 11: schedules become the flattened program: addresses, buffers in rotation, explicit dependences.

Instructions get a number as they are created, in which dependences are written down, and a sort key (where they stand,
place_transfers.py). In the end all are put in order of their keys and renumbered. Every layer costs as much as it has
instructions, and columns are as narrow as a program's, so that ten million tiles are no different from a thousand.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields

import numpy as np
import numpy.typing as npt

from gblr_hw.lowering.emit.layer_facts import LayerFacts, layer_facts
from gblr_hw.lowering.emit.place_transfers import (
    DRAIN,
    LOAD,
    MAX_INSTRUCTIONS,
    PARAMETERS,
    TILE,
    NetworkState,
    input_keys,
    input_throttle,
    load_sequence,
    prefetch_steps,
    sort_keys,
    weight_keys,
)
from gblr_hw.lowering.passes.block_tokens import check_parameters, input_half_bytes, output_half_bytes
from simulator.base.arithmetic import ceil_div
from simulator.base.errors import InputError
from simulator.machine.machine import Machine
from simulator.program.isa import WIDE_OPERANDS, Instructions
from simulator.program.operations import After, Op
from simulator.program.program import Program
from simulator.program.schedule import LayerSchedule
from simulator.timing.durations import channel_cycles

_OPERANDS = tuple(field.name for field in fields(Instructions) if field.name != "after")
_AFTER = tuple(f"after_{column.name.lower()}" for column in After)


def emit(schedules: Sequence[LayerSchedule], machine: Machine, tokens: int, provenance: Mapping[str, str]) -> Program:
    """The program that runs ``schedules`` one after another on ``machine``."""
    instructions = emit_instructions(schedules, machine, tokens)
    return Program(machine, tokens, tuple(schedules), instructions, dict(provenance))


def emit_instructions(schedules: Sequence[LayerSchedule], machine: Machine, tokens: int) -> Instructions:
    """The instructions of that program. InputError when there are more than MAX_INSTRUCTIONS."""
    facts = [layer_facts(layer, machine, tokens) for layer in schedules]
    columns = _Columns(sum(fact.instructions for fact in facts))
    state = NetworkState()
    for index, layer in enumerate(schedules):
        _emit_layer(index, layer, facts[index], machine, tokens, state, columns)
    return columns.in_order()


class _Columns:
    """The columns under construction, by number of creation; ``put`` fills a run of them, in_order sorts them."""

    def __init__(self, count: int) -> None:
        if count > MAX_INSTRUCTIONS:
            raise InputError(
                "program",
                f"{count} instructions",
                f"a program has at most {MAX_INSTRUCTIONS}",
                "Lower fewer tokens or layers at a time.",
            )
        self._key = np.zeros(count, dtype=np.int64)
        self._columns = {
            name: np.full(count, -1, dtype=np.int64 if name in WIDE_OPERANDS else np.int32)
            for name in (*_OPERANDS, *_AFTER)
        }
        self._columns["accumulate"][:] = 0

    def put(self, begin: int, count: int, key: np.ndarray, **columns: npt.ArrayLike) -> None:
        """Instructions ``begin`` to ``begin + count``; columns that are not given stay -1."""
        run = slice(begin, begin + count)
        self._key[run] = key
        for name, values in columns.items():
            self._columns[name][run] = values

    def slots(self, begin: int, count: int) -> np.ndarray:
        """Weight-buffer slots of loads ``begin`` to ``begin + count``."""
        return self._columns["slot"][begin : begin + count]

    def in_order(self) -> Instructions:
        order = np.argsort(self._key, kind="stable")
        position = np.empty(len(order) + 1, dtype=np.int32)
        position[order] = np.arange(len(order), dtype=np.int32)
        position[-1] = -1  # what "no dependence" refers to
        after = np.stack([position[self._columns.pop(name)[order]] for name in _AFTER])
        return Instructions(after=after, **{name: self._columns.pop(name)[order] for name in _OPERANDS})


def _emit_layer(
    index: int,
    layer: LayerSchedule,
    facts: LayerFacts,
    machine: Machine,
    tokens: int,
    state: NetworkState,
    columns: _Columns,
) -> None:
    count, size, blocks = len(layer.tiles), layer.block_tokens, facts.blocks
    span = max(1, count)
    begin = state.step
    parameters = _emit_parameters(index, layer, machine, state, columns)
    state.layer_steps.append(begin)
    previous_store = state.store_ids[-1]
    first_tile = state.new_ids(blocks * count)
    first_load = _emit_weights(index, layer, facts, machine, state, columns, first_tile, begin)
    for block in range(blocks):
        block_start, tile_id = begin + block * span, first_tile + block * count
        where = {"layer": index, "token0": block * size, "tokens": min(size, tokens - block * size)}
        inputs = _emit_inputs(
            layer, facts, machine, state, columns, where, tile_id, block_start, block, span, previous_store
        )
        drains = _emit_drains(facts, machine, state, columns, where, tile_id, parameters, block_start, previous_store)
        load = first_load + (0 if facts.resident else block * count)
        _emit_tiles(layer, facts, columns, where, tile_id, load, inputs, drains, block_start)
        state.block_user = [state.block_user[1], tile_id + facts.last_reader if facts.last_reader >= 0 else -1]
        state.blocks += 1
    state.step = begin + blocks * span
    state.layer_drains.append(state.drain_ids[-1])


def _emit_parameters(index: int, layer: LayerSchedule, machine: Machine, state: NetworkState, columns: _Columns) -> int:
    """One transfer of biases and multipliers into the half of the parameter memory that the layer before last used
    (rule M4). Returns its number.
    """
    earliest = state.layer_steps[-1] if state.layer_steps else 0
    state.parameter_step = max(state.step - prefetch_steps(machine), earliest)
    parameter_bytes = layer.parameter_bytes(machine.multiplier_row)
    check_parameters(layer.name, parameter_bytes, machine)
    number = state.new_ids(1)
    columns.put(
        number,
        1,
        sort_keys(np.array([state.parameter_step]), PARAMETERS, index),
        op=Op.LOAD_PARAMETERS,
        layer=index,
        dram_bytes=parameter_bytes,
        after_vector=state.layer_drains[-2] if len(state.layer_drains) > 1 else -1,
    )
    return number


def _emit_weights(
    index: int,
    layer: LayerSchedule,
    facts: LayerFacts,
    machine: Machine,
    state: NetworkState,
    columns: _Columns,
    first_tile: int,
    begin: int,
) -> int:
    """Weight loads: once if the tiles fit the weight buffer, else once a token block. Returns the first one's number;
    the others follow in tile order.
    """
    count = len(layer.tiles)
    rounds = 1 if facts.resident else facts.blocks
    uses = begin + np.arange(rounds * count)
    freed_after = (facts.blocks - 1) * count if facts.resident else 0
    users, steps = first_tile + np.arange(rounds * count) + freed_after, uses + freed_after
    keys, frees = weight_keys(machine, uses, users, steps, state)
    number = state.new_ids(len(uses))
    columns.put(
        number,
        len(uses),
        sort_keys(keys, LOAD, load_sequence(uses, is_input=False)),
        op=Op.LOAD_WEIGHTS,
        layer=index,
        tile=np.tile(np.arange(count), rounds),
        slot=(state.loads + np.arange(len(uses))) % machine.weight_slots,
        dram_bytes=np.tile(layer.tiles.record_bytes(machine.datatypes.weight_bits), rounds),
        after_array=frees,
    )
    state.loads += len(uses)
    return number


def _emit_inputs(
    layer: LayerSchedule,
    facts: LayerFacts,
    machine: Machine,
    state: NetworkState,
    columns: _Columns,
    where: dict[str, int],
    tile_id: int,
    block_start: int,
    block: int,
    span: int,
    previous_store: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Loads of the input chunks that some tile reads; (chunks,) numbers and scratchpad addresses, -1 where not read."""
    chunks = ceil_div(layer.in_features, machine.rows)
    read, first_use = facts.read, facts.first_use
    chunk_bytes = where["tokens"] * machine.rows
    addresses = np.full(chunks, -1, dtype=np.int64)
    addresses[read] = (state.blocks % 2) * input_half_bytes(machine) + read.astype(np.int64) * chunk_bytes
    users = np.full(len(read), state.block_user[0])
    steps = input_keys(first_use, block_start, block_start - span, block == 0, machine)
    if block == 0:
        chunk_cycles = int(channel_cycles(machine, np.array([chunk_bytes]))[0])
        throttle = input_throttle(machine, first_use, chunk_cycles)
        users = np.where(throttle >= 0, tile_id + throttle, users)
        steps = np.where(throttle >= 0, np.maximum(steps, block_start + throttle + 1), steps)
    number = state.new_ids(len(read))
    columns.put(
        number,
        len(read),
        sort_keys(steps, LOAD, load_sequence(block_start + first_use, is_input=True)),
        op=Op.LOAD_INPUT,
        chunk=read,
        dst=addresses[read],
        dram_bytes=chunk_bytes,
        after_array=users,
        after_store=previous_store,
        **where,
    )
    ids = np.full(chunks, -1, dtype=np.int64)
    ids[read] = number + np.arange(len(read))
    return ids, addresses


def _emit_drains(
    facts: LayerFacts,
    machine: Machine,
    state: NetworkState,
    columns: _Columns,
    where: dict[str, int],
    tile_id: int,
    parameters: int,
    block_start: int,
    previous_store: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Drains and stores of a block's output chunks. Returns, by chunk, the drain that its accumulator waits for, and
    its row.
    """
    order, chunks = facts.drained, len(facts.drained)
    number = state.drains + np.arange(chunks)
    rows = (number % 2) * (machine.accumulator_rows // 2)
    buffers = machine.scratchpad.size_bytes - (2 - number % 2) * output_half_bytes(machine)
    drain, store = state.new_ids(chunks), state.new_ids(chunks)
    drain_ids = np.array([*state.drain_ids, *range(drain, drain + chunks)])
    store_ids = np.array([*state.store_ids, *range(store, store + chunks)])
    steps = block_start + facts.finish
    columns.put(
        drain,
        chunks,
        sort_keys(steps, DRAIN, 2 * number + 1),
        op=Op.DRAIN,
        chunk=order,
        src=rows,
        dst=buffers,
        accumulate=facts.has_sums,
        after_weights=parameters,
        after_array=np.where(facts.has_sums, tile_id + facts.finish, -1),
        after_store=np.where(number >= 2, store_ids[:chunks], previous_store),
        **where,
    )
    # A store stands right before the next drain, and the block's last one right behind its own.
    store_steps = np.concatenate([steps[1:], steps[-1:]])
    store_sequence = np.concatenate([2 * number[1:], 2 * number[-1:] + 2])
    columns.put(
        store,
        chunks,
        sort_keys(store_steps, DRAIN, store_sequence),
        op=Op.STORE,
        chunk=order,
        src=buffers,
        dram_bytes=where["tokens"] * machine.cols,
        after_vector=drain + np.arange(chunks),
        **where,
    )
    waits, places = np.empty((2, chunks), dtype=np.int64)
    waits[order], places[order] = drain_ids[:chunks], rows
    state.drain_ids, state.store_ids = drain_ids[-2:].tolist(), store_ids[-2:].tolist()
    state.drains += chunks
    return waits, places


def _emit_tiles(
    layer: LayerSchedule,
    facts: LayerFacts,
    columns: _Columns,
    where: dict[str, int],
    tile_id: int,
    load: int,
    inputs: tuple[np.ndarray, np.ndarray],
    drains: tuple[np.ndarray, np.ndarray],
    block_start: int,
) -> None:
    """The block's tiles. load: number of the first tile's weight load."""
    tiles, count = layer.tiles, len(layer.tiles)
    reads, writes = tiles.kind != Op.EXPAND, tiles.kind != Op.REDUCE
    source, target = np.where(reads, tiles.source, 0), np.where(writes, tiles.target, 0)
    columns.put(
        tile_id,
        count,
        sort_keys(block_start + np.arange(count), TILE, 0),
        op=tiles.kind,
        tile=np.arange(count),
        chunk=np.where(writes, tiles.target, tiles.source),
        src=np.where(reads, inputs[1][source], -1),
        dst=np.where(writes, drains[1][target], -1),
        slot=columns.slots(load, count),
        accumulate=writes & ~facts.opens,
        row_cycles=tiles.row_cycles,
        after_weights=load + np.arange(count),
        after_input=np.where(reads, inputs[0][source], -1),
        after_array=np.where(facts.rank_ready >= 0, tile_id + facts.rank_ready, -1),
        after_vector=np.where(facts.opens, drains[0][target], -1),
        **where,
    )
