"""The runs of instructions that every layer is made of, whatever its program: parameters, weights, inputs, tiles,
drains, stores.

Programs of plain layers (emit.py) and of networks (emit_network.py) differ in where values lie, what an instruction
waits for and when a transfer is asked for; what an instruction says, and where it stands among others, is the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gblr_hw.lowering.emit.instruction_stream import Ref, Stream, number
from gblr_hw.lowering.emit.passes_of_operator import Passes
from gblr_hw.lowering.emit.place_transfers import (
    DRAIN,
    LOAD,
    PARAMETERS,
    TILE,
    LoadState,
    load_sequence,
    prefetch_steps,
    weight_keys,
)
from simulator.machine.machine import Machine
from simulator.program.operations import Op


@dataclass(frozen=True)
class BlockRows:
    """The rows that instructions work on: ``tokens`` of layer ``layer``'s, from ``token0`` on; of each, or of all."""

    layer: int
    token0: int | np.ndarray
    tokens: int | np.ndarray


@dataclass(frozen=True, eq=False)
class WeightLoads:
    """Loads of weight tiles, (L,) each: rows of the tile table, bytes that each moves, the step at which its tile first
    runs, and the number and step of the last tile that runs on it.
    """

    tile: np.ndarray
    dram_bytes: np.ndarray
    first_step: np.ndarray
    user: np.ndarray
    last_step: np.ndarray


@dataclass(frozen=True, eq=False)
class Chunks:
    """Chunks in the scratchpad, from chunk ``first`` on: addresses (C,), and the loads (C,) that bring them, None if an
    instruction of the vector unit wrote them here.
    """

    first: int
    addresses: np.ndarray
    loads: np.ndarray | None


@dataclass(frozen=True, eq=False)
class ChunkOrder:
    """Where a block's drains stand (R,), and the stores that follow them (R,): steps and sequences. Between a drain and
    its first store there is room for ``followers`` more instructions of the vector unit; ``end`` is the next sequence.
    """

    step: np.ndarray
    drain: np.ndarray
    store_step: np.ndarray
    store: np.ndarray
    end: int


def put_parameters(
    stream: Stream, state: LoadState, machine: Machine, layer: int, size: int, now: int, user: int, free: int
) -> Ref:
    """One transfer of biases and multipliers, or constants, for step ``now``: ``free`` is the first step at which its
    half of the parameter memory is free, behind instruction ``user`` (rule M4).
    """
    step = min(now, max(now - prefetch_steps(machine), free))
    ref, _ = stream.put(
        step, PARAMETERS, stream.count, op=Op.LOAD_PARAMETERS, layer=layer, dram_bytes=size, after_vector=user
    )
    state.parameter_step = step
    return ref


