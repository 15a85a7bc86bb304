"""Energy of counted events on a machine, by component, with the range that the table's sources span (machine.md,
section 8).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import assert_never

from simulator.machine.energy_table import EnergyTable, SramEnergy
from simulator.machine.events import (
    EVENTS,
    LEAKAGE_COMPONENT,
    LEAKAGE_ENTRY,
    DramByte,
    Event,
    Free,
    MemoryAccess,
    Operations,
    Wire,
)
from simulator.machine.machine import MEMORIES, Machine, Memory
from simulator.machine.standing import heat_factor, standing_mw

Sums = dict[str, tuple[float, float, float]]
_MOST_MODELS = 64  # kept, so that a loop of simulations does not interpolate the table anew in each


@dataclass(frozen=True)
class EventCost:
    """Picojoules of one event, or of a cycle; the component it is reported under; the entry that its interval is of:
    costs of one entry move together.
    """

    component: str
    entry: str
    pj: float
    low: float
    high: float


@dataclass(frozen=True)
class EnergyModel:
    """Cost of every event of ``events.EVENTS``, leakage of memories per cycle, and what stands besides per cycle
    (``standing.py``), for one machine.
    """

    table: EnergyTable
    events: Mapping[str, tuple[EventCost, ...]]
    leakage: EventCost
    standing: tuple[EventCost, ...]

    def costs(self, counts: Mapping[str, int], cycles: int) -> list[tuple[EventCost, int]]:
        """Every cost of the work, with how often it is paid. An event without a cost is an error."""
        spent = [(cost, times) for event, times in counts.items() for cost in self.events[event]]
        return [*spent, (self.leakage, cycles)]

    def standing_by_component(self, cycles: int) -> Sums:
        """component -> (value, low, high) in pJ of what stands while the machine is on, whatever it works on."""
        return _summed([(cost, cycles) for cost in self.standing])

    def by_component(self, counts: Mapping[str, int], cycles: int) -> Sums:
        """component -> (value, low, high) in pJ of the work: these counts over this many cycles."""
        return _summed(self.costs(counts, cycles))


def _summed(spent: list[tuple[EventCost, int]]) -> Sums:
    sums: Sums = {}
    for cost, times in spent:
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
    events = {event.name: _costs(event, machine, table) for event in EVENTS.values()}
    leak_pj = 0.0
    for name in MEMORIES:
        memory, macro = _macro(name, machine, table)
        leak_pj += memory.banks * macro.leak_uw * 1e-3 / machine.clock_ghz  # uW x ns = fJ
    warmer = heat_factor(machine, table)
    leak = EventCost(
        LEAKAGE_COMPONENT,
        LEAKAGE_ENTRY,
        leak_pj * warmer.value,
        leak_pj * warmer.low,
        leak_pj * warmer.high * table.data.sram.leak_high_factor,
    )
    standing = tuple(
        EventCost(
            name, name, power.value / machine.clock_ghz, power.low / machine.clock_ghz, power.high / machine.clock_ghz
        )
        for name, power in standing_mw(machine, table).items()
    )
    return EnergyModel(table, events, leak, standing)


def _costs(event: Event, machine: Machine, table: EnergyTable) -> tuple[EventCost, ...]:
    """What one event costs, entry by entry of the table."""
    component, price, data = event.component, event.price, table.data
    match price:
        case Operations():
            entries = [(name, data.op[name]) for name in price.entries]
            return tuple(EventCost(component, f"op.{name}", entry.pj, entry.low, entry.high) for name, entry in entries)
        case Wire():
            bit, pitch, activity = data.op["wire_bit_mm"], data.geometry.cell_pitch_mm, data.geometry.wire_activity
            pitches = price.pitches(machine)
            value, low, high = (
                bit.pj * pitch.value * activity.value * pitches,
                bit.low * pitch.low * activity.low * pitches,
                bit.high * pitch.high * activity.high * pitches,
            )
            return (EventCost(component, "wires", value, low, high),)
        case DramByte():
            dram = table.dram(machine.dram.kind)
            return (EventCost(component, "dram", 8 * dram.pj_per_bit, 8 * dram.low, 8 * dram.high),)
        case MemoryAccess():
            _, macro = _macro(price.memory, machine, table)
            pj = {"read": macro.read_pj, "write": macro.write_pj}[price.way]
            return (EventCost(component, "sram", pj, pj * data.sram.low_factor, pj * data.sram.high_factor),)
        case Free():
            return ()
        case _:
            assert_never(price)


def _macro(name: str, machine: Machine, table: EnergyTable) -> tuple[Memory, SramEnergy]:
    memory: Memory = getattr(machine, name)
    return memory, table.sram(name, memory.bank_kib, memory.word_bits)
