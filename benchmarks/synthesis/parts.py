"""The parts of the accelerator that the synthesis benchmark measures, for one machine."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from unittest.mock import patch

from amaranth.back import verilog
from amaranth.hdl import ClockSignal, Elaboratable, Instance, Module, Shape, Signal, Value
from amaranth.lib.wiring import Component

from benchmarks.synthesis.switch_networks import BenesGather, BenesScatter, OmegaGather, OmegaScatter
from benchmarks.synthesis.tools import MemoryMacros, Part
from simulator.machine.machine import MAX_COLUMN_SHIFT, Machine
from simulator.rtl.base.instruction import COUNTERS
from simulator.rtl.base.requantiser import requantised
from simulator.rtl.base.sizes import Sizes, index_bits
from simulator.rtl.bench.verilog import cell_verilog
from simulator.rtl.units import rank_memory
from simulator.rtl.units.permutation_network import GatherNetwork, ScatterNetwork
from simulator.rtl.units.processing_element import CellPorts, ProcessingElement
from simulator.rtl.units.rank_memory import RankMemory
from simulator.rtl.units.systolic_array import SystolicArray
from simulator.rtl.units.tile_sequencer import TileSequencer
from simulator.rtl.units.tile_store import LaneEntry, TableView, TileStore
from simulator.rtl.units.weight_loader import WeightLoader

PRESETS = {8: "edge-16", 16: "edge-16", 32: "mid-32"}
SHORT_CYCLES = 2  # register stages that the networks need to be faster than the array
SCALE_BITS = 32  # a rank's multiplier and shift
SCATTER = {"crossbar": ScatterNetwork, "omega": OmegaScatter, "benes": BenesScatter}
GATHER = {"crossbar": GatherNetwork, "omega": OmegaGather, "benes": BenesGather}


def machine_of(side: int, *, banks: int, scatter: bool = True) -> Machine:
    """The preset of this size, square; 8 x 8 is edge-16 made smaller. A plain machine has no network to wait for."""
    preset = Machine.load(PRESETS[side])
    ranks = {"banks": banks, "network_cycles": preset.rank_memory.network_cycles if scatter else 0}
    array = {"rows": side, "cols": side, "scatter": scatter}
    return preset.with_(name=f"{side}x{side}", array=array, rank_memory=ranks)


def part_of(design: Elaboratable, more: Sequence[Signal] = (), beside: str = "") -> Part:
    """A part whose ports are the signals among the design's attributes, and ``more``; what it drives are outputs."""
    ports = list(more)
    for value in vars(design).values():
        ports += [v for v in (value if isinstance(value, list) else [value]) if isinstance(v, Signal)]
    text = verilog.convert(design, name="part", platform=MemoryMacros(), ports=ports, emit_src=False)
    driven = set(re.findall(r"^  output (?:\[\d+:0\] )?(\w+);", text.split("\nmodule part(")[1], re.MULTILINE))
    return Part(design, [p for p in ports if p.name not in driven], [p for p in ports if p.name in driven], beside)


def cell(machine: Machine) -> Part:
    """One processing element."""
    sizes = Sizes(machine)
    ports = CellPorts(sizes.weight_bits, sizes.code_bits, sizes.partial_bits, sizes.narrow_rows)
    return part_of(ProcessingElement(ports), ports.all())


def array(machine: Machine, *, flat: bool = False) -> Part:
    """P x Q cells with skew and deskew; not ``flat``: the cell is one module."""
    design = SystolicArray(Sizes(machine), cell_instances=not flat)
    return part_of(design, beside="" if flat else cell_verilog(machine))


class Requantiser(Elaboratable):
    """One requantiser by itself."""

    def __init__(self, machine: Machine) -> None:
        sizes = Sizes(machine)
        self.stages, self.code_bits = sizes.requantise_cycles, sizes.code_bits
        self.sum = Signal(Shape(sizes.sum_bits, signed=True))
        self.scale = Signal(SCALE_BITS)
        self.advance = Signal(max(self.stages, 1))
        self.code = Signal(sizes.code_bits)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        advance = list(self.advance)[: self.stages]
        m.d.comb += self.code.eq(requantised(m, self.sum, self.scale, self.code_bits, advance, "only"))
        return m


