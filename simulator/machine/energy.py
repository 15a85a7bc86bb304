"""Energy of counted events on a machine, by component, with the range that the table's sources span (machine.md,
section 8).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from simulator.machine.energy_table import EnergyTable
from simulator.machine.machine import Machine, Memory

_MEMORIES = ("scratchpad", "accumulator", "rank_memory", "weight_buffer")
_MOST_MODELS = 64  # kept, so that a loop of simulations does not interpolate the table anew in each


@dataclass(frozen=True)
class EventCost:
    """Picojoules of one event, and the component it is reported under."""

    component: str
    pj: float
    low: float
    high: float


@dataclass(frozen=True)
class EnergyModel:
    """Cost of every event of ``accesses.EVENTS``, and leakage per cycle, for one machine."""

    table: EnergyTable
    events: Mapping[str, tuple[EventCost, ...]]
    leakage: EventCost

    def by_component(self, counts: Mapping[str, int], cycles: int) -> dict[str, tuple[float, float, float]]:
        """component -> (value, low, high) in pJ for these counts over this many cycles. An event without a cost is an
        error.
        """
        sums: dict[str, tuple[float, float, float]] = {}
        spent = [(cost, times) for event, times in counts.items() for cost in self.events[event]]
        for cost, times in (*spent, (self.leakage, cycles)):
            value, low, high = sums.get(cost.component, (0.0, 0.0, 0.0))
            sums[cost.component] = (value + times * cost.pj, low + times * cost.low, high + times * cost.high)
        return sums


_MODELS: dict[tuple[Machine, str], EnergyModel] = {}


def energy_model(machine: Machine) -> EnergyModel:
    """Resolve a machine's events against its energy table. InputError when a memory lies outside the table's grid."""
    table = EnergyTable.load(machine.energy.table)
    key = (machine, table.sha256)
    if key not in _MODELS:
        while len(_MODELS) >= _MOST_MODELS:
            del _MODELS[next(iter(_MODELS))]
        _MODELS[key] = _resolved(machine, table)
    return _MODELS[key]


def _resolved(machine: Machine, table: EnergyTable) -> EnergyModel:
    op, geometry = table.data.op, table.data.geometry
    pitch, activity = geometry.cell_pitch_mm, geometry.wire_activity

    def wire(component: str, pitches: float) -> EventCost:
        return EventCost(
            component,
            op.wire_bit_mm.pj * pitch.value * activity.value * pitches,
            op.wire_bit_mm.low * pitch.low * activity.low * pitches,
            op.wire_bit_mm.high * pitch.high * activity.high * pitches,
        )

    def of(component: str, *names: str) -> tuple[EventCost, ...]:
        return tuple(EventCost(component, e.pj, e.low, e.high) for e in (getattr(op, name) for name in names))

    dram = table.dram(machine.dram.kind)
    per_byte = EventCost("dram", 8 * dram.pj_per_bit, 8 * dram.low, 8 * dram.high)
    events: dict[str, tuple[EventCost, ...]] = {
        "mac_active": of("multiply_add", "mul_i8", "add_i32"),
        # A zero operand holds multiplier and adder still; its registers and wires are counted as bits.
        "mac_padding": (),
        "register_bits": of("registers", "register_bit"),
        "wire_bits": (wire("wires", 1.0),),
        "network_bits": (wire("permutation_network", float(max(machine.rows, machine.cols))),),
        "requantise_ops": of("vector", "mul_i32"),
        "vector_ops": of("vector", "mul_i32", "add_i32"),
        "dram_read_bytes": (per_byte,),
        "dram_write_bytes": (per_byte,),
    }
    leak_pj = 0.0
    sram = table.data.sram
    for name in _MEMORIES:
        memory: Memory = getattr(machine, name)
        macro = table.sram(name, memory.bank_kib, memory.word_bits)
        for way, pj in (("read", macro.read_pj), ("write", macro.write_pj)):
            events[f"{name}_{way}"] = (EventCost(name, pj, pj * sram.low_factor, pj * sram.high_factor),)
        leak_pj += memory.banks * macro.leak_uw * 1e-3 / machine.clock_ghz  # uW x ns = fJ
    return EnergyModel(table, events, EventCost("sram_leakage", leak_pj, leak_pj, leak_pj))
