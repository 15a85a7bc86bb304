"""The loader: unpacks a tile's weights row by row into the shadow registers (rule A2)."""

from __future__ import annotations

from amaranth.hdl import Elaboratable, Module, Mux, Shape, Signal, Value

from simulator.rtl.base.sizes import Sizes, index_bits
from simulator.rtl.units.tile_store import TableView, TileStore


class WeightLoader(Elaboratable):
    """``begin`` starts the preload of the tile in ``slot`` in this cycle; row p follows p cycles later.

    busy: a preload is going on (not in the cycle in which it begins). finishing: this cycle writes the last row.
    load_valid, load_row, load_weights: to the array.
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

    def elaborate(self, platform: object) -> Module:
        m = Module()
        sizes, view = self.sizes, self.store.loader
        slot = Signal.like(self.slot)
        row = Signal.like(self.load_row)
        pointer = Signal(32)
        here = Signal(32)
        m.d.comb += [
            view.slot.eq(Mux(self.begin, self.slot, slot)),
            self.load_row.eq(Mux(self.begin, 0, row)),
            here.eq(Mux(self.begin, self.slot * (sizes.slot_bytes * 8), pointer)),
            self.load_valid.eq(self.begin | self.busy),
            self.finishing.eq(self.load_valid & (self.load_row == sizes.rows - 1)),
            self.store.weight_address.eq(here >> 3),
        ]
        taken = self._unpack(m, view, here)
        with m.If(self.load_valid):
            m.d.sync += [
                slot.eq(view.slot),
                row.eq(self.load_row + 1),
                pointer.eq(here + taken * sizes.weight_bits),
                self.busy.eq(~self.finishing),
            ]
        return m

    def _unpack(self, m: Module, view: TableView, here: Signal) -> Value:
        """The row's weights, stored ones in their columns and zeros elsewhere; returns how many were stored."""
        sizes = self.sizes
        window = Signal(sizes.weight_banks * 8)
        m.d.comb += window.eq(self.store.weight_window >> here[:3])
        low, last, used = self._run_of_row(m, view)
        taken: Value = Signal(index_bits(sizes.cols + 1), name="taken_0")
        for q in range(sizes.cols):
            stored = Signal(name=f"stored_{q}")
            column = view.lanes[q]
            in_column = column.valid & (column.low <= self.load_row) & (self.load_row <= column.last)
            m.d.comb += stored.eq(Mux(view.by_column, in_column, used & (low <= q) & (last >= q)))
            weight = window.word_select(taken, sizes.weight_bits)
            m.d.comb += self.load_weights[q].eq(Mux(stored, weight, 0))
            following = Signal(index_bits(sizes.cols + 1), name=f"taken_{q + 1}")
            m.d.comb += following.eq(taken + stored)
            taken = following
        return taken

    def _run_of_row(self, m: Module, view: TableView) -> tuple[Signal, Signal, Signal]:
        """First and last column of a row of a tile that is loaded by rows, and whether the row has any."""
        low = Signal(8)
        last = Signal(8)
        used = Signal()
        with m.If(view.lists_ranks), m.Switch(self.load_row):
            for p in range(self.sizes.rows):
                with m.Case(p):
                    lane = view.lanes[p]
                    m.d.comb += [low.eq(lane.low), last.eq(lane.last), used.eq(lane.valid)]
        with m.Else():
            m.d.comb += [low.eq(0), last.eq(view.width - 1), used.eq(self.load_row < view.count)]
        return low, last, used
