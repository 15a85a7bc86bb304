"""Area of a machine by part, from synthesised standard cells and published memory cells (docs/codesign.md).

Every part is a few coefficients of an area table times counts of the machine: cells, lanes, banks, bits that pass. At
the sizes that were synthesised (8, 16, 32 lanes) parts are within 6 % and whole machines' logic within 3 % of
synthesis; banks and register stages in between are interpolated by the same counts, larger arrays are extrapolated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from simulator.base.errors import InputError
from simulator.machine.area_table import AreaEntry, AreaTable, Logic
from simulator.machine.machine import Machine

_KIB_BITS = 8192
_MEMORIES = ("scratchpad", "accumulator", "rank_memory", "weight_buffer")
NETWORK_PARTS = ("scatter_network", "gather_network")


@dataclass(frozen=True)
class Range:
    """An area and what it may be between, in mm2."""

    mm2: float
    low: float
    high: float


@dataclass(frozen=True)
class Area:
    """Areas by part; extrapolated: the array is larger or smaller than any that was synthesised."""

    parts: Mapping[str, Range]
    table: str
    extrapolated: bool

    @property
    def total(self) -> Range:
        return Range(*(sum(getattr(part, key) for part in self.parts.values()) for key in ("mm2", "low", "high")))


def area_mm2(machine: Machine, table: AreaTable | None = None) -> Area:
    """Area of ``machine`` by part, without DRAM, in the technology of ``table`` (cmos-180 if None).

    Parts: array, control, scatter_network and gather_network (none without scatter), requantisers, vector, and each
    memory. Raises InputError for other widths than int8 with 32-bit sums, for which no cell was synthesised.
    """
    table = table or AreaTable.load("cmos-180")
    types = machine.datatypes
    widths = types.weight_bits, types.activation_bits, types.accumulator_bits
    if widths != (8, 8, 32):
        raise InputError(
            f"machine '{machine.name}': field 'datatypes'",
            "{} bit weights, {} bit activations, {} bit sums".format(*widths),
            f"area table '{table.name}' is of 8, 8 and 32 bits",
            "Ask for the area of such a machine.",
        )
    logic, lanes = table.data.logic, max(machine.rows, machine.cols)
    banks = machine.rank_memory.banks if machine.scatter else machine.group_size
    parts = {
        "array": _sum(
            (logic.cell, machine.rows * machine.cols),
            (logic.cell_bit, machine.rows * machine.cols * (types.activation_bits + machine.partial_sum_bits)),
        ),
        "control": _control(machine, logic, lanes, banks),
        "requantisers": _sum((logic.requantiser, banks)),
        "vector": _sum((logic.vector_lane, machine.vector.lanes)),
    }
    if machine.scatter:
        parts["scatter_network"] = _scatter_network(machine, logic)
        parts["gather_network"] = _gather_network(machine, logic)
    for name in _MEMORIES:
        parts[name] = _sum((table.data.memory.bit, getattr(machine, name).kib * _KIB_BITS))
    parts["parameters"] = _sum((table.data.memory.bit, machine.vector.parameter_kib * _KIB_BITS))
    smallest, largest = table.data.lanes
    return Area(parts, table.name, not smallest <= min(machine.rows, machine.cols) <= lanes <= largest)


def _control(machine: Machine, logic: Logic, lanes: int, banks: int) -> Range:
    """The rank memory's arbitration, addresses and adders, without network and requantisers."""
    if not machine.scatter:
        return _sum((logic.plain, 1), (logic.plain_lane, lanes))
    return _sum(
        (logic.lane, lanes),
        (logic.lane_pair, lanes * lanes),
        (logic.bank, banks),
        (logic.lane_bank, lanes * banks),
    )


def _scatter_network(machine: Machine, logic: Logic) -> Range:
    """A crossbar from columns to banks: a word is an exact sum, a row of the bank and a flag."""
    lanes, banks, cycles = machine.cols, machine.rank_memory.banks, machine.rank_memory.network_cycles
    word = machine.partial_sum_bits + max((machine.rank_rows_per_bank - 1).bit_length(), 1) + 1
    early = max(cycles - 1, 0) * lanes * (word + 1 + _bank_bits(machine))
    return _sum(
        (logic.scatter_mux, lanes * banks * word), (logic.scatter_register, early + min(cycles, 1) * banks * (word + 1))
    )


def _gather_network(machine: Machine, logic: Logic) -> Range:
    """A crossbar of codes from banks to rows."""
    lanes, banks, cycles = machine.rows, machine.rank_memory.banks, machine.rank_memory.network_cycles
    bits = machine.datatypes.activation_bits
    stage = banks * bits + lanes * _bank_bits(machine)
    return _sum(
        (logic.gather_mux, lanes * banks * bits),
        (logic.gather_register, max(cycles - 2, 0) * stage),
        (logic.gather_end_bit, min(cycles, 2) / 2 * lanes * bits),
    )


def _bank_bits(machine: Machine) -> int:
    return (machine.multiplier_row - 1).bit_length()


def _sum(*terms: tuple[AreaEntry, float]) -> Range:
    return Range(*(sum(getattr(entry, key) * times for entry, times in terms) / 1e6 for key in ("um2", "low", "high")))
