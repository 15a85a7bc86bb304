"""Convolutional networks on fewer cycles: tables, from docs/data/convolutions.jsonl."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from analysis.tables.table import Column, format_table
from benchmarks.shared.bootstrap import mean_interval

Row = Mapping[str, Any]
LABELS = {
    "dense": "dense",
    "the mean of what it says": "no network: the mean of what dense says",
    "raw pixels": "no network: least squares from 16 x 16 pixels",
    "the middle of the range": "no network: the middle of the range",
    "autocorrelation": "no network: autocorrelation",
    "int4": "dense in 4 bits",
    "modules-dropped": "blocks dropped",
    "low-rank-by-loss": "low rank, by loss",
    "low-rank-in-order": "low rank, by loss, in order",
    "block-sparse-in-order": "block sparse, by loss, in order",
    "lattice-by-loss": "lattice, by loss",
    "lattice-in-order": "lattice, by loss, in order",
}
# What is right, and what the loss is, by network.
MEASURES = {
    "efficientnet-lite0": ("crops as dense calls them (%)", "nats from dense's"),
    "crepe-tiny": ("within 50 cents (%)", "cents off"),
}
_RIGHT, _LOSS, _COUNT = range(3)


def networks_table(rows: Sequence[Row], network: str) -> str:
    """One line a network: tiles, cycles and bytes over dense's, how much is right and the loss, with intervals over
    photographs or tones.
    """
    own = [row for row in rows if row["network"] == network]
    dense = next((row for row in own if row["method"] == "dense"), None)
    lines = []
    for row in sorted(own, key=lambda one: (list(LABELS).index(one["method"]), -one["share"])):
        label = LABELS[row["method"]]
        line = {"network": f"{int(row['share'])} {label}" if row["method"] == "modules-dropped" else label}
        if "tiles" in row and dense is not None:
            line["tiles"] = f"{row['tiles']:.3f}"
            line |= {name: f"{row[name] / dense[name]:.3f}" for name in ("latency_cycles", "dram_bytes")}
        line |= {"right": _mean(row["judged"], _RIGHT, 100, 1), "loss": _mean(row["judged"], _LOSS, 1, 2)}
        lines.append(line)
    right, loss = MEASURES[network]
    columns = [
        Column("network", "network", align="left"), Column("tiles", "tiles"), Column("cycles", "latency_cycles"),
        Column("DRAM bytes", "dram_bytes"), Column(f"{right}, 95 %", "right"), Column(f"{loss}, 95 %", "loss"),
    ]  # fmt: skip
    return format_table(columns, lines, markdown=True)


def _mean(judged: Sequence[Sequence[float]], place: int, scale: float, digits: int) -> str:
    counts = [one[_COUNT] for one in judged]
    each = [scale * one[place] / one[_COUNT] for one in judged]
    low, high = mean_interval(each, counts)
    mean = sum(a * b for a, b in zip(each, counts, strict=True)) / sum(counts)
    return f"{mean:.{digits}f} ({low:.{digits}f}-{high:.{digits}f})"
