"""What is held against each other under other prices: runs with their counted events, from every file that has them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.tables.records import FORMAT, load_points
from simulator.base.errors import InputError
from simulator.base.files import read_text
from simulator.base.schema import parsed_json
from simulator.machine.events import EVENTS

_WHERE_FROM = "network points of `gblr-hw demo`, a report of `gblr-hw simulate --report`, or lines of a study"


@dataclass(frozen=True)
class Contender:
    """A run of one family on one machine. group: what it is compared within. accuracy: None where all runs of a group
    compute the same. events: the simulator's counts. cycles_by_dram: latency before other DRAM, where that was run.
    """

    name: str
    group: str
    family: str
    machine: str
    accuracy: float | None
    latency_cycles: int
    events: Mapping[str, int]
    cycles_by_dram: Mapping[str, int]


def load_contenders(path: str | Path) -> tuple[Contender, ...]:
    """The runs of a file: network points (.json, .csv), a report (.json), or lines of JSON (.jsonl) of a study.

    Raises InputError that names the file for another kind, and where runs were recorded without their events.
    """
    suffix = Path(path).suffix
    if suffix == ".jsonl":
        found = list(_of_lines(read_text(path), str(path)))
    elif suffix == ".csv" or _document(path, suffix).get("format") == FORMAT:
        found = [_of_point(point, f"{path}: point {i}") for i, point in enumerate(load_points(path), start=1)]
    else:
        found = [_of_report(_document(path, suffix), str(path))]
    if not found:
        raise InputError(str(path), "no run", "an order needs runs", "Give a file with two or more.")
    return tuple(found)


def _document(path: str | Path, suffix: str) -> dict[str, Any]:
    if suffix != ".json":
        raise InputError(
            str(path), f"the ending '{suffix}'", f"results are {_WHERE_FROM}", "Give .json, .jsonl or .csv."
        )
    document = parsed_json(read_text(path), str(path), "results")
    if not isinstance(document, dict):
        raise InputError(str(path), f"a {type(document).__name__}", f"results are {_WHERE_FROM}", "Give one of these.")
    return document


def _of_point(point: Any, where: str) -> Contender:
    if point.accuracy is None:
        raise InputError(
            where, f"a {point.quality}, no accuracy", "families are ordered among networks of about one accuracy",
            "Give points that have an accuracy.",
        )  # fmt: skip
    events = _checked(point.events, where)
    return Contender(point.name, "", point.family, point.machine, point.accuracy, point.latency_cycles, events, {})


def _of_report(document: Mapping[str, Any], where: str) -> Contender:
    names = ("program", "machine", "latency_cycles", "accesses")
    if any(name not in document for name in names):
        missing = next(name for name in names if name not in document)
        raise InputError(where, f"no field '{missing}'", f"results are {_WHERE_FROM}", "Give one of these.")
    events = _checked(document["accesses"], where)
    name = Path(where).stem
    return Contender(name, "", name, str(document["machine"]), None, int(document["latency_cycles"]), events, {})


def _of_lines(text: str, where: str) -> Iterator[Contender]:
    """A line is a run on one machine, or on several with latencies and events by machine."""
    for number, line in enumerate(text.splitlines(), start=1):
        at = f"{where}: line {number}"
        row = parsed_json(line, at, "a line of results")
        if not isinstance(row, dict) or "latency_cycles" not in row:
            raise InputError(at, "no field 'latency_cycles'", f"results are {_WHERE_FROM}", "Give one of these.")
        if isinstance(row["latency_cycles"], dict):
            for machine, cycles in row["latency_cycles"].items():
                yield _of_row(row, machine, cycles, (row.get("events") or {}).get(machine), at)
        else:
            yield _of_row(row, row.get("machine"), row["latency_cycles"], row.get("events"), at)


def _of_row(row: Mapping[str, Any], machine: Any, cycles: Any, events: Any, where: str) -> Contender:
    for field, value, kind in (
        ("family", row.get("family"), str),
        ("machine", machine, str),
        ("latency_cycles", cycles, int),
    ):
        if not isinstance(value, kind):
            raise InputError(where, f"'{field}' {json.dumps(value)}", f"it is a {kind.__name__}", "Correct the line.")
    family, group = row["family"], str(row.get("group", row.get("part", "")))
    by_dram = {str(name): int(value) for name, value in (row.get("cycles_by_dram") or {}).items()}
    name = str(row.get("name", family))
    return Contender(name, group, family, machine, row.get("accuracy"), cycles, _checked(events, where), by_dram)


def _checked(events: Any, where: str) -> Mapping[str, int]:
    """The counts, all of them of events that have a price."""
    if not events:
        raise InputError(
            where,
            "no counted events",
            "energy under other prices is counted events times those; a sum that was kept says nothing of its parts",
            "Measure it again: results that are written today carry their events.",
        )
    if not isinstance(events, Mapping) or set(events) - set(EVENTS):
        unknown = sorted(set(events) - set(EVENTS))[:1] if isinstance(events, Mapping) else type(events).__name__
        raise InputError(where, f"events {unknown}", f"the events are {', '.join(EVENTS)}", "Measure it again.")
    return events
