"""One cell of the array: a multiplier-adder, an active weight and a shadow weight (rules A1, A2)."""

from __future__ import annotations

from amaranth.hdl import ClockSignal, Elaboratable, Instance, Module, Mux, ResetSignal, Shape, Signal

PROCESSING_ELEMENT = "processing_element"  # name of the cell's Verilog module
INPUTS = ("code", "swap", "load", "weight", "sum_above")
OUTPUTS = ("code_right", "swap_right", "sum_below")
NARROW_INPUTS, NARROW_OUTPUTS = ("part",), ("part_right",)  # of cells that take narrow weights, too


def part_bits(parts: int) -> int:
    """Bits of ``part``: the whole shadow register, or one of its parts."""
    return parts.bit_length()


class CellPorts:
    """sum_below = sum_above + code x weight, and code to the right, a cycle later.

    ``swap`` comes with a tile's first cycle: the shadow weight serves that cycle already and stays active.
    ``load`` writes ``weight`` into the shadow register. With several ``parts`` it has a bit for each part of register
    and weight, and with ``swap`` comes ``part``: 0 takes the whole register, n its part n - 1 as a narrow weight (A6).
    """

    def __init__(self, weight_bits: int, code_bits: int, sum_bits: int, parts: int = 1) -> None:
        self.parts = parts
        self.inputs: tuple[str, ...] = INPUTS if parts == 1 else INPUTS + NARROW_INPUTS
        self.outputs: tuple[str, ...] = OUTPUTS if parts == 1 else OUTPUTS + NARROW_OUTPUTS
        self.part = Signal(part_bits(parts))
        self.part_right = Signal(part_bits(parts))
        self.code = Signal(Shape(code_bits, signed=True))
        self.swap = Signal()
        self.load = Signal(parts)
        self.weight = Signal(Shape(weight_bits, signed=True))
        self.sum_above = Signal(Shape(sum_bits, signed=True))
        self.code_right = Signal(Shape(code_bits, signed=True))
        self.swap_right = Signal()
        self.sum_below = Signal(Shape(sum_bits, signed=True))

    def instance(self) -> Instance:
        """The cell as an instance of the Verilog module that is exported once, beside the array."""
        return Instance(
            PROCESSING_ELEMENT,
            i_clk=ClockSignal(),
            i_rst=ResetSignal(),
            **{f"i_{name}": getattr(self, name) for name in self.inputs},
            **{f"o_{name}": getattr(self, name) for name in self.outputs},
        )

    def all(self) -> list[Signal]:
        """Every port, for export."""
        return [getattr(self, name) for name in (*self.inputs, *self.outputs)]


class ProcessingElement(Elaboratable):
    """The cell behind ``ports``."""

    def __init__(self, ports: CellPorts) -> None:
        self.ports = ports

    def elaborate(self, platform: object) -> Module:
        m, ports = Module(), self.ports
        active, shadow, used = (Signal(ports.weight.shape(), name=name) for name in ("active", "shadow", "used"))
        m.d.comb += used.eq(Mux(ports.swap, self._taken(m, shadow), active))
        m.d.sync += [
            active.eq(used),
            ports.code_right.eq(ports.code),
            ports.swap_right.eq(ports.swap),
            ports.sum_below.eq(ports.sum_above + ports.code * used),
        ]
        bits = len(shadow) // ports.parts
        for part in range(ports.parts):
            with m.If(ports.load[part]):
                m.d.sync += shadow.word_select(part, bits).eq(ports.weight.word_select(part, bits))
        return m

    def _taken(self, m: Module, shadow: Signal) -> Signal:
        """What of the shadow register becomes active: all of it, or the part of a narrow weight, extended."""
        ports = self.ports
        if ports.parts == 1:
            return shadow
        bits = len(shadow) // ports.parts
        taken = Signal.like(shadow, name="taken")
        m.d.comb += taken.eq(shadow)
        with m.Switch(ports.part):
            for part in range(ports.parts):
                with m.Case(part + 1):
                    m.d.comb += taken.eq(shadow.word_select(part, bits).as_signed())
        m.d.sync += ports.part_right.eq(ports.part)
        return taken
