"""What follows a matrix operator's sums chunk by chunk: drains, elementwise operators, stores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from gblr_hw.lowering.emit.emission import Block, Emission, GroupState
from gblr_hw.lowering.emit.emit_loads import address, load_in_turn, used_parameters
from gblr_hw.lowering.emit.instruction_stream import Ref, latest, number
from gblr_hw.lowering.emit.operand_source import Part, Source, turn, used, used_parts
from gblr_hw.lowering.emit.passes_of_operator import Passes
from gblr_hw.lowering.emit.place_transfers import DRAIN, sort_keys
from gblr_hw.lowering.emit.runs_of_layer import BlockRows, ChunkOrder, chunk_order, put_drains, put_stores
from simulator.program.operations import Op


@dataclass
class DrainChain:
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
    others: dict[tuple[int, int], Source]

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
        return (self.turns - buffer) % self.g.accumulators * self.g.piece_rows + buffer * self.block.rows

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
        in_turn = {use: source for use, source in self.others.items() if source.buffers}
        followers = len(self.indices) - 1
        order = chunk_order(at, e.sequence, followers + len(in_turn), len(self.kept))
        e.sequence = order.end
        loads = {
            use: self._load_in_turn(*use, source, order, followers + 1 + n)
            for n, (use, source) in enumerate(in_turn.items())
        }
        places = {i: self._places(i) for i in self.indices}
        store0 = self.first + len(self.indices) * chunks
        store_of = {i: store0 + n * chunks for n, i in enumerate(self.kept)}
        held = {i: self._held(i, places[i], store_of.get(self._under(i))) for i in self.indices}
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
            refs = self._follow(follower, n, order, places, parameters[follower], held[follower], loads)
            self._finish(follower, places[follower], refs)
        for n, i in enumerate(self.kept):
            self._store(i, n, store_of[i], order, places[i])
        keys = sort_keys(at, DRAIN, order.drain).tolist()
        self.g.drain_refs.extend(Ref(keys[n], self.first + n) for n in self._by_turn.tolist())
        e.last_drain = self.g.drain_refs[-1]

    def _rows(self, index: int) -> BlockRows:
        return self.block.piece(index, self.passes.drained_piece, self.passes.pieces)

    def _in_turn(self, base: int, buffers: int, size: int) -> np.ndarray:
        """Where each drained run of rows has its place in chunk buffers of ``size`` bytes that are used in turn."""
        turn = np.arange(self.chunks) // self.passes.pieces % buffers
        return base + turn * size + self._piece_begin

    def _under(self, index: int) -> int:
        """The operator of the chain in the place of whose result an operator's lies."""
        over = self.g.regions[self.e.network.operators[index].output].over
        made = [i for i in self.indices if self.e.network.operators[i].output == over]
        return self._under(made[0]) if made else index

    def _load_in_turn(self, index: int, place: int, source: Source, order: ChunkOrder, n: int) -> np.ndarray:
        """Loads of the chunks of a follower's operand into buffers in turn, as drains complete the chunks that they
        meet: the first ones ahead, each other behind the instruction that frees its buffer. (R,) numbers of the loads.
        """
        e, pieces, follower = self.e, self.passes.pieces, self.indices.index(index)
        chunks, ends = self.passes.drained_chunk[::pieces], np.arange(pieces - 1, self.chunks, pieces)
        readers = self.first + follower * self.chunks + ends
        loads = load_in_turn(
            e,
            self.block,
            index,
            place,
            chunks,
            (source.place, source.apart, source.buffers),
            readers,
            (order.step[ends], order.drain[ends] + n),
        )
        keys = sort_keys(order.step[ends], DRAIN, order.drain[ends] + follower)[-source.buffers :]
        # The first of the last turn's buffers is not the first buffer.
        buffer = np.arange(len(chunks))[-source.buffers :] % source.buffers
        used_parts(e, source, "vector", keys, readers[-source.buffers :], buffer)
        return np.repeat(loads, pieces)

    @cached_property
    def _piece_begin(self) -> np.ndarray:
        """Bytes between a chunk's begin and that of each of its drained runs of rows."""
        return self.passes.drained_piece * self.block.piece_rows(self.passes.pieces) * self.e.side

    def _places(self, index: int) -> np.ndarray:
        """Where each drained run of rows of an operator's output goes."""
        e, region = self.e, self.g.regions[self.e.network.operators[index].output]
        base = address(e, self.g, self.block, e.network.operators[index].output, self.part.number)
        if not region.whole:
            return self._in_turn(base, region.chunks, region.rows * e.side)
        chunk = self.passes.drained_chunk
        local = chunk - (chunk.min() if region.sliced else 0)
        return base + local * self.block.rows * e.side + self._piece_begin

    def _range(self, index: int, places: np.ndarray) -> tuple[int, int]:
        """Bytes [low, high) of an operator's output, whose runs of rows begin at ``places``."""
        return int(places.min()), int((places + self._rows(index).tokens * self.e.side).max())

    def _held(self, index: int, places: np.ndarray, store0: int | None) -> tuple[int, np.ndarray]:
        """What writers of an output wait for: the array's last reader of its bytes, and stores of them."""
        e, region = self.e, self.g.regions[self.e.network.operators[index].output]
        held = e.hazards.before(*self._range(index, places))
        stores = np.full(self.chunks, number(held.get("store")))
        room = region.chunks * self.passes.pieces
        if not region.whole and store0 is not None and self.chunks > room:
            stores[room:] = store0 + np.arange(self.chunks - room)
        return number(held.get("array")), stores

    def _follow(
        self,
        index: int,
        n: int,
        order: ChunkOrder,
        places: dict[int, np.ndarray],
        parameters: Ref | None,
        held: tuple[int, np.ndarray],
        in_turn: dict[tuple[int, int], np.ndarray],
    ) -> tuple[Ref, Ref]:
        """A follower's instruction for each chunk, behind that of the operator before it."""
        e, block, operator = self.e, self.block, self.e.network.operators[index]
        sources, loads, chunk = [], np.full(self.chunks, -1), self.passes.drained_chunk
        for place, operand in enumerate(operator.operands):
            if (index, place) not in self.others:
                made = next(i for i in self.indices if e.network.operators[i].output == operand.tensor)
                sources.append(places[made])
                continue
            source = self.others[index, place]
            if source.buffers:
                sources.append(self._in_turn(source.place, source.buffers, source.apart))
                loads = in_turn[index, place]
                continue
            sources.append(source.place + chunk * block.rows * e.side + self._piece_begin)
            if source.loads is not None:
                loads = np.maximum(loads, source.loads[chunk])
        first = self.first + n * self.chunks
        return e.stream.put(
            order.step,
            DRAIN,
            order.drain + n,
            first,
            op=Op.VECTOR,
            tile=chunk,
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
        e.hazards.use(*self._range(index, places), "vector", last)
        for (follower, _), source in self.others.items():
            if follower == index and not source.buffers:
                used(e, source, "vector", last)

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
            self.passes.drained_chunk,
            places,
            e.side,
            writers,
        )
        e.hazards.use(*self._range(index, places), "store", last)
        note_store(e, name, block, last)


def note_store(e: Emission, tensor: str, block: Block, ref: Ref) -> None:
    known = e.stores.setdefault(tensor, [])
    end = block.row0 + block.rows
    if known and known[-1][0] == end:
        known[-1] = (end, ref)
    else:
        known.append((end, ref))
