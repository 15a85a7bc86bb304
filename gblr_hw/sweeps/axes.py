"""What a sweep varies: fields of the machine, the network, its structure and sizes of the run, each with its values."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gblr_hw.weights.family import converted, converted_whole, family_named
from simulator import Machine
from simulator.base.errors import InputError

_WHOLE, _REAL = re.compile(r"[+-]?\d+"), re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
DENSE = "dense"  # the family of a network as it is, which takes no budget

Value = int | float | str | bool | None
Settings = Mapping[str, Value]


@dataclass(frozen=True)
class Axis:
    """Fields that change together, and the values that they take one after another.

    fields: "array.rows" and the like (section and field of a machine file, or a field outside the sections), or keys of
    RUN_FIELDS.
    """

    fields: tuple[str, ...]
    values: tuple[Value, ...]

    @classmethod
    def parse(cls, text: str) -> Axis:
        """Read ``FIELD[,FIELD]=VALUE[,VALUE]``. InputError for another form, an unknown field, a value given twice."""
        left, equals, right = text.partition("=")
        values = [one.strip() for one in right.split(",")]
        if not equals or not all(one.strip() for one in left.split(",")) or "" in values:
            raise InputError(
                f"--set '{text}'", "no FIELD=VALUE,VALUE",
                "fields, an equals sign and values, with commas between them",
                "Write array.rows,array.cols=16,32.",
            )  # fmt: skip
        return cls.of(left, values, f"--set '{text}'")

    @classmethod
    def of(cls, names: str, texts: Sequence[str], where: str) -> Axis:
        """Fields with commas between them, and their values as text. InputError as `parse` has it, naming `where`."""
        fields = tuple(one.strip() for one in names.split(","))
        known = machine_fields()
        for field in fields:
            if field not in RUN_FIELDS and field not in known:
                near = [one for one in known if one.rpartition(".")[2] == field.rpartition(".")[2]]
                raise InputError(
                    where, f"no field '{field}'",
                    f"it is a field of a machine file or one of {', '.join(RUN_FIELDS)}",
                    f"Perhaps {' or '.join(near)}." if near else "`gblr-hw machine show mid-32` prints all of them.",
                )  # fmt: skip
        values = tuple(_value_of(fields, text, where) for text in texts)
        for what, found in (("field", fields), ("value", values)):
            if len(set(found)) < len(found):
                raise InputError(where, f"a {what} twice", f"each {what} is given once", "Leave one out.")
        return cls(fields, values)


def machine_fields() -> tuple[str, ...]:
    """Every field of a machine file that a sweep may set, as "section.field" or "field"."""
    found: list[str] = []
    for key, value in Machine.load("mid-32").to_dict().items():
        found += [f"{key}.{name}" for name in value] if isinstance(value, dict) else [key]
    return tuple(name for name in found if name not in ("schema_version", "name", "description"))


def machine_at(base: Machine, settings: Settings) -> Machine:
    """The machine of a point, validated. InputError for one that is none."""
    start = Machine.load(str(settings["machine"])) if "machine" in settings else base
    sections: dict[str, Any] = {}
    for field, value in settings.items():
        if field in RUN_FIELDS:
            continue
        section, dot, name = field.partition(".")
        if dot:
            sections.setdefault(section, {})[name] = value
        else:
            sections[section] = value
    return start.with_(**sections) if sections else start


def _value_of(fields: Sequence[str], text: str, where: str) -> Value:
    """What fields that change together take. InputError where they do not take the same."""
    first, *others = (RUN_FIELDS.get(field, _of_machine)(text, where) for field in fields)
    if any(other != first for other in others):
        rule = "fields that change together take the same values"
        raise InputError(where, f"'{text}' for {', '.join(fields)}", rule, "Give each a --set of its own.")
    return first


def _of_machine(text: str, where: str) -> Value:
    if text in ("true", "false"):
        return text == "true"
    if _WHOLE.fullmatch(text):
        return int(text)
    return float(text) if _REAL.fullmatch(text) else text


def _text(text: str, where: str) -> Value:
    return text


def _count(text: str, where: str) -> Value:
    if not _WHOLE.fullmatch(text) or int(text) < 1:
        raise InputError(where, f"'{text}'", "tokens and batches are whole numbers from 1", "Correct it.")
    return int(text)


def _family(text: str, where: str) -> Value:
    return family_named(text, (DENSE, *converted(), *converted_whole()), where).name


def _budget(text: str, where: str) -> Value:
    if not _REAL.fullmatch(text) or not 0 < float(text) <= 1:
        rule = "a budget is a fraction of the dense tiles, above 0 and at most 1"
        raise InputError(where, f"'{text}'", rule, "Write budget=0.3,0.5.")
    return float(text)


# What a point may set beside fields of the machine, and how each value is read: the machine to start from; activation
# rows of each layer, or tokens of a known network; its sequences or images at once; the network, as a checkpoint's file
# or a model's name; the family that its dense layers are converted to, and that family's fraction of the dense tiles.
RUN_FIELDS: Mapping[str, Callable[[str, str], Value]] = {
    "machine": _text,
    "tokens": _count,
    "checkpoint": _text,
    "model": _text,
    "batch": _count,
    "family": _family,
    "budget": _budget,
}
TEXT_FIELDS = ("machine", "checkpoint", "model", "family")
# Those that say which network it is.
NETWORK_FIELDS = ("checkpoint", "model", "batch", "tokens")
