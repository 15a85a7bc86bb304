"""Plain records of measured networks, and the JSON and CSV files that hold them."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from analysis.file_kinds import POINTS
from analysis.tables.qualities import QUALITIES
from simulator.base.errors import InputError
from simulator.base.files import read_text, replacing
from simulator.base.schema import parsed_json
from simulator.base.text import told

FORMAT = "gblr-hw network points"
VERSION = 1


@dataclass(frozen=True)
class NetworkPoint:
    """One trained network on one machine: a point of the latency-accuracy picture.

    ``accuracy`` is a fraction in [0, 1]; a network that has none, None there, has a ``perplexity`` or a ``loss``
    instead. ``multiplications`` are for one input, as the paper counts them; ``target`` is what training was asked for
    (``"0.4x-dense"``, empty without a target); ``events`` are the simulator's counts, which other prices can be put on.
    Raises ``InputError`` for impossible values.
    """

    name: str
    family: str
    accuracy: float | None
    multiplications: int
    machine: str
    latency_cycles: int
    latency_s: float
    energy_pj: float
    target: str = ""
    seed: int = 0
    tiles: int | None = None
    dram_bytes: int | None = None
    events: Mapping[str, int] | None = field(default=None, hash=False)
    perplexity: float | None = None
    loss: float | None = None

    @property
    def quality(self) -> str:
        """Which measure it has, a key of `analysis.tables.qualities.QUALITIES`."""
        return next(name for name in QUALITIES if getattr(self, name) is not None)

    @property
    def value(self) -> float:
        """What it measures."""
        return float(getattr(self, self.quality))

    def record(self) -> dict[str, Any]:
        """As files have it: the measure that it has, and none of the others."""
        found = {**asdict(self), "events": self.events and dict(self.events)}
        return {key: value for key, value in found.items() if key not in QUALITIES or value is not None}

    def __post_init__(self) -> None:
        where = f"network point {self.name!r}"
        for key in ("name", "family", "machine", "target"):
            text = getattr(self, key)
            if not isinstance(text, str) or (not text.strip() and key != "target"):
                _refuse(where, key, text, "must be a text that is not empty")
        for key in ("multiplications", "latency_cycles", "seed", "tiles", "dram_bytes"):
            count = getattr(self, key)
            optional = key in _OPTIONAL and count is None
            least = 1 if key == "latency_cycles" else 0
            whole = isinstance(count, int) and not isinstance(count, bool)
            if not optional and not (whole and least <= count < 2**63):
                _refuse(where, key, count, f"must be a whole number, {least} or more and below 2^63")
        if self.events is not None:
            self._check_events(where)
        measures = [name for name in QUALITIES if getattr(self, name) is not None]
        if len(measures) != 1:
            _refuse(
                where, "accuracy", " and ".join(measures) or None, f"is one of {', '.join(QUALITIES)}, and one only"
            )
        for key in (*measures, "latency_s", "energy_pj"):
            number = getattr(self, key)
            real = isinstance(number, (int, float)) and not isinstance(number, bool)
            if not real or not 0 <= number <= sys.float_info.max:  # which compares integers of any size
                _refuse(where, key, number, "must be a finite number, 0 or more")
        if self.accuracy is not None and self.accuracy > 1:
            _refuse(where, "accuracy", self.accuracy, "must be a fraction between 0 and 1")

    def _check_events(self, where: str) -> None:
        events = self.events
        if not isinstance(events, Mapping) or not all(
            isinstance(times, int) and not isinstance(times, bool) and 0 <= times < 2**63 for times in events.values()
        ):
            _refuse(where, "events", events, "must be whole numbers by name, 0 or more and below 2^63")


_OPTIONAL = ("tiles", "dram_bytes", "events", *QUALITIES)
_INTEGERS = ("multiplications", "latency_cycles", "seed", "tiles", "dram_bytes")
_REALS = ("latency_s", "energy_pj", *QUALITIES)
_NAMES = tuple(field.name for field in fields(NetworkPoint))
_REQUIRED = tuple(name for name in _NAMES[:8] if name not in QUALITIES)


def save_points(points: Iterable[NetworkPoint], path: str | Path) -> None:
    """Write ``points`` to ``path`` (``.json`` or ``.csv``), atomically; the same points give the same bytes."""
    rows = [point.record() for point in points]
    if POINTS.ending(path) == ".json":
        text = json.dumps({"format": FORMAT, "version": VERSION, "points": rows}, indent=2) + "\n"
    else:
        buffer = io.StringIO(newline="")
        present = [name for name in _NAMES if name not in QUALITIES or any(name in row for row in rows)]
        writer = csv.DictWriter(buffer, present, lineterminator="\n")
        writer.writeheader()
        # csv writes floats with repr, so they read back bit for bit.
        writer.writerows({**row, "events": _events_cell(row["events"])} for row in rows)
        text = buffer.getvalue()
    with replacing(path) as file:
        file.write(text.encode("utf-8"))


def load_points(path: str | Path) -> tuple[NetworkPoint, ...]:
    """Read the points that ``save_points`` wrote; raises ``InputError`` that names file, row, field, value and rule."""
    suffix = POINTS.ending(path)
    text = read_text(path)
    rows = _json_rows(text, path) if suffix == ".json" else _csv_rows(text, path)
    points = []
    for number, row in enumerate(rows, start=1):
        where = f"{path}: point {number}"
        _check_keys(row, where)
        try:
            points.append(NetworkPoint(**{"accuracy": None, **row}))
        except InputError as error:
            raise InputError(f"{where}: {error.where}", error.value, error.rule, error.remedy) from error
    return tuple(points)


def _json_rows(text: str, path: str | Path) -> list[dict]:
    document = parsed_json(text, str(path), "a file of network points")
    if not isinstance(document, dict) or document.get("format") != FORMAT or document.get("version") != VERSION:
        found = (
            {k: document.get(k) for k in ("format", "version")}
            if isinstance(document, dict)
            else type(document).__name__
        )
        raise InputError(
            str(path),
            repr(found),
            f"the file must have format {FORMAT!r} and version {VERSION}",
            "Give a file of network points.",
        )
    rows = document.get("points")
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise InputError(
            str(path), "no list of objects", "'points' must be a list of objects", "Give a file of network points."
        )
    return rows


def _csv_rows(text: str, path: str | Path) -> list[dict]:
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        raw_rows = list(reader)
    except csv.Error as error:
        raise InputError(str(path), f"broken CSV ({error})", "the file must be CSV", "Write it anew.") from error
    if reader.fieldnames is None:
        raise InputError(str(path), "an empty file", "the first line must name the columns", "Write it anew.")
    rows = []
    for number, raw in enumerate(raw_rows, start=1):
        where = f"{path}: point {number}"
        if None in raw or None in raw.values():
            cells = sum(value is not None for value in raw.values()) + (len(raw[None]) - 1 if None in raw else 0)
            raise InputError(
                where,
                f"{cells} cells",
                f"every row must have the header's {len(reader.fieldnames)} cells",
                "Complete the row.",
            )
        rows.append({key: _from_cell(key, cell, where) for key, cell in raw.items()})
    return rows


def _events_cell(events: Mapping[str, int] | None) -> str:
    return "" if events is None else json.dumps(events)


def _from_cell(key: str, cell: str, where: str) -> object:
    if cell == "" and key in _OPTIONAL:
        return None
    if key == "events":
        return parsed_json(cell, f"{where}, field 'events'", "a cell of counts")
    convert = int if key in _INTEGERS else float if key in _REALS else str
    try:
        return convert(cell)
    except ValueError:
        kind = "a whole number" if convert is int else "a number"
        raise InputError(f"{where}, field {key!r}", repr(cell), f"it must be {kind}", "Correct the cell.") from None


def _check_keys(row: Mapping[str, object], where: str) -> None:
    unknown = sorted(set(row) - set(_NAMES))
    missing = [key for key in _REQUIRED if key not in row]
    if unknown or missing:
        found = f"unknown field {unknown[0]!r}" if unknown else f"no field {missing[0]!r}"
        raise InputError(where, found, f"the fields are {', '.join(_NAMES)}", "Rename, add or remove the field.")


def _refuse(where: str, key: str, value: object, rule: str) -> None:
    raise InputError(
        f"{where}, field {key!r}", told(value), f"{key} {rule}", "Correct the value or leave the point out."
    )
