"""The rank memory: banks of sums, written through the scatter side of the permutation network and read, requantised,
through its gather side (rules B1 to B3, A4, A5).
"""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Elaboratable, Module, Mux, Shape, Signal, Value
from amaranth.lib.memory import Memory, ReadPort

from simulator.base.arithmetic import ceil_div
from simulator.program.schedule import RANK_PARAMETER_BYTES
from simulator.rtl.base.requantiser import requantised, saturated
from simulator.rtl.base.sizes import Sizes, index_bits
from simulator.rtl.units.permutation_network import GatherNetwork, ScatterNetwork
from simulator.rtl.units.systolic_array import delayed
from simulator.rtl.units.tile_store import LaneEntry, TileStore


class RankMemory(Elaboratable):
    """Scatter: ``row_valid`` brings the ``sums`` of token ``row_token`` for the tile in ``row_slot``;
    ``row_last`` marks the tile's last row, and ``finished`` the cycle that writes its last sum.

    Gather: while ``gather_request``, rows of the tile in ``gather_slot`` (``gather_tokens`` rows, multipliers of
    ``gather_half``) are read ahead; ``gather_finished`` is the cycle that reads the last. ``offered``: the next part of
    a row has passed the network; ``take`` accepts it, and with the row's last part (``complete``) ``row_codes`` is the
    whole row.

    Fill: word i of ``fill_data`` is the multiplier of place ``fill_place`` + i, if that lies in 0 .. ``fill_end`` - 1.
    """

    def __init__(self, sizes: Sizes, store: TileStore) -> None:
        self.sizes, self.store = sizes, store
        slot_bits = index_bits(sizes.slots)
        self.row_valid = Signal()
        self.row_last = Signal()
        self.row_token = Signal(32)
        self.row_slot = Signal(slot_bits)
        self.sums = [Signal(Shape(sizes.leaving_bits, signed=True), name=f"leaving_{q}") for q in range(sizes.cols)]
        self.finished = Signal()
        self.gather_request = Signal()
        self.gather_half = Signal()
        self.gather_slot = Signal(slot_bits)
        self.gather_tokens = Signal(32)
        self.gather_finished = Signal()
        self.offered = Signal()
        self.take = Signal()
        self.complete = Signal()
        self.row_codes = [Signal(Shape(sizes.code_bits, signed=True), name=f"gathered_{p}") for p in range(sizes.rows)]
        self.fill_valid = Signal()
        self.fill_half = Signal()
        self.fill_place = Signal(Shape(33, signed=True))
        self.fill_end = Signal(32)
        self.fill_data = Signal(sizes.beat_bytes * 8)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        banks = [
            Memory(shape=self.sizes.sum_bits, depth=self.sizes.rank_rows, init=[]) for _ in range(self.sizes.banks)
        ]
        for b, bank in enumerate(banks):
            m.submodules[f"bank{b}"] = bank
        self._scatter(m, banks)
        self._gather(m, banks)
        return m

    # ---- scatter

    def _scatter(self, m: Module, banks: list[Memory]) -> None:
        sizes, view = self.sizes, self.store.scatter
        slot = Signal.like(self.row_slot)
        token = Signal.like(self.row_token)
        last = Signal()
        waiting = Signal(sizes.cols)  # lanes of the present row that no bank has served yet
        held = [Signal.like(value, name=f"held_{q}") for q, value in enumerate(self.sums)]
        lanes = view.lanes[: sizes.cols]
        pending = Signal(sizes.cols)
        granted = Signal(sizes.cols)
        token_now = Signal.like(token)
        last_now = Signal()
        m.d.comb += [
            view.slot.eq(Mux(self.row_valid, self.row_slot, slot)),
            token_now.eq(Mux(self.row_valid, self.row_token, token)),
            last_now.eq(Mux(self.row_valid, self.row_last, last)),
            pending.eq(Mux(self.row_valid, Cat(*(lane.valid for lane in lanes)), waiting)),
        ]
        self._grant(m, lanes, pending, granted)
        m.d.sync += [waiting.eq(pending & ~granted), slot.eq(view.slot), token.eq(token_now), last.eq(last_now)]
        values = []
        for q, (lane, fresh, old) in enumerate(zip(lanes, self.sums, held, strict=True)):
            value, row = Signal.like(fresh, name=f"scattered_{q}"), Signal.like(lane.row, name=f"scatter_row_{q}")
            m.d.comb += [value.eq(Mux(self.row_valid, fresh, old)), row.eq(lane.row + token_now)]
            m.d.sync += old.eq(value)
            values.append(Cat(value, row, lane.first))
        ending = Signal()
        m.d.comb += ending.eq(pending.any() & (pending == granted) & last_now)
        m.d.comb += self.finished.eq(delayed(m, ending, sizes.network_cycles, "ending"))
        arriving = self._to_banks(m, lanes, granted, values)
        for b, (bank, (valid, data)) in enumerate(zip(banks, arriving, strict=True)):
            self._add(m, bank, valid, data, f"rank_total_{b}")

    def _grant(self, m: Module, lanes: list[LaneEntry], pending: Signal, granted: Signal) -> None:
        """Of the pending lanes that name one bank, the first is served (rule B2); plain machines have no conflicts."""
        for j, lane in enumerate(lanes):
            before = [pending[i] & (lanes[i].bank == lane.bank) for i in range(j)] if self.sizes.machine.scatter else []
            m.d.comb += granted[j].eq(pending[j] & ~Cat(*before).any() if before else pending[j])

    def _to_banks(
        self, m: Module, lanes: list[LaneEntry], granted: Signal, values: list[Value]
    ) -> list[tuple[Value, Value]]:
        """What reaches each bank, ``network_cycles`` later."""
        sizes = self.sizes
        if not sizes.machine.scatter:
            found = []
            for b in range(sizes.banks):
                valid, data = Signal(name=f"to_bank_{b}_valid"), Signal(len(values[b]), name=f"to_bank_{b}_data")
                m.d.comb += [valid.eq(granted[b]), data.eq(values[b])]
                cycles = sizes.network_cycles
                found.append((delayed(m, valid, cycles, f"valid_{b}"), delayed(m, data, cycles, f"data_{b}")))
            return found
        network = ScatterNetwork(sizes.cols, sizes.places, len(values[0]), sizes.network_cycles)
        m.submodules.scatter_network = network
        for q, (lane, value) in enumerate(zip(lanes, values, strict=True)):
            m.d.comb += [network.valid[q].eq(granted[q]), network.bank[q].eq(lane.bank), network.data[q].eq(value)]
        return [(network.out_valid[b], network.out_data[b]) for b in range(sizes.banks)]

    def _add(self, m: Module, bank: Memory, valid: Value, data: Value, name: str) -> None:
        """Read, add (or overwrite), saturate and write in one cycle (rules B1, N2)."""
        sizes = self.sizes
        bits, row_bits = sizes.leaving_bits, index_bits(sizes.rank_rows)
        partial, row, first = data[:bits].as_signed(), data[bits : bits + row_bits], data[bits + row_bits]
        read, write = bank.read_port(domain="comb"), bank.write_port()
        old = Mux(first, 0, read.data.as_signed())
        m.d.comb += [
            read.addr.eq(row),
            write.addr.eq(row),
            write.data.eq(saturated(m, old + partial, sizes.sum_bits, name)),
            write.en.eq(valid),
        ]

    # ---- gather

    def _gather(self, m: Module, banks: list[Memory]) -> None:
        sizes, view = self.sizes, self.store.gather
        lanes = view.lanes[: sizes.rows]
        token = Signal(32)
        within = Signal()
        waiting = Signal(sizes.rows)
        pending = Signal(sizes.rows)
        granted = Signal(sizes.rows)
        accept = Signal()
        ending = Signal()
        m.d.comb += [
            view.slot.eq(self.gather_slot),
            pending.eq(Mux(within, waiting, Cat(*(lane.valid for lane in lanes)))),
            ending.eq(pending == granted),
            self.gather_finished.eq(self.gather_request & accept & ending & (token + 1 == self.gather_tokens)),
        ]
        self._grant(m, lanes, pending, granted)
        with m.If(self.gather_request & accept):
            m.d.sync += [within.eq(~ending), waiting.eq(pending & ~granted)]
            with m.If(ending):
                m.d.sync += token.eq(Mux(self.gather_finished, 0, token + 1))
        advance = self._pipeline_control(m, accept)
        codes = self._to_lanes(m, banks, lanes, granted, token, advance)
        masks = self._along_pipeline(m, Cat(granted, ending), advance, "gather_mask")
        self._assemble(m, codes, masks[: sizes.rows], masks[sizes.rows])

    def _pipeline_control(self, m: Module, accept: Signal) -> list[Value]:
        """An elastic pipeline: a stage loads when it is empty or the next one loads; the last one when it is taken."""
        stages = self.sizes.gather_stages
        if stages == 0:
            m.d.comb += [self.offered.eq(self.gather_request), accept.eq(self.take)]
            return []
        full = Signal(stages)
        advance: list[Value] = [Signal(name=f"advance_{i}") for i in range(stages)]
        for i in range(stages):
            onward = advance[i + 1] if i + 1 < stages else self.take
            entering = full[i - 1] if i else self.gather_request
            m.d.comb += advance[i].eq(~full[i] | onward)
            with m.If(advance[i]):
                m.d.sync += full[i].eq(entering)
        m.d.comb += [self.offered.eq(full[stages - 1]), accept.eq(advance[0])]
        return advance

    def _along_pipeline(self, m: Module, value: Value, advance: list[Value], name: str) -> Signal:
        current = Signal(len(value), name=name)
        m.d.comb += current.eq(value)
        for i, load in enumerate(advance):
            following = Signal(len(value), name=f"{name}_{i + 1}")
            with m.If(load):
                m.d.sync += following.eq(current)
            current = following
        return current

    def _to_lanes(
        self,
        m: Module,
        banks: list[Memory],
        lanes: list[LaneEntry],
        granted: Signal,
        token: Signal,
        advance: list[Value],
    ) -> list[Value]:
        """Sums of the granted lanes' ranks, requantised at their banks, then through the network to the lanes."""
        sizes = self.sizes
        early, late = advance[: sizes.requantise_cycles], advance[sizes.requantise_cycles :]
        codes = []
        for b, bank in enumerate(banks):
            table = self._multipliers(m, b)
            read = bank.read_port(domain="comb")
            slot, row = self._address(m, lanes, granted, b)
            m.d.comb += [read.addr.eq(row + token), table.addr.eq(Cat(slot, self.gather_half))]
            total = read.data.as_signed()
            codes.append(requantised(m, total, table.data, sizes.code_bits, early, f"bank{b}"))
        if not sizes.machine.scatter:
            own = [*codes, *[Const(0, sizes.code_bits)] * (sizes.rows - sizes.banks)]
            return [self._along_pipeline(m, code, late, f"own_{p}") for p, code in enumerate(own)]
        network = GatherNetwork(sizes.places, sizes.rows, sizes.code_bits, sizes.network_cycles)
        m.submodules.gather_network = network
        m.d.comb += [network.data[b].eq(code) for b, code in enumerate(codes)]
        for p, lane in enumerate(lanes):
            m.d.comb += network.bank[p].eq(self._along_pipeline(m, lane.bank, early, f"bank_of_{p}"))
        if late:
            m.d.comb += network.advance.eq(Cat(*late))
        return [network.out_data[p] for p in range(sizes.rows)]

    def _address(self, m: Module, lanes: list[LaneEntry], granted: Signal, b: int) -> tuple[Signal, Signal]:
        """Slot and row that bank b is asked for: those of the granted lane that names it."""
        sizes = self.sizes
        slot, row = Signal.like(lanes[0].slot, name=f"slot_{b}"), Signal.like(lanes[0].row, name=f"row_{b}")
        if not sizes.machine.scatter:
            if b < len(lanes):
                m.d.comb += [slot.eq(lanes[b].slot), row.eq(lanes[b].row)]
            return slot, row
        slots: Value = Const(0, len(slot))
        rows: Value = Const(0, len(row))
        for j, lane in enumerate(lanes):
            named = granted[j] & (lane.bank == b)
            slots, rows = slots | Mux(named, lane.slot, 0), rows | Mux(named, lane.row, 0)
        m.d.comb += [slot.eq(slots), row.eq(rows)]
        return slot, row

    def _multipliers(self, m: Module, b: int) -> ReadPort:
        """Bank b's column of the multiplier table, two halves, and the fill that writes it; returns its read port."""
        sizes = self.sizes
        slot_bits = index_bits(sizes.rank_slots)
        table = Memory(shape=8 * RANK_PARAMETER_BYTES, depth=2 << slot_bits, init=[])
        m.submodules[f"multipliers{b}"] = table
        words = sizes.beat_bytes // RANK_PARAMETER_BYTES
        for number in range(ceil_div(words, sizes.places)):
            write = table.write_port()
            index, place = (
                Signal(range(words + sizes.places), name=f"word_{b}_{number}"),
                Signal(Shape(34, signed=True)),
            )
            nearest = (b - self.fill_place)[: sizes.bank_bits]
            m.d.comb += [
                index.eq(nearest + number * sizes.places),
                place.eq(self.fill_place + index),
                write.addr.eq(Cat((place >> sizes.bank_bits)[:slot_bits], self.fill_half)),
                write.data.eq(self.fill_data.word_select(index, 8 * RANK_PARAMETER_BYTES)),
                write.en.eq(self.fill_valid & (index < words) & (place >= 0) & (place < self.fill_end)),
            ]
        return table.read_port(domain="comb")

    def _assemble(self, m: Module, codes: list[Value], mask: Value, ending: Value) -> None:
        """A row with bank conflicts arrives in parts; parts before the last wait here."""
        sizes = self.sizes
        m.d.comb += self.complete.eq(ending)
        for p in range(sizes.rows):
            part = Signal.like(self.row_codes[p], name=f"part_{p}")
            m.d.comb += self.row_codes[p].eq(Mux(mask[p], codes[p], part))
            with m.If(self.take):
                m.d.sync += part.eq(Mux(ending, 0, self.row_codes[p]))
