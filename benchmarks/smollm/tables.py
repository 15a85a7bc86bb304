"""SmolLM2-135M on fewer cycles: table and picture, from docs/data/smollm.jsonl."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FormatStrFormatter, NullLocator

from analysis.pictures import style
from analysis.pictures.family_marks import marks
from analysis.tables.table import Column, format_table
from benchmarks.smollm.measure import interval

Row = dict[str, Any]
LABELS = {
    "dense": "dense",
    "layers-dropped": "layers dropped",
    "pruned-by-loss": "heads and hidden units pruned, by loss",
    "pruned-low-rank": "pruned, then low rank, by loss",
    "pruned-lattice": "pruned, then lattice, by loss",
    "low-rank-evenly": "whitened low rank, evenly",
    "low-rank-by-loss": "low rank, by loss",
    "low-rank-in-order": "low rank, by loss, in order",
    "lattice-by-loss": "lattice, by loss",
    "lattice-in-order": "lattice, by loss, in order",
    "block-sparse-by-loss": "block sparse, by loss",
    "monarch-by-loss": "Monarch",
    "blast-by-loss": "BLAST",
    "layers-dropped-distilled": "layers dropped, distilled",
    "pruned-distilled": "pruned, distilled",
    "pruned-lattice-distilled": "pruned, then lattice, distilled",
    "low-rank-distilled": "low rank, by loss, distilled",
    "lattice-distilled": "lattice, by loss, distilled",
    "int4": "dense in 4 bits",
    "layers-dropped-int4": "layers dropped, in 4 bits",
    "pruned-int4": "pruned, in 4 bits",
    "lattice-int4": "lattice, by loss, in 4 bits",
}
# A method's family, which its colour and mark are of, and how its line is drawn: by how its tiles were chosen.
_LOOKS = {
    "dense": ("dense", "-"),
    "layers-dropped": ("shallower", "-"),
    "pruned-by-loss": ("narrower", "-"),
    "pruned-low-rank": ("low_rank", (0, (3, 1, 1, 1))),
    "pruned-lattice": ("lattice", (0, (3, 1, 1, 1))),
    "low-rank-evenly": ("low_rank", ":"),
    "low-rank-by-loss": ("low_rank", "-"),
    "low-rank-in-order": ("low_rank", "-."),
    "lattice-by-loss": ("lattice", "-"),
    "lattice-in-order": ("lattice", "-."),
    "block-sparse-by-loss": ("block_sparse", "-"),
    "monarch-by-loss": ("monarch", "-"),
    "blast-by-loss": ("blast", "-"),
    "layers-dropped-distilled": ("shallower", "--"),
    "pruned-distilled": ("narrower", "--"),
    "pruned-lattice-distilled": ("lattice", (0, (5, 1, 1, 1))),
    "low-rank-distilled": ("low_rank", "--"),
    "lattice-distilled": ("lattice", "--"),
    "int4": ("dense", ":"),
    "layers-dropped-int4": ("shallower", ":"),
    "pruned-int4": ("narrower", ":"),
    "lattice-int4": ("lattice", ":"),
}
assert _LOOKS.keys() == LABELS.keys(), "every method has a look"
# Of distilled networks, one for each length of training that a method has.
_FILLS = ("none", "top", "left", "right", "bottom")
# Who is compared with rivals, by what endings of rivals' names say of training and bits.
LATTICE = {"distilled": "lattice-distilled", "int4": "lattice-int4", "": "lattice-by-loss"}
PRUNED_LATTICE = {"distilled": "pruned-lattice-distilled", "int4": "", "": "pruned-lattice"}
_SAME_CYCLES = 0.04  # of dense's: blocks that are dropped come whole, and pruning makes attention cheaper


def perplexity_table(rows: Sequence[Row]) -> str:
    """One line a network: tiles, cycles and bytes over dense's, perplexity, and that over dense's with its interval."""
    dense = next((row for row in rows if row["method"] == "dense"), {})
    lines = []
    for row in in_order(rows):
        low, high = row["against_dense"]
        lines.append(
            {
                "network": LABELS[row["method"]],
                "tiles": f"{row.get('tiles', 1.0):.3f}",
                "cycles": _over(row, dense, "latency_cycles"),
                "bytes": _over(row, dense, "dram_bytes"),
                "perplexity": f"{row['perplexity']:.1f}",
                "against": "1" if row["method"] == "dense" else f"{low:.2f}-{high:.2f}",
                "trained": f"{row['steps']} x {row['texts']}, {row['learning_rate']:g}" if row.get("steps") else "",
                "cpu": "" if "cpu_s" not in row else f"{row['cpu_s'] / 60:.0f}",
            }
        )
    columns = (
        Column("network", "network", align="left"),
        Column("tiles of the blocks", "tiles"),
        Column("cycles", "cycles"),
        Column("DRAM bytes", "bytes"),
        Column("perplexity", "perplexity"),
        Column("over dense's, 95 %", "against"),
        Column("steps x texts, rate", "trained"),
        Column("CPU minutes", "cpu"),
    )
    return format_table(columns, lines, markdown=True)


def in_order(rows: Sequence[Row]) -> list[Row]:
    """As the tables have them."""
    order = list(LABELS)
    return sorted(rows, key=lambda one: (order.index(one["method"]), -one["share"], one.get("steps", 0)))


def rivals_table(rows: Sequence[Row], ours: Mapping[str, str] = LATTICE, name: str = "lattice") -> str:
    """The lattice's (or another's) perplexity over each rival's on the same texts, where both take about the same
    cycles and were trained alike.
    """
    dense = next(row for row in rows if row["method"] == "dense")
    lines = []
    for row, lattice in pairs(rows, ours):
        low, high = interval(lattice["losses"], row["losses"])
        lines.append(
            {
                "rival": LABELS[row["method"]],
                "cycles": _over(row, dense, "latency_cycles"),
                "own": _over(lattice, dense, "latency_cycles"),
                "ratio": f"{lattice['perplexity'] / row['perplexity']:.3f}",
                "interval": f"{low:.3f}-{high:.3f}",
                "better": name if high < 1 else "rival" if low > 1 else "level",
            }
        )
    columns = (
        Column("rival", "rival", align="left"),
        Column("its cycles", "cycles"),
        Column(f"the {name}'s", "own"),
        Column(f"{name}'s perplexity over its", "ratio"),
        Column("95 %", "interval"),
        Column("better", "better", align="left"),
    )
    return format_table(columns, lines, markdown=True)


def pairs(rows: Sequence[Row], ours: Mapping[str, str] = LATTICE) -> list[tuple[Row, Row]]:
    """Rivals and ours of about the same cycles, trained or rounded alike, where texts' losses are there."""
    dense = next(row for row in rows if row["method"] == "dense")
    most = _SAME_CYCLES * dense.get("latency_cycles", 0)
    found = []
    for row in in_order(rows):
        like = next(one for ending, one in ours.items() if row["method"].endswith(ending))
        for lattice in rows:
            alike = lattice["method"] == like and lattice.get("steps", 0) == row.get("steps", 0)
            measured = all("losses" in one and "latency_cycles" in one for one in (row, lattice))
            if row["method"] != like and alike and measured:
                apart = abs(row["latency_cycles"] - lattice["latency_cycles"])
                found += [(row, lattice)] if apart <= most else []
    return found


