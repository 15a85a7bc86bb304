"""A technology's area table: square micrometres of parts with low, high and source, read from TOML and validated."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from simulator.base.schema import Listed, Strict
from simulator.machine.area_parts import SECTIONS, coefficients
from simulator.machine.table_file import Amount, check_entry, read_table


class AreaEntry(Strict):
    """Area of one unit of a part, and the range that it may have."""

    um2: Amount
    low: Amount
    high: Amount
    source: str


class _Table(Strict):
    schema_version: Literal[1] = Field(alias="schema")
    name: str
    node_nm: int
    lanes: Listed[tuple[int, int]]
    status: str
    covers: Listed[tuple[str, ...]]
    excludes: Listed[tuple[str, ...]]
    sources: dict[str, str]
    # Coefficients: those that `area_parts.py` names, which says what each is multiplied by; no fewer and no more.
    logic: dict[str, AreaEntry]
    memory: dict[str, AreaEntry]

    @model_validator(mode="after")
    def _ordered_and_sourced(self) -> _Table:
        for section in SECTIONS:
            entries: dict[str, AreaEntry] = getattr(self, section)
            for name, entry in entries.items():
                check_entry(f"{section}.{name}", entry.um2, entry.low, entry.high, entry.source, self.sources, "um2")
            wanted = coefficients(section)
            for name, part in wanted.items():
                if name not in entries:
                    raise ValueError(f"{section}.{name}: no such entry, and part '{part}' has it")
            for name in entries:
                if name not in wanted:
                    raise ValueError(f"{section}.{name}: the coefficient of no part (simulator/machine/area_parts.py)")
        return self


@dataclass(frozen=True)
class AreaTable:
    """A validated table and the SHA-256 of the file that it came from."""

    data: _Table
    sha256: str

    @property
    def name(self) -> str:
        return self.data.name

    def entry(self, coefficient: str) -> AreaEntry:
        """A coefficient by its name in ``area_parts``, "section.entry"."""
        section, _, name = coefficient.partition(".")
        entries: dict[str, AreaEntry] = getattr(self.data, section)
        return entries[name]

    @staticmethod
    def load(source: str | Path) -> AreaTable:
        """Read a shipped table by name or a TOML file by path; InputError names file, field, value and rule."""
        return AreaTable(*read_table(_Table, "area", source, "Check the name."))
