"""A machine as a chip: area at its energy table's node, peak, and what a multiply-accumulate takes without its DRAM."""

from __future__ import annotations

import math
from collections.abc import Mapping

from simulator.base.arithmetic import ceil_div
from simulator.machine.area import area_mm2
from simulator.machine.area_table import AreaTable
from simulator.machine.energy import EnergyModel, energy_model
from simulator.machine.energy_table import EnergyTable
from simulator.machine.machine import MEMORIES, Machine
from simulator.machine.ranged import Ranged

_DRAM = "dram"  # components of this name, and those that begin with it, are off the chip
TABLES = ("cmos-45", "cmos-22", "cmos-7")  # of the package; what a node between two of them takes follows from both


def chip_area_mm2(machine: Machine) -> dict[str, Ranged]:
    """Area by part at the node of the machine's energy table.

    Logic is the synthesised one of `area.py`, scaled so that a cell takes what it does in the energy table's floorplan;
    memories are that table's macros; lanes' float parts are its own. InputError for widths that no cell was synthesised
    for.
    """
    energy, synthesis = EnergyTable.load(machine.energy.table), AreaTable.load("cmos-180")
    geometry, synthesised = energy.data.geometry, area_mm2(machine, synthesis).parts
    pitch = Ranged(geometry.cell_pitch_mm.value, geometry.cell_pitch_mm.low, geometry.cell_pitch_mm.high)
    scale = pitch * pitch * (machine.rows * machine.cols / synthesised["array"].mm2)
    macros = {}
    for name in MEMORIES:
        memory = getattr(machine, name)
        macros[name] = memory.banks * energy.sram(name, memory.bank_kib, memory.word_bits).area_mm2
    # No word of the parameter memory is declared: it is taken to be as dense as the scratchpad.
    macros["parameters"] = macros["scratchpad"] * machine.vector.parameter_kib / machine.scratchpad.kib
    parts = {}
    for name, area in synthesised.items():
        parts[name] = Ranged(*3 * (macros[name],)) if name in macros else scale * area.mm2
    lane = geometry.float_lane_um2
    parts["float_lanes"] = Ranged(lane.value, lane.low, lane.high) * (1e-6 * machine.vector.lanes)
    return parts


def peak_tops(machine: Machine) -> float:
    """Tera-operations a second with every cell busy: a multiplication and an addition are two."""
    return 2e-3 * machine.rows * machine.cols * machine.clock_ghz


def peak_events(machine: Machine) -> dict[str, int]:
    """Events of a cycle in the middle of an endless dense tile: weights stay, rows come from the scratchpad, sums are
    added in the accumulators.
    """
    types, cells = machine.datatypes, machine.rows * machine.cols
    bits = cells * (types.activation_bits + types.accumulator_bits)
    sums = ceil_div(machine.cols * types.accumulator_bits, machine.accumulator.word_bits)
    return {
        "mac_active": cells,
        "register_bits": bits,
        "wire_bits": bits,
        "scratchpad_read": ceil_div(machine.rows * types.activation_bits, machine.scratchpad.word_bits),
        "accumulator_read": sums,
        "accumulator_write": sums,
    }


def pj_per_mac(model: EnergyModel, events: Mapping[str, int], cycles: int, macs: int) -> tuple[Ranged, Ranged]:
    """Picojoules a multiply-accumulate, standing power included: of the chip, and with its DRAM."""
    chip = whole = Ranged(0.0, 0.0, 0.0)
    for sums in (model.by_component(events, cycles), model.standing_by_component(cycles)):
        for component, ends in sums.items():
            whole = whole + Ranged(*ends)
            if not component.startswith(_DRAM):
                chip = chip + Ranged(*ends)
    return chip * (1 / macs), whole * (1 / macs)


def peak_pj_per_mac(machine: Machine) -> Ranged:
    """Of the chip at its peak."""
    return pj_per_mac(energy_model(machine), peak_events(machine), 1, machine.rows * machine.cols)[0]


def at_node(figures: Mapping[int, Ranged], node_nm: float) -> Ranged:
    """A figure at any node from those at a few: along logarithms of node and figure, beyond the ends straight on."""
    nodes = sorted(figures)
    above = next((i for i in range(1, len(nodes)) if node_nm <= nodes[i]), len(nodes) - 1)
    small, large = nodes[above - 1], nodes[above]
    share = math.log(node_nm / small) / math.log(large / small)
    ends = ("value", "low", "high")
    return Ranged(*(getattr(figures[small], e) ** (1 - share) * getattr(figures[large], e) ** share for e in ends))


def by_node(machine: Machine) -> dict[int, tuple[Machine, Ranged]]:
    """Node of each of the package's tables -> the machine priced by it, and the chip's peak figure."""
    found = {}
    for name in TABLES:
        priced = machine.with_(energy={"table": name})
        found[EnergyTable.load(name).data.node_nm] = (priced, peak_pj_per_mac(priced))
    return found
