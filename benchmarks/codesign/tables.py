"""Tables of docs/codesign.md, from docs/data/codesign_minilm.json."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from analysis.tables.table import Column, format_table, percent

Row = dict[str, Any]


def comparison_table(rows: Sequence[Row]) -> str:
    """The best plain machine against the best with scatter at each error; speeds are scatter over plain."""
    columns = (
        Column("error, at most", "error_at_most", lambda value: f"{value:.2f}"),
        Column("plain", "plain_us", microseconds),
        Column("by", "plain", align="left"),
        Column("scatter", "scatter_us", microseconds),
        Column("by", "scatter", align="left"),
        Column("speed", "speed", lambda value: f"{value:.3f}"),
        Column("speed per mm2", "speed_per_mm2", lambda value: f"{value:.3f}"),
    )
    return format_table(columns, rows, markdown=True)


def front_table(rows: Sequence[Row]) -> str:
    """Some pairs of the front, fastest first."""
    columns = (
        Column("P", "rows"),
        Column("banks", "banks"),
        Column("KiB", "kib", align="left"),
        Column("mm2", "area_mm2", lambda value: f"{value:.1f}"),
        Column("network", "network", align="left"),
        Column("tiles", "tiles", percent),
        Column("error", "error", lambda value: f"{value:.4f}"),
        Column("latency", "latency_us", microseconds),
        Column("energy", "energy_uj", lambda value: f"{value:.1f} uJ"),
    )
    return format_table(columns, [{**row, "banks": row["banks"] or "plain"} for row in rows], markdown=True)


def microseconds(value: object) -> str:
    return f"{value:.2f} us"
