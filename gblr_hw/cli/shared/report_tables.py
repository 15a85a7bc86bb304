"""A simulation's report as tables: layers or operators, groups of operators, units, energy, totals; lines are never
wrapped.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any, Literal

from analysis.tables.table import Column, count, format_table, percent
from simulator.base.text import printable
from simulator.timing.report import BOUNDS, CAUSES, GROUPS, DramReport, Report

Order = Literal["program", "cycles"]

# What a network's operators are bound by, in the order of a reader's interest.
_RESOURCES = (
    ("the array", ("compute", "conflicts", "preload")),
    ("DRAM", ("bandwidth", "latency")),
    ("the vector unit and sums on their way to it", ("drain", "vector")),
)
_SUMMED = ("latency_cycles", "tiles", "tile_bound", "dram_bytes", "energy_pj")


def print_report(report: Report, order: Order | None = None, top: int | None = None) -> None:
    """Layers or operators, groups of operators (of a network), units, energy, then the totals.

    ``order``: as the program has them, or most cycles first, which is the default for networks. ``top``: that many
    rows; the last one is then the sum of all others.
    """
    chosen = order or ("cycles" if report.network else "program")
    print(_operator_table(report, chosen, top) if report.network else _layer_table(report, chosen, top))
    if report.network:
        print(_group_table(report))
    print(_unit_table(report))
    print(_energy_table(report))
    if report.network:
        print(_bound_line(report))
    if report.dram is not None:
        print(_dram_line(report.dram))
    print(
        f"{printable(report.program)}: {report.latency_cycles:,} cycles = {report.latency_s * 1e6:,.2f} us on "
        f"{report.machine} at {report.clock_ghz:g} GHz; {report.roofline_fraction:.1%} of the {report.bound} roof "
        f"({report.roofline_cycles:,} cycles); {report.utilisation:.1%} of the array's cell-cycles useful\n"
        f"{_energy_lines(report)}"
    )


def layer_rows(report: Report, order: Order, top: int | None) -> list[dict[str, Any]]:
    """A row a layer: its fields, and its share of the cycles, alone and with all rows above it; with ``top`` the last
    row sums what is left.
    """
    layers = sorted(report.layers, key=lambda layer: -layer.latency_cycles) if order == "cycles" else report.layers
    shown = len(layers) if top is None or len(layers) <= top else top
    rows: list[dict[str, Any]] = [dict(vars(layer)) for layer in layers[:shown]]
    rest = layers[shown:]
    if rest:
        rows.append(
            {
                "name": f"{len(rest)} others",
                **{key: sum(getattr(layer, key) for layer in rest) for key in _SUMMED},
                "cycles_by_cause": {cause: sum(layer.cycles_by_cause[cause] for layer in rest) for cause in CAUSES},
            }
        )
    sums = itertools.accumulate(row["latency_cycles"] for row in rows)
    total = max(1, report.latency_cycles)
    return [
        {**row, "share": row["latency_cycles"] / total, "cumulative": passed / total}
        for row, passed in zip(rows, sums, strict=True)
    ]


def _layer_table(report: Report, order: Order, top: int | None) -> str:
    columns = (
        Column("layer", "name", align="left"),
        Column("form", "form", align="left"),
        Column("cycles", "latency_cycles", count),
        Column("share", "share", percent),
        Column("tiles", "tiles", count),
        Column("bound", "tile_bound", _one_decimal),
        Column("uJ", "energy_pj", _microjoules),
        Column("cycles by cause", "cycles_by_cause", _causes, align="left"),
    )
    return format_table(columns, layer_rows(report, order, top))


def _operator_table(report: Report, order: Order, top: int | None) -> str:
    columns = (
        Column("operator", "name", align="left"),
        Column("kind", "group", align="left"),
        Column("cycles", "latency_cycles", count),
        Column("share", "share", percent),
        Column("sum", "cumulative", percent),
        Column("bound by", "bound", align="left"),
        Column("rows", "tokens", count),
        Column("tiles", "tiles", count),
        Column("tile bound", "tile_bound", _one_decimal),
        Column("useful", "utilisation", percent),
        Column("DRAM bytes", "dram_bytes", count),
        Column("uJ", "energy_pj", _microjoules),
    )
    return format_table(columns, layer_rows(report, order, top))


def _group_table(report: Report) -> str:
    columns = (
        Column("kind", "group", align="left"),
        Column("operators", "operators", count),
        Column("cycles", "cycles", count),
        Column("share", "share", percent),
        Column("multiplications", "multiplications", count),
        Column("vector unit busy", "vector_cycles", count),
        Column("DRAM bytes", "dram_bytes", count),
        Column("uJ", "energy_pj", _microjoules),
    )
    rows = [_group_row(report, group) for group in GROUPS]
    return format_table(columns, [row for row in rows if row["operators"]])


def _group_row(report: Report, group: str) -> dict[str, object]:
    mine = [layer for layer in report.layers if layer.group == group]
    return {
        "group": group,
        "operators": len(mine),
        "cycles": report.cycles_by_group[group],
        "share": report.cycles_by_group[group] / max(1, report.latency_cycles),
        "multiplications": sum(layer.multiplications * layer.tokens for layer in mine),
        **{key: sum(getattr(layer, key) for layer in mine) for key in ("vector_cycles", "dram_bytes", "energy_pj")},
    }


def _bound_line(report: Report) -> str:
    total, cycles = max(1, report.latency_cycles), report.cycles_by_bound
    parts = [f"{sum(cycles[b] for b in names) / total:.1%} by {what}" for what, names in _RESOURCES]
    named = ", ".join(f"{name} {cycles[name]:,}" for name in BOUNDS if cycles[name])
    linears = report.cycles_by_group["linear"] / total
    return f"share of linears: {linears:.1%} of the cycles; cycles bound {', '.join(parts)} ({named})"


def _dram_line(dram: DramReport) -> str:
    shares = [f"{getattr(dram, name) / max(1, dram.bursts):.1%} {name}" for name in ("hits", "misses", "conflicts")]
    return (
        f"DRAM {dram.model}, {dram.channels} channels, {dram.mapping}, {dram.scheduler}: {dram.bursts:,} bursts, "
        f"{', '.join(shares)}; {dram.refreshes:,} refreshes; data take {dram.efficiency:.1%} of a busy channel's "
        f"clocks and {dram.utilisation:.1%} of all"
    )


def _unit_table(report: Report) -> str:
    columns = (
        Column("unit", "unit", align="left"),
        Column("instructions", "instructions", count),
        Column("busy cycles", "busy_cycles", count),
        Column("busy", "share", percent),
        Column("idle at the end", "idle_after_last_cycles", count),
        Column("stalled by", "stalls", align="left"),
    )
    rows = [
        {
            **vars(unit),
            "unit": unit.name.replace("_", " "),
            "share": unit.busy_cycles / max(1, report.latency_cycles),
            "stalls": ", ".join(f"{name.replace('_', ' ')} {n:,}" for name, n in unit.stall_cycles.items()) or "-",
        }
        for unit in report.units
    ]
    return format_table(columns, rows)


def _energy_table(report: Report) -> str:
    """Components of the work, largest first, each with its interval; then what stands besides, with no share of it."""
    columns = (
        Column("component", "name", align="left"),
        Column("uJ", "value", _microjoules),
        Column("low", "low", _microjoules),
        Column("high", "high", _microjoules),
        Column("share", "share", percent),
    )
    rows = _components(report.energy_by_component, report.energy_ranges_pj)
    for row in rows:
        row["share"] = row["value"] / report.energy_pj if report.energy_pj else 0.0
    return format_table(columns, [*rows, *_components(report.standing_pj, report.standing_ranges_pj, "standing: ")])


def _components(
    values: Mapping[str, float], ranges: Mapping[str, tuple[float, float]], mark: str = ""
) -> list[dict[str, Any]]:
    return [
        {"name": mark + name.replace("_", " "), "value": value, "low": ranges[name][0], "high": ranges[name][1]}
        for name, value in sorted(values.items(), key=lambda item: -item[1])
    ]


def _energy_lines(report: Report) -> str:
    """The sum of the work with its interval and the table's name and hash; then with what stands while it runs."""
    low, high = report.energy_range_pj
    standing = sum(report.standing_pj.values())
    least, most = (sum(ends[i] for ends in report.standing_ranges_pj.values()) for i in (0, 1))
    return (
        f"{report.energy_pj * 1e-6:,.2f} uJ ({low * 1e-6:,.2f} to {high * 1e-6:,.2f} over the sources of table "
        f"{printable(report.energy_table)}, {report.energy_table_sha256[:12]}); {report.dram_bytes:,} DRAM bytes\n"
        f"{(report.energy_pj + standing) * 1e-6:,.2f} uJ ({(low + least) * 1e-6:,.2f} to {(high + most) * 1e-6:,.2f}) "
        "with what stands in that time: clock and control, leaking logic, DRAM's background and refresh"
    )


def _causes(cycles: object) -> str:
    assert isinstance(cycles, dict)
    parts = [(cycles[cause], cause.replace("_", " ")) for cause in CAUSES]
    return ", ".join(f"{name} {number:,}" for number, name in parts if number)


def _one_decimal(value: object) -> str:
    return f"{value:.1f}"


def _microjoules(picojoules: object) -> str:
    assert isinstance(picojoules, (int, float))
    return f"{picojoules * 1e-6:,.3f}"
