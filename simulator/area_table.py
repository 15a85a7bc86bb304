"""A technology's area table: square micrometres of parts with low, high and source, read from TOML and validated."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from simulator.table_file import read_table

_Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class AreaEntry(_Strict):
    """Area of one unit of a part, and the range that it may have."""

    um2: _Amount
    low: _Amount
    high: _Amount
    source: str


class Logic(_Strict):
    """Coefficients of ``simulator.area``, which says what each is multiplied by."""

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


class MemoryArea(_Strict):
    bit: AreaEntry


class _Table(_Strict):
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
            if not entry.low <= entry.um2 <= entry.high:
                raise ValueError(f"{name}: low <= um2 <= high does not hold ({entry.low}, {entry.um2}, {entry.high})")
            if entry.source not in self.sources:
                raise ValueError(f"{name}: source '{entry.source}' is not in [sources]")
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
