"""One cell of the array: a multiplier-adder, an active weight and a shadow weight (rules A1, A2)."""

from __future__ import annotations

from amaranth.hdl import ClockSignal, Elaboratable, Instance, Module, Mux, ResetSignal, Shape, Signal

PROCESSING_ELEMENT = "processing_element"  # name of the cell's Verilog module
INPUTS = ("code", "swap", "load", "weight", "sum_above")
OUTPUTS = ("code_right", "swap_right", "sum_below")


class CellPorts:
    """sum_below = sum_above + code x weight, and code to the right, a cycle later.

    ``swap`` comes with a tile's first cycle: the shadow weight serves that cycle already and stays active.
    ``load`` writes ``weight`` into the shadow register.
    """

    def __init__(self, weight_bits: int, code_bits: int, sum_bits: int) -> None:
        self.code = Signal(Shape(code_bits, signed=True))
        self.swap = Signal()
        self.load = Signal()
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
            **{f"i_{name}": getattr(self, name) for name in INPUTS},
            **{f"o_{name}": getattr(self, name) for name in OUTPUTS},
        )

    def all(self) -> list[Signal]:
        """Every port, for export."""
        return [getattr(self, name) for name in (*INPUTS, *OUTPUTS)]


class ProcessingElement(Elaboratable):
    """The cell behind ``ports``."""

    def __init__(self, ports: CellPorts) -> None:
        self.ports = ports

    def elaborate(self, platform: object) -> Module:
        m, ports = Module(), self.ports
        active, shadow, used = (Signal(ports.weight.shape(), name=name) for name in ("active", "shadow", "used"))
        m.d.comb += used.eq(Mux(ports.swap, shadow, active))
        m.d.sync += [
            active.eq(used),
            ports.code_right.eq(ports.code),
            ports.swap_right.eq(ports.swap),
            ports.sum_below.eq(ports.sum_above + ports.code * used),
        ]
        with m.If(ports.load):
            m.d.sync += shadow.eq(ports.weight)
        return m
