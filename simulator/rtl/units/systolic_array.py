"""The P x Q weight-stationary array with shadow weights, its input skew and its output deskew (rules A1, A2, A5)."""

from __future__ import annotations

from amaranth.hdl import Elaboratable, Module, Shape, Signal

from simulator.rtl.base.sizes import Sizes, index_bits
from simulator.rtl.units.processing_element import CellPorts, ProcessingElement


def delayed(m: Module, value: Signal, cycles: int, name: str) -> Signal:
    """``value`` as it was ``cycles`` cycles ago."""
    for cycle in range(cycles):
        following = Signal(value.shape(), name=f"{name}_{cycle + 1}")
        m.d.sync += following.eq(value)
        value = following
    return value


class SystolicArray(Elaboratable):
    """A row of P codes enters all lanes at once and is skewed inside; its Q sums leave together P + Q - 1 cycles later.

    row_valid, row_codes: the entering row. swap: a tile starts, and its shadow weights become active as a wavefront
    ahead of its first row of codes. load_valid, load_row, load_weights: a row of shadow
    weights. sums_valid, sums: the leaving row, exact sums.
    ``cell_instances``: cells are instances of one Verilog module, exported beside this one; without, each is elaborated
    in place, which Amaranth's own simulator needs.
    """

    def __init__(self, sizes: Sizes, *, cell_instances: bool) -> None:
        self.sizes, self.cell_instances = sizes, cell_instances
        self.row_valid = Signal()
        self.swap = Signal()
        self.row_codes = [Signal(Shape(sizes.code_bits, signed=True), name=f"row_code_{p}") for p in range(sizes.rows)]
        self.load_valid = Signal()
        self.load_row = Signal(index_bits(sizes.rows))
        self.load_weights = [
            Signal(Shape(sizes.weight_bits, signed=True), name=f"load_weight_{q}") for q in range(sizes.cols)
        ]
        self.sums_valid = Signal()
        self.sums = [Signal(Shape(sizes.partial_bits, signed=True), name=f"sum_{q}") for q in range(sizes.cols)]

    def elaborate(self, platform: object) -> Module:
        m = Module()
        sizes = self.sizes
        columns = self._load_columns(m)
        swap = self.swap
        above: list[Signal | None] = [None] * sizes.cols
        for p in range(sizes.rows):
            code = delayed(m, self.row_codes[p], p, f"skew_{p}")
            if p:
                swap = delayed(m, swap, 1, f"swap_row_{p}")
            passing = swap
            for q in range(sizes.cols):
                cell = CellPorts(sizes.weight_bits, sizes.code_bits, sizes.partial_bits)
                m.submodules[f"pe_{p}_{q}"] = cell.instance() if self.cell_instances else ProcessingElement(cell)
                valid, row, weight = columns[q]
                m.d.comb += [
                    cell.code.eq(code),
                    cell.swap.eq(passing),
                    cell.load.eq(valid & (row == p)),
                    cell.weight.eq(weight),
                ]
                upper = above[q]
                if upper is not None:
                    m.d.comb += cell.sum_above.eq(upper)
                code, passing, above[q] = cell.code_right, cell.swap_right, cell.sum_below
        for q in range(sizes.cols):
            bottom = above[q]
            assert bottom is not None
            m.d.comb += self.sums[q].eq(delayed(m, bottom, sizes.cols - 1 - q, f"deskew_{q}"))
        m.d.comb += self.sums_valid.eq(delayed(m, self.row_valid, sizes.rows + sizes.cols - 1, "leaving"))
        return m

    def _load_columns(self, m: Module) -> list[tuple[Signal, Signal, Signal]]:
        """Shadow weights reach column q with q cycles of delay, behind the wavefront that frees them (rule A2)."""
        found = []
        valid, row = self.load_valid, self.load_row
        for q in range(self.sizes.cols):
            if q:
                valid, row = delayed(m, valid, 1, f"load_valid_{q}"), delayed(m, row, 1, f"load_row_{q}")
            found.append((valid, row, delayed(m, self.load_weights[q], q, f"load_weight_{q}")))
        return found
