"""The permutation network between the array's lanes and the banks of the rank memory (machine.md, sections 1 and 5).

Two crossbars. ``ScatterNetwork`` is an AND-OR tree a bank over one-hot selects, ``GatherNetwork`` a multiplexer tree a
lane over the bits of the bank number. Register stages go where they are cheap: into the trees only as far as it takes
to keep every stage within ``GATES_PER_STAGE``, the rest onto the wires at the network's entrance.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, pairwise
from typing import Any

from amaranth.hdl import Module, Mux, Signal, Value
from amaranth.lib.wiring import Component, In, Out

from simulator.base.arithmetic import ceil_div

GATES_PER_STAGE = (
    6  # two-input gates in a row; a cell of the array has an 8 x 8 multiplier and a 32-bit adder in its way
)


def place_registers(depths: Sequence[int], bits: Sequence[int], cycles: int) -> tuple[int, ...]:
    """How many register stages stand in front of each level of logic, and behind the last: ``len(depths) + 1`` counts
    that sum to ``cycles``.

    ``depths[i]`` is the depth of level i in gates; ``bits[i]`` the flip-flops of a stage in front of it, ``bits[-1]``
    behind the last. The first stage goes behind the last level, where memories and cells begin with logic of their own.
    The others are placed for the smallest longest path, as far as it exceeds ``GATES_PER_STAGE``, then for the fewest
    flip-flops; stages that the paths do not need stand at the entrance.
    """
    counts = [0] * (len(depths) + 1)
    if cycles == 0:
        return tuple(counts)
    inner = range(1, len(depths))

    def price(cuts: tuple[int, ...]) -> tuple[int, int]:
        edges = (0, *cuts, len(depths))
        longest = max((sum(depths[a:b]) for a, b in pairwise(edges)), default=0)
        return max(longest, GATES_PER_STAGE), sum(bits[cut] for cut in cuts)

    most = min(cycles - 1, len(inner))
    chosen = min((cuts for n in range(most + 1) for cuts in combinations(inner, n)), key=price)
    for cut in chosen:
        counts[cut] = 1
    counts[-1] = 1
    counts[0] += cycles - sum(counts)
    return tuple(counts)


class ScatterNetwork(Component):
    """Sums from lanes to banks, ``cycles`` clock cycles later; never stalls.

    In: ``valid``, ``bank``, ``data`` (``width`` bits) a lane. Out: ``out_valid``, ``out_data`` a bank; a bank that no
    lane names reads zero. The caller sees to it that at most one valid lane names a bank in a cycle.
    """

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

    def stages(self) -> tuple[int, ...]:
        """Register stages in front of the decoders, of each level of the tree, and at the outputs."""
        bank_bits = (self.banks - 1).bit_length()
        partials = [self.lanes]
        while partials[-1] > 1:
            partials.append(ceil_div(partials[-1], 2))
        # A decoder looks at bank_bits + 1 wires; gating with the select bit and the first OR are one level.
        depths = [bank_bits.bit_length(), min(len(partials), 2), *[1] * (len(partials) - 2)]
        bits = [
            self.lanes * (1 + bank_bits + self.width),
            self.lanes * (self.banks + self.width),
            *(self.banks * count * (1 + self.width) for count in partials[1:] or [1]),
        ]
        return place_registers(depths, bits, self.cycles)

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        stages = self.stages()

        valid, bank, data = list(self.valid), list(self.bank), list(self.data)
        for stage in range(stages[0]):
            valid = _registered(m, valid, f"in{stage}_valid", reset=True)
            bank = _registered(m, bank, f"in{stage}_bank")
            data = _registered(m, data, f"in{stage}_data")

        select = [[v & (number == b) for v, number in zip(valid, bank, strict=True)] for b in range(self.banks)]
        if stages[1]:
            select = [_registered(m, row, f"select{b}", reset=True) for b, row in enumerate(select)]
            data = _registered(m, data, "decoded_data")

        for b, row in enumerate(select):
            sums = [Mux(s, d, 0) for s, d in zip(row, data, strict=True)]
            for level, registers in enumerate(stages[2:]):
                row, sums = _halved(row), _halved(sums)
                if registers:
                    row = _registered(m, row, f"bank{b}_level{level}_valid", reset=True)
                    sums = _registered(m, sums, f"bank{b}_level{level}_data")
            m.d.comb += [self.out_valid[b].eq(row[0]), self.out_data[b].eq(sums[0])]
        return m


class GatherNetwork(Component):
    """Codes from banks to lanes, through ``cycles`` register stages that load one by one.

    In: ``data`` (``width`` bits) a bank, ``bank`` a lane: which bank's word the lane takes, given together with the
    words; ``advance`` bit i: stage i loads in this cycle (stage 0 nearest the banks; no meaning without stages).
    Out: ``out_data`` a lane.
    """

    def __init__(self, banks: int, lanes: int, width: int, cycles: int) -> None:
        self.banks, self.lanes, self.width, self.cycles = banks, lanes, width, cycles
        super().__init__(
            {
                "bank": In(range(banks)).array(lanes),
                "data": In(width).array(banks),
                "advance": In(max(cycles, 1)),
                "out_data": Out(width).array(lanes),
            }
        )

    def stages(self) -> tuple[int, ...]:
        """Register stages in front of each level of multiplexers and at the outputs."""
        bank_bits = (self.banks - 1).bit_length()
        bits = [self.banks * self.width + self.lanes * bank_bits]
        for level in range(1, bank_bits + 1):
            bits.append(self.lanes * (-(-self.banks >> level) * self.width + bank_bits - level))
        return place_registers([2] * bank_bits, bits, self.cycles)

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        stages, stage = self.stages(), 0

        data, bank = list(self.data), list(self.bank)
        for _ in range(stages[0]):
            data = _registered(m, data, f"in{stage}_data", enable=self.advance[stage])
            bank = _registered(m, bank, f"in{stage}_bank", enable=self.advance[stage])
            stage += 1

        words = [data] * self.lanes
        for level, registers in enumerate(stages[1:]):
            words = [_selected(row, number[0]) for row, number in zip(words, bank, strict=True)]
            bank = [number[1:] for number in bank]
            for _ in range(registers):
                enable = self.advance[stage]
                bank = _registered(m, bank, f"level{level}_bank", enable=enable)
                words = [
                    _registered(m, row, f"lane{lane}_level{level}_data", enable=enable)
                    for lane, row in enumerate(words)
                ]
                stage += 1
        m.d.comb += [out.eq(row[0]) for out, row in zip(self.out_data, words, strict=True)]
        return m


def _registered(
    m: Module, values: Sequence[Value], name: str, *, enable: Value | int = 1, reset: bool = False
) -> list[Value]:
    """Each value one clock edge later, at edges with ``enable``. Data need no reset: valid bits say what they are."""
    registers = [Signal(len(value), name=f"{name}_{i}", reset_less=not reset) for i, value in enumerate(values)]
    with m.If(enable):
        m.d.sync += [register.eq(value) for register, value in zip(registers, values, strict=True)]
    return list(registers)


def _halved(values: Sequence[Value]) -> list[Value]:
    """One level of an OR tree."""
    return [values[i] | values[i + 1] if i + 1 < len(values) else values[i] for i in range(0, len(values), 2)]


def _selected(words: Sequence[Value], odd: Value) -> list[Value]:
    """One level of a multiplexer tree: of each pair the second word if ``odd``."""
    return [Mux(odd, words[i + 1], words[i]) if i + 1 < len(words) else words[i] for i in range(0, len(words), 2)]
