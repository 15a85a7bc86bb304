"""The vector unit: drains accumulators through bias and requantisation into the scratchpad (rules V1, N4)."""

from __future__ import annotations

from amaranth.hdl import Cat, Elaboratable, Module, Mux, Signal, Value

from simulator.rtl.base.requantiser import requantised, saturated
from simulator.rtl.base.sizes import Sizes, power_of_two
from simulator.rtl.units.systolic_array import delayed


class VectorUnit(Elaboratable):
    """``begin`` starts a DRAIN of ``tokens`` rows in this cycle: sums from element ``source`` of the accumulators on
    (none with ``accumulate`` = 0), codes to byte ``target`` of the scratchpad on.

    sums, parameters: what the accumulators hold at ``sum_address`` and the (bias, multiplier) pairs of the chunk's
    columns. busy: a DRAIN goes on (not in the cycle in which it begins). finished: the cycle that writes its last code.
    """

    def __init__(self, sizes: Sizes) -> None:
        self.sizes = sizes
        lanes = sizes.machine.vector.lanes
        self.begin = Signal()
        self.busy = Signal()
        self.finished = Signal()
        self.tokens = Signal(32)
        self.source = Signal(32)
        self.target = Signal(32)
        self.accumulate = Signal()
        self.parameter_address = Signal(32)
        self.sum_address = Signal(32)
        self.sums = Signal(lanes * sizes.sum_bits)
        self.parameters = Signal(sizes.cols * 64)
        self.fetch_address = Signal(32)
        self.write_address = Signal(32)
        self.write_data = Signal(lanes * 8)
        self.write_enable = Signal(lanes)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        sizes, lanes = self.sizes, self.sizes.machine.vector.lanes
        left = Signal(32)
        source = Signal(32)
        target = Signal(32)
        column = Signal(range(sizes.cols))
        left_now = Signal(32)
        target_now = Signal(32)
        column_now = Signal.like(column)
        accumulate = Signal()
        address = Signal(32)
        adds = Signal()
        active = Signal()
        ending = Signal()
        m.d.comb += [
            active.eq(self.begin | self.busy),
            left_now.eq(Mux(self.begin, self.tokens * sizes.cols, left)),
            self.sum_address.eq(Mux(self.begin, self.source, source)),
            target_now.eq(Mux(self.begin, self.target, target)),
            column_now.eq(Mux(self.begin, 0, column)),
            adds.eq(Mux(self.begin, self.accumulate, accumulate)),
            self.fetch_address.eq(Mux(self.begin, self.parameter_address, address)),
            ending.eq(active & (left_now <= lanes)),
        ]
        stepped = Signal(range(2 * sizes.cols))
        m.d.comb += stepped.eq(column_now + lanes % sizes.cols)
        m.d.sync += [
            self.busy.eq(active & ~ending),
            left.eq(left_now - lanes),
            source.eq(self.sum_address + lanes),
            target.eq(target_now + lanes),
            column.eq(Mux(stepped >= sizes.cols, stepped - sizes.cols, stepped)),
            accumulate.eq(adds),
            address.eq(self.fetch_address),
        ]
        cycles = sizes.machine.vector.latency_cycles
        codes = self._codes(m, column_now, adds)
        enable = Signal(lanes)
        m.d.comb += enable.eq(Cat(*(active & (left_now > lane) for lane in range(lanes))))
        m.d.comb += [
            self.write_data.eq(delayed(m, codes, cycles, "code")),
            self.write_address.eq(delayed(m, target_now, cycles, "target")),
            self.write_enable.eq(delayed(m, enable, cycles, "enable")),
            self.finished.eq(delayed(m, ending, cycles, "ending")),
        ]
        return m

    def _codes(self, m: Module, column: Signal, adds: Signal) -> Signal:
        """One code a lane. Lane l works on column (column + l) mod Q."""
        sizes, lanes = self.sizes, self.sizes.machine.vector.lanes
        turned = Signal(sizes.cols * 64)
        padded = Cat(self.parameters, self.parameters)
        choices = [padded[64 * first : 64 * (first + sizes.cols)] for first in range(sizes.cols)]
        m.d.comb += turned.eq(_chosen(choices, column))
        found = []
        for lane in range(lanes):
            pair = turned.word_select(lane % sizes.cols, 64)
            bias, scale = pair[:32].as_signed(), pair[32:]
            total = self.sums.word_select(lane, sizes.sum_bits).as_signed()
            total = saturated(m, Mux(adds, total, 0) + bias, sizes.sum_bits, f"biased_{lane}")
            code = requantised(m, total, scale, sizes.code_bits, [], f"lane{lane}")
            byte = Signal(8, name=f"byte_{lane}")
            m.d.comb += byte.eq(code)
            found.append(byte)
        codes = Signal(lanes * 8)
        m.d.comb += codes.eq(Cat(*found))
        return codes


def _chosen(choices: list[Value], index: Signal) -> Value:
    """A multiplexer tree over ``index``."""
    for bit in range((power_of_two(len(choices)) - 1).bit_length()):
        choices = [
            Mux(index[bit], choices[i + 1], choices[i]) if i + 1 < len(choices) else choices[i]
            for i in range(0, len(choices), 2)
        ]
    return choices[0]
