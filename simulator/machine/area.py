"""Area of a machine by part, from synthesised standard cells and published memory cells (docs/codesign.md).

Every part is a few coefficients of an area table times counts of the machine: cells, lanes, banks, bits that pass. At
the sizes that were synthesised (8, 16, 32 lanes) parts are within 6 % and whole machines' logic within 3 % of
synthesis; banks and register stages in between are interpolated by the same counts, larger arrays are extrapolated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from simulator.base.errors import InputError
from simulator.machine.area_parts import PARTS, AreaPart
from simulator.machine.area_table import AreaTable
from simulator.machine.machine import Machine

_NARROW_BITS = 4  # of the narrow weights that cells were synthesised for


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

    Its parts are those of ``area_parts.PARTS`` that the machine has. Raises InputError for other widths than int8 with
    32-bit sums, and for narrow tiles of other than 4 bits: no cell was synthesised for them.
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
    if types.narrow_bits not in (0, _NARROW_BITS):
        raise InputError(
            f"machine '{machine.name}': field 'datatypes.narrow_bits'",
            f"cells for narrow weights of {types.narrow_bits} bits",
            f"area table '{table.name}' is of cells for narrow weights of {_NARROW_BITS} bits",
            "Ask for the area of such a machine.",
        )
    parts = {part.name: _area(part, machine, table) for part in PARTS if part.stands_on(machine)}
    (smallest, largest), sides = table.data.lanes, (machine.rows, machine.cols)
    return Area(parts, table.name, not smallest <= min(sides) <= max(sides) <= largest)


def _area(part: AreaPart, machine: Machine, table: AreaTable) -> Range:
    terms = [(table.entry(term.coefficient), term.count(machine)) for term in part.terms]
    return Range(*(sum(getattr(entry, key) * times for entry, times in terms) / 1e6 for key in ("um2", "low", "high")))
