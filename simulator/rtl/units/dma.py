"""The DMA engines: three queues that share one channel, and the data that come back (section 4 of the manual)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from amaranth.hdl import Elaboratable, Module, Mux, Signal, Value
from amaranth.lib.memory import Memory

from simulator.program.operations import OPERATIONS, TRANSFER_OPS, Op, Place
from simulator.rtl.base.dram_model import RING_CYCLES
from simulator.rtl.base.instruction import WORD_BITS, InstructionQueue, InstructionWord
from simulator.rtl.base.sizes import Sizes

QUEUES = ("weight_dma", "input_dma", "output_dma")


class Dma(Elaboratable):
    """``start``, ``bursts``: to the channel, which says when it is ``free``, and later, with ``respond``, that data of
    the oldest transfer under way can move: a beat of ``beat_bytes`` a cycle while there are any.

    present: the transfer whose data move, ``moves`` whether they do in this cycle, ``offset`` from which byte on.
    begins: which queue's transfer takes the channel. completes: the cycle that moves a transfer's last data.
    """

    def __init__(self, sizes: Sizes, completed: Mapping[str, Signal]) -> None:
        self.sizes, self.completed = sizes, completed
        self.queues = [InstructionQueue(name) for name in QUEUES]
        self.free = Signal()
        self.start = Signal()
        self.bursts = Signal(32)
        self.respond = Signal()
        self.respond_last = Signal()
        self.begins = Signal(len(QUEUES))
        self.present = InstructionWord(Signal(WORD_BITS, name="transfer"))
        self.moves = Signal()
        self.offset = Signal(32)
        self.beat = Signal(32)
        self.completes = Signal()

    def channel_ports(self) -> list[Signal]:
        """The handshake with the memory channel."""
        return [self.start, self.bursts, self.free, self.respond, self.respond_last]

    def elaborate(self, platform: object) -> Module:
        m = Module()
        granted = self._arbitrate(m)
        self._respond(m, granted)
        return m

    def _arbitrate(self, m: Module) -> Signal:
        """First come first served; among requests of one cycle the lower queue (rule D3). Returns the granted word."""
        cycle = Signal(32)
        owner = Signal(len(QUEUES))
        m.d.sync += cycle.eq(cycle + 1)
        waiting, since = [], []
        for number, queue in enumerate(self.queues):
            wants, asked = (Signal(name=f"{queue.name}_{word}") for word in ("wants", "asked"))
            stamp = Signal(32, name=f"{queue.name}_asked_at")
            ready = queue.seen(self.completed, "weights", "input", "array", "vector", "store")
            m.d.comb += wants.eq(ready & ~(owner[number] & ~self.free))
            now = Signal(32, name=f"{queue.name}_since")
            m.d.comb += now.eq(Mux(asked, stamp, cycle))
            m.d.sync += [asked.eq(wants & ~self.begins[number]), stamp.eq(now)]
            waiting.append(wants)
            since.append(now)
            queue.advance(m, self.begins[number])
        granted = Signal(WORD_BITS)
        for number, queue in enumerate(self.queues):
            first: Value = waiting[number] & self.free
            for other in range(len(QUEUES)):
                if other < number:
                    first = first & ~(waiting[other] & (since[other] <= since[number]))
                elif other > number:
                    first = first & ~(waiting[other] & (since[other] < since[number]))
            m.d.comb += self.begins[number].eq(first)
            with m.If(self.begins[number]):
                m.d.comb += granted.eq(queue.word)
        with m.If(self.start):
            m.d.sync += owner.eq(self.begins)
        m.d.comb += [self.start.eq(self.begins.any()), self.bursts.eq(InstructionWord(granted).field("dram_bursts"))]
        return granted

    def _respond(self, m: Module, granted: Signal) -> None:
        """Transfers under way, oldest first; their data come in the order in which they held the channel."""
        under_way = Memory(shape=WORD_BITS, depth=RING_CYCLES, init=[])
        m.submodules.under_way = under_way
        write, read = under_way.write_port(), under_way.read_port(domain="comb")
        begun = Signal(range(RING_CYCLES))
        ended = Signal(range(RING_CYCLES))
        beat = Signal(32)
        offset = Signal(32)
        m.d.comb += [
            write.addr.eq(begun),
            write.data.eq(granted),
            write.en.eq(self.start),
            read.addr.eq(ended),
            self.present.word.eq(Mux(begun == ended, granted, read.data)),
            self.beat.eq(beat),
            self.offset.eq(offset),
            self.moves.eq(self.respond & (offset < self.present.field("dram_bytes"))),
            self.completes.eq(self.respond & self.respond_last),
        ]
        with m.If(self.start):
            m.d.sync += begun.eq(begun + 1)
        with m.If(self.respond):
            m.d.sync += [beat.eq(beat + 1), offset.eq(offset + self.sizes.beat_bytes)]
        with m.If(self.completes):
            m.d.sync += [ended.eq(ended + 1), beat.eq(0), offset.eq(0)]

    def moves_into(self, place: Place) -> Value:
        """Whether data of a transfer on its way to ``place`` move in this cycle."""
        return self.moves & self.present.is_any(op for op in TRANSFER_OPS if OPERATIONS[op].writes is place)

    def completes_one_of(self, ops: Iterable[Op]) -> Value:
        """Whether a transfer of one of ``ops`` completes in this cycle."""
        return self.completes & self.present.is_any(ops)
