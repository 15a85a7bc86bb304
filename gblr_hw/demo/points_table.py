"""Measured networks as a table: accuracy, multiplications, cycles, energy, each beside its share of dense."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from analysis.pictures.family_marks import REFERENCE
from analysis.tables.records import NetworkPoint
from analysis.tables.table import Column, count, energy_from_pj, format_table, percent, seconds


def points_table(points: Sequence[NetworkPoint], markdown: bool = False) -> str:
    """One row a point, in the order given; shares are of the dense network on the same machine, where there is one."""
    columns = (
        Column("network", "name", align="left"),
        Column("machine", "machine", align="left"),
        Column("accuracy", "accuracy", percent),
        Column("multiplications", "multiplications", count),
        Column("tiles", "tiles", count),
        Column("cycles", "latency_cycles", count),
        Column("of dense", "share", percent),
        Column("latency", "latency_s", seconds),
        Column("energy", "energy_pj", energy_from_pj),
    )
    dense = _dense_cycles(points)
    rows = [{**vars(p), "share": p.latency_cycles / dense[p.machine] if p.machine in dense else None} for p in points]
    return format_table(columns, rows, markdown=markdown)


def _dense_cycles(points: Iterable[NetworkPoint]) -> dict[str, int]:
    return {point.machine: point.latency_cycles for point in points if point.family == REFERENCE}
