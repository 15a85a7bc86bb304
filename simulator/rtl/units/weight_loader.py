"""The loader: unpacks a tile's weights row by row into the shadow registers, several rows of a narrow tile at a time
(rules A2, A6).
"""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Elaboratable, Module, Mux, Shape, Signal, Value

from simulator.rtl.base.sizes import Sizes, index_bits
from simulator.rtl.units.processing_element import part_bits
from simulator.rtl.units.tile_store import TableView, TileStore


class WeightLoader(Elaboratable):
    """``begin`` starts the preload of the tile in ``slot`` in this cycle; row p follows p cycles later, or p divided by
    ``narrow_rows`` of a narrow tile that follows no wide one.

    busy: a preload is going on (not in the cycle in which it begins). finishing: this cycle writes the last row.
    load_*: to the array. loaded_part: what of the shadow registers the tile that began last has, as a cell's ``part``.
    """

    def __init__(self, sizes: Sizes, store: TileStore) -> None:
        self.sizes, self.store = sizes, store
        self.begin = Signal()
        self.slot = Signal(index_bits(sizes.slots))
        self.busy = Signal()
        self.finishing = Signal()
        self.load_valid = Signal()
        self.load_row = Signal(index_bits(sizes.rows))
        self.load_weights = [
            Signal(Shape(sizes.weight_bits, signed=True), name=f"unpacked_{q}") for q in range(sizes.cols)
        ]
        self.load_narrow, self.load_several = Signal(), Signal()
        self.load_part = Signal(index_bits(sizes.narrow_rows))
        self.loaded_part = Signal(part_bits(sizes.narrow_rows))

    def elaborate(self, platform: object) -> Module:
        m = Module()
        sizes, view = self.sizes, self.store.loader
        step, bits = self._width(m, view)
        slot = Signal.like(self.slot)
        row = Signal.like(self.load_row)
        pointer = Signal(32)
        here = Signal(32)
        m.d.comb += [
            view.slot.eq(Mux(self.begin, self.slot, slot)),
            self.load_row.eq(Mux(self.begin, 0, row)),
            here.eq(Mux(self.begin, self.slot * (sizes.slot_bytes * 8), pointer)),
            self.load_valid.eq(self.begin | self.busy),
            self.finishing.eq(self.load_valid & (self.load_row + step >= sizes.rows)),
            self.store.weight_address.eq(here >> 3),
        ]
        taken = self._unpack(m, view, here)
        with m.If(self.load_valid):
            m.d.sync += [
                slot.eq(view.slot),
                row.eq(self.load_row + step),
                pointer.eq(here + taken * bits),
                self.busy.eq(~self.finishing),
            ]
        return m

    def _width(self, m: Module, view: TableView) -> tuple[Value, Value]:
        """Rows of a cycle and bits of a weight. Narrow tiles take the parts of the shadow registers in turn."""
        sizes = self.sizes
        if not sizes.narrow_bits:
            return Const(1), Const(sizes.weight_bits)
        part, following = Signal.like(self.load_part), Signal.like(self.load_part)
        after_wide, behind_wide = Signal(), Signal()
        wraps = part == sizes.narrow_rows - 1
        m.d.comb += [
            following.eq(Mux(wraps, 0, part + 1)),
            self.load_part.eq(Mux(self.begin, following, part)),
            self.load_narrow.eq(view.narrow),
            self.load_several.eq(view.narrow & ~Mux(self.begin, after_wide, behind_wide)),
        ]
        with m.If(self.begin):  # after_wide: the tile that began last was wide; behind_wide: the one before that
            m.d.sync += [after_wide.eq(~view.narrow), behind_wide.eq(after_wide)]
            m.d.sync += self.loaded_part.eq(Mux(view.narrow, following + 1, 0))
            with m.If(view.narrow):
                m.d.sync += part.eq(following)
        step = Mux(self.load_several, sizes.narrow_rows, 1)
        return step, Mux(view.narrow, sizes.narrow_bits, sizes.weight_bits)

    def _unpack(self, m: Module, view: TableView, here: Signal) -> Value:
        """The rows' weights, stored ones in their columns and zeros elsewhere; returns how many were stored."""
        sizes = self.sizes
        window = Signal(sizes.weight_banks * 8)
        m.d.comb += window.eq(self.store.weight_window >> here[:3])
        wide, none = self._unpack_row(m, view, window, Const(0, 1), 0, sizes.weight_bits)
        if not sizes.narrow_bits:
            m.d.comb += [port.eq(weight) for port, weight in zip(self.load_weights, wide, strict=True)]
            return none
        several, taken = self.load_several, Const(0, 1)
        rows, counts = [], []
        for offset in range(sizes.narrow_rows):
            row, taken = self._unpack_row(m, view, window, taken, offset, sizes.narrow_bits)
            rows.append(row)
            counts.append(taken)
        for q, port in enumerate(self.load_weights):
            narrow = Mux(several, Cat(row[q] for row in rows), rows[0][q].replicate(sizes.narrow_rows))
            m.d.comb += port.eq(Mux(view.narrow, narrow, wide[q]))
        return Mux(several, counts[-1], counts[0])

    def _unpack_row(
        self, m: Module, view: TableView, window: Signal, taken: Value, offset: int, bits: int
    ) -> tuple[list[Value], Value]:
        """Each column's weight, of so many ``bits``, in the row ``offset`` behind the present one, and how many weights
        of ``window`` are taken behind it.
        """
        sizes, name = self.sizes, f"{bits}_bits_{offset}"
        here = Signal(index_bits(sizes.rows + sizes.narrow_rows), name=f"row_{name}")
        m.d.comb += here.eq(self.load_row + offset)
        low, last, used = self._run_of_row(m, view, here, name)
        weights: list[Value] = []
        for q in range(sizes.cols):
            stored = Signal(name=f"stored_{name}_{q}")
            column = view.lanes[q]
            in_column = column.valid & (column.low <= here) & (here <= column.last)
            m.d.comb += stored.eq(Mux(view.by_column, in_column, used & (low <= q) & (last >= q)))
            weights.append(Mux(stored, window.word_select(taken, bits), Const(0, bits)))
            following = Signal(index_bits((offset + 1) * sizes.cols + 1), name=f"taken_{name}_{q + 1}")
            m.d.comb += following.eq(taken + stored)
            taken = following
        return weights, taken

    def _run_of_row(self, m: Module, view: TableView, row: Signal, name: str) -> tuple[Signal, Signal, Signal]:
        """First and last column of a row of a tile that is loaded by rows, and whether the row has any."""
        low = Signal(8, name=f"low_{name}")
        last = Signal(8, name=f"last_{name}")
        used = Signal(name=f"used_{name}")
        with m.If(view.lists_ranks), m.Switch(row):
            for p in range(self.sizes.rows):
                with m.Case(p):
                    lane = view.lanes[p]
                    m.d.comb += [low.eq(lane.low), last.eq(lane.last), used.eq(lane.valid)]
        with m.Else():
            m.d.comb += [low.eq(0), last.eq(view.width - 1), used.eq(row < view.count)]
        return low, last, used
