"""SmolLM2-135M on fewer cycles: table and picture, from docs/data/smollm.jsonl."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FormatStrFormatter, NullLocator

from analysis.pictures import style
from analysis.tables.table import Column, format_table

Row = dict[str, Any]
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
    """Perplexity over dense's by cycles over dense's, every method a line."""
    dense = next(row for row in rows if row["method"] == "dense")
    with style.house_style():
        figure = style.new_figure(6.4, 4.0)
        axes = figure.subplots()
        for index, (method, label) in enumerate(LABELS.items()):
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
            axes.errorbar(x, y, yerr=spread, marker="osD^vPX*<>"[index], capsize=2, label=label)
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(FixedLocator([1, 2, 3, 4, 5, 6, 8]))
        axes.yaxis.set_major_formatter(FormatStrFormatter("%g"))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.set_xlabel("cycles of the whole program over dense's (prefill of 256 tokens, mid-32)")
        axes.set_ylabel("perplexity over dense's")
        axes.legend(fontsize="small")
    return figure
