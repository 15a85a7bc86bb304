"""Everything that is counted for energy, one entry an event: its unit, what it costs, where it is reported.

Counting (`simulator/timing/accesses.py`), pricing (`energy.py`), the energy table's entries (`energy_table.py`) and the
closed form (`gblr_hw/cost/event_counts.py`) follow from it. An entry that lacks one of them fails when it is imported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, get_args

from simulator.machine.machine import MEMORIES, Machine

Unit = Literal["operation", "bit", "word", "byte"]
UNITS: tuple[Unit, ...] = get_args(Unit)


@dataclass(frozen=True)
class Operations:
    """Each of these ``op`` entries of the energy table, once an event."""

    entries: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(f"op.{entry}" for entry in self.entries)


@dataclass(frozen=True)
class Wire:
    """A bit on a wire over ``pitches(machine)`` cells, toggling as often as wires do."""

    pitches: Callable[[Machine], float]

    @property
    def names(self) -> tuple[str, ...]:
        return "op.wire_bit_mm", "geometry.cell_pitch_mm", "geometry.wire_activity"


@dataclass(frozen=True)
class MemoryAccess:
    """An access to a macro of an on-chip memory, of the machine's size and word."""

    memory: str
    way: Literal["read", "write"]

    @property
    def names(self) -> tuple[str, ...]:
        return (f"sram.{self.way}_pj",)


@dataclass(frozen=True)
class DramByte:
    """The bits of a byte of the machine's kind of DRAM."""

    @property
    def names(self) -> tuple[str, ...]:
        return ("dram",)


@dataclass(frozen=True)
class Free:
    """Nothing, for a reason."""

    reason: str

    @property
    def names(self) -> tuple[str, ...]:
        return ()


Price = Operations | Wire | MemoryAccess | DramByte | Free

# Not an event, but what a cycle costs: each macro's leakage.
LEAKAGE_COMPONENT, LEAKAGE_ENTRY = "sram_leakage", "sram.leak_uw"


@dataclass(frozen=True)
class Event:
    """One counted event. component: what reports sum its energy up under. counted: how many there are, in words
    (machine.md, C2). Raises TypeError naming the event if something is missing.
    """

    name: str
    unit: Unit
    component: str
    price: Price
    counted: str

    def __post_init__(self) -> None:
        rules = (
            (self.name.isidentifier(), "its name is an identifier"),
            (self.unit in UNITS, f"its unit is one of {', '.join(UNITS)}"),
            (bool(self.component), "reports sum it up under a component"),
            (isinstance(self.price, Price), "it has a price, `Free` with a reason if it costs nothing"),
            (
                bool(getattr(self.price, "names", ())) != isinstance(self.price, Free),
                "its price has entries or is free",
            ),
            (bool(self.counted), "it says how many are counted"),
        )
        for met, rule in rules:
            if not met:
                raise TypeError(f"event '{self.name}': {rule} (simulator/machine/events.py)")


def _one_cell(machine: Machine) -> float:
    return 1.0


def _across(machine: Machine) -> float:
    return float(max(machine.rows, machine.cols))


def _access(memory: str, way: Literal["read", "write"], counted: str) -> Event:
    return Event(f"{memory}_{way}", "word", memory, MemoryAccess(memory, way), counted)


def _table(entries: Iterable[Event]) -> dict[str, Event]:
    found: dict[str, Event] = {}
    for event in entries:
        if event.name in found:
            raise TypeError(f"event '{event.name}': two entries (simulator/machine/events.py)")
        found[event.name] = event
    accesses = {
        (event.price.memory, event.price.way) for event in found.values() if isinstance(event.price, MemoryAccess)
    }
    wanted = {(memory, way) for memory in MEMORIES for way in ("read", "write")}
    if accesses != wanted:
        raise TypeError(
            f"events of memories: {sorted(accesses ^ wanted)} is not both an event and an access to a memory of the "
            "machine (simulator/machine/events.py)"
        )
    return found


# In this order reports list and sum them.
EVENTS = _table(
    (
        Event(
            "mac_active", "operation", "multiply_add", Operations(("mul_i8", "add_i32")),
            "rows x stored weights of each wide tile",
        ),
        Event(
            "mac_narrow", "operation", "multiply_add", Operations(("mul_i4_i8", "add_i32")),
            "rows x stored weights of each narrow tile",
        ),
        Event(
            "mac_gated", "operation", "multiply_add", Operations(("add_i32",)),
            "with zero_gating, rows x stored weights whose code is 0, which are then in none of the two above",
        ),
        Event(
            "mac_padding", "operation", "multiply_add",
            Free("a zero operand holds multiplier and adder still; registers and wires are counted as bits"),
            "rows x cells without a stored weight of each tile",
        ),
        Event(
            "register_bits", "bit", "registers", Operations(("register_bit",)),
            "an activation and a sum for each cell and row of a tile, a weight for each cell of a preload",
        ),
        Event("wire_bits", "bit", "wires", Wire(_one_cell), "as register_bits"),
        _access("scratchpad", "read", "rows of tiles and stores, operands of VECTORs, whatever their passes"),
        _access("scratchpad", "write", "rows of loaded inputs, drains and VECTORs' results"),
        _access("accumulator", "read", "rows that a tile adds to, or that a drain reads"),
        _access("accumulator", "write", "rows of tiles that add to accumulators"),
        _access("rank_memory", "read", "sums that are added to, or gathered, by a lane of a REDUCE, EXPAND or MIX"),
        _access("rank_memory", "write", "sums of lanes that write ranks"),
        Event(
            "network_bits", "bit", "permutation_network", Wire(_across),
            "exact sums on the way to the banks, codes on the way back, with scatter",
        ),
        _access("weight_buffer", "read", "stored weights of each tile that runs"),
        _access("weight_buffer", "write", "stored weights of each tile that is loaded"),
        Event("requantise_ops", "operation", "vector", Operations(("mul_i32",)), "sums that lanes gather"),
        Event(
            "vector_ops", "operation", "vector", Operations(("mul_i32", "add_i32")),
            "drained sums, and elements of a VECTOR's passes",
        ),
        Event("dram_read_bytes", "byte", "dram", DramByte(), "loads, in whole bursts"),
        Event("dram_write_bytes", "byte", "dram", DramByte(), "stores, in whole bursts"),
    )
)  # fmt: skip


STORED_MACS = ("mac_active", "mac_narrow", "mac_gated")  # of stored weights, whatever their codes
MACS = (*STORED_MACS, "mac_padding")  # all cells of all rows


def priced_entries(events: Iterable[Event] | None = None) -> dict[str, str]:
    """Entry of the energy table -> the first event, or the leakage, that it prices."""
    found = {LEAKAGE_ENTRY: "leakage"}
    for event in EVENTS.values() if events is None else events:
        for name in event.price.names:
            found.setdefault(name, f"event '{event.name}'")
    return found


def check_every_event(names: Iterable[str], where: str) -> None:
    """TypeError unless ``names`` are those of the events; ``where`` says what they are in."""
    names = set(names)
    for wrong, what in (
        (set(EVENTS) - names, "lacks"),
        (names - set(EVENTS), "has, and simulator/machine/events.py lacks,"),
    ):
        if wrong:
            raise TypeError(f"{where} {what} the event '{min(wrong)}'")
