"""The accelerator: the units of the manual wired together (docs/machine.md, section 1)."""

from __future__ import annotations

from amaranth.hdl import Cat, Elaboratable, Module, Mux, Signal

from simulator.program.encoding import COMPLETION_CLASSES, FIRST_SLOT_BIT
from simulator.program.operations import Place
from simulator.program.schedule import PARAMETER_BYTES
from simulator.rtl.base.instruction import COUNTERS, InstructionQueue
from simulator.rtl.base.requantiser import saturated
from simulator.rtl.base.sizes import Sizes, power_of_two
from simulator.rtl.units.banked_memory import BankedMemory
from simulator.rtl.units.dma import QUEUES, Dma
from simulator.rtl.units.rank_memory import RankMemory
from simulator.rtl.units.systolic_array import SystolicArray
from simulator.rtl.units.tile_sequencer import TileSequencer
from simulator.rtl.units.tile_store import TileStore
from simulator.rtl.units.vector_unit import VectorUnit
from simulator.rtl.units.weight_loader import WeightLoader


class Accelerator(Elaboratable):
    """Ports: a program memory for each sequencer (``queues``), the channel's handshake (``dma``), DRAM data
    (``dram_*``), completion counters (``completed``) and start pulses (``starts``).
    """

    def __init__(self, sizes: Sizes, *, cell_instances: bool) -> None:
        self.sizes = sizes
        machine = sizes.machine
        self.completed = {name: Signal(32, name=f"completed_{name}") for name in COUNTERS}
        self.dma = Dma(sizes, self.completed)
        self.store = TileStore(sizes)
        self.loader = WeightLoader(sizes, self.store)
        self.array = SystolicArray(sizes, cell_instances=cell_instances)
        self.ranks = RankMemory(sizes, self.store)
        self.tiles = TileSequencer(sizes, self.completed, self.loader, self.array, self.ranks)
        self.vector = VectorUnit(sizes)
        self.drains = InstructionQueue("vector")
        self.queues = [*self.dma.queues, self.tiles.queue, self.tiles.ahead, self.tiles.gathers, self.drains]
        beat, lanes = sizes.beat_bytes, machine.vector.lanes
        self.scratchpad = BankedMemory(
            width=8,
            depth=machine.scratchpad.size_bytes,
            banks=power_of_two(max(beat, sizes.rows, lanes)),
            reads=[sizes.rows, beat],
            writes=[beat, lanes],
        )
        self.accumulator = BankedMemory(
            width=sizes.sum_bits,
            depth=machine.accumulator_rows * sizes.cols,
            banks=power_of_two(max(sizes.cols, lanes)),
            reads=[sizes.cols, lanes],
            writes=[sizes.cols],
        )
        self.half_words = machine.parameter_half_bytes // 4
        self.parameters = BankedMemory(
            width=32,
            depth=2 * self.half_words,
            banks=power_of_two(max(beat // 4, 2 * sizes.cols)),
            reads=[2 * sizes.cols],
            writes=[beat // 4],
        )
        self.dram_read_address = Signal(32)
        self.dram_read_data = Signal(8 * beat)
        self.dram_write_address = Signal(32)
        self.dram_write_data = Signal(8 * beat)
        self.dram_write_enable = Signal(beat)
        self.starts = {name: Signal(name=f"start_{name}") for name in (*QUEUES, "array", "preload", "vector")}

    def ports(self) -> list[Signal]:
        """Every port but the channel's handshake."""
        return [
            *(signal for queue in self.queues for signal in (queue.pc, queue.length, queue.word)),
            self.dram_read_address,
            self.dram_read_data,
            self.dram_write_address,
            self.dram_write_data,
            self.dram_write_enable,
            *self.completed.values(),
            *self.starts.values(),
        ]

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.dma, m.submodules.tile_store, m.submodules.loader = self.dma, self.store, self.loader
        m.submodules.array, m.submodules.rank_memory, m.submodules.tiles = self.array, self.ranks, self.tiles
        m.submodules.vector, m.submodules.scratchpad = self.vector, self.scratchpad
        m.submodules.accumulator, m.submodules.parameters = self.accumulator, self.parameters
        m.d.comb += [
            self.array.load_valid.eq(self.loader.load_valid),
            self.array.load_row.eq(self.loader.load_row),
            self.array.load_narrow.eq(self.loader.load_narrow),
            self.array.load_several.eq(self.loader.load_several),
            self.array.load_part.eq(self.loader.load_part),
            *(port.eq(w) for port, w in zip(self.array.load_weights, self.loader.load_weights, strict=True)),
        ]
        self._move_data(m)
        self._fill_parameters(m)
        self._accumulate(m)
        self._drain(m)
        self._count(m)
        return m

    def _move_data(self, m: Module) -> None:
        """A transfer's beat between DRAM and scratchpad or weight buffer."""
        dma, store, beat = self.dma, self.store, self.sizes.beat_bytes
        present = dma.present
        fill, out = self.scratchpad.write_ports[0], self.scratchpad.read_ports[1]
        within = Signal(beat)
        left = present.field("dram_bytes") - dma.offset
        m.d.comb += [within[byte].eq(left > byte) for byte in range(beat)]
        m.d.comb += [
            self.dram_read_address.eq(present.field("dram_address") + dma.offset),
            self.dram_write_address.eq(self.dram_read_address),
            self.dram_write_data.eq(out.data),
            self.dram_write_enable.eq(Mux(dma.moves_into(Place.DRAM), within, 0)),
            out.address.eq(present.field("src") + dma.offset),
            fill.address.eq(present.field("dst") + dma.offset),
            fill.data.eq(self.dram_read_data),
            fill.enable.eq(Mux(dma.moves_into(Place.SCRATCHPAD), within, 0)),
            store.fill_valid.eq(dma.moves_into(Place.WEIGHT_BUFFER)),
            store.fill_beat.eq(dma.beat),
            store.fill_slot.eq(present.slot),
            store.fill_stride.eq(present.field("block_tokens")),
            store.fill_held.eq(present.field("held_slots")[:FIRST_SLOT_BIT]),
            store.fill_first.eq(present.field("held_slots")[FIRST_SLOT_BIT:]),
            store.fill_data.eq(self.dram_read_data),
        ]

    def _fill_parameters(self, m: Module) -> None:
        """Pairs of words for output channels, then the table of rank multipliers (rule E5)."""
        dma, present, ranks = self.dma, self.dma.present, self.ranks
        words = self.sizes.beat_bytes // 4
        port = self.parameters.write_ports[0]
        moves, pairs = dma.moves_into(Place.PARAMETERS), present.field("outputs") * (PARAMETER_BYTES // 4)
        word = Signal(32)
        m.d.comb += [
            word.eq(dma.beat * words),
            port.address.eq(Mux(present.half, self.half_words, 0) + word),
            port.data.eq(self.dram_read_data),
            *(port.enable[i].eq(moves & (word + i < pairs)) for i in range(words)),
            ranks.fill_valid.eq(moves),
            ranks.fill_half.eq(present.half),
            ranks.fill_place.eq(word - pairs),
            ranks.fill_end.eq((present.field("dram_bytes") >> 2) - pairs),
            ranks.fill_data.eq(self.dram_read_data),
        ]

    def _accumulate(self, m: Module) -> None:
        """Rows that leave the array are added to the accumulators, saturating (rule N2)."""
        sizes, tiles = self.sizes, self.tiles
        old, new = self.accumulator.read_ports[0], self.accumulator.write_ports[0]
        totals = []
        for q, fresh in enumerate(tiles.sums):
            before = old.data.word_select(q, sizes.sum_bits).as_signed()
            totals.append(saturated(m, Mux(tiles.sum_accumulate, before, 0) + fresh, sizes.sum_bits, f"total_{q}"))
        m.d.comb += [
            old.address.eq(tiles.sum_address),
            new.address.eq(tiles.sum_address),
            new.data.eq(Cat(*totals)),
            new.enable.eq(Mux(tiles.sum_valid, ~0, 0)),
            self.scratchpad.read_ports[0].address.eq(tiles.input_address),
            tiles.input_row.eq(self.scratchpad.read_ports[0].data),
        ]

    def _drain(self, m: Module) -> None:
        vector, queue, sizes = self.vector, self.drains, self.sizes
        begins = queue.seen(self.completed, "weights", "input", "array", "vector", "store") & ~vector.busy
        head, sums = queue.head, self.accumulator.read_ports[1]
        parameters, results = self.parameters.read_ports[0], self.scratchpad.write_ports[1]
        first = Mux(head.half, self.half_words, 0) + head.chunk * (sizes.cols * PARAMETER_BYTES // 4)
        m.d.comb += [
            vector.begin.eq(begins),
            vector.tokens.eq(head.field("tokens")),
            vector.source.eq(head.field("src") * sizes.cols),
            vector.target.eq(head.field("dst")),
            vector.accumulate.eq(head.accumulate),
            vector.parameter_address.eq(first),
            sums.address.eq(vector.sum_address),
            vector.sums.eq(sums.data),
            parameters.address.eq(vector.fetch_address),
            vector.parameters.eq(parameters.data),
            results.address.eq(vector.write_address),
            results.data.eq(vector.write_data),
            results.enable.eq(vector.write_enable),
        ]
        queue.advance(m, vector.begin)

    def _count(self, m: Module) -> None:
        """A completion is counted at the end of its last cycle: dependents see it in the next (rule Q2)."""
        dma, tiles = self.dma, self.tiles
        events = {
            **{name: dma.completes_one_of(COMPLETION_CLASSES[name]) for name in ("weights", "input", "store")},
            "reduce": self.ranks.finished,
            "sum": tiles.sum_completes,
            "vector": self.vector.finished,
        }
        for name, event in events.items():
            m.d.sync += self.completed[name].eq(self.completed[name] + event)
        for number, name in enumerate(QUEUES):
            m.d.comb += self.starts[name].eq(dma.begins[number])
        m.d.comb += [
            self.starts["array"].eq(tiles.begins),
            self.starts["preload"].eq(tiles.preload_begins),
            self.starts["vector"].eq(self.vector.begin),
        ]
