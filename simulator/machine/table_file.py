"""Tables of physical figures: shipped with the package and named, or TOML files by path; validated and hashed."""

from __future__ import annotations

import hashlib
from collections.abc import Container
from functools import lru_cache
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated

from pydantic import Field

from simulator.base.errors import InputError
from simulator.base.schema import Model, parsed_toml, validated

# Sums of billions of the largest stay finite.
Amount = Annotated[float, Field(ge=0, le=1e15, allow_inf_nan=False)]


def check_entry(
    name: str, value: float, low: float, high: float, source: str, sources: Container[str], what: str = "value"
) -> None:
    """Raise ValueError, for a table's validator, unless low <= value <= high and the source is one of the table's."""
    if not low <= value <= high:
        raise ValueError(f"{name}: low <= {what} <= high does not hold ({low}, {value}, {high})")
    if source not in sources:
        raise ValueError(f"{name}: source '{source}' is not in [sources]")


def read_table(model: type[Model], kind: str, source: str | Path, remedy: str) -> tuple[Model, str]:
    """A shipped table by name or a TOML file by path, and the SHA-256 of its bytes.

    kind: "energy" or "area", whose folder of the package is looked into. InputError names file, field, value and rule;
    remedy: what to do about a name that does not exist.
    """
    shipped = shipped_tables(kind)
    if str(source) in shipped:
        return _read_shipped(model, kind, str(source))
    if not Path(source).is_file():
        raise InputError(
            f"{kind} table '{source}'",
            "no such table or file",
            f"a table is one of {', '.join(shipped)} or a TOML file",
            remedy,
        )
    return _read(model, kind, Path(source), str(source))


def _folder(kind: str) -> Traversable:
    return resources.files("simulator") / f"{kind}_tables"


@lru_cache
def shipped_tables(kind: str) -> tuple[str, ...]:
    """Names of the package's tables of a kind, "energy" or "area", sorted."""
    return tuple(sorted(f.name.removesuffix(".toml") for f in _folder(kind).iterdir() if f.name.endswith(".toml")))


@lru_cache
def _read_shipped(model: type[Model], kind: str, name: str) -> tuple[Model, str]:
    """A table of the package: it does not change under a running program, so it is read once."""
    return _read(model, kind, _folder(kind) / f"{name}.toml", name)


def _read(model: type[Model], kind: str, path: Traversable, source: str) -> tuple[Model, str]:
    raw, where = path.read_bytes(), f"{kind} table '{source}'"
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(
            where, f"a byte that is not UTF-8 ({error.reason})", "a table is UTF-8 text in TOML", "Save it as UTF-8."
        ) from error
    data = validated(
        model, parsed_toml(text, where, "a table"), where, f"Compare with the table {shipped_tables(kind)[0]}."
    )
    return data, hashlib.sha256(raw).hexdigest()
