"""Tables of all-MiniLM-L6-v2 on fewer tiles, from the figures in docs/data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from analysis.tables.table import Column, format_table

Row = dict[str, Any]
MEASURED_ON = ("mid-32", "plain-32")
LOW_RANK, LATTICE = "low rank, weighted", "lattice, even"


def conversion_table(rows: Sequence[Row]) -> str:
    """Whole networks converted without training, by budget: cosine to the dense embeddings, accuracy of a probe."""
    columns = (
        Column("tiles / dense", "tiles", align="left"),
        Column("low rank, weighted: cosine, accuracy", LOW_RANK),
        Column("lattice, weighted, reordered: cosine, accuracy", LATTICE),
        Column("its mean relative error", "error"),
    )
    return format_table(columns, _by_budget(rows), markdown=True)


def _by_budget(rows: Sequence[Row]) -> list[dict[str, object]]:
    """One row a budget, the largest first."""
    found = {(row["network"], row["tiles"]): row for row in rows}
    lines: list[dict[str, object]] = []
    for tiles in sorted({tiles for name, tiles in found if name == LATTICE}, reverse=True):
        line: dict[str, object] = {"tiles": f"{tiles:g}"}
        for name in (LOW_RANK, LATTICE):
            one = found[name, tiles]
            line[name] = f"{one['cosine']:.3f}, {one['accuracy']:.3f}"
        lines.append({**line, "error": f"{found[LATTICE, tiles]['relative_error']:.3f}"})
    return lines


def quality_table(rows: Sequence[Row]) -> str:
    """Relative errors of single matrices at equal tiles: the lattice and its rivals."""
    columns = (
        Column("layer", "layer", align="left"),
        Column("norm", "norm", align="left"),
        Column("tiles", "tiles"),
        Column("lattice", "lattice", thousandths),
        Column("reordered", "reordered", thousandths),
        Column("intervals only", "intervals", thousandths),
        Column("rank groups", "groups", thousandths),
        Column("SVD", "svd", thousandths),
        Column("block sparse", "sparse", thousandths),
        Column("tiles + low rank", "both", thousandths),
        Column("lattice, CPU s", "cpu_s", lambda value: f"{value:.1f}"),
    )
    return format_table(columns, [{**row, "tiles": _tiles(row)} for row in rows], markdown=True)


def width_table(rows: Sequence[Row], rivals: Sequence[Row]) -> str:
    """Descent through masks after each number of steps, beside the lattice of `quality_table` at the same budget."""
    lattice = {(row["layer"], row["budget"]): row for row in rivals if row["norm"] == "plain"}
    counts = sorted({row["steps"] for row in rows})
    lines: list[dict[str, object]] = []
    for layer, budget in dict.fromkeys((row["layer"], row["budget"]) for row in rows):
        own = {row["steps"]: row for row in rows if (row["layer"], row["budget"]) == (layer, budget)}
        ours = lattice[layer, budget]
        line: dict[str, object] = {"layer": layer, "tiles": f"{budget} of {own[counts[0]]['of']}"}
        line |= {f"{steps}": own[steps]["error"] for steps in counts}
        lines.append({**line, "lattice": ours["lattice"], "s": own[counts[-1]]["cpu_s"], "lattice s": ours["cpu_s"]})
    columns = (
        Column("layer", "layer", align="left"),
        Column("tiles", "tiles"),
        *(Column(f"{steps} steps: error", f"{steps}", thousandths) for steps in counts),
        Column("lattice (above)", "lattice", thousandths),
        Column(f"CPU s, {counts[-1]} steps", "s", lambda value: f"{value:.0f}"),
        Column("lattice, CPU s", "lattice s", lambda value: f"{value:.1f}"),
    )
    return format_table(columns, lines, markdown=True)


def study_table(rows: Sequence[Row]) -> str:
    """Cosine and accuracy (means over seeds), and cycles as a share of dense on both machines."""
    dense = next((row["latency_cycles"] for row in rows if row["method"] == "dense"), None)
    lines: list[dict[str, object]] = []
    for method, family, tiles in dict.fromkeys((row["method"], row["family"], row["tiles"]) for row in rows):
        own = [row for row in rows if (row["method"], row["family"], row["tiles"]) == (method, family, tiles)]
        line: dict[str, object] = {"network": f"{family}, {method}", "tiles": f"{tiles:g}", "seeds": len(own)}
        line["used"] = f"{own[0]['tiles_used']:,}" if "tiles_used" in own[0] else "-"
        for key in ("cosine", "accuracy"):
            line[key] = f"{sum(row[key] for row in own) / len(own):.3f}"
        for name in MEASURED_ON:
            line[name] = f"{own[0]['latency_cycles'][name] / dense[name]:.3f}" if dense else "-"
        lines.append(line)
    columns = (
        Column("network", "network", align="left"),
        *(Column(key, key) for key in ("tiles", "used", "seeds", "cosine", "accuracy", *MEASURED_ON)),
    )
    return format_table(columns, lines, markdown=True)


def thousandths(value: object) -> str:
    return f"{value:.3f}"


def _tiles(row: Row) -> str:
    return f"{row['budget']} of {row['of']}"


def bits_table(rows: Sequence[Row]) -> str:
    """Two matrices in few bits, with and without ranks: bytes, error, and error on other inputs."""
    columns = (
        Column("matrix", "matrix", align="left"),
        Column("held as", "way", align="left"),
        *_BITS_COLUMNS,
    )
    return format_table(columns, rows, markdown=True)


def bits_budget_table(rows: Sequence[Row]) -> str:
    """What conversion chooses within bytes, beside single structures."""
    columns = (
        Column("matrix", "matrix", align="left"),
        Column("bytes at most", "budget", lambda text: text.removesuffix("x-dense"), align="left"),
        Column("asked for", "way", align="left"),
        Column("what it is", "layer", align="left"),
        *_BITS_COLUMNS,
    )
    return format_table(columns, rows, markdown=True)


_BITS_COLUMNS = (
    Column("bytes / dense int8", "bytes", lambda value: f"{value:.3f}"),
    Column("error", "error", lambda value: f"{value:.4f}"),
    Column("on other texts", "held_out", lambda value: f"{value:.4f}"),
)
