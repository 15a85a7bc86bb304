"""Power that stands while a machine is on, whatever it works on: clock and control, logic's leakage, DRAM's background
and refresh (machine.md, C6). It is kept apart from the energy of counted events: a run takes its work + power x time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from simulator.machine.energy_table import EnergyTable, Quantity
from simulator.machine.machine import Machine
from simulator.machine.ranged import Ranged


def register_bits(machine: Machine) -> int:
    """Flip-flops that the clock reaches in every cycle: cells' two weights, activation and sum; two sums of each vector
    lane; the permutation network's stages.
    """
    types = machine.datatypes
    cell = 2 * types.weight_bits + types.activation_bits + types.accumulator_bits
    lanes = 2 * types.accumulator_bits * machine.vector.lanes
    memory = machine.rank_memory
    network = memory.banks * memory.network_cycles * (types.activation_bits + machine.leaving_sum_bits)
    return machine.rows * machine.cols * cell + lanes + (network if machine.scatter else 0)


def logic_mm2(machine: Machine, table: EnergyTable) -> Ranged:
    """Area of cells, requantisers and vector lanes with their float parts, from the energy table's own floorplan."""
    geometry = table.data.geometry
    pitch, lane, extra = (
        _ranged(entry) for entry in (geometry.cell_pitch_mm, geometry.lane_um2, geometry.float_lane_um2)
    )
    requantisers = machine.rank_memory.banks if machine.scatter else machine.group_size
    lanes = lane * (1e-6 * (requantisers + machine.vector.lanes)) + extra * (1e-6 * machine.vector.lanes)
    return pitch * pitch * (machine.rows * machine.cols) + lanes


def heat_factor(machine: Machine, table: EnergyTable) -> Ranged:
    """How much more leaks at the machine's temperature than at the table's."""
    kelvin = machine.energy.temperature_k
    warmer = kelvin - table.data.temperature_k if kelvin else 0
    doubling = table.data.leakage.doubling_k
    factors = sorted(2.0 ** (warmer / step) for step in (doubling.low, doubling.high))
    return Ranged(2.0 ** (warmer / doubling.value), factors[0], factors[1])


def _clock_and_control(machine: Machine, table: EnergyTable) -> Ranged:
    """The clock reaches every register; control's registers change in every cycle besides."""
    clock, share = _ranged(table.data.clock.register_bit), _ranged(table.data.clock.control_share)
    entry = table.data.op["register_bit"]
    changes = Ranged(entry.pj, entry.low, entry.high)
    return (clock + share * (clock + changes)) * (register_bits(machine) * machine.clock_ghz)


def _logic_leakage(machine: Machine, table: EnergyTable) -> Ranged:
    by_area = _ranged(table.data.leakage.logic_uw_per_mm2)
    return by_area * logic_mm2(machine, table) * heat_factor(machine, table) * 1e-3


def _dram_background(machine: Machine, table: EnergyTable) -> Ranged:
    return _ranged(table.dram(machine.dram.kind).background_mw_per_gb_s) * machine.dram.gb_per_s


def _dram_refresh(machine: Machine, table: EnergyTable) -> Ranged:
    return _ranged(table.dram(machine.dram.kind).refresh_mw_per_gb_s) * machine.dram.gb_per_s


Power = Callable[[Machine, EnergyTable], Ranged]

# Component -> its power in mW; in this order reports list them.
STANDING: dict[str, Power] = {
    "clock_and_control": _clock_and_control,
    "logic_leakage": _logic_leakage,
    "dram_background": _dram_background,
    "dram_refresh": _dram_refresh,
}


def standing_mw(machine: Machine, table: EnergyTable, components: Iterable[str] = STANDING) -> dict[str, Ranged]:
    """Milliwatts by component; a picojoule in a nanosecond is one."""
    return {name: STANDING[name](machine, table) for name in components}


def _ranged(entry: Quantity) -> Ranged:
    return Ranged(entry.value, entry.low, entry.high)
