"""Tables of single structures, projections and the closed form, from the figures in docs/data."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from analysis.tables.table import Column, count, energy_from_pj, format_table, percent

Row = dict[str, Any]


def random_layer_table(rows: Sequence[Row]) -> str:
    """A layer of random intervals on every machine."""
    columns = (
        Column("machine", "machine", align="left"),
        Column("form", "form", align="left"),
        Column("tiles", "tiles", count),
        Column("dense tiles", "dense_tiles", count),
        Column("tile bound", "bound", count),
        Column("cycles", "cycles", count),
        Column("of dense", "share", percent),
        Column("energy", "energy", energy_from_pj),
        Column("of dense", "energy_share", percent),
        Column("at other prices", "energy_interval", lambda ends: f"{percent(ends[0])} to {percent(ends[1])}"),
        Column("lowering (CPU s)", "lowering", lambda value: f"{value:.2f}"),
    )
    return format_table(columns, rows, markdown=True)


def cost_model_table(rows: Sequence[Row]) -> str:
    """How closely the closed form follows the simulator."""
    columns = (
        Column("machine", "machine", align="left"),
        Column("latency, mean error", "latency_error", percent),
        Column("90th percentile", "latency_p90", percent),
        Column("tau", "latency_tau", lambda value: f"{value:.3f}"),
        Column("energy, mean error", "energy_error", percent),
        Column("tau", "energy_tau", lambda value: f"{value:.3f}"),
    )
    return format_table(columns, rows, markdown=True)


def cost_gradient_table(rows: Sequence[Row]) -> str:
    """Whether the smooth cost and its gradient follow the engine."""
    lines = []
    for row in rows:
        line = dict(row)
        for name in ("widths", "starts"):
            moves = row[f"{name}_moves"]
            for key in ("right", "right_regrouped"):
                line[f"{name} {key}"] = f"{row[f'{name}_{key}']} / {moves}" if moves else "-"
        lines.append(line)
    columns = (
        Column("machine", "machine", align="left"),
        Column("smooth latency, mean error", "smooth_error", percent),
        Column("worst", "smooth_worst", percent),
        Column("signs right, widths", "widths right"),
        Column("starts", "starts right"),
        Column("widths, grouped anew", "widths right_regrouped"),
        Column("starts, grouped anew", "starts right_regrouped"),
        Column("cycles after descent", "descent", percent),
        Column("all widths narrowed alike", "narrowed_alike", percent),
    )
    return format_table(columns, lines, markdown=True)


FORMATS = ("low rank", "block sparse", "lattice", "Monarch", "BLAST")


def formats_table(rows: Sequence[Row]) -> str:
    """Cycles and energy over dense of each format on each machine, in one cell."""
    of = {(row["layer"], row["machine"], row["format"]): row for row in rows}
    lines = []
    for layer, machine in sorted({key[:2] for key in of if key[2] == "dense"}):
        dense = of[layer, machine, "dense"]
        line: dict[str, object] = {"layer": layer, "machine": machine, "mm2": dense["mm2"], "cycles": dense["cycles"]}
        for name in FORMATS:
            one = of.get((layer, machine, name))
            if one is not None:
                shares = one["cycles"] / dense["cycles"], one["energy_pj"] / dense["energy_pj"]
                line[name] = " / ".join(f"{share:.3f}" for share in shares)
        lines.append(line)
    columns = (
        Column("layer", "layer", align="left"),
        Column("machine", "machine", align="left"),
        Column("mm2", "mm2", lambda value: f"{value:.1f}"),
        Column("dense cycles", "cycles", count),
        *(Column(name, name) for name in FORMATS),
    )
    return format_table(columns, lines, markdown=True)


def int8_formats_table(rows: Sequence[Row]) -> str:
    """Relative error of int8 by machine and format."""
    names = [name for name in FORMATS if name in rows[0]]
    columns = (Column("machine", "machine", align="left"), *(Column(n, n, lambda value: f"{value:.4f}") for n in names))
    return format_table(columns, rows, markdown=True)


def doors_table(rows: Sequence[Row]) -> str:
    """How far apart the cycles of one layer by three doors are, by machine."""
    lines: list[dict[str, object]] = []
    for machine in dict.fromkeys(row["machine"] for row in rows):
        own = [row for row in rows if row["machine"] == machine]
        ratios = [max(row["cycles"]) / min(row["cycles"]) for row in own]
        worst = own[ratios.index(max(ratios))]
        doors = ("checkpoint", "module", "own products")
        slow = doors[worst["cycles"].index(max(worst["cycles"]))]
        line = {"machine": machine, "cases": len(own), "error": max(row.get("error", 0.0) for row in own)}
        line |= {f"{share}": sum(ratio <= 1 + share / 100 for ratio in ratios) for share in (1, 5)}
        lines.append(line | {"worst": f"{max(ratios):.3f}, {worst['family']} by {slow}, {worst['tokens']} tokens"})
    columns = (
        Column("machine", "machine", align="left"),
        Column("layers and tokens", "cases"),
        Column("within 1 %", "1"),
        Column("within 5 %", "5"),
        Column("the slowest over the quickest at most", "worst"),
        Column("largest error", "error", lambda value: f"{value:.1e}"),
    )
    return format_table(columns, lines, markdown=True)


def blast_descent_table(rows: Sequence[Row]) -> str:
    """Relative errors of BLAST by either fit, beside low rank's at the same rank."""
    columns = (
        Column("matrix", "matrix", align="left"),
        Column("blocks", "blocks"),
        Column("rank", "rank"),
        Column("low rank of that rank", "truncated_svd", "{:.3f}".format),
        Column("BLAST, published descent", "descent", "{:.3f}".format),
        Column("CPU s", "descent_cpu_s", "{:.0f}".format),
        Column("BLAST, least squares in turn", "least_squares", "{:.3f}".format),
        Column("its CPU s", "least_squares_cpu_s", "{:.0f}".format),
    )
    return format_table(columns, rows, markdown=True)


