"""TOML and JSON of the user's, parsed and held against a typed schema; whatever is wrong is one `InputError`."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from simulator.base.errors import InputError
from simulator.base.text import told

Model = TypeVar("Model", bound=BaseModel)
Tuple = TypeVar("Tuple", bound=tuple[Any, ...])
# A tuple of a strict schema: TOML and JSON have lists only. What is in it stays strict.
Listed = Annotated[Tuple, Field(strict=False)]


class Strict(BaseModel):
    """A part of a schema: immutable, no key besides its own, and no value of another type (a text for a number)."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, defer_build=True)


def parsed_toml(text: str, where: str, what: str) -> dict[str, Any]:
    """The document of a TOML text. Raises InputError at ``where`` if it is none; ``what`` it should be: "a machine"."""
    found: dict[str, Any] = _parsed(tomllib.loads, text, where, what, "TOML")
    return found


def parsed_json(text: str, where: str, what: str) -> Any:
    """The document of a JSON text. Raises InputError at ``where`` if it is none; ``what`` it should be."""
    return _parsed(json.loads, text, where, what, "JSON")


def _parsed(loads: Callable[[str], Any], text: str, where: str, what: str, language: str) -> Any:
    try:
        return loads(text)
    except (tomllib.TOMLDecodeError, json.JSONDecodeError) as error:
        found = f"text that is not {language} ({error})"
    except RecursionError:
        found = f"{language} that is nested too deeply"
    except ValueError:  # Python reads no integer of more than some thousands of digits
        found = f"{language} with a number of too many digits"
    raise InputError(where, found, f"{what} must parse as {language}", "Mend the line named, or write it anew.")


def validated(model: type[Model], data: object, where: str, remedy: str) -> Model:
    """``data`` as a ``model``. Raises InputError naming ``where``, the field, its value and the rule that it breaks; an
    unknown key comes first, since it is most often a misspelt one that is then missing, too.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        errors = error.errors(include_url=False, include_context=False)
    except RecursionError:
        raise InputError(where, "values that are nested too deeply", "its values are flat", remedy) from None
    first = min(errors, key=lambda e: e["type"] != "extra_forbidden")
    field = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        found, rule = f"unknown key with value {told(first['input'])}", f"no key '{field}' exists"
    elif first["type"] == "missing":
        found, rule = "nothing", f"the key '{field}' is required"
    else:
        together = first["type"] == "value_error" and isinstance(first["input"], (dict, BaseModel))
        found = "values that do not fit together" if together or not field else told(first["input"])
        rule = first["msg"].removeprefix("Value error, ")
    raise InputError(f"{where}: field '{field}'" if field else where, found, rule, remedy)
