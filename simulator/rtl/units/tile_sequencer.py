"""Tiles in the array: preload, stream, and where their sums go (section 5 of the manual)."""

from __future__ import annotations

from collections.abc import Mapping

from amaranth.hdl import Const, Elaboratable, Module, Mux, Shape, Signal, Value
from amaranth.lib.memory import Memory

from simulator.program.operations import GATHER_OPS, SCATTER_OPS
from simulator.rtl.base.instruction import WORD_BITS, InstructionQueue, InstructionWord
from simulator.rtl.base.sizes import Sizes
from simulator.rtl.units.rank_memory import RankMemory
from simulator.rtl.units.systolic_array import SystolicArray
from simulator.rtl.units.weight_loader import WeightLoader


class TileSequencer(Elaboratable):
    """Drives loader, array and rank memory from the tiles' queue, and accumulators with what leaves the array.

    input_address, input_row: a row of P codes in the scratchpad. sum_valid, sum_address, sum_accumulate: a row of Q
    sums of a DENSE or EXPAND tile leaves for that element of the accumulators; sums: they, shifted (rule A6). begins,
    preload_begins: a tile starts to stream or to be loaded. sum_completes: the cycle that writes a DENSE or EXPAND
    tile's last row.
    """

    def __init__(
        self,
        sizes: Sizes,
        completed: Mapping[str, Signal],
        loader: WeightLoader,
        array: SystolicArray,
        ranks: RankMemory,
    ) -> None:
        self.sizes, self.completed = sizes, completed
        self.loader, self.array, self.ranks, self.store = loader, array, ranks, loader.store
        self.queue, self.ahead, self.gathers = (InstructionQueue(name) for name in ("array", "loader", "gather"))
        self.begins = Signal()
        self.preload_begins = Signal()
        self.input_address = Signal(32)
        self.input_row = Signal(sizes.rows * 8)
        self.sum_valid = Signal()
        self.sum_address = Signal(32)
        self.sum_accumulate = Signal()
        self.sum_completes = Signal()
        self.sums = [Signal(Shape(sizes.leaving_bits, signed=True), name=f"shifted_{q}") for q in range(sizes.cols)]

    def elaborate(self, platform: object) -> Module:
        m = Module()
        self._preload(m)
        self._gather(m)
        self._stream(m)
        self._collect(m)
        return m

    def _preload(self, m: Module) -> None:
        """Rule A2: one tile ahead of the array, from the cycle in which the tile before starts."""
        queue, loader = self.ahead, self.loader
        shadow_free = (queue.pc == self.queue.pc) | (self.begins & (queue.pc == self.queue.pc + 1))
        m.d.comb += [
            self.preload_begins.eq(queue.seen(self.completed, "weights") & ~loader.busy & shadow_free),
            loader.begin.eq(self.preload_begins),
            loader.slot.eq(queue.head.slot),
        ]
        queue.advance(m, self.preload_begins)

    def _gather(self, m: Module) -> None:
        """Rule B4: the ranks that a tile gathers are read as soon as they and its lane table are there."""
        queue, ranks = self.gathers, self.ranks
        m.d.comb += [
            ranks.gather_request.eq(queue.seen(self.completed, "weights", "array")),
            ranks.gather_slot.eq(queue.head.slot),
            ranks.gather_half.eq(queue.head.half),
            ranks.gather_tokens.eq(queue.head.field("tokens")),
        ]
        queue.advance(m, ranks.gather_finished)

    def _stream(self, m: Module) -> None:
        """Rules A1 and A3."""
        queue, array, ranks = self.queue, self.array, self.ranks
        held = Signal(WORD_BITS)
        busy = Signal()
        now = InstructionWord(Mux(self.begins, queue.word, held))
        preloaded = (self.ahead.pc == queue.pc + 1) & ~self.loader.busy
        gathering_ops = self.sizes.known(GATHER_OPS)
        gathers = queue.head.is_any(gathering_ops)
        m.d.comb += self.begins.eq(
            queue.seen(self.completed, "input", "array", "vector", "store")
            & preloaded
            & ~busy
            & (~gathers | ranks.offered)
        )
        queue.advance(m, self.begins)
        token = Signal(32)
        part = Signal(16)
        address = Signal(32)
        token_now = Signal(32)
        part_now = Signal(16)
        active = Signal()
        row_ends = Signal()
        tile_ends = Signal()
        gathering = Signal()
        m.d.comb += [
            active.eq(self.begins | busy),
            token_now.eq(Mux(self.begins, 0, token)),
            part_now.eq(Mux(self.begins, 0, part)),
            self.input_address.eq(Mux(self.begins, queue.head.field("src"), address)),
            row_ends.eq(part_now + 1 == now.row_cycles),
            tile_ends.eq(row_ends & (token_now + 1 == now.field("tokens"))),
            gathering.eq(now.is_any(gathering_ops)),
            ranks.take.eq(active & gathering & self._row_has_to_enter(m, row_ends)),
            array.row_valid.eq(Mux(gathering, ranks.take & ranks.complete, active & (part_now == 0))),
            array.swap.eq(self.begins),
            array.swap_part.eq(self.loader.loaded_part),
        ]
        for p, code in enumerate(array.row_codes):
            stored = self.input_row.word_select(p, 8)
            m.d.comb += code.eq(Mux(gathering, ranks.row_codes[p], stored[: self.sizes.code_bits]))
        m.d.sync += [
            held.eq(now.word),
            busy.eq(active & ~tile_ends),
            part.eq(Mux(row_ends, 0, part_now + 1)),
            token.eq(token_now + row_ends),
            address.eq(self.input_address + Mux(row_ends, self.sizes.rows, 0)),
        ]

    def _row_has_to_enter(self, m: Module, row_ends: Value) -> Value:
        """Whether the present row still has to enter the array. It enters with its last part; a MIX has cycles left
        then, in which its sums are scattered (rule B2).
        """
        if not self.sizes.has_mix:
            return Const(1)
        entered = Signal()
        m.d.sync += entered.eq((self.array.row_valid | (entered & ~self.begins)) & ~row_ends)
        return self.begins | ~entered

    def _collect(self, m: Module) -> None:
        """Rule A5: rows leave in the order in which tiles started; the oldest tile says where their sums belong."""
        sizes, array, ranks = self.sizes, self.array, self.ranks
        depth = sizes.tiles_in_flight
        memory = Memory(shape=WORD_BITS, depth=depth, init=[])
        m.submodules.in_flight = memory
        write, read = memory.write_port(), memory.read_port(domain="comb")
        first = Signal(range(depth))
        free = Signal(range(depth))
        token = Signal(32)
        last = Signal()
        oldest = InstructionWord(read.data)
        scatters = oldest.is_any(sizes.known(SCATTER_OPS))
        m.d.comb += [
            write.addr.eq(free),
            write.data.eq(self.queue.word),
            write.en.eq(self.begins),
            read.addr.eq(first),
            last.eq(token + 1 == oldest.field("tokens")),
            self.sum_valid.eq(array.sums_valid & ~scatters),
            self.sum_address.eq((oldest.field("dst") + token) * sizes.cols),
            self.sum_accumulate.eq(oldest.accumulate),
            self.sum_completes.eq(self.sum_valid & last),
            ranks.row_valid.eq(array.sums_valid & scatters),
            ranks.row_last.eq(last),
            ranks.row_token.eq(token),
            ranks.row_slot.eq(oldest.slot),
        ]
        m.d.comb += self.store.shift_slot.eq(oldest.slot)
        for sums in (self.sums, ranks.sums):
            for total, leaving, shift in zip(sums, array.sums, self.store.shifts, strict=True):
                m.d.comb += total.eq(leaving << shift if sizes.narrow_bits else leaving)
        with m.If(self.begins):
            m.d.sync += free.eq(free + 1)
        with m.If(array.sums_valid):
            m.d.sync += [token.eq(Mux(last, 0, token + 1)), first.eq(first + last)]
