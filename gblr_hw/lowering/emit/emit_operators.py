"""One operator, or a matrix operator with what follows it chunk by chunk, for one block of rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from gblr_hw.lowering.emit.emission import Block, Emission, GroupState
from gblr_hw.lowering.emit.emit_loads import (
    address,
    kept_ranges,
    load_operand,
    load_parameters,
    load_weights,
    used_parameters,
)
from gblr_hw.lowering.emit.instruction_stream import Ref, latest, number
from gblr_hw.lowering.emit.passes_of_operator import Passes
from gblr_hw.lowering.emit.place_transfers import DRAIN, sort_keys
from gblr_hw.lowering.emit.runs_of_layer import (
    BlockRows,
    ChunkOrder,
    Chunks,
    by_chunk,
    chunk_order,
    opening_waits,
    put_drains,
    put_stores,
    put_tiles,
)
from gblr_hw.lowering.emit.scratch_hazards import Class
from gblr_hw.lowering.groups.scratchpad_map import source_of, stored
from simulator.network.image_rows import ImageRows
from simulator.network.network import Operand
from simulator.network.network_layout import output_chunks, view_chunks
from simulator.program.operations import Op


@dataclass(frozen=True)
class Part:
    """Part ``number`` of ``of`` of the heads; all at once is part 0 of 1."""

    number: int = 0
    of: int = 1


@dataclass(frozen=True)
class _Source:
    """An operand in the scratchpad: its address, the loads of its chunks (by chunk) if DRAM is where it comes from,
    the last of them, the last instruction of the vector unit that wrote it, its first chunk here, its chunks, and the
    bytes [low, high) that its readers read.
    """

    place: int
    loads: np.ndarray | None
    loaded: Ref | None
    written: Ref | None
    first_chunk: int
    chunks: int
    ranges: tuple[tuple[int, int], ...]
    apart: int

    def addresses(self) -> np.ndarray:
        """Where each chunk begins; windows of an image are all read from its rows' begin."""
        return self.place + np.arange(self.chunks) * self.apart


def _source(e: Emission, g: GroupState, block: Block, index: int, place: int, part: Part) -> _Source:
    operator = e.network.operators[index]
    operand = operator.operands[place]
    key = source_of(e.network, operator, operand, g.group.first, e.side)
    if isinstance(key, Operand):
        load_operand(e, g, block, index, place, operand)
        loads, last = block.loaded[operand]
        base = address(e, g, block, key)
        if operand.access == "image":
            image = ImageRows.of(operand)
            read = kept_ranges(image, operand.kept, *image.needed(block.row0, block.rows), base)
            return _Source(base, loads, last, None, 0, len(loads), tuple(read), 0)
        size = block.rows * e.side
        return _Source(base, loads, last, None, 0, len(loads), ((base, base + len(loads) * size),), size)
    begin = operand.channel0 // e.side
    sliced = g.regions[key].copies > 1
    chunks = view_chunks(e.network, operand, e.side)
    here = address(e, g, block, key, part.number) + begin * block.rows * e.side
    first = part.number * (chunks // part.of) if sliced else 0
    chunks, size = chunks // part.of if sliced else chunks, block.rows * e.side
    written = block.written[turn(g, key, part)]
    return _Source(here, None, None, written, first, chunks, ((here, here + chunks * size),), size)


def turn(g: GroupState, name: str, part: Part) -> tuple[str, int]:
    """A result and which of its region's copies a part of the heads uses."""
    return name, part.number % g.regions[name].copies


def _used(e: Emission, source: _Source, by: Class, ref: Ref) -> None:
    for low, high in source.ranges:
        e.hazards.use(low, high, by, ref)


def emit_vector(e: Emission, g: GroupState, block: Block, index: int, part: Part) -> None:
    """A vector operator on whole rows, or on some heads' scores; it takes a step of its own."""
    operator, side = e.network.operators[index], e.side
    sources = [_source(e, g, block, index, place, part) for place in range(len(operator.operands))]
    parameters = load_parameters(e, g, block, index)
    chunks = output_chunks(e.network, operator, side) // part.of
    region = g.regions[operator.output]
    into = address(e, g, block, operator.output, part.number)
    if region.copies == 1:
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
        _used(e, source, "vector", ref)
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
        _note_store(e, operator.output, block, last)
    e.step += 1


def emit_matrix(e: Emission, g: GroupState, block: Block, indices: Sequence[int], passes: Passes, part: Part) -> None:
    """The passes of a matrix operator, and for each output chunk its drain and the operators that follow it."""
    index, count = indices[0], len(passes)
    source = _source(e, g, block, index, 0, part)
    others = {
        (follower, place): _source(e, g, block, follower, place, part)
        for follower in indices[1:]
        for place, operand in enumerate(e.network.operators[follower].operands)
        if not _made_by(e, indices, operand)
    }
    parameters = {i: load_parameters(e, g, block, i) for i in indices}
    first_tile = e.stream.reserve(count)
    weights = load_weights(e, g, block, index, passes, first_tile)
    kept = [i for i in indices if stored(e.network, e.network.operators[i].output, g.group.last)]
    first = e.stream.reserve((len(indices) + len(kept)) * len(passes.drained))
    chain = _Chain(e, g, block, indices, kept, passes, part, first, others)
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
            BlockRows(index, block.row0, block.rows),
            first_tile,
            steps,
            passes,
            weights,
            Chunks(source.first_chunk, source.addresses(), source.loads),
            by_chunk(passes, chain.accumulator_rows()),
            after_vector,
        )
        _used(e, source, "array", last)
    chain.emit(parameters, first_tile, steps)
    e.step += max(1, count)