def _over(row: Row, dense: Row, field: str) -> str:
    return f"{row[field] / dense[field]:.3f}" if field in row and field in dense else ""


def perplexity_picture(rows: Sequence[Row]) -> Figure:
    """Perplexity over dense's by cycles over dense's, every method a line; marks of distilled networks are not full."""
    dense = next(row for row in rows if row["method"] == "dense")
    looks = marks(family for family, _ in _LOOKS.values())
    with style.house_style():
        figure = style.new_figure(6.4, 4.8)
        axes = figure.subplots()
        kinds = dict.fromkeys((row["method"], row.get("steps", 0), row.get("texts")) for row in in_order(rows))
        lengths = [kind[1:] for kind in kinds if kind[1]]
        for method, steps, texts in kinds:
            points = sorted(
                (row["latency_cycles"] / dense["latency_cycles"], row["perplexity"], row["against_dense"])
                for row in rows
                if (row["method"], row.get("steps", 0), row.get("texts")) == (method, steps, texts)
                and "latency_cycles" in row
            )
            label = f"{LABELS[method]} {steps} x {texts}" if steps else LABELS[method]
            if not points:
                continue
            x = [point[0] for point in points]
            y = [point[1] / dense["perplexity"] for point in points]
            spread = [[one - point[2][0] for one, point in zip(y, points, strict=True)],
                      [point[2][1] - one for one, point in zip(y, points, strict=True)]]  # fmt: skip
            family, line = _LOOKS[method]
            look = looks[family]
            fill = _FILLS[sorted(set(lengths)).index((steps, texts)) % len(_FILLS)] if steps else "full"
            axes.errorbar(x, y, yerr=spread, color=look.colour, marker=look.marker,
                          markersize=9 if family == "dense" else 6, fillstyle=fill, markerfacecoloralt="white",
                          linestyle=line, capsize=2, label=label)  # fmt: skip
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(FixedLocator([1, 2, 3, 4, 5, 6, 8, 12, 16, 24]))
        axes.yaxis.set_major_formatter(FormatStrFormatter("%g"))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.set_xlabel("cycles of the whole program over dense's (prefill of 256 tokens, mid-32)")
        axes.set_ylabel("perplexity over dense's")
        axes.legend(fontsize="x-small")
    return figure
