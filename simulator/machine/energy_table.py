"""A technology's energy table: picojoules per event with low, high and source, read from TOML and validated."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from simulator.base.errors import InputError
from simulator.base.schema import Listed, Strict
from simulator.machine.events import priced_entries
from simulator.machine.table_file import Amount, check_entry, read_table

_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]  # the grids are interpolated in logarithms
Grid = Listed[tuple[Listed[tuple[_Positive, ...]], ...]]


class _Sourced(Strict):
    source: str


class Entry(_Sourced):
    """Energy of one event, with the range that sources give."""

    pj: Amount
    low: Amount
    high: Amount


class Quantity(_Sourced):
    value: Amount
    low: Amount
    high: Amount


class DramEntry(_Sourced):
    pj_per_bit: Amount
    low: Amount
    high: Amount


class Geometry(Strict):
    cell_pitch_mm: Quantity
    wire_activity: Quantity


# What of a table's ``sram`` is no grid of figures.
_SRAM_AXES = ("size_kib", "word_bits")
_SRAM_SCALARS = ("source", "low_factor", "high_factor")


class Sram(_Sourced):
    """Grids indexed [size][word width]."""

    low_factor: Amount
    high_factor: Amount
    size_kib: Listed[tuple[_Positive, ...]]
    word_bits: Listed[tuple[_Positive, ...]]
    read_pj: Grid
    write_pj: Grid
    leak_uw: Grid

    @classmethod
    def grids(cls) -> list[str]:
        """Names of the grids."""
        return [name for name in cls.model_fields if name not in _SRAM_SCALARS and name not in _SRAM_AXES]

    @model_validator(mode="after")
    def _grids_are_full(self) -> Sram:
        for axis in (getattr(self, name) for name in _SRAM_AXES):
            if len(axis) < 2 or any(b <= a for a, b in pairwise(axis)):
                raise ValueError("size_kib and word_bits must rise and have two entries or more")
        for name in self.grids():
            grid = getattr(self, name)
            if len(grid) != len(self.size_kib) or any(len(row) != len(self.word_bits) for row in grid):
                raise ValueError(f"{name} must have {len(self.size_kib)} rows of {len(self.word_bits)} values")
        return self


class _Table(Strict):
    schema_version: Literal[1] = Field(alias="schema")
    name: str
    node_nm: int
    temperature_k: int
    status: str
    covers: Listed[tuple[str, ...]]
    excludes: Listed[tuple[str, ...]]
    sources: dict[str, str]
    op: dict[str, Entry]  # those that `events.py` names, no fewer and no more
    geometry: Geometry
    dram: dict[str, DramEntry]
    sram: Sram

    @model_validator(mode="after")
    def _ordered_and_sourced(self) -> _Table:
        entries: list[tuple[str, Entry | Quantity | DramEntry]] = [(f"op.{k}", v) for k, v in self.op.items()]
        entries += [(f"geometry.{k}", v) for k, v in self.geometry]
        entries += [(f"dram.{k}", v) for k, v in self.dram.items()]
        for name, entry in entries:
            value = (
                entry.pj
                if isinstance(entry, Entry)
                else entry.value
                if isinstance(entry, Quantity)
                else entry.pj_per_bit
            )
            check_entry(name, value, entry.low, entry.high, entry.source, self.sources)
        return self

    @model_validator(mode="after")
    def _every_entry_is_a_price(self) -> _Table:
        wanted = {name.removeprefix("op."): by for name, by in priced_entries().items() if name.startswith("op.")}
        for name, by in wanted.items():
            if name not in self.op:
                raise ValueError(f"op.{name}: no such entry, and it prices the {by}")
        for name in self.op:
            if name not in wanted:
                raise ValueError(f"op.{name}: the price of no event (simulator/machine/events.py)")
        return self


def _check_sections() -> None:
    """The entries that are no operations stand in the classes above; TypeError unless they are those that price."""
    there = {
        "dram",
        *(f"sram.{name}" for name in Sram.grids()),
        *(f"geometry.{name}" for name in Geometry.model_fields),
    }
    priced = {name: by for name, by in priced_entries().items() if not name.startswith("op.")}
    for name in sorted(there ^ set(priced)):
        missing = f"energy tables have no entry '{name}', which prices the {priced.get(name)}"
        raise TypeError(missing if name in priced else f"energy tables' entry '{name}' is the price of no event")


_check_sections()


@dataclass(frozen=True)
class SramEnergy:
    """Energy of one access to a macro, and its leakage."""

    read_pj: float
    write_pj: float
    leak_uw: float


@dataclass(frozen=True)
class EnergyTable:
    """A validated table and the SHA-256 of the file that it came from."""

    data: _Table
    sha256: str
    where: str

    @property
    def name(self) -> str:
        return self.data.name

    @staticmethod
    def load(source: str | Path) -> EnergyTable:
        """Read a shipped table by name or a TOML file by path; InputError names file, field, value and rule."""
        data, sha256 = read_table(_Table, "energy", source, "Mend 'energy.table'.")
        return EnergyTable(data, sha256, str(source))

    def dram(self, kind: str) -> DramEntry:
        """The entry of a DRAM kind; an unknown kind is an error, never free."""
        if kind not in self.data.dram:
            raise InputError(
                f"machine field 'dram.kind', energy table '{self.name}'",
                repr(kind),
                f"the table knows {', '.join(self.data.dram)}",
                "Use one of these, or add the kind to a table of your own.",
            )
        return self.data.dram[kind]

    def sram(self, memory: str, size_kib: float, word_bits: int) -> SramEnergy:
        """Access energies of a macro of ``size_kib`` moving ``word_bits``, log-bilinear inside the grid; outside it
        InputError.
        """
        grid = self.data.sram
        for label, value, axis in (
            ("kib / banks", size_kib, grid.size_kib),
            ("word_bits", float(word_bits), grid.word_bits),
        ):
            if not axis[0] <= value <= axis[-1]:
                raise InputError(
                    f"machine memory '{memory}': {label}",
                    f"{value:g}",
                    f"energy table '{self.name}' covers {axis[0]:g} to {axis[-1]:g} and is not extrapolated",
                    "Change the memory's size, banks or word width, or use a table that covers it.",
                )
        return SramEnergy(
            *(_log_bilinear(grid, table, size_kib, word_bits) for table in (grid.read_pj, grid.write_pj, grid.leak_uw))
        )


def _bracket(axis: tuple[float, ...], value: float) -> tuple[int, float]:
    low = max(i for i in range(len(axis) - 1) if axis[i] <= value or i == 0)
    return low, math.log(value / axis[low]) / math.log(axis[low + 1] / axis[low])


def _log_bilinear(grid: Sram, table: tuple[tuple[float, ...], ...], size_kib: float, word_bits: int) -> float:
    i, a = _bracket(grid.size_kib, size_kib)
    j, b = _bracket(grid.word_bits, word_bits)
    corners = ((i, j, (1 - a) * (1 - b)), (i, j + 1, (1 - a) * b), (i + 1, j, a * (1 - b)), (i + 1, j + 1, a * b))
    return math.exp(sum(weight * math.log(table[r][c]) for r, c, weight in corners if weight > 0))
