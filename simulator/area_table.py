"""A technology's area table: square micrometres of parts with low, high and source, read from TOML and validated."""

from __future__ import annotations

import hashlib
import tomllib
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from simulator.errors import InputError

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
        folder = resources.files("simulator") / "area_tables"
        shipped = sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))
        if str(source) in shipped:
            return _shipped(str(source))
        if not Path(source).is_file():
            raise InputError(
                f"area table '{source}'",
                "no such table or file",
                f"a table is one of {', '.join(shipped)} or a TOML file",
                "Check the name.",
            )
        return _read(Path(source), str(source))


@lru_cache
def _shipped(name: str) -> AreaTable:
    return _read(resources.files("simulator") / "area_tables" / f"{name}.toml", name)


def _read(path: Traversable, source: str) -> AreaTable:
    raw = path.read_bytes()
    try:
        data = _Table.model_validate(tomllib.loads(raw.decode("utf-8")))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(
            f"area table '{source}'",
            f"text that is not TOML ({error})",
            "a table must parse as TOML",
            "Mend the line.",
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(
            f"area table '{source}': field '{'.'.join(str(part) for part in first['loc'])}'",
            repr(first["input"])[:80],
            first["msg"],
            "Compare with the table cmos-180.",
        ) from error
    return AreaTable(data, hashlib.sha256(raw).hexdigest())
