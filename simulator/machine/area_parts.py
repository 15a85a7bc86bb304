"""The parts of a machine that have an area, one entry a part: which coefficients of the area table, times what, and on
which machines. `area.py` sums them, `area_table.py` takes its entries from them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, get_args

from simulator.machine.machine import MEMORIES, Machine

_KIB_BITS = 8192

On = Literal["every machine", "scatter", "plain", "narrow"]
SECTIONS = ("logic", "memory")  # of the area table


@dataclass(frozen=True)
class Term:
    """``coefficient`` of the area table, "section.entry", times ``count(machine)``; ``times`` says of what."""

    coefficient: str
    times: str
    count: Callable[[Machine], float]


@dataclass(frozen=True)
class AreaPart:
    """A part. on: "scatter", machines with the permutation network alone; "plain", those without; "narrow", those with
    narrow tiles. Raises TypeError naming the part if something is missing.
    """

    name: str
    on: On
    terms: tuple[Term, ...]

    def __post_init__(self) -> None:
        rules = (
            (self.name.isidentifier(), "its name is an identifier"),
            (self.on in get_args(On), f"it is on one of {', '.join(get_args(On))}"),
            (bool(self.terms), "it has a coefficient or more"),
            (
                all(term.coefficient.partition(".")[0] in SECTIONS for term in self.terms),
                f"its coefficients are of the area table's sections {' and '.join(SECTIONS)}",
            ),
            (all(term.times for term in self.terms), "every term says what it counts"),
        )
        for met, rule in rules:
            if not met:
                raise TypeError(f"area part '{self.name}': {rule} (simulator/machine/area_parts.py)")

    def stands_on(self, machine: Machine) -> bool:
        """Whether the machine has this part."""
        if self.on == "narrow":
            return machine.datatypes.narrow_bits > 0
        return self.on == "every machine" or (self.on == "scatter") == machine.scatter


def _lanes(machine: Machine) -> int:
    return max(machine.rows, machine.cols)


def _banks(machine: Machine) -> int:
    return machine.rank_memory.banks if machine.scatter else machine.group_size


def _cells(machine: Machine) -> int:
    return machine.rows * machine.cols


def _bank_bits(machine: Machine) -> int:
    return (machine.multiplier_row - 1).bit_length()


def _scatter_word(machine: Machine) -> int:
    """Bits of an exact sum and a row of the bank."""
    return machine.partial_sum_bits + max((machine.rank_rows_per_bank - 1).bit_length(), 1) + 1


def _scatter_registers(machine: Machine) -> int:
    """Stages but the last hold a column's word, its flag and its bank; the last one a bank's word and flag."""
    cycles, word = machine.rank_memory.network_cycles, _scatter_word(machine)
    early = max(cycles - 1, 0) * machine.cols * (word + 1 + _bank_bits(machine))
    return early + min(cycles, 1) * machine.rank_memory.banks * (word + 1)


def _gather_registers(machine: Machine) -> int:
    """Stages but the first and the last hold a code of each bank and a bank's number for each row."""
    stage = machine.rank_memory.banks * machine.datatypes.activation_bits + machine.rows * _bank_bits(machine)
    return max(machine.rank_memory.network_cycles - 2, 0) * stage


def _memory(name: str, kib: Callable[[Machine], int]) -> AreaPart:
    return AreaPart(name, "every machine", (Term("memory.bit", "bits", lambda machine: kib(machine) * _KIB_BITS),))


def _memory_of_section(name: str) -> AreaPart:
    return _memory(name, lambda machine: getattr(machine, name).kib)


def _table(entries: Iterable[AreaPart]) -> tuple[AreaPart, ...]:
    parts = tuple(entries)
    for on in ("scatter", "plain"):
        names = [part.name for part in parts if part.on in ("every machine", "narrow", on)]
        for name in names:
            if names.count(name) > 1:
                raise TypeError(f"area part '{name}': two entries for one machine (simulator/machine/area_parts.py)")
    return parts


# In this order an area lists and sums them.
PARTS = _table(
    (
        AreaPart(
            "array", "every machine",
            (
                Term("logic.cell", "cells", _cells),
                Term(
                    "logic.cell_bit", "cells x bits that pass one",
                    lambda m: _cells(m) * (m.datatypes.activation_bits + m.partial_sum_bits),
                ),
            ),
        ),
        # Cells that take a part of their shadow weight, the loader's ways to fill it, and a shifter behind each column.
        AreaPart(
            "narrow_tiles", "narrow",
            (
                Term("logic.narrow_cell", "cells", _cells),
                Term("logic.column_shifter", "columns", lambda m: m.cols),
            ),
        ),
        # The rank memory's arbitration, addresses and adders, without network and requantisers.
        AreaPart(
            "control", "plain",
            (Term("logic.plain", "once", lambda m: 1), Term("logic.plain_lane", "lanes", _lanes)),
        ),
        AreaPart(
            "control", "scatter",
            (
                Term("logic.lane", "lanes", _lanes),
                Term("logic.lane_pair", "lanes x lanes", lambda m: _lanes(m) * _lanes(m)),
                Term("logic.bank", "banks", _banks),
                Term("logic.lane_bank", "lanes x banks", lambda m: _lanes(m) * _banks(m)),
            ),
        ),
        AreaPart("requantisers", "every machine", (Term("logic.requantiser", "banks in use", _banks),)),
        AreaPart("vector", "every machine", (Term("logic.vector_lane", "vector lanes", lambda m: m.vector.lanes),)),
        # A crossbar from columns to banks: a word is an exact sum, a row of the bank and a flag.
        AreaPart(
            "scatter_network", "scatter",
            (
                Term(
                    "logic.scatter_mux", "columns x banks x bits of a word",
                    lambda m: m.cols * m.rank_memory.banks * _scatter_word(m),
                ),
                Term("logic.scatter_register", "bits of its stages", _scatter_registers),
            ),
        ),
        # A crossbar of codes from banks to rows.
        AreaPart(
            "gather_network", "scatter",
            (
                Term(
                    "logic.gather_mux", "rows x banks x bits of a code",
                    lambda m: m.rows * m.rank_memory.banks * m.datatypes.activation_bits,
                ),
                Term("logic.gather_register", "bits of its inner stages", _gather_registers),
                Term(
                    "logic.gather_end_bit", "bits of its two end stages, half each",
                    lambda m: min(m.rank_memory.network_cycles, 2) / 2 * m.rows * m.datatypes.activation_bits,
                ),
            ),
        ),
        *(_memory_of_section(name) for name in MEMORIES),
        _memory("parameters", lambda m: m.vector.parameter_kib),
    )
)  # fmt: skip


def coefficients(section: str) -> dict[str, str]:
    """Entry of a section of the area table -> the first part that it belongs to."""
    found: dict[str, str] = {}
    for part in PARTS:
        for term in part.terms:
            of, _, entry = term.coefficient.partition(".")
            if of == section:
                found.setdefault(entry, part.name)
    return found
