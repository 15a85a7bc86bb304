"""The weight buffer: tile records as they come from DRAM, split into descriptor, lane table and packed weights (rules
E4, M3).
"""

from __future__ import annotations

from collections.abc import Sequence

from amaranth.hdl import Cat, Const, Elaboratable, Module, Mux, Signal, Value
from amaranth.lib.memory import Memory

from simulator.machine.machine import MAX_COLUMN_SHIFT
from simulator.program.encoding import FIRST_BIT, NARROW_BYTE
from simulator.program.operations import COLUMN_OPS, MIX_OPS, RANK_OPS, SCATTER_OPS
from simulator.program.schedule import LANE_BYTES, RECORD_BYTES, SHIFT_BITS, shift_bytes
from simulator.rtl.base.instruction import is_any
from simulator.rtl.base.sizes import Sizes, index_bits
from simulator.rtl.units.banked_memory import BankedMemory


class LaneEntry:
    """A lane's line of the table: whether it is in use, its rank's place, and its run of stored weights."""

    def __init__(self, sizes: Sizes, name: str) -> None:
        self.valid = Signal(name=f"{name}_valid")
        self.first = Signal(name=f"{name}_first")
        self.bank = Signal(max(sizes.bank_bits, 1), name=f"{name}_bank")
        self.slot = Signal(index_bits(sizes.rank_slots), name=f"{name}_slot")
        self.row = Signal(index_bits(sizes.rank_rows), name=f"{name}_row")  # of its sum for a block's first token
        self.low = Signal(8, name=f"{name}_low")
        self.last = Signal(8, name=f"{name}_last")

    def packed(self) -> Value:
        return Cat(self.place(), self.low, self.last)

    def place(self) -> Value:
        """What a lane that writes a rank needs: its weights are with those that read."""
        return Cat(self.valid, self.first, self.bank, self.slot, self.row)


class TableView:
    """One reader's view of the tile in ``slot``: descriptor and all lanes, in the same cycle."""

    def __init__(self, sizes: Sizes, name: str) -> None:
        self.slot = Signal(index_bits(sizes.slots), name=f"{name}_slot")
        self.lists_ranks, self.by_column = Signal(name=f"{name}_lists_ranks"), Signal(name=f"{name}_by_column")
        self.width = Signal(9, name=f"{name}_width")  # of a DENSE tile's rows
        self.count = Signal(16, name=f"{name}_count")  # lanes
        self.narrow = Signal(name=f"{name}_narrow")
        self.lanes = [LaneEntry(sizes, f"{name}_lane{j}") for j in range(sizes.lanes)]