def put_weights(
    stream: Stream,
    state: LoadState,
    machine: Machine,
    layer: int,
    loads: WeightLoads,
    token0: int = -1,
    source: Ref | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Loads of weight tiles into slots in turn (rule M3); (L,) their numbers and slots. token0, source: of activations,
    the first row of their sequence and the store after which they are in DRAM.
    """
    count = len(loads.tile)
    slots = (state.loads + np.arange(count)) % machine.weight_slots
    if count == 0:
        return np.zeros(0, np.int64), slots
    keys, frees = weight_keys(machine, loads.first_step, loads.user, loads.last_step, state)
    if source is not None:
        keys = np.maximum(keys, source.step + 1)
    first, _ = stream.put(
        keys,
        LOAD,
        load_sequence(loads.first_step, is_input=False),
        op=Op.LOAD_WEIGHTS,
        layer=layer,
        tile=loads.tile,
        slot=slots,
        token0=token0,
        dram_bytes=loads.dram_bytes,
        after_array=frees,
        after_store=number(source),
    )
    state.loads += count
    return first.id + np.arange(count), slots


def put_inputs(
    stream: Stream,
    rows: BlockRows,
    steps: np.ndarray,
    first_use: np.ndarray,
    chunks: np.ndarray,
    addresses: np.ndarray,
    dram_bytes: np.ndarray | int,
    after_array: np.ndarray | int,
    after_vector: np.ndarray | int,
    after_store: np.ndarray | int,
    operand: int = -1,
) -> tuple[Ref, Ref]:
    """Loads of (C,) input chunks, which are needed at steps ``first_use``, to ``addresses``; the first and the last."""
    return stream.put(
        steps,
        LOAD,
        load_sequence(first_use, is_input=True),
        op=Op.LOAD_INPUT,
        tile=operand,
        chunk=chunks,
        dst=addresses,
        dram_bytes=dram_bytes,
        after_array=after_array,
        after_vector=after_vector,
        after_store=after_store,
        **vars(rows),
    )


def put_tiles(
    stream: Stream,
    rows: BlockRows,
    first: int,
    steps: np.ndarray,
    passes: Passes,
    weights: tuple[np.ndarray, np.ndarray],
    inputs: Chunks,
    sums: np.ndarray,
    after_vector: np.ndarray,
) -> Ref:
    """The passes of a block, one at least, at ``steps``, with the numbers from ``first`` on; the last of them. weights:
    numbers and slots of its loads. sums: accumulator row of each output chunk. after_vector: what each waits for.
    """
    reads, writes, (load_ids, slots) = passes.reads, passes.writes, weights
    source = np.maximum(passes.source - inputs.first, 0) if inputs.first else passes.source_or_0
    last_source = source + passes.heads.last_source - passes.source_or_0
    _, last = stream.put(
        steps,
        TILE,
        0,
        first,
        op=passes.kind,
        tile=passes.tile,
        chunk=passes.fixed_chunk,
        src=np.where(reads, inputs.addresses[source] + passes.heads.lane, -1),
        dst=np.where(writes, sums[passes.target_or_0] + passes.heads.row * rows.tokens, -1),
        slot=slots[passes.load],
        accumulate=writes & ~passes.opens,
        row_cycles=passes.row_cycles,
        after_weights=load_ids[passes.load],
        after_input=-1 if inputs.loads is None else np.where(reads, inputs.loads[last_source], -1),
        after_array=np.where(passes.rank_ready >= 0, first + passes.rank_ready, -1),
        after_vector=after_vector,
        layer=rows.layer,
        token0=rows.token0,
        tokens=rows.tokens * passes.heads.count,
        other=np.where((passes.heads.count > 1) | (passes.heads.lane > 0), rows.tokens, -1),
    )
    return last


def by_chunk(passes: Passes, values: np.ndarray) -> np.ndarray:
    """Values of the drained chunks (R,), indexed by chunk; -1 for those that are not drained."""
    result = np.full(int(passes.drained.max(initial=0)) + 1, -1, dtype=np.int64)
    result[passes.drained] = values
    return result


def opening_waits(passes: Passes, waits: np.ndarray) -> np.ndarray:
    """(N,) what frees the accumulator rows of each pass: for the first of a chunk the chunk's ``waits`` (of several
    heads' chunks the last one's, which comes last), else -1.
    """
    return np.where(passes.opens, waits[passes.heads.last_target], -1)


def chunk_order(steps: np.ndarray, begin: int, followers: int = 0, kept: int = 1) -> ChunkOrder:
    """The order of a block's drains, complete at ``steps`` (R,), from sequence ``begin`` on, each with ``followers``
    and ``kept`` stores. A store stands right before the next drain, and the block's last one right behind its own.
    """
    chunks, stride = len(steps), 1 + followers + kept
    return ChunkOrder(
        step=steps,
        drain=begin + stride * np.arange(chunks) + kept,
        store_step=np.append(steps[1:], steps[-1:]),
        store=begin + stride * np.arange(1, chunks + 1),
        end=begin + stride * (chunks + 1),
    )


def put_drains(
    stream: Stream,
    rows: BlockRows,
    first: int,
    order: ChunkOrder,
    passes: Passes,
    sums: np.ndarray,
    places: np.ndarray,
    after_weights: int,
    after_array: np.ndarray,
    after_store: np.ndarray,
) -> tuple[Ref, Ref]:
    """The drains of a block's chunks (R,), numbered from ``first`` on: from accumulator rows ``sums`` to ``places``."""
    return stream.put(
        order.step,
        DRAIN,
        order.drain,
        first,
        op=Op.DRAIN,
        chunk=passes.drained_chunk,
        src=sums,
        dst=places,
        other=rows.tokens if passes.heads.of_chunk > 1 else -1,
        accumulate=passes.has_sums,
        after_weights=after_weights,
        after_array=after_array,
        after_store=after_store,
        **vars(rows),
    )


def put_stores(
    stream: Stream,
    rows: BlockRows,
    first: int,
    steps: np.ndarray,
    sequence: np.ndarray,
    chunks: np.ndarray,
    places: np.ndarray,
    cols: int,
    after_vector: np.ndarray | int,
) -> tuple[Ref, Ref]:
    """The stores of ``chunks`` (R,) of ``cols`` channels, numbered from ``first`` on, from ``places``."""
    return stream.put(
        steps,
        DRAIN,
        sequence,
        first,
        op=Op.STORE,
        chunk=chunks,
        src=places,
        dram_bytes=rows.tokens * cols,
        after_vector=after_vector,
        **vars(rows),
    )
