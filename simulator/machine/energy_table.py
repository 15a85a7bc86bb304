"""A technology's energy table: picojoules per event with low, high and source, read from TOML and validated."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
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
    """Of a kind of DRAM: a bit that is moved, and what stands while nothing is, for each GB/s of its bandwidth."""

    pj_per_bit: Amount
    low: Amount
    high: Amount
    background_mw_per_gb_s: Quantity
    refresh_mw_per_gb_s: Quantity


class Geometry(Strict):
    """Lengths and activity of wires; areas of a vector lane's integer and float parts."""

    cell_pitch_mm: Quantity
    wire_activity: Quantity
    lane_um2: Quantity
    float_lane_um2: Quantity


class Clock(Strict):
    """register_bit: pJ of clock pins and tree, each bit and cycle. control_share: control's registers over others."""

    register_bit: Quantity
    control_share: Quantity


class Leakage(Strict):
    """Of logic by area, at the table's temperature; kelvins over which it doubles, that of memories too."""

    logic_uw_per_mm2: Quantity
    doubling_k: Quantity


# Arithmetic by type and width beside what prices events: `machine show` prints it.
ARITHMETIC = ("mul_i4", "add_i8", "mul_f16", "add_f16", "mul_f32", "add_f32", "float_lane")
# Entries that give areas, and price nothing.
_AREAS = ("sram.area_mm2", "geometry.lane_um2", "geometry.float_lane_um2")
# What of a table's ``sram`` is no grid of figures.
_SRAM_AXES = ("size_kib", "word_bits")
_SRAM_SCALARS = ("source", "low_factor", "high_factor", "leak_high_factor")


class Sram(_Sourced):
    """Grids indexed [size][word width]."""

    low_factor: Annotated[float, Field(ge=0, le=1)]
    high_factor: Annotated[Amount, Field(ge=1)]
    leak_high_factor: Annotated[Amount, Field(ge=1)]
    size_kib: Listed[tuple[_Positive, ...]]
    word_bits: Listed[tuple[_Positive, ...]]
    read_pj: Grid
    write_pj: Grid
    leak_uw: Grid
    area_mm2: Grid

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
    arithmetic: dict[str, Entry]  # those of `ARITHMETIC`
    geometry: Geometry
    clock: Clock
    leakage: Leakage
    dram: dict[str, DramEntry]
    sram: Sram

    @model_validator(mode="after")
    def _ordered_and_sourced(self) -> _Table:
        entries: list[tuple[str, Entry | Quantity | DramEntry]] = []
        for section in ("op", "arithmetic", "dram"):
            entries += [(f"{section}.{name}", entry) for name, entry in getattr(self, section).items()]
        for section in ("geometry", "clock", "leakage"):
            entries += [(f"{section}.{name}", entry) for name, entry in getattr(self, section)]
        for kind, dram in self.dram.items():
            entries += [(f"dram.{kind}.{name}", getattr(dram, name)) for name in _STANDING_DRAM]
        for name, entry in entries:
            check_entry(name, _value(entry), entry.low, entry.high, entry.source, self.sources)
        if self.sram.source not in self.sources:
            raise ValueError(f"sram: source '{self.sram.source}' is not in [sources]")
        if set(self.arithmetic) != set(ARITHMETIC):
            wrong = min(set(self.arithmetic) ^ set(ARITHMETIC))
            raise ValueError(f"arithmetic.{wrong}: the entries are {', '.join(ARITHMETIC)}")
        if self.leakage.doubling_k.low <= 0:
            raise ValueError("leakage.doubling_k: it must be above 0")
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


_STANDING_DRAM = ("background_mw_per_gb_s", "refresh_mw_per_gb_s")


def _value(entry: Entry | Quantity | DramEntry) -> float:
    match entry:
        case Entry():
            return entry.pj
        case Quantity():
            return entry.value
        case DramEntry():
            return entry.pj_per_bit


def _check_sections() -> None:
    """The entries that are no operations stand in the classes above; TypeError unless they are those that price."""
    there = {
        "dram",
        *(f"sram.{name}" for name in Sram.grids()),
        *(f"geometry.{name}" for name in Geometry.model_fields),
    }
    there -= set(_AREAS)
    priced = {name: by for name, by in priced_entries().items() if not name.startswith("op.")}
    for name in sorted(there ^ set(priced)):
        missing = f"energy tables have no entry '{name}', which prices the {priced.get(name)}"
        raise TypeError(missing if name in priced else f"energy tables' entry '{name}' is the price of no event")


_check_sections()


@dataclass(frozen=True)
class SramEnergy:
    """Energy of one access to a macro, its leakage at the table's temperature, its area."""

    read_pj: float
    write_pj: float
    leak_uw: float
    area_mm2: float


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
    def load(source: str | Path, remedy: str = "Mend 'energy.table'.") -> EnergyTable:
        """Read a shipped table by name or a TOML file by path; InputError names file, field, value and rule."""
        data, sha256 = read_table(_Table, "energy", source, remedy)
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
            *(_log_bilinear(grid, getattr(grid, field.name), size_kib, word_bits) for field in fields(SramEnergy))
        )


def _bracket(axis: tuple[float, ...], value: float) -> tuple[int, float]:
    low = max(i for i in range(len(axis) - 1) if axis[i] <= value or i == 0)
    return low, math.log(value / axis[low]) / math.log(axis[low + 1] / axis[low])


def _log_bilinear(grid: Sram, table: tuple[tuple[float, ...], ...], size_kib: float, word_bits: int) -> float:
    i, a = _bracket(grid.size_kib, size_kib)
    j, b = _bracket(grid.word_bits, word_bits)
    corners = ((i, j, (1 - a) * (1 - b)), (i, j + 1, (1 - a) * b), (i + 1, j, a * (1 - b)), (i + 1, j + 1, a * b))
    return math.exp(sum(weight * math.log(table[r][c]) for r, c, weight in corners if weight > 0))
