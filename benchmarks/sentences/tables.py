"""Networks that embed sentences on fewer cycles: tables, from docs/data/sentences.jsonl."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from analysis.tables.table import Column, format_table
from benchmarks.shared.bootstrap import mean_interval

Row = Mapping[str, Any]
LABELS = {
    "dense": "dense",
    "words": "no network: words counted (TF-IDF)",
    "no-blocks": "no blocks: embeddings alone",
    "int4": "dense in 4 bits",
    "layers-dropped": "blocks dropped",
    "low-rank-by-loss": "low rank, by loss",
    "low-rank-in-order": "low rank, by loss, in order",
    "block-sparse-in-order": "block sparse, by loss, in order",
    "lattice-by-loss": "lattice, by loss",
    "lattice-in-order": "lattice, by loss, in order",
}


def sentences_table(rows: Sequence[Row], network: str) -> str:
    """One line a network: tiles, cycles and bytes over dense's; other halves found, also less dense's on the same
    texts, with intervals over texts; rank correlations of documents' likeness with dense's and with people's.
    """
    own = [row for row in rows if row["network"] == network]
    dense = next((row for row in own if row["method"] == "dense"), None)
    lines = []
    for row in sorted(own, key=lambda one: (list(LABELS).index(one["method"]), -one["share"])):
        line = {"network": LABELS[row["method"]]}
        if "latency_cycles" in row and dense is not None:
            line["tiles"] = f"{row['tiles']:.3f}"
            line |= {name: f"{row[name] / dense[name]:.3f}" for name in ("latency_cycles", "dram_bytes")}
        found = _right(row)
        line["found"] = f"{100 * found.mean():.1f}"
        if dense is not None and row is not dense:
            each = found - _right(dense)
            low, high = mean_interval(list(each), [1.0] * len(each))
            line["less"] = f"{100 * each.mean():+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"
        line |= {name: f"{row[name]:.3f}" for name in ("dense", "human")}
        lines.append(line)
    columns = [
        Column("network", "network", align="left"), Column("tiles", "tiles"), Column("cycles", "latency_cycles"),
        Column("DRAM bytes", "dram_bytes"), Column("other half found (%)", "found"),
        Column("less dense, 95 %", "less"), Column("likeness: with dense's", "dense"),
        Column("with people's", "human"),
    ]  # fmt: skip
    return format_table(columns, lines, markdown=True)


def _right(row: Row) -> Any:
    return np.array([one == "1" for one in row["found"]], np.float64)
