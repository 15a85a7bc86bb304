"""SmolLM2-135M on fewer cycles: table and picture, from docs/data/smollm.jsonl."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FormatStrFormatter, NullLocator

from analysis.pictures import style
from analysis.pictures.family_marks import marks
from analysis.tables.table import Column, format_table

Row = dict[str, Any]
# A method's family, which its colour and mark are of, and how its line is drawn: by how its tiles were chosen.
_LOOKS = {
    "dense": ("dense", "-"),
    "layers-dropped": ("shallower", "-"),
    "low-rank-evenly": ("low_rank", ":"),
    "low-rank-by-loss": ("low_rank", "-"),
    "low-rank-in-order": ("low_rank", "-."),
    "lattice-by-loss": ("lattice", "-"),
    "lattice-in-order": ("lattice", "-."),
    "block-sparse-by-loss": ("block_sparse", "-"),
    "low-rank-distilled": ("low_rank", "--"),
    "lattice-distilled": ("lattice", "--"),
}
LABELS = {
    "dense": "dense",
    "layers-dropped": "layers dropped",
    "low-rank-evenly": "whitened low rank, evenly",
    "low-rank-by-loss": "low rank, by loss",
    "low-rank-in-order": "low rank, by loss, in order",
    "lattice-by-loss": "lattice, by loss",
    "lattice-in-order": "lattice, by loss, in order",
    "block-sparse-by-loss": "block sparse, by loss",
    "low-rank-distilled": "low rank, by loss, distilled",
    "lattice-distilled": "lattice, by loss, distilled",
}


def perplexity_table(rows: Sequence[Row]) -> str:
    """One line a network: tiles, cycles over dense's, perplexity, and that over dense's with its interval."""
    dense = next((row.get("latency_cycles") for row in rows if row["method"] == "dense"), None)
    lines = []
    order = list(LABELS)
    for row in sorted(rows, key=lambda one: (order.index(one["method"]), -one["share"])):
        cycles = row.get("latency_cycles")
        low, high = row["against_dense"]
        lines.append(
            {
                "network": LABELS[row["method"]],
                "tiles": f"{row.get('tiles', 1.0):.3f}",
                "cycles": "" if cycles is None or dense is None else f"{cycles / dense:.3f}",
                "perplexity": f"{row['perplexity']:.1f}",
                "against": "1" if row["method"] == "dense" else f"{low:.2f}-{high:.2f}",
                "cpu": "" if "cpu_s" not in row else f"{row['cpu_s'] / 60:.0f}",
            }
        )
    columns = (
        Column("network", "network", align="left"),
        Column("tiles of the blocks", "tiles"),
        Column("cycles", "cycles"),
        Column("perplexity", "perplexity"),
        Column("over dense's, 95 %", "against"),
        Column("CPU minutes", "cpu"),
    )
    return format_table(columns, lines, markdown=True)


def perplexity_picture(rows: Sequence[Row]) -> Figure:
    """Perplexity over dense's by cycles over dense's, every method a line; hollow marks are of distilled networks."""
    dense = next(row for row in rows if row["method"] == "dense")
    looks = marks(family for family, _ in _LOOKS.values())
    with style.house_style():
        figure = style.new_figure(6.4, 4.0)
        axes = figure.subplots()
        for method, label in LABELS.items():
            points = sorted(
                (row["latency_cycles"] / dense["latency_cycles"], row["perplexity"], row["against_dense"])
                for row in rows
                if row["method"] == method and "latency_cycles" in row
            )
            if not points:
                continue
            x = [point[0] for point in points]
            y = [point[1] / dense["perplexity"] for point in points]
            spread = [[one - point[2][0] for one, point in zip(y, points, strict=True)],
                      [point[2][1] - one for one, point in zip(y, points, strict=True)]]  # fmt: skip
            family, line = _LOOKS[method]
            look = looks[family]
            axes.errorbar(x, y, yerr=spread, color=look.colour, marker=look.marker,
                          markersize=9 if family == "dense" else 6,
                          markerfacecolor="white" if method.endswith("distilled") else look.colour, linestyle=line,
                          capsize=2, label=label)  # fmt: skip
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(FixedLocator([1, 2, 3, 4, 5, 6, 8]))
        axes.yaxis.set_major_formatter(FormatStrFormatter("%g"))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.set_xlabel("cycles of the whole program over dense's (prefill of 256 tokens, mid-32)")
        axes.set_ylabel("perplexity over dense's")
        axes.legend(fontsize="small")
    return figure
