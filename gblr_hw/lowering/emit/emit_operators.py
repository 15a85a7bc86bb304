"""One operator, or a matrix operator with what follows it chunk by chunk, for one block of rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gblr_hw.lowering.emit.drain_chain import DrainChain, note_store
from gblr_hw.lowering.emit.emission import Block, Emission, GroupState
from gblr_hw.lowering.emit.emit_loads import FirstUse, address, load_parameters, load_weights, used_parameters
from gblr_hw.lowering.emit.instruction_stream import latest, number
from gblr_hw.lowering.emit.operand_source import Part, source_for, turn, used, used_parts
from gblr_hw.lowering.emit.passes_of_operator import Passes
from gblr_hw.lowering.emit.place_transfers import DRAIN, TILE, sort_keys
from gblr_hw.lowering.emit.runs_of_layer import BlockRows, Chunks, by_chunk, opening_waits, put_stores, put_tiles
from gblr_hw.lowering.groups.scratchpad_map import stored
from simulator.network.network import Operand
from simulator.network.network_layout import output_chunks
from simulator.program.operations import Op


def emit_vector(e: Emission, g: GroupState, block: Block, index: int, part: Part) -> None:
    """A vector operator on whole rows, or on some heads' scores; it takes a step of its own."""
    operator, side = e.network.operators[index], e.side
    sources = [source_for(e, g, block, index, place, part) for place in range(len(operator.operands))]
    parameters = load_parameters(e, g, block, index)
    chunks = output_chunks(e.network, operator, side) // part.of
    region = g.regions[operator.output]
    into = address(e, g, block, operator.output, part.number)
    if not region.sliced:
        into += part.number * chunks * block.rows * side
    # In an operator on some heads, an operand that all heads share is whole.
    places = [
        s.place + part.number * chunks * block.rows * side if s.loads is not None and operand.groups > 1 else s.place
        for s, operand in zip(sources, operator.operands, strict=True)
    ]
    held = e.hazards.before(into, into + chunks * block.rows * side)
    work = max([chunks, *(s.chunks for s in sources)]) if part.of == 1 else chunks
    ref, _ = e.stream.put(
        e.step,
        DRAIN,
        _sequence(e, 1),
        op=Op.VECTOR,
        layer=index,
        tile=-1 if part.of == 1 else part.number * chunks,
        chunk=work,
        token0=block.row0,
        tokens=block.rows,
        src=places[0],
        other=places[1] if len(places) > 1 else -1,
        dst=into,
        row_cycles=operator.passes,
        after_weights=number(parameters),
        after_input=number(latest(s.loaded for s in sources)),
        after_array=number(held.get("array")),
        after_vector=number(latest(s.written for s in sources)),
        after_store=number(held.get("store")),
    )
    used_parameters(e, g, index, ref)
    for source in sources:
        used(e, source, "vector", ref)
    e.hazards.use(into, into + chunks * block.rows * side, "vector", ref)
    block.written[turn(g, operator.output, part)] = ref
    if stored(e.network, operator.output, g.group.last):
        first_chunk = part.number * chunks if part.of > 1 else 0
        _, last = put_stores(
            e.stream,
            BlockRows(index, block.row0, block.rows),
            e.stream.reserve(chunks),
            np.full(chunks, e.step),
            _sequence(e, chunks),
            first_chunk + np.arange(chunks),
            into + np.arange(chunks) * block.rows * side,
            side,
            ref.id,
        )
        e.hazards.use(into, into + chunks * block.rows * side, "store", last)
        note_store(e, operator.output, block, last)
    e.step += 1


def emit_matrix(e: Emission, g: GroupState, block: Block, indices: Sequence[int], passes: Passes, part: Part) -> None:
    """The passes of a matrix operator, and for each output chunk its drain and the operators that follow it."""
    index, count = indices[0], len(passes)
    first_tile = e.stream.reserve(count)
    operator = e.network.operators[index]
    use = FirstUse.of(passes, first_tile) if operator.kind == "linear" else None
    source = source_for(e, g, block, index, 0, part, use)
    others = {
        (follower, place): source_for(e, g, block, follower, place, part)
        for follower in indices[1:]
        for place, operand in enumerate(e.network.operators[follower].operands)
        if not _made_by(e, indices, operand)
    }
    parameters = {i: load_parameters(e, g, block, i) for i in indices}
    weights = load_weights(e, g, block, index, passes, first_tile)
    kept = [i for i in indices if stored(e.network, e.network.operators[i].output, g.group.last)]
    first = e.stream.reserve((len(indices) + len(kept)) * len(passes.drained))
    chain = DrainChain(e, g, block, indices, kept, passes, part, first, others)
    after_vector = opening_waits(passes, by_chunk(passes, chain.accumulator_waits()))
    reading = np.flatnonzero(passes.reads)
    if count and source.written is not None:
        # The array works in order: what its first reader has waited for is there for the others.
        first_reader = int(reading[0]) if len(reading) else 0
        after_vector[first_reader] = chain.later(int(after_vector[first_reader]), source.written)
    steps = e.step + np.arange(count)
    if count:
        last = put_tiles(
            e.stream,
            block.piece(index, passes.piece, passes.pieces),
            first_tile,
            steps,
            passes,
            weights,
            Chunks(
                source.first_chunk,
                source.addresses(passes.pieces, block.piece_rows(passes.pieces) * e.side),
                None if source.loads is None else np.repeat(source.loads, passes.pieces),
            ),
            by_chunk(passes, chain.accumulator_rows()),
            after_vector,
        )
        if source.loads is not None and source.apart and len(reading) and operator.kind == "linear":
            keys = sort_keys(steps[reading], TILE, 0)
            used_parts(e, source, "array", keys, first_tile + reading, passes.source[reading] // passes.pieces)
        else:
            used(e, source, "array", last)
    chain.emit(parameters, first_tile, steps)
    e.step += max(1, count)


def _made_by(e: Emission, indices: Sequence[int], operand: Operand) -> bool:
    return any(e.network.operators[i].output == operand.tensor for i in indices)


def _sequence(e: Emission, count: int) -> np.ndarray:
    e.sequence += count
    return np.arange(e.sequence - count, e.sequence)
