"""The memory model of the testbench: how long a transfer holds the channel, and when its data come (rules D2, D4).

Not part of the chip. Bandwidth and latency are inputs, so that one compiled model serves slow and fast memories.
"""

from __future__ import annotations

from amaranth.hdl import Cat, Elaboratable, Module, Mux, Signal
from amaranth.lib.memory import Memory

from simulator.rtl.base.sizes import MAX_LATENCY_CYCLES

RING_CYCLES = MAX_LATENCY_CYCLES + 1


class DramModel(Elaboratable):
    """``start`` takes the channel for ``bursts`` whole bursts in a cycle in which it is ``free``.

    respond: the cycle belongs to some transfer's data, ``latency_cycles`` after it held the channel; respond_last: the
    last such cycle of a transfer.
    """

    def __init__(self, burst_bytes: int) -> None:
        self.burst_bytes = burst_bytes
        self.bytes_per_kilocycle = Signal(32)
        self.latency_cycles = Signal(range(RING_CYCLES))
        self.start = Signal()
        self.bursts = Signal(32)
        self.free = Signal()
        self.respond = Signal()
        self.respond_last = Signal()

    def elaborate(self, platform: object) -> Module:
        m = Module()
        busy = Signal()
        left = Signal(64)
        left_now = Signal(64)
        active = Signal()
        last = Signal()
        m.d.comb += [
            self.free.eq(~busy),
            active.eq(self.start | busy),
            left_now.eq(Mux(self.start, self.bursts * (1000 * self.burst_bytes), left)),
            last.eq(active & (left_now <= self.bytes_per_kilocycle)),
        ]
        m.d.sync += [busy.eq(active & ~last), left.eq(left_now - self.bytes_per_kilocycle)]
        ring = Memory(shape=2, depth=RING_CYCLES, init=[])
        m.submodules.ring = ring
        write, read, cycle = ring.write_port(), ring.read_port(domain="comb"), Signal(32)
        m.d.sync += cycle.eq(cycle + 1)
        delayed = Mux(cycle >= self.latency_cycles, read.data, 0)
        m.d.comb += [
            write.addr.eq(cycle),
            write.data.eq(Cat(active, last)),
            write.en.eq(1),
            read.addr.eq(cycle - self.latency_cycles),
            Cat(self.respond, self.respond_last).eq(Mux(self.latency_cycles == 0, Cat(active, last), delayed)),
        ]
        return m
