"""A technology's area table: square micrometres of parts with low, high and source, read from TOML and validated."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from simulator.machine.table_file import Amount, Strict, check_entry, read_table


class AreaEntry(Strict):
    """Area of one unit of a part, and the range that it may have."""

    um2: Amount
    low: Amount
    high: Amount
    source: str


class Logic(Strict):
    """Coefficients of ``simulator.machine.area``, which says what each is multiplied by."""

    cell: AreaEntry
    cell_bit: AreaEntry
    plain: AreaEntry
    plain_lane: AreaEntry
    lane: AreaEntry
    lane_pair: AreaEntry
    bank: AreaEntry
    lane_bank: AreaEntry
    scatter_mux: AreaEntry
    scatter_register: AreaEntry
    gather_mux: AreaEntry
    gather_register: AreaEntry
    gather_end_bit: AreaEntry
    requantiser: AreaEntry
    vector_lane: AreaEntry


class MemoryArea(Strict):
    bit: AreaEntry


class _Table(Strict):
    schema_version: Literal[1] = Field(alias="schema")
    name: str
    node_nm: int
    lanes: tuple[int, int]
    status: str
    covers: tuple[str, ...]
    excludes: tuple[str, ...]
    sources: dict[str, str]
    logic: Logic
    memory: MemoryArea

    @model_validator(mode="after")
    def _ordered_and_sourced(self) -> _Table:
        entries = [(f"logic.{name}", entry) for name, entry in self.logic] + [("memory.bit", self.memory.bit)]
        for name, entry in entries:
            check_entry(name, entry.um2, entry.low, entry.high, entry.source, self.sources, "um2")
        return self


@dataclass(frozen=True)
class AreaTable:
    """A validated table and the SHA-256 of the file that it came from."""

    data: _Table
    sha256: str

    @property
    def name(self) -> str:
        return self.data.name

    @staticmethod
    def load(source: str | Path) -> AreaTable:
        """Read a shipped table by name or a TOML file by path; InputError names file, field, value and rule."""
        return AreaTable(*read_table(_Table, "area", source, "Check the name."))