class ColumnShifter(Elaboratable):
    """What a column's sum of a narrow tile is shifted by on its way out of the array (machine.md, A6)."""

    def __init__(self, machine: Machine) -> None:
        bits = Sizes(machine).partial_bits
        self.sum = Signal(Shape(bits, signed=True))
        self.shift = Signal(range(MAX_COLUMN_SHIFT + 1))
        self.shifted = Signal(Shape(bits + MAX_COLUMN_SHIFT, signed=True))

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.d.comb += self.shifted.eq(self.sum << self.shift)
        return m


def requantiser(machine: Machine) -> Part:
    return part_of(Requantiser(machine))


def rank_control(machine: Machine) -> Part:
    """The rank memory without its macros and requantisers: lane tables come in, codes go out."""
    sizes = Sizes(machine)
    store = TileStore(sizes)
    views = (store.scatter, store.gather)
    tables = [
        v for view in views for lane in view.lanes for v in (lane.valid, lane.first, lane.bank, lane.slot, lane.row)
    ]
    with requantisers_left_out(registers=False):
        return part_of(
            RankMemory(sizes, store), [*tables, *(view.slot for view in views)], requantiser_black_box(machine)
        )


def tile_store(sizes: Sizes) -> Part:
    """What fills the weight buffer's memories and reads them, without these: records come in, tables go out."""
    store = TileStore(sizes)
    views = [signal for view in (store.loader, store.gather, store.scatter) for signal in _signals_of(view)]
    return part_of(store, [*views, store.weight_address, store.weight_window])


def _signals_of(view: TableView) -> list[Signal]:
    found = [value for value in vars(view).values() if isinstance(value, Signal)]
    return found + [value for lane in view.lanes for value in vars(lane).values()]


def tile_sequencer(sizes: Sizes) -> Part:
    """What drives tiles through loader, array and rank memory, whose signals are its ports."""
    completed = {name: Signal(32, name=f"completed_{name}") for name in COUNTERS}
    store = TileStore(sizes)
    loader, ranks = WeightLoader(sizes, store), RankMemory(sizes, store)
    array = SystolicArray(sizes, cell_instances=True)
    design = TileSequencer(sizes, completed, loader, array, ranks)
    ports = [*completed.values(), store.shift_slot]
    for queue in (design.queue, design.ahead, design.gathers):
        ports += [queue.pc, queue.length, queue.word]
    ports += [loader.busy, loader.begin, loader.slot, loader.loaded_part]
    ports += [array.row_valid, *array.row_codes, array.swap, array.swap_part, array.sums_valid, *array.sums]
    ports += [ranks.row_valid, ranks.row_last, ranks.row_token, ranks.row_slot, *ranks.sums]
    ports += [ranks.gather_request, ranks.gather_half, ranks.gather_slot, ranks.gather_tokens, ranks.gather_finished]
    ports += [ranks.offered, ranks.take, ranks.complete, *ranks.row_codes]
    return part_of(design, ports)


@contextmanager
def requantisers_left_out(*, registers: bool) -> Iterator[None]:
    """Inside, every requantiser of a rank memory is a black box, or (to time what is around it) its registers alone."""

    def black_box(m: Module, value: Value, scale: Value, bits: int, advance: list[Value], name: str) -> Signal:
        code = Signal(Shape(bits, signed=True), name=f"{name}_code")
        pins = {f"i_advance_{i}": load for i, load in enumerate(advance)}
        m.submodules += Instance(
            "macro_requantiser", i_clk=ClockSignal(), i_sum=value, i_scale=scale, o_code=code, **pins
        )
        return code

    def stages(m: Module, value: Value, scale: Value, bits: int, advance: list[Value], name: str) -> Signal:
        code = Signal(Shape(bits, signed=True), name=f"{name}_code")
        m.d.comb += code.eq(value ^ scale)
        for i, load in enumerate(advance):
            following = Signal(Shape(bits, signed=True), name=f"{name}_{i}")
            with m.If(load):
                m.d.sync += following.eq(code)
            code = following
        return code

    with patch.object(rank_memory, "requantised", stages if registers else black_box):
        yield


