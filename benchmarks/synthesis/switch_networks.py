"""Networks of 2 x 2 switches that could stand in for the crossbars of ``simulator.rtl.units.permutation_network``, to
be measured beside them by ``benchmarks/synthesis/synthesis.py``. Banks are a power of two, lanes not more than
banks.

``OmegaScatter`` and ``OmegaGather`` find their way by the bank numbers. They pass every cycle in which no two lanes are
further apart than the banks that they name: paths share a wire behind column k only where lanes agree in their low
n - k bits (so differ by 2^(n-k) or more) and banks in their high k bits (so differ by less). Lanes in use that stand
side by side in the order of their banks keep that rule, and a compiler is free to order a tile's lanes so.

``BenesScatter`` and ``BenesGather`` pass every permutation, but are told how: a setting a switch.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib.wiring import Component, In, Out

from simulator.rtl.units.permutation_network import place_registers

Wire = list[Value]  # the parts of what travels together
ROUTED_DEPTH, TOLD_DEPTH = 3, 2  # two-input gates in a row in a switch that decides, and in one that is told


def delayed(m: Module, wires: Sequence[Wire | None], name: str, enable: Value | int = 1) -> list[Wire | None]:
    """All parts of all wires behind a register stage; absent wires stay absent."""
    found: list[Wire | None] = []
    for i, wire in enumerate(wires):
        registers = [Signal(len(part), name=f"{name}_{i}_{j}", reset_less=True) for j, part in enumerate(wire or [])]
        with m.If(enable):
            m.d.sync += [register.eq(part) for register, part in zip(registers, wire or [], strict=True)]
        found.append(list(registers) if wire else None)
    return found


def shuffled_pairs(wires: Sequence[Wire | None]) -> list[list[Wire]]:
    """The inputs of an omega column's switches: wire j and wire j + half, those that exist."""
    half = len(wires) // 2
    return [[wire for wire in (wires[j], wires[j + half]) if wire is not None] for j in range(half)]


def omega_column(wires: Sequence[Wire | None]) -> list[Wire | None]:
    """A perfect shuffle, then switches that decide. A wire is [valid, address, ...]; each column uses up the address's
    top bit.
    """
    out: list[Wire | None] = []
    for pair in shuffled_pairs(wires):
        for side in (0, 1):
            wants = [wire[0] & (wire[1][-1] == side) for wire in pair]
            parts = [[wire[1][:-1], *wire[2:]] for wire in pair]
            if len(pair) == 2:
                parts[0] = [Mux(wants[0], first, second) for first, second in zip(*parts, strict=True)]
            out.append([Cat(*wants).any(), *parts[0]] if pair else None)
    return out


