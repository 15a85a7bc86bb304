"""One point of a sweep: the network lowered for its machine and simulated, or why that cannot be."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from typing import Any

from gblr_hw.sweeps.axes import NETWORK_FIELDS, Settings, machine_at
from gblr_hw.sweeps.networks import Source
from simulator import Machine, simulate
from simulator.base.errors import DeadlockError, InputError
from simulator.machine.area import area_mm2

# What is measured, in the order of columns, and its type. All are empty where `error` says why there is no number; the
# area also is for a machine that the area table does not reach, the relative error where no family is asked for.
MEASURED: Mapping[str, type] = {
    "latency_cycles": int, "latency_ms": float, "energy_pj": float, "energy_low_pj": float, "energy_high_pj": float,
    "dram_bytes": int, "utilisation": float, "roofline_fraction": float, "bound": str, "tiles": int,
    "area_mm2": float, "relative_error": float, "error": str,
}  # fmt: skip
Row = dict[str, Any]


def measure_task(sources: Sequence[Source], number: int, base: Machine, tokens: int, settings: Settings) -> Row:
    """`measure_point` of one of several networks."""
    return measure_point(sources[number], base, tokens, settings)


def measure_point(source: Source, base: Machine, tokens: int, settings: Settings) -> Row:
    """The figures of one point. What the machine cannot hold is an `error` of the row, not of the sweep."""
    try:
        machine = machine_at(base, settings)
        program = source.lower(machine, int(settings.get("tokens") or tokens))
        report = simulate(program, machine)
    except (InputError, DeadlockError) as error:
        return failed(str(error))
    found: Row = {
        "latency_cycles": report.latency_cycles,
        "latency_ms": 1e3 * report.latency_s,
        "energy_pj": report.energy_pj,
        "energy_low_pj": report.energy_range_pj[0],
        "energy_high_pj": report.energy_range_pj[1],
        "dram_bytes": report.dram_bytes,
        "utilisation": report.utilisation,
        "roofline_fraction": report.roofline_fraction,
        "bound": report.bound,
        "tiles": report.tiles,
        "area_mm2": _area(machine),
        "relative_error": source.relative_error,
    }
    return {**dict.fromkeys(MEASURED), **found}


def failed(why: str) -> Row:
    """A point without figures."""
    return {**dict.fromkeys(MEASURED), "error": why}


def row_of(name: str, settings: Settings, figures: Row) -> Row:
    """A point as callers get it: the network's name, the settings, the figures."""
    return {"source": name, **settings, **{column: figures.get(column) for column in MEASURED}}


def settings_told(row: Row, fields: Iterable[str]) -> str:
    """What was set, in short: "rows 16, gb_per_s 6.4"."""
    return ", ".join(f"{field.rpartition('.')[2]} {row[field]}" for field in fields if row.get(field) is not None)


def key_of(digest: str, base: Machine, tokens: int, settings: Settings) -> str:
    """What a point's figures depend on, as a hash: the network, the machine in full, tokens, and our version."""
    try:
        machine = machine_at(base, settings).to_json()
    except InputError:
        machine = base.to_json()
    named = sorted((field, value) for field, value in settings.items() if field not in NETWORK_FIELDS)
    told = [version("gblr-hw"), digest, machine, int(settings.get("tokens") or tokens), named]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def _area(machine: Machine) -> float | None:
    """None where the area table does not reach: all other figures stand without it."""
    try:
        return area_mm2(machine).total.mm2
    except InputError:
        return None
