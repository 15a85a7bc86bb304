"""One point of a sweep: the network lowered for its machine and simulated, or why that cannot be."""

from __future__ import annotations

import hashlib
import json
from importlib.metadata import version
from typing import Any

from gblr_hw.sweeps.axes import Settings, machine_at
from gblr_hw.sweeps.sources import Source
from simulator import Machine, simulate
from simulator.base.errors import DeadlockError, InputError
from simulator.machine.area import area_mm2

# What is measured, in the order of columns. All are empty where `error` says why there is no number; the area also is
# for a machine that the area table does not reach.
MEASURED = (
    "latency_cycles", "latency_ms", "energy_pj", "energy_low_pj", "energy_high_pj", "dram_bytes", "utilisation",
    "roofline_fraction", "bound", "tiles", "area_mm2", "error",
)  # fmt: skip
Row = dict[str, Any]


def measure_point(source: Source, base: Machine, tokens: int, settings: Settings) -> Row:
    """Settings and figures of one point. What the machine cannot hold is an `error` of the row, not of the sweep."""
    row: Row = {"source": source.name, **settings, **dict.fromkeys(MEASURED)}
    try:
        machine = machine_at(base, settings)
        program = source.lower(machine, int(settings.get("tokens", tokens)))
        report = simulate(program, machine)
        row["area_mm2"] = _area(machine)
    except (InputError, DeadlockError) as error:
        return {**row, "error": str(error)}
    row.update(
        latency_cycles=report.latency_cycles,
        latency_ms=1e3 * report.latency_s,
        energy_pj=report.energy_pj,
        energy_low_pj=report.energy_range_pj[0],
        energy_high_pj=report.energy_range_pj[1],
        dram_bytes=report.dram_bytes,
        utilisation=report.utilisation,
        roofline_fraction=report.roofline_fraction,
        bound=report.bound,
        tiles=report.tiles,
    )
    return row


def key_of(digest: str, base: Machine, tokens: int, settings: Settings) -> str:
    """What a point's figures depend on, as a hash: the network, the machine in full, tokens, and our version."""
    try:
        machine = machine_at(base, settings).to_json()
    except InputError:
        machine = base.to_json()
    told = [version("gblr-hw"), digest, machine, int(settings.get("tokens", tokens)), sorted(settings.items())]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def _area(machine: Machine) -> float | None:
    """None where the area table does not reach: all other figures stand without it."""
    try:
        return area_mm2(machine).total.mm2
    except InputError:
        return None