class TileStore(Elaboratable):
    """Filled a beat at a time, read by loader, gather and scatter units. Loader and gather unit see the lanes whose
    weights are stored, the scatter unit those that write ranks: all of a REDUCE, the last ones of a MIX. Without MIX
    tiles all three see the same lanes, of which there is one table.

    fill: bytes ``fill_beat * beat_bytes`` onward of the record for ``fill_slot`` are in ``fill_data``; ``fill_stride``
    token rows lie between the slots of a bank, of which there are ``fill_held``; the tile's are counted from
    ``fill_first``. weight_address, weight_window:
    ``weight_banks`` bytes of packed weights from any byte. shift_slot, shifts: what each column's sums of a tile are
    shifted by, where there are narrow tiles.
    """

    def __init__(self, sizes: Sizes) -> None:
        self.sizes = sizes
        self.fill_valid = Signal()
        self.fill_beat = Signal(32)
        self.fill_slot = Signal(index_bits(sizes.slots))
        self.fill_stride = Signal(16)
        self.fill_held = Signal(16)
        self.fill_first = Signal(16)
        self.fill_data = Signal(sizes.beat_bytes * 8)
        self.loader = TableView(sizes, "loader")
        self.gather = TableView(sizes, "gather")
        self.scatter = TableView(sizes, "scatter")
        self.shift_slot = Signal(index_bits(sizes.slots))
        self.shifts = [Signal(MAX_COLUMN_SHIFT.bit_length(), name=f"shift_{q}") for q in range(sizes.cols)]
        self.weights = BankedMemory(
            width=8,
            depth=sizes.slots * sizes.slot_bytes,
            banks=sizes.weight_banks,
            reads=[sizes.weight_banks],
            writes=[sizes.beat_bytes],
        )
        self.weight_address = self.weights.read_ports[0].address
        self.weight_window = self.weights.read_ports[0].data

    def elaborate(self, platform: object) -> Module:
        m = Module()
        kind, count, written, narrow = self._descriptor(m)
        self._fill_lanes(m, kind, count, written)
        if self.sizes.narrow_bits:
            self._fill_shifts(m, kind, count, narrow)
        self._fill_weights(m, kind, count, narrow)
        return m

    def _descriptor(self, m: Module) -> tuple[Signal, Signal, Signal, Value]:
        """Kind and lanes of the record that is arriving, how many of a MIX tile's lanes write ranks, and whether the
        tile is narrow; they come with its first beat.
        """
        kind = Signal(4)
        count = Signal(16)
        fields = [self.fill_data[:4], self.fill_data[8:16], self.fill_data[16:32]]
        if self.sizes.narrow_bits:
            fields.append(self.fill_data[8 * NARROW_BYTE])
        arriving = Cat(*fields)
        held = Signal(len(arriving))
        written = Signal(9)
        record = Mux(self.fill_beat == 0, arriving, held)
        m.d.comb += [
            kind.eq(record[:4]),
            count.eq(record[12:28]),
            written.eq(Mux(is_any(kind, self.sizes.known(MIX_OPS)), record[4:12] + 1, 0)),
        ]
        with m.If(self.fill_valid & (self.fill_beat == 0)):
            m.d.sync += held.eq(arriving)
        table = Memory(shape=len(arriving), depth=self.sizes.slots, init=[])
        m.submodules.descriptors = table
        write = table.write_port()
        m.d.comb += [
            write.addr.eq(self.fill_slot),
            write.data.eq(arriving),
            write.en.eq(self.fill_valid & (self.fill_beat == 0)),
        ]
        for view in (self.loader, self.gather, self.scatter):
            read = table.read_port(domain="comb")
            m.d.comb += [
                read.addr.eq(view.slot),
                view.lists_ranks.eq(is_any(read.data[:4], self.sizes.known(RANK_OPS))),
                view.by_column.eq(is_any(read.data[:4], COLUMN_OPS)),
                view.width.eq(read.data[4:12] + 1),
                view.count.eq(read.data[12:28]),
                view.narrow.eq(read.data[28:]),
            ]
        return kind, count, written, record[28:].any() if self.sizes.narrow_bits else Const(0)

    def _fill_lanes(self, m: Module, kind: Signal, count: Signal, written: Signal) -> None:
        """A lane's four bytes always come in the same beat and the same place of it, those of lanes that a MIX writes
        once the beat is turned by the number of lanes that it reads; a plain machine's lane is its bank.
        """
        sizes = self.sizes
        words = sizes.beat_bytes // LANE_BYTES
        groups = [self._group(m, f"group{n}", self.fill_data.word_select(n, 32)) for n in range(words)]
        reading = Signal(16)
        m.d.comb += reading.eq(count - written)
        for j in range(sizes.lanes):
            views = (self.loader, self.gather) if sizes.has_mix else (self.loader, self.gather, self.scatter)
            entry = LaneEntry(sizes, f"fill{j}")
            matched = self._source(m, groups, entry, j, kind, reading)
            self._keep(m, f"lane{j}", entry.packed(), matched, [(view, view.lanes[j].packed()) for view in views])
        if sizes.has_mix:
            self._fill_written(m, kind, count, written)

    def _fill_written(self, m: Module, kind: Signal, count: Signal, written: Signal) -> None:
        """Lanes that write ranks: behind those that a MIX reads, or the first of a REDUCE."""
        sizes = self.sizes
        words = sizes.beat_bytes // LANE_BYTES
        bits = (words - 1).bit_length()
        before = Signal(16)
        turned = Signal(8 * sizes.beat_bytes)
        mixes = is_any(kind, MIX_OPS)
        m.d.comb += [
            before.eq(Mux(mixes, count - written, 0)),
            turned.eq(Cat(self.fill_data, self.fill_data) >> before[:bits] * 8 * LANE_BYTES),
        ]
        groups = [self._group(m, f"turned{n}", turned.word_select(n, 32)) for n in range(words)]
        for q in range(sizes.cols):
            listed = RECORD_BYTES // LANE_BYTES + q
            entry, matched = LaneEntry(sizes, f"fill_written{q}"), Signal(name=f"matched_written_{q}")
            there = is_any(kind, SCATTER_OPS) & (Mux(mixes, written, count) > q)
            m.d.comb += matched.eq(there & (self.fill_beat == (before + listed) >> bits))
            with m.If(matched):
                m.d.comb += entry.place().eq(groups[listed % words].place())
            self._keep(m, f"written_lane{q}", entry.place(), matched, [(self.scatter, self.scatter.lanes[q].place())])

    def _keep(
        self, m: Module, name: str, line: Value, matched: Value, readers: Sequence[tuple[TableView, Value]]
    ) -> None:
        """A lane's memory: written where the beat says something of it, cleared by a record's first beat; each reader
        is a view and where its lane goes.
        """
        memory = Memory(shape=len(line), depth=self.sizes.slots, init=[])
        m.submodules[name] = memory
        write = memory.write_port()
        m.d.comb += [
            write.addr.eq(self.fill_slot),
            write.data.eq(line),
            write.en.eq(self.fill_valid & (matched | (self.fill_beat == 0))),
        ]
        for view, lane in readers:
            read = memory.read_port(domain="comb")
            m.d.comb += [read.addr.eq(view.slot), lane.eq(read.data)]

    def _group(self, m: Module, name: str, word: Value) -> LaneEntry:
        """The lane that four bytes of the beat would describe."""
        sizes = self.sizes
        entry = LaneEntry(sizes, name)
        place = word[:FIRST_BIT]
        within = Signal(16, name=f"{name}_slot_within")
        m.d.comb += [
            within.eq(entry.slot - self.fill_first),
            entry.valid.eq(1),
            entry.first.eq(word[FIRST_BIT]),
            entry.bank.eq(place[: sizes.bank_bits]),
            entry.slot.eq(place[sizes.bank_bits :]),
            entry.row.eq(Mux(within < self.fill_held, within, within - self.fill_held) * self.fill_stride),
            entry.low.eq(word[16:24]),
            entry.last.eq(word[24:32]),
        ]
        return entry

    def _source(
        self, m: Module, groups: list[LaneEntry], written: LaneEntry, j: int, kind: Signal, count: Signal
    ) -> Signal:
        """Put what this beat says of lane j into ``written``; returns whether it says anything."""
        sizes = self.sizes
        matched = Signal(name=f"matched_{j}")
        if sizes.machine.scatter:
            beat, place = divmod(RECORD_BYTES + LANE_BYTES * j, sizes.beat_bytes)
            there = (self.fill_beat == beat) & is_any(kind, sizes.known(RANK_OPS)) & (count > j)
            with m.If(there):
                m.d.comb += [matched.eq(1), written.packed().eq(groups[place // LANE_BYTES].packed())]
            return matched
        if j >= sizes.banks:
            return matched
        first = self.fill_beat * (sizes.beat_bytes // LANE_BYTES)
        for number, group in enumerate(groups):
            listed = first + number - RECORD_BYTES // LANE_BYTES  # position in the table, negative in the descriptor
            with m.If((listed >= 0) & (listed < count) & is_any(kind, sizes.known(RANK_OPS)) & (group.bank == j)):
                m.d.comb += [matched.eq(1), written.packed().eq(group.packed())]
        return matched

    def _fill_shifts(self, m: Module, kind: Signal, count: Signal, narrow: Value) -> None:
        """A column's shift stands behind the lanes, always in the same place of a beat once the beat is turned by them;
        a wide tile's are 0.
        """
        sizes = self.sizes
        words = sizes.beat_bytes // LANE_BYTES
        bits = (words - 1).bit_length()
        before = Signal(16)
        turned = Signal(8 * sizes.beat_bytes)
        m.d.comb += [
            before.eq(Mux(is_any(kind, sizes.known(RANK_OPS)), count, 0)),
            turned.eq(Cat(self.fill_data, self.fill_data) >> before[:bits] * 8 * LANE_BYTES),
        ]
        for q, shift in enumerate(self.shifts):
            word, place = divmod(q * SHIFT_BITS, 8 * LANE_BYTES)
            listed = RECORD_BYTES // LANE_BYTES + word
            memory = Memory(shape=len(shift), depth=sizes.slots, init=[])
            m.submodules[f"shift{q}"] = memory
            write, read = memory.write_port(), memory.read_port(domain="comb")
            matched = Signal(name=f"matched_shift_{q}")
            first = listed % words * 8 * LANE_BYTES + place
            m.d.comb += [
                matched.eq(narrow & (self.fill_beat == (before + listed) >> bits)),
                write.addr.eq(self.fill_slot),
                write.data.eq(Mux(matched, turned[first : first + len(shift)], 0)),
                write.en.eq(self.fill_valid & (matched | (self.fill_beat == 0))),
                read.addr.eq(self.shift_slot),
                shift.eq(read.data),
            ]

    def _fill_weights(self, m: Module, kind: Signal, count: Signal, narrow: Value) -> None:
        sizes = self.sizes
        m.submodules.weights = self.weights
        port = self.weights.write_ports[0]
        head = Signal(16)
        offset = Signal(32)
        m.d.comb += [
            head.eq(
                RECORD_BYTES
                + Mux(is_any(kind, sizes.known(RANK_OPS)), LANE_BYTES * count, 0)
                + (Mux(narrow, shift_bytes(sizes.machine), 0) if sizes.narrow_bits else 0)
            ),
            offset.eq(self.fill_beat * sizes.beat_bytes),
            port.address.eq(self.fill_slot * sizes.slot_bytes + offset - head),
            port.data.eq(self.fill_data),
        ]
        # The last beat's bytes behind the record must not reach into the next slot.
        for byte in range(sizes.beat_bytes):
            place = offset + byte
            m.d.comb += port.enable[byte].eq(self.fill_valid & (place >= head) & (place < head + sizes.slot_bytes))
