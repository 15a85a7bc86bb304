"""A memory read and written in runs of consecutive elements from any address, built from banks of one port each.

Element e lies in bank e mod N at row e div N; a port of n <= N elements touches every bank at most once, and a
rotation puts the elements in order. Reads show what was written up to the cycle before.
"""

from __future__ import annotations

from collections.abc import Sequence

from amaranth.hdl import Cat, Elaboratable, Module, Mux, Signal, Value
from amaranth.lib.memory import Memory

from simulator.base.arithmetic import ceil_div
from simulator.rtl.base.sizes import index_bits


class ReadPort:
    """address: first element. data: ``count`` elements, the first in the lowest bits, in the same cycle."""

    def __init__(self, count: int, width: int, address_bits: int) -> None:
        self.count = count
        self.address = Signal(address_bits)
        self.data = Signal(count * width)


class WritePort(ReadPort):
    """As a read port; element i is written at the end of the cycle if bit i of ``enable`` is set."""

    def __init__(self, count: int, width: int, address_bits: int) -> None:
        super().__init__(count, width, address_bits)
        self.enable = Signal(count)


class BankedMemory(Elaboratable):
    """``depth`` elements of ``width`` bits in ``banks`` banks (a power of two), with ports of the given run lengths."""

    def __init__(self, *, width: int, depth: int, banks: int, reads: Sequence[int], writes: Sequence[int]) -> None:
        assert banks & (banks - 1) == 0 and max(*reads, *writes) <= banks
        self.width, self.banks = width, banks
        self.rows = ceil_div(depth, banks)
        bits = index_bits(self.rows * banks)
        self.read_ports = [ReadPort(count, width, bits) for count in reads]
        self.write_ports = [WritePort(count, width, bits) for count in writes]

    def elaborate(self, platform: object) -> Module:
        m = Module()
        memories = [Memory(shape=self.width, depth=self.rows, init=[]) for _ in range(self.banks)]
        for number, memory in enumerate(memories):
            m.submodules[f"bank{number}"] = memory
        for port in self.read_ports:
            low, row = self._split(port.address)
            found = []
            for number, memory in enumerate(memories):
                bank = memory.read_port(domain="comb")
                m.d.comb += bank.addr.eq(row + (low > number))
                found.append(bank.data)
            ordered = rotated_down(m, Cat(*found), low, self.width, self.banks)
            m.d.comb += port.data.eq(ordered)
        for port in self.write_ports:
            low, row = self._split(port.address)
            data = rotated_up(m, port.data, low, self.width, self.banks)
            enable = rotated_up(m, port.enable, low, 1, self.banks)
            for number, memory in enumerate(memories):
                bank = memory.write_port()
                m.d.comb += [
                    bank.addr.eq(row + (low > number)),
                    bank.data.eq(data.word_select(number, self.width)),
                    bank.en.eq(enable[number]),
                ]
        return m

    def _split(self, address: Signal) -> tuple[Value, Value]:
        bits = (self.banks - 1).bit_length()
        return address[:bits], address[bits:]


def rotated_down(m: Module, vector: Value, amount: Value, width: int, count: int) -> Signal:
    """Element i of the result is element (i + amount) mod count of ``vector``."""
    return _rotated(m, vector, amount, width, count, down=True)


def rotated_up(m: Module, vector: Value, amount: Value, width: int, count: int) -> Signal:
    """Element (i + amount) mod count of the result is element i of ``vector``, missing elements being 0."""
    return _rotated(m, vector, amount, width, count, down=False)


def _rotated(m: Module, vector: Value, amount: Value, width: int, count: int, *, down: bool) -> Signal:
    """A logarithmic shifter; ``count`` is a power of two."""
    size = count * width
    current = Signal(size)
    m.d.comb += current.eq(vector)
    for stage in range((count - 1).bit_length()):
        step = width << stage
        turned = Cat(current[step:], current[:step]) if down else Cat(current[size - step :], current[: size - step])
        following = Signal(size)
        m.d.comb += following.eq(Mux(amount[stage], turned, current))
        current = following
    return current