def mixed_lattice_table(rows: Sequence[Row]) -> str:
    """Relative errors of the lattice, of BLAST, and of the best sum of both, at equal tiles."""
    lines = []
    for row in rows:
        sums = {share: row[share] for share in ("0.25", "0.5", "0.75") if row[share] is not None}
        best = min(sums, key=lambda share: sums[share])
        lines.append(row | {"sum": sums[best], "best": best})
    columns = (
        Column("matrix", "matrix", align="left"),
        Column("tiles", "tiles", count),
        Column("of dense", "share", lambda value: f"{value:.3f}"),
        Column("lattice", "lattice", lambda value: f"{value:.3f}"),
        Column("BLAST", "blast", lambda value: f"{value:.3f}"),
        Column("best sum of both", "sum", lambda value: f"{value:.3f}"),
        Column("BLAST's share of its tiles", "best"),
    )
    return format_table(columns, lines, markdown=True)


def projection_table(rows: Sequence[Row]) -> str:
    """How long it takes to project a whole ViT-Base."""
    columns = (
        Column("structure", "start", align="left"),
        Column("chunk sets", "sets", align="left"),
        Column("budget (tiles)", "budget", count),
        Column("tiles used", "used", count),
        Column("CPU s", "cpu_s", lambda value: f"{value:.1f}"),
    )
    return format_table(columns, rows, markdown=True)


def kinds_table(rows: Sequence[Row]) -> str:
    """What a projection chooses from: accuracies by seed and the mean loss of the last epoch, by share of the tiles."""
    lines: list[dict[str, object]] = []
    shares = sorted({row["tiles"] for row in rows}, reverse=True)
    for kind in KINDS:
        line: dict[str, object] = {"kind": kind}
        for share in shares:
            own = [one for one in rows if (one["kind"], one["tiles"]) == (kind, share)]
            if own:
                accuracies = " / ".join(f"{100 * one['accuracy']:.1f}" for one in own)
                line[str(share)] = f"{accuracies}; {statistics.mean(one['loss'] for one in own):.3f}"
        lines.append(line)
    columns = [Column("kind", "kind", align="left"), *(Column(f"{share:g}", str(share)) for share in shares)]
    return format_table(columns, lines, markdown=True)


# What benchmarks/structures/projection_kinds.py compares, in the order of its table.
KINDS = (
    "tiles by entries",
    "tiles",
    "tiles, regrow",
    "tiles, trial",
    "ranks by entries",
    "ranks",
    "ranks, regrow",
    "ranks, trial",
    "union",
    "union, regrow",
)