def requantiser_black_box(machine: Machine) -> str:
    """The module that ``requantisers_left_out`` has instances of."""
    sizes = Sizes(machine)
    advance = "".join(f"input advance_{i}, " for i in range(sizes.requantise_cycles))
    return (
        f"(* blackbox *) module macro_requantiser(input clk, input [{sizes.sum_bits - 1}:0] sum, "
        f"input [{SCALE_BITS - 1}:0] scale, {advance}output [{sizes.code_bits - 1}:0] code); endmodule\n"
    )


def scatter_bits(machine: Machine) -> int:
    """What a lane sends to a bank: an exact sum of the array, a row and whether it is the rank's first."""
    sizes = Sizes(machine)
    return sizes.partial_bits + index_bits(sizes.rank_rows) + 1


def scatter(machine: Machine, kind: str, cycles: int) -> Component:
    """A scatter network of this kind between the machine's lanes and banks."""
    return SCATTER[kind](machine.cols, machine.rank_memory.banks, scatter_bits(machine), cycles)


def gather(machine: Machine, kind: str, width: int, cycles: int) -> Component:
    return GATHER[kind](machine.rank_memory.banks, machine.rows, width, cycles)


# The units that MIX tiles make larger, each as it is and without them; no other unit's RTL knows of MIX.
MIX_UNITS = {"tile store": tile_store, "tile sequencer": tile_sequencer}
NO_MIX = ", no MIX tiles"
# Measured for themselves: the price of rank permutation is known without them.
OTHER_PARTS = (
    *("cell, narrow tiles", "array, narrow tiles", "column shifter"),
    *(name + what for name in MIX_UNITS for what in ("", NO_MIX)),
)


def lane_table_bytes(side: int) -> int:
    """Of the table of lanes that write ranks, which a machine with MIX tiles has beside that of all lanes."""
    sizes = Sizes(machine_of(side, banks=2 * side))
    return sizes.cols * sizes.slots * len(LaneEntry(sizes, "lane").place()) // 8


def parts_of(side: int) -> dict[str, Callable[[], Part]]:
    """Name -> maker of everything that is measured at this size."""
    built, some, few = (machine_of(side, banks=side * banks // 4) for banks in (8, 5, 4))
    plain = machine_of(side, banks=2 * side, scatter=False)
    cycles, bits = built.rank_memory.network_cycles, built.datatypes.activation_bits
    wide = built.datatypes.accumulator_bits + SCALE_BITS
    narrow = built.with_(datatypes={"narrow_bits": built.datatypes.weight_bits // 2})
    found: dict[str, Callable[[], Part]] = {
        "cell": lambda: cell(built),
        "array": lambda: array(built),
        "cell, narrow tiles": lambda: cell(narrow),
        "array, narrow tiles": lambda: array(narrow),
        "column shifter": lambda: part_of(ColumnShifter(narrow)),
        "requantiser": lambda: requantiser(built),
        "control, plain": lambda: rank_control(plain),
        f"control, {side} banks": lambda: rank_control(few),
        f"control, {side * 5 // 4} banks": lambda: rank_control(some),
        f"control, {2 * side} banks": lambda: rank_control(built),
    }
    if side == min(PRESETS):
        found["array, flat"] = lambda: array(built, flat=True)
    for unit, make in MIX_UNITS.items():
        found[unit] = lambda make=make: make(Sizes(built))
        found[unit + NO_MIX] = lambda make=make: make(Sizes(built, mix=False))
    for machine in (built, some, few):
        banks = machine.rank_memory.banks
        for kind in SCATTER if machine is built else ("crossbar",):
            for stages in (cycles, SHORT_CYCLES):
                name = f"{kind}, {banks} banks, {stages} cycles"
                found[f"scatter {name}"] = lambda m=machine, k=kind, c=stages: Part.of(scatter(m, k, c))
                found[f"gather {name}"] = lambda m=machine, k=kind, c=stages: Part.of(gather(m, k, bits, c))
            name = f"gather of sums {kind}, {banks} banks, {SHORT_CYCLES} cycles"
            found[name] = lambda m=machine, k=kind: Part.of(gather(m, k, wide, SHORT_CYCLES))
    return found