def _made_by(e: Emission, indices: Sequence[int], operand: Operand) -> bool:
    return any(e.network.operators[i].output == operand.tensor for i in indices)


def _sequence(e: Emission, count: int) -> np.ndarray:
    e.sequence += count
    return np.arange(e.sequence - count, e.sequence)


def _note_store(e: Emission, tensor: str, block: Block, ref: Ref) -> None:
    known = e.stores.setdefault(tensor, [])
    end = block.row0 + block.rows
    if known and known[-1][0] == end:
        known[-1] = (end, ref)
    else:
        known.append((end, ref))


@dataclass
class _Chain:
    """Drains of a matrix operator's output chunks, each with the vector instructions and stores that follow it.

    kept: the operators of ``indices`` whose results are stored. first: number of the first drain; behind the drains'
    come the numbers of each follower's instructions, then those of the stores.
    """

    e: Emission
    g: GroupState
    block: Block
    indices: Sequence[int]
    kept: Sequence[int]
    passes: Passes
    part: Part
    first: int
    others: dict[tuple[int, int], _Source]

    @property
    def chunks(self) -> int:
        return len(self.passes.drained)

    @cached_property
    def turns(self) -> np.ndarray:
        """(R,) the turn of each drain's accumulator buffer, the first of several if each head of the chunk has one.
        Buffers are used in turn; those of one pass, and of one chunk, lie behind one another, so that turns that would
        split them at the memory's end are left out.
        """
        known, n, heads = len(self.g.drain_refs), self.g.accumulators, self.passes.heads
        if not heads.buffer.any() and heads.of_chunk == 1:
            return known + np.arange(self.chunks)
        turns, free = np.zeros(self.chunks, dtype=np.int64), known
        begins = np.flatnonzero(heads.buffer == 0)
        for begin, end in zip(begins.tolist(), [*begins[1:].tolist(), self.chunks], strict=True):
            count = (end - begin) * heads.of_chunk
            free += n - free % n if free % n + count > n else 0
            turns[begin:end] = free + heads.buffer[begin:end]
            free += count
        return turns

    def accumulator_rows(self) -> np.ndarray:
        """First accumulator row of each drain's chunk; those of one pass have rows behind one another."""
        buffer = self.passes.heads.buffer
        return (self.turns - buffer) % self.g.accumulators * self.g.group.block + buffer * self.block.rows

    def accumulator_waits(self) -> np.ndarray:
        """The drain that frees each chunk's accumulator rows, -1 for none."""
        known, before, by_turn = self.g.drain_refs, number(self.g.before), self._by_turn
        freed = self.turns + self.passes.heads.of_chunk - 1 - self.g.accumulators
        return np.array(
            [
                before if at < 0 else known[at].id if at < len(known) else self.first + int(by_turn[at - len(known)])
                for at in freed.tolist()
            ],
            dtype=np.int64,
        )

    @cached_property
    def _by_turn(self) -> np.ndarray:
        """This chain's drain of each turn from its first on; of one that is left out, the drain before."""
        known = len(self.g.drain_refs)
        end = int(self.turns[-1]) + self.passes.heads.of_chunk if self.chunks else known
        return np.maximum(np.searchsorted(self.turns, np.arange(known, end), side="right") - 1, 0)

    def later(self, drain: int, written: Ref) -> int:
        """The later of an accumulator's last drain and the writer of the inputs."""
        if drain < 0 or drain >= self.first:
            return written.id if drain < 0 else drain
        known = {ref.id: ref for ref in self.g.drain_refs[-2 * self.g.accumulators :]}
        if self.g.before is not None:
            known[self.g.before.id] = self.g.before
        ref = latest([known.get(drain), written])
        return number(ref)

    def emit(self, parameters: dict[int, Ref | None], first_tile: int, steps: np.ndarray) -> None:
        e, chunks, head = self.e, self.chunks, self.indices[0]
        at = (steps[self.passes.finish] if len(steps) else np.full(chunks, e.step)).astype(np.int64)
        order = chunk_order(at, e.sequence, len(self.indices) - 1, len(self.kept))
        e.sequence = order.end
        places = {i: self._places(i) for i in self.indices}
        store0 = self.first + len(self.indices) * chunks
        store_of = {i: store0 + n * chunks for n, i in enumerate(self.kept)}
        held = {i: self._held(i, places[i], store_of.get(i)) for i in self.indices}
        drains = put_drains(
            e.stream,
            self._rows(head),
            self.first,
            order,
            self.passes,
            self.accumulator_rows(),
            places[head],
            after_weights=number(parameters[head]),
            after_array=np.where(self.passes.has_sums, first_tile + self.passes.finish, held[head][0]),
            after_store=held[head][1],
        )
        self._finish(head, places[head], drains)
        for n, follower in enumerate(self.indices[1:], 1):
            refs = self._follow(follower, n, order, places, parameters[follower], held[follower])
            self._finish(follower, places[follower], refs)
        for n, i in enumerate(self.kept):
            self._store(i, n, store_of[i], order, places[i])
        keys = sort_keys(at, DRAIN, order.drain).tolist()
        self.g.drain_refs.extend(Ref(keys[n], self.first + n) for n in self._by_turn.tolist())
        e.last_drain = self.g.drain_refs[-1]

    def _rows(self, index: int) -> BlockRows:
        return BlockRows(index, self.block.row0, self.block.rows)

    def _places(self, index: int) -> np.ndarray:
        """Where each drained chunk of an operator's output goes."""
        e, region = self.e, self.g.regions[self.e.network.operators[index].output]
        base = address(e, self.g, self.block, e.network.operators[index].output, self.part.number)
        if not region.whole:
            return base + np.arange(self.chunks) % region.chunks * region.rows * e.side
        local = self.passes.drained - (self.passes.drained.min() if region.copies > 1 else 0)
        return base + local * self.block.rows * e.side

    def _held(self, index: int, places: np.ndarray, store0: int | None) -> tuple[int, np.ndarray]:
        """What writers of an output wait for: the array's last reader of its bytes, and stores of them."""
        e, region = self.e, self.g.regions[self.e.network.operators[index].output]
        size = self.block.rows * e.side
        low, high = int(places.min()), int(places.max()) + size
        held = e.hazards.before(low, high)
        stores = np.full(self.chunks, number(held.get("store")))
        if not region.whole and store0 is not None and self.chunks > region.chunks:
            stores[region.chunks :] = store0 + np.arange(self.chunks - region.chunks)
        return number(held.get("array")), stores

    def _follow(
        self,
        index: int,
        n: int,
        order: ChunkOrder,
        places: dict[int, np.ndarray],
        parameters: Ref | None,
        held: tuple[int, np.ndarray],
    ) -> tuple[Ref, Ref]:
        """A follower's instruction for each chunk, behind that of the operator before it."""
        e, block, operator = self.e, self.block, self.e.network.operators[index]
        sources, loads = [], np.full(self.chunks, -1)
        for place, operand in enumerate(operator.operands):
            if (index, place) not in self.others:
                made = next(i for i in self.indices if e.network.operators[i].output == operand.tensor)
                sources.append(places[made])
                continue
            source = self.others[index, place]
            sources.append(source.place + self.passes.drained * block.rows * e.side)
            if source.loads is not None:
                loads = np.maximum(loads, source.loads[self.passes.drained])
        first = self.first + n * self.chunks
        return e.stream.put(
            order.step,
            DRAIN,
            order.drain + n,
            first,
            op=Op.VECTOR,
            tile=self.passes.drained,
            chunk=1,
            src=sources[0],
            other=sources[1] if len(sources) > 1 else -1,
            dst=places[index],
            row_cycles=operator.passes,
            after_weights=number(parameters),
            after_input=loads,
            after_array=held[0],
            after_vector=first - self.chunks + np.arange(self.chunks),
            after_store=held[1],
            **vars(self._rows(index)),
        )

    def _finish(self, index: int, places: np.ndarray, refs: tuple[Ref, Ref]) -> None:
        """Note who wrote an output and used what for it. Drains stand in order of the steps of their last passes."""
        e, name = self.e, self.e.network.operators[index].output
        last = refs[1]
        self.block.written[turn(self.g, name, self.part)] = last
        used_parameters(e, self.g, index, last)
        e.hazards.use(int(places.min()), int(places.max()) + self.block.rows * e.side, "vector", last)
        for (follower, _), source in self.others.items():
            if follower == index:
                _used(e, source, "vector", last)

    def _store(self, index: int, n: int, first: int, order: ChunkOrder, places: np.ndarray) -> None:
        """The stores of an operator's chunks, the ``n``-th behind each drain, numbered from ``first`` on."""
        e, block, name = self.e, self.block, self.e.network.operators[index].output
        writers = self.first + self.indices.index(index) * self.chunks + np.arange(self.chunks)
        _, last = put_stores(
            e.stream,
            self._rows(index),
            first,
            order.store_step,
            order.store + n,
            self.passes.drained,
            places,
            e.side,
            writers,
        )
        e.hazards.use(int(places.min()), int(places.max()) + block.rows * e.side, "store", last)
        _note_store(e, name, block, last)
