"""The P x Q weight-stationary array with shadow weights, its input skew and its output deskew (rules A1, A2, A5)."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Elaboratable, Module, Mux, Shape, Signal, Value

from simulator.rtl.base.sizes import Sizes, index_bits
from simulator.rtl.units.processing_element import CellPorts, ProcessingElement, part_bits

_NEVER = Const(0)


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
    ahead of its first row of codes; swap_part: what of them, as a cell's ``part``. load_valid, load_row,
    load_weights: a row of shadow weights. load_narrow, load_part: it is of a narrow tile, for that part of the
    registers; a weight then holds its column's in ``narrow_rows`` successive rows (load_several), or one row's that
    often (rule A6). sums_valid, sums: the leaving row, exact sums.
    ``cell_instances``: cells are instances of one Verilog module, exported beside this one; without, each is elaborated
    in place, which Amaranth's own simulator needs.
    """

    def __init__(self, sizes: Sizes, *, cell_instances: bool) -> None:
        self.sizes, self.cell_instances = sizes, cell_instances
        self.row_valid = Signal()
        self.swap = Signal()
        self.swap_part = Signal(part_bits(sizes.narrow_rows))
        self.row_codes = [Signal(Shape(sizes.code_bits, signed=True), name=f"row_code_{p}") for p in range(sizes.rows)]
        self.load_valid = Signal()
        self.load_row = Signal(index_bits(sizes.rows))
        self.load_narrow, self.load_several = Signal(), Signal()
        self.load_part = Signal(index_bits(sizes.narrow_rows))
        self.load_weights = [
            Signal(Shape(sizes.weight_bits, signed=True), name=f"load_weight_{q}") for q in range(sizes.cols)
        ]
        self.sums_valid = Signal()
        self.sums = [Signal(Shape(sizes.partial_bits, signed=True), name=f"sum_{q}") for q in range(sizes.cols)]

    def elaborate(self, platform: object) -> Module:
        m = Module()
        sizes = self.sizes
        columns = self._load_columns(m)
        swap, part = self.swap, self.swap_part
        above: list[Signal | None] = [None] * sizes.cols
        for p in range(sizes.rows):
            code = delayed(m, self.row_codes[p], p, f"skew_{p}")
            if p:
                swap = delayed(m, swap, 1, f"swap_row_{p}")
                part = delayed(m, part, 1, f"swap_part_row_{p}") if sizes.narrow_bits else part
            passing, passing_part = swap, part
            for q in range(sizes.cols):
                cell = CellPorts(sizes.weight_bits, sizes.code_bits, sizes.partial_bits, sizes.narrow_rows)
                m.submodules[f"pe_{p}_{q}"] = cell.instance() if self.cell_instances else ProcessingElement(cell)
                load, weight = columns[q].of_row(p)
                m.d.comb += [
                    cell.code.eq(code),
                    cell.swap.eq(passing),
                    cell.load.eq(load),
                    cell.weight.eq(weight),
                ]
                upper = above[q]
                if upper is not None:
                    m.d.comb += cell.sum_above.eq(upper)
                if sizes.narrow_bits:
                    m.d.comb += cell.part.eq(passing_part)
                    passing_part = cell.part_right
                code, passing, above[q] = cell.code_right, cell.swap_right, cell.sum_below
        for q in range(sizes.cols):
            bottom = above[q]
            assert bottom is not None
            m.d.comb += self.sums[q].eq(delayed(m, bottom, sizes.cols - 1 - q, f"deskew_{q}"))
        m.d.comb += self.sums_valid.eq(delayed(m, self.row_valid, sizes.rows + sizes.cols - 1, "leaving"))
        return m

    def _load_columns(self, m: Module) -> list[_Load]:
        """Shadow weights reach column q with q cycles of delay, behind the wavefront that frees them (rule A2)."""
        found = []
        arriving = {"valid": self.load_valid, "row": self.load_row}
        if self.sizes.narrow_bits:
            arriving |= {"narrow": self.load_narrow, "several": self.load_several, "part": self.load_part}
        for q in range(self.sizes.cols):
            if q:
                arriving = {name: delayed(m, value, 1, f"load_{name}_{q}") for name, value in arriving.items()}
            weight = delayed(m, self.load_weights[q], q, f"load_weight_{q}")
            found.append(_Load(self.sizes, weight, **arriving))
        return found


class _Load:
    """Weights that arrive at a column."""

    def __init__(
        self,
        sizes: Sizes,
        weight: Signal,
        valid: Signal,
        row: Signal,
        narrow: Value = _NEVER,
        several: Value = _NEVER,
        part: Value = _NEVER,
    ) -> None:
        self.sizes, self.weight, self.valid, self.row = sizes, weight, valid, row
        self.narrow, self.several, self.part = narrow, several, part

    def of_row(self, p: int) -> tuple[Value, Value]:
        """What the cell of row p is to load, as its ``load`` and ``weight``."""
        parts, bits = self.sizes.narrow_rows, self.sizes.narrow_bits
        if parts == 1:
            return self.valid & (self.row == p), self.weight
        arrives = self.valid & Mux(self.several, self.row == p // parts * parts, self.row == p)
        load = Cat(arrives & (~self.narrow | (self.part == part)) for part in range(parts))
        return load, Mux(self.narrow, self.weight.word_select(p % parts, bits).replicate(parts), self.weight)
