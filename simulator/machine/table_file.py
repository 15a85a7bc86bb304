"""Tables of physical figures: shipped with the package and named, or TOML files by path; validated and hashed."""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Container
from functools import lru_cache
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from simulator.base.errors import InputError

Model = TypeVar("Model", bound=BaseModel)
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Strict(BaseModel):
    """A part of a table: immutable, and an unknown field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


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
    shipped = _shipped_names(kind)
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
def _shipped_names(kind: str) -> tuple[str, ...]:
    return tuple(sorted(f.name.removesuffix(".toml") for f in _folder(kind).iterdir() if f.name.endswith(".toml")))


@lru_cache
def _read_shipped(model: type[Model], kind: str, name: str) -> tuple[Model, str]:
    """A table of the package: it does not change under a running program, so it is read once."""
    return _read(model, kind, _folder(kind) / f"{name}.toml", name)


def _read(model: type[Model], kind: str, path: Traversable, source: str) -> tuple[Model, str]:
    raw = path.read_bytes()
    try:
        data = model.model_validate(tomllib.loads(raw.decode("utf-8")))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(
            f"{kind} table '{source}'",
            f"text that is not TOML ({error})",
            "a table must parse as TOML",
            "Mend the line.",
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise InputError(
            f"{kind} table '{source}': field '{field}'",
            repr(first["input"])[:80],
            first["msg"],
            f"Compare with the table {_shipped_names(kind)[0]}.",
        ) from error
    return data, hashlib.sha256(raw).hexdigest()
