"""Schedules become the flattened program: addresses, buffers in rotation, explicit dependences.

Instructions get a number as they are created, in which dependences are written down, and a sort key (where they stand,
place_transfers.py). In the end all are put in order of their keys and renumbered. Every layer costs as much as it has
instructions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from gblr_hw.lowering.emit.input_buffers import (
    InputBlock,
    InputTurns,
    InputUses,
    first_block,
    later_block,
    read_ahead,
    stored_at,
)
from gblr_hw.lowering.emit.instruction_stream import Stream
from gblr_hw.lowering.emit.passes_of_operator import Passes, linear_passes
from gblr_hw.lowering.emit.place_transfers import LoadState, prefetch_steps
from gblr_hw.lowering.emit.runs_of_layer import (
    BlockRows,
    Chunks,
    WeightLoads,
    by_chunk,
    chunk_order,
    opening_waits,
    put_drains,
    put_inputs,
    put_parameters,
    put_stores,
    put_tiles,
    put_weights,
)
from gblr_hw.lowering.passes.block_tokens import check_parameters, input_half_bytes, output_half_bytes, sum_places
from simulator.base.arithmetic import ceil_div
from simulator.machine.machine import Machine
from simulator.program.isa import Instructions
from simulator.program.program import Program
from simulator.program.schedule import LayerSchedule
from simulator.timing.durations import channel_cycles


def emit(schedules: Sequence[LayerSchedule], machine: Machine, tokens: int, provenance: Mapping[str, str]) -> Program:
    """The program that runs ``schedules`` one after another on ``machine``."""
    instructions = emit_instructions(schedules, machine, tokens)
    return Program(machine, tokens, tuple(schedules), instructions, dict(provenance))


def emit_instructions(schedules: Sequence[LayerSchedule], machine: Machine, tokens: int) -> Instructions:
    """The instructions of that program. InputError when there are more than MAX_INSTRUCTIONS."""
    layers = [_Layer(i, layer, linear_passes(layer, machine), machine, tokens) for i, layer in enumerate(schedules)]
    emission = _Emission(machine, Stream(sum(layer.instructions for layer in layers)))
    for layer in layers:
        _emit_layer(emission, layer)
    return emission.stream.in_order()


@dataclass(frozen=True, eq=False)
class _Layer:
    """What every token block of a layer needs to know."""

    index: int
    schedule: LayerSchedule
    passes: Passes
    machine: Machine
    tokens: int

    @property
    def blocks(self) -> int:
        return ceil_div(self.tokens, self.schedule.block_tokens)

    @property
    def resident(self) -> bool:
        """Whether all weights fit the buffer (rule M3)."""
        return len(self.passes) <= self.machine.weight_slots

    @property
    def span(self) -> int:
        """Steps of a block."""
        return max(1, len(self.passes))

    @cached_property
    def read(self) -> tuple[np.ndarray, np.ndarray, int]:
        """Input chunks that some tile reads (C',), in order of use; the tiles that are first to (C',); the last tile
        that reads any, -1 for none.
        """
        reading = np.flatnonzero(self.passes.reads)
        chunks, first = np.unique(self.passes.source[reading], return_index=True)
        by_use = np.argsort(first, kind="stable")
        return chunks[by_use], reading[first[by_use]], int(reading[-1]) if len(reading) else -1

    @cached_property
    def last_reads(self) -> np.ndarray:
        """The last tile that reads each of the chunks of ``read``, (C',)."""
        reading = np.flatnonzero(self.passes.reads)
        last = np.zeros(ceil_div(self.schedule.in_features, self.machine.rows), dtype=np.int64)
        last[self.passes.source[reading]] = reading  # numpy keeps the last of repeated assignments
        return last[self.read[0]]

    @property
    def one_input(self) -> bool:
        """Whether a block's inputs take both input buffers (rule M2)."""
        chunks = ceil_div(self.schedule.in_features, self.machine.rows)
        return chunks * self.machine.rows * self.schedule.block_tokens > input_half_bytes(self.machine)

    @cached_property
    def places(self) -> tuple[int, int]:
        """Places of a block's sums in the accumulator memory, and rows from one to the next."""
        return sum_places(self.machine, self.schedule.block_tokens)

    @property
    def instructions(self) -> int:
        tiles, blocks = len(self.passes), self.blocks
        loads = tiles if self.resident else tiles * blocks
        return 1 + loads + blocks * (tiles + len(self.read[0]) + 2 * len(self.passes.drained))

    def rows(self, block: int) -> BlockRows:
        size = self.schedule.block_tokens
        return BlockRows(self.index, block * size, min(size, self.tokens - block * size))


@dataclass
class _Emission:
    """What a layer must know of those before it: buffers in rotation and who used them last. -1 stands for none."""

    machine: Machine
    stream: Stream
    loads: LoadState = field(default_factory=LoadState)
    step: int = 0  # passes through the array so far
    sequence: int = 0  # of drains and stores
    blocks: int = 0  # token blocks so far; block g reads input buffer g mod 2
    block_user: list[int] = field(default_factory=lambda: [-1, -1])  # last tile that read inputs, of two latest blocks
    input_uses: InputUses = field(default_factory=InputUses)  # of the latest block
    drains: int = 0  # drain w uses accumulator and output buffers w mod places
    places: tuple[int, int] = (2, 0)  # of the latest layer
    drain_ids: list[int] = field(default_factory=lambda: [-1, -1])  # of the latest, as many as places
    store_ids: list[int] = field(default_factory=lambda: [-1, -1])
    layer_steps: list[int] = field(default_factory=list)  # first step of each layer
    layer_drains: list[int] = field(default_factory=list)  # each layer's last drain
    last_block: int = 0  # first step of the block before
    layer_stores: dict[str, int] = field(default_factory=dict)  # each layer's last store


def _emit_layer(e: _Emission, layer: _Layer) -> None:
    count, begin = len(layer.passes), e.step
    parameters = _emit_parameters(e, layer)
    e.layer_steps.append(begin)
    previous_store = e.store_ids[-1]
    if layer.places != e.places:
        # Places overlap others: what is in any of them leaves before, as it has where inputs are there (rule E3).
        e.places, e.drains = layer.places, 0
        e.drain_ids, e.store_ids = ([ids[-1]] * layer.places[0] for ids in (e.drain_ids, e.store_ids))
    first_tile = e.stream.reserve(layer.blocks * count)
    weights = _emit_weights(e, layer, first_tile)
    for block in range(layer.blocks):
        block_start, tile = begin + block * layer.span, first_tile + block * count
        inputs = _emit_inputs(e, layer, block, block_start, tile, previous_store)
        waits, sums = _emit_drains(e, layer, block, block_start, tile, parameters, previous_store)
        if count:
            loads = slice(0, count) if layer.resident else slice(block * count, (block + 1) * count)
            put_tiles(
                e.stream,
                layer.rows(block),
                tile,
                block_start + np.arange(count),
                layer.passes,
                (weights[0][loads], weights[1][loads]),
                inputs,
                sums,
                opening_waits(layer.passes, waits),
            )
        last_reader = layer.read[2]
        e.block_user = [e.block_user[1], tile + last_reader if last_reader >= 0 else -1]
        # Behind a block that has both buffers: the products of a second stage read the first half's chunks, and free
        # them, first; other layers read all to the end, and the second half's are needed last.
        after = (0 if layer.schedule.sources else 1) if layer.one_input else e.blocks + 1
        e.blocks, e.last_block = after, block_start
    e.step = begin + layer.blocks * layer.span
    e.layer_drains.append(e.drain_ids[-1])
    e.layer_stores[layer.schedule.name] = e.store_ids[-1]


def _emit_parameters(e: _Emission, layer: _Layer) -> int:
    """Biases and multipliers go into the half of the parameter memory that the layer before last used (rule M4).
    Returns the load's number.
    """
    size = layer.schedule.parameter_bytes(e.machine.multiplier_row)
    check_parameters(layer.schedule.name, size, e.machine)
    user = e.layer_drains[-2] if len(e.layer_drains) > 1 else -1
    free = e.layer_steps[-1] if e.layer_steps else 0
    now, ahead = e.step, prefetch_steps(e.machine)
    if channel_cycles(e.machine, np.array([size]))[0] > ahead * layer.schedule.block_tokens:
        # Longer than tiles run on weights that are there: behind them the last outputs would wait for the channel too,
        # so they come where the latest block begins, which stores little.
        now = min(now, e.last_block + ahead)
    return put_parameters(e.stream, e.loads, e.machine, layer.index, size, now, user, free).id


def _emit_weights(e: _Emission, layer: _Layer, first_tile: int) -> tuple[np.ndarray, np.ndarray]:
    """Weight loads, in tile order: once if the tiles fit the weight buffer, else once a token block. Their numbers and
    slots.
    """
    count, tiles = len(layer.passes), layer.schedule.tiles
    rounds = 1 if layer.resident else layer.blocks
    first = np.arange(rounds * count)
    last = first + ((layer.blocks - 1) * count if layer.resident else 0)
    loads = WeightLoads(
        tile=np.tile(np.arange(count), rounds),
        dram_bytes=np.tile(tiles.record_bytes(e.machine), rounds),
        first_step=e.step + first,
        user=first_tile + last,
        last_step=e.step + last,
    )
    return put_weights(e.stream, e.loads, e.machine, layer.index, loads)


def _emit_inputs(e: _Emission, layer: _Layer, block: int, block_start: int, tile: int, previous_store: int) -> Chunks:
    """Loads of the input chunks that some tile reads into the input buffer whose turn it is (rule M2); a layer's wait
    for the last store of the layer before it (rule E3), of one that reads others' outputs for the last of theirs, but
    for the first chunk in use. Addresses and numbers are -1 for chunks that no tile reads.
    """
    machine, rows = e.machine, layer.rows(block)
    (chunks, first_use, _), count = layer.read, ceil_div(layer.schedule.in_features, machine.rows)
    chunk_bytes = rows.tokens * machine.rows
    addresses, ids = np.full((2, count), -1, dtype=np.int64)
    half = 0 if layer.one_input else (e.blocks % 2) * input_half_bytes(machine)
    addresses[chunks] = half + chunks.astype(np.int64) * chunk_bytes
    low, high = addresses[chunks], addresses[chunks] + chunk_bytes
    tile_before, step_before = e.input_uses.last_within(low, high)
    # The block before last has had the place; the block before too, where inputs of either take both buffers.
    freed = InputTurns(step_before + 1, np.maximum(tile_before, e.block_user[0]), np.full(len(chunks), -1))
    of_chunk = int(channel_cycles(machine, np.array([chunk_bytes]))[0])
    wanted = InputBlock(block_start, e.last_block, tile, first_use, of_chunk)
    turns = (later_block if block else first_block)(wanted, previous_store, freed, machine)
    sources = layer.schedule.sources
    if block == 0 and sources:
        written = stored_at(sources, chunks, layer.schedule.in_features, machine.rows, e.layer_stores)
        turns = read_ahead(wanted, written, turns, freed, machine)
    if len(chunks):
        first, _ = put_inputs(
            e.stream,
            rows,
            turns.steps,
            block_start + first_use,
            chunks,
            addresses[chunks],
            chunk_bytes,
            after_array=turns.users,
            after_vector=-1,
            after_store=turns.stores,
        )
        ids[chunks] = first.id + np.arange(len(chunks))
        e.input_uses = InputUses(low, high, tile + layer.last_reads, block_start + layer.last_reads)
    return Chunks(0, addresses, ids)


def _emit_drains(
    e: _Emission, layer: _Layer, block: int, block_start: int, tile: int, parameters: int, previous_store: int
) -> tuple[np.ndarray, np.ndarray]:
    """Drains and stores of a block's output chunks, by accumulator places and output buffers in turn (rules M1, M2).
    Returns, by chunk, the drain that its accumulator waits for, and its row.
    """
    machine, passes, rows = e.machine, layer.passes, layer.rows(block)
    chunks = len(passes.drained)
    turn = e.drains + np.arange(chunks)
    places, apart = layer.places
    sums = turn % places * apart
    buffers = machine.scratchpad.size_bytes - 2 * output_half_bytes(machine) + sums * machine.cols
    drain, store = e.stream.reserve(chunks), e.stream.reserve(chunks)
    drain_ids = np.array([*e.drain_ids, *range(drain, drain + chunks)])
    store_ids = np.array([*e.store_ids, *range(store, store + chunks)])
    order = chunk_order(block_start + passes.finish, e.sequence)
    put_drains(
        e.stream,
        rows,
        drain,
        order,
        passes,
        sums,
        buffers,
        after_weights=parameters,
        after_array=np.where(passes.has_sums, tile + passes.finish, -1),
        after_store=np.where(turn >= places, store_ids[:chunks], previous_store),
    )
    put_stores(
        e.stream,
        rows,
        store,
        order.store_step,
        order.store,
        passes.drained,
        buffers,
        machine.cols,
        drain + np.arange(chunks),
    )
    e.drain_ids, e.store_ids = drain_ids[-places:].tolist(), store_ids[-places:].tolist()
    e.drains += chunks
    e.sequence = order.end
    return by_chunk(passes, drain_ids[:chunks]), by_chunk(passes, sums)