def wires_in_use(lanes: int, banks: int) -> list[int]:
    """How many wires can carry anything in front of each column of an omega network, and behind the last."""
    live, counts = [i < lanes for i in range(banks)], [lanes]
    while len(counts) < banks.bit_length():
        live = [live[j] or live[j + banks // 2] for j in range(banks // 2) for _ in (0, 1)]
        counts.append(sum(live))
    return counts


class OmegaScatter(Component):
    """Ports and latency of ``ScatterNetwork``; ``out_data`` of a bank that no lane names has no meaning."""

    def __init__(self, lanes: int, banks: int, width: int, cycles: int) -> None:
        self.lanes, self.banks, self.width, self.cycles = lanes, banks, width, cycles
        super().__init__(
            {
                "valid": In(1).array(lanes),
                "bank": In(range(banks)).array(lanes),
                "data": In(width).array(lanes),
                "out_valid": Out(1).array(banks),
                "out_data": Out(width).array(banks),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m, columns = Module(), self.banks.bit_length() - 1
        bits = [n * (1 + columns - k + self.width) for k, n in enumerate(wires_in_use(self.lanes, self.banks))]
        stages = place_registers([ROUTED_DEPTH] * columns, bits, self.cycles)
        wires: list[Wire | None] = [list(ports) for ports in zip(self.valid, self.bank, self.data, strict=True)]
        wires += [None] * (self.banks - self.lanes)
        for k, registers in enumerate(stages):
            wires = omega_column(wires) if k else wires
            for stage in range(registers):
                wires = delayed(m, wires, f"column{k}_stage{stage}")
        for b, wire in enumerate(wires):
            if wire is not None:
                m.d.comb += [self.out_valid[b].eq(wire[0]), self.out_data[b].eq(wire[2])]
        return m


class OmegaGather(Component):
    """Ports and stages of ``GatherNetwork``, and ``valid`` a lane. The lanes' requests run through an omega network to
    the banks and leave a setting in every switch; the words run back through the same switches.
    """

    def __init__(self, banks: int, lanes: int, width: int, cycles: int) -> None:
        self.banks, self.lanes, self.width, self.cycles = banks, lanes, width, cycles
        super().__init__(
            {
                "valid": In(1).array(lanes),
                "bank": In(range(banks)).array(lanes),
                "data": In(width).array(banks),
                "advance": In(max(cycles, 1)),
                "out_data": Out(width).array(lanes),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m, columns = Module(), self.banks.bit_length() - 1
        live = wires_in_use(self.lanes, self.banks)
        asking = [n * (1 + columns - k) for k, n in enumerate(live)]
        settled = list(accumulate(live[:-1], initial=0))  # settings that exist in front of request column k
        bits = [a + s + self.banks * self.width for a, s in zip(asking[:-1], settled, strict=False)]
        bits += [settled[k] + live[k] * self.width for k in range(columns, -1, -1)]
        depths = [ROUTED_DEPTH] * columns + [TOLD_DEPTH] * columns
        stages = place_registers(depths, bits, self.cycles)

        wires: list[Wire | None] = [list(ports) for ports in zip(self.valid, self.bank, strict=True)]
        wires += [None] * (self.banks - self.lanes)
        words: list[Wire | None] = [[word] for word in self.data]
        settings: list[list[Wire | None]] = []
        stage = 0
        for level, registers in enumerate(stages):
            if 0 < level <= columns:
                settings.append([[wire[1][-1]] if wire else None for wire in wires])
                wires = omega_column(wires)
            elif level:
                words = self._back(words, settings.pop())
            for _ in range(registers):
                name, enable = f"stage{stage}", self.advance[stage]
                wires = delayed(m, wires, f"{name}_request", enable) if level < columns else wires
                words = delayed(m, words, f"{name}_word", enable)
                settings = [delayed(m, row, f"{name}_column{k}", enable) for k, row in enumerate(settings)]
                stage += 1
        for lane in range(self.lanes):
            word = words[lane]
            assert word is not None
            m.d.comb += self.out_data[lane].eq(word[0])
        return m

    @staticmethod
    def _back(words: Sequence[Wire | None], settings: Sequence[Wire | None]) -> list[Wire | None]:
        """From behind a column to in front of it: the wire at each place takes one of its switch's two words."""
        half, found = len(words) // 2, []
        for place, setting in enumerate(settings):
            low, high = words[2 * (place % half)], words[2 * (place % half) + 1]
            if setting is None or low is None or high is None:
                found.append(None)
            else:
                found.append([Mux(setting[0], high[0], low[0])])
        return found


def benes_distances(banks: int) -> list[int]:
    """How far apart the two wires of a switch lie, column by column: N/2, N/4, .. 1, .. N/4, N/2."""
    down = [1 << k for k in range(banks.bit_length() - 2, -1, -1)]
    return down + down[-2::-1]


def benes_switches(banks: int) -> int:
    """Switches, so bits of a setting."""
    return len(benes_distances(banks)) * banks // 2


class _Benes(Component):
    """``ways_in`` wires to ``ways_out`` through the columns; ``settings`` (bit 0: the first switch of the first column)
    is loaded by ``load`` into shadow registers, which ``swap`` makes the active ones.
    """

    def __init__(self, ways_in: int, ways_out: int, banks: int, width: int, cycles: int) -> None:
        self.ways_in, self.ways_out, self.banks = ways_in, ways_out, banks
        self.width, self.cycles = width, cycles
        super().__init__(
            {
                "settings": In(benes_switches(banks)),
                "load": In(1),
                "swap": In(1),
                "data": In(width).array(ways_in),
                "out_data": Out(width).array(ways_out),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m, distances = Module(), benes_distances(self.banks)
        shadow, active = (Signal(len(self.settings), name=name, reset_less=True) for name in ("shadow", "active"))
        with m.If(self.load):
            m.d.sync += shadow.eq(self.settings)
        with m.If(self.swap):
            m.d.sync += active.eq(shadow)
        bits = [
            self.ways_in * self.width,
            *[self.banks * self.width] * (len(distances) - 1),
            self.ways_out * self.width,
        ]
        stages = place_registers([TOLD_DEPTH] * len(distances), bits, self.cycles)
        wires: list[Wire | None] = [[word] for word in self.data]
        wires += [None] * (self.banks - self.ways_in)
        half = self.banks // 2
        for k, registers in enumerate(stages):
            if k:
                wires = self._column(wires, distances[k - 1], active[(k - 1) * half : k * half])
            for stage in range(registers):
                wires = delayed(m, wires, f"column{k}_stage{stage}")
        for out, wire in zip(self.out_data, wires, strict=False):
            if wire is not None:
                m.d.comb += out.eq(wire[0])
        return m

    @staticmethod
    def _column(wires: Sequence[Wire | None], distance: int, crossed: Value) -> list[Wire | None]:
        """Switches between places that lie ``distance`` apart; an input that carries nothing costs nothing."""
        out = list(wires)
        for switch, low in enumerate(i for i in range(len(wires)) if not i & distance):
            first, second = wires[low], wires[low + distance]
            if first is None or second is None:
                out[low] = out[low + distance] = first or second
                continue
            out[low] = [Mux(crossed[switch], second[0], first[0])]
            out[low + distance] = [Mux(crossed[switch], first[0], second[0])]
        return out


class BenesScatter(_Benes):
    """Lanes to banks."""

    def __init__(self, lanes: int, banks: int, width: int, cycles: int) -> None:
        super().__init__(lanes, banks, banks, width, cycles)


class BenesGather(_Benes):
    """Banks to lanes."""

    def __init__(self, banks: int, lanes: int, width: int, cycles: int) -> None:
        super().__init__(banks, lanes, banks, width, cycles)
