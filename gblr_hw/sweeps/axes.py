"""What a sweep varies: fields of the machine and sizes of the run, each with its values, and the points they span."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from simulator import Machine
from simulator.base.errors import InputError

# What a point may set beside fields of the machine: the machine to start from, activation rows of each layer.
RUN_FIELDS = ("machine", "tokens")
_MOST_POINTS = 1_000_000
_WHOLE, _REAL = re.compile(r"[+-]?\d+"), re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")

Value = int | float | str | bool
Settings = Mapping[str, Value]


@dataclass(frozen=True)
class Axis:
    """Fields that change together, and the values that they take one after another.

    fields: "array.rows" and the like (section and field of a machine file, or a field outside the sections), "machine"
    or "tokens".
    """

    fields: tuple[str, ...]
    values: tuple[Value, ...]

    @classmethod
    def parse(cls, text: str) -> Axis:
        """Read ``FIELD[,FIELD]=VALUE[,VALUE]``. InputError for another form, an unknown field, a value given twice."""
        left, equals, right = text.partition("=")
        fields = tuple(one.strip() for one in left.split(","))
        values = tuple(_value(one.strip()) for one in right.split(","))
        if not equals or not all(fields) or "" in values:
            raise InputError(
                f"--set '{text}'", "no FIELD=VALUE,VALUE",
                "fields, an equals sign and values, with commas between them",
                "Write array.rows,array.cols=16,32.",
            )  # fmt: skip
        known = machine_fields()
        for field in fields:
            if field not in RUN_FIELDS and field not in known:
                near = [one for one in known if one.rpartition(".")[2] == field.rpartition(".")[2]]
                raise InputError(
                    f"--set '{text}'", f"no field '{field}'",
                    f"it is a field of a machine file or one of {', '.join(RUN_FIELDS)}",
                    f"Perhaps {' or '.join(near)}." if near else "`gblr-hw machine show mid-32` prints all of them.",
                )  # fmt: skip
        for what, found in (("field", fields), ("value", values)):
            if len(set(found)) < len(found):
                raise InputError(f"--set '{text}'", f"a {what} twice", f"each {what} is given once", "Leave one out.")
        return cls(fields, values)


def machine_fields() -> tuple[str, ...]:
    """Every field of a machine file that a sweep may set, as "section.field" or "field"."""
    found: list[str] = []
    for key, value in Machine.load("mid-32").to_dict().items():
        found += [f"{key}.{name}" for name in value] if isinstance(value, dict) else [key]
    return tuple(name for name in found if name not in ("schema_version", "name", "description"))


def points_of(axes: Sequence[Axis], sample: int | None = None, seed: int = 0) -> list[Settings]:
    """The product of the axes, the last one changing fastest; or `sample` points of it, drawn without replacement.

    Raises InputError for a field that two axes set, more than a million points, or a sample larger than the product.
    """
    fields = [field for axis in axes for field in axis.fields]
    for field in fields:
        if fields.count(field) > 1:
            raise InputError(f"--set {field}", "it twice", "each field is set once", "Put all its values into one.")
    count = int(np.prod([len(axis.values) for axis in axes], dtype=np.float64))
    if count > _MOST_POINTS and sample is None:
        raise InputError("--set", f"{count} points", f"at most {_MOST_POINTS:,} are run", "Draw some with --sample.")
    if sample is not None and not 1 <= sample <= count:
        raise InputError("--sample", str(sample), f"1 to the {count} points of the product", "Leave it out for all.")
    if sample is None:
        return [_settings(axes, values) for values in itertools.product(*(axis.values for axis in axes))]
    drawn = np.random.default_rng(seed).choice(count, sample, replace=False) if count < 2**31 else None
    if drawn is None:
        raise InputError("--set", f"{count} points", "a sample is drawn of fewer than two billion", "Set less.")
    sizes = [len(axis.values) for axis in axes]
    places = np.stack(np.unravel_index(np.sort(drawn), sizes), axis=1)
    return [_settings(axes, [axis.values[i] for axis, i in zip(axes, row, strict=True)]) for row in places]


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


def _settings(axes: Sequence[Axis], values: Sequence[Value]) -> Settings:
    return {field: value for axis, value in zip(axes, values, strict=True) for field in axis.fields}


def _value(text: str) -> Value:
    if text in ("true", "false"):
        return text == "true"
    if _WHOLE.fullmatch(text):
        return int(text)
    return float(text) if _REAL.fullmatch(text) else text
