"""Tables of our machine beside other simulators, from the figures in docs/data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from analysis.tables.table import Column, count, format_table, seconds, with_prefix

Data = dict[str, Any]
# Tool in the results -> how tables call it.
TOOLS = {
    "SCALE-Sim 3.0 ws": "SCALE-Sim 3.0 ws",
    "SCALE-Sim 3.0 os": "SCALE-Sim 3.0 os",
    "ZigZag 3.9.1": "ZigZag 3.9.1, with its search for a mapping",
    "ONNXim, not run here": "ONNXim, not run here",
    "gblr-hw simulate": "`gblr-hw simulate`, warm",
    "gblr-hw lower + simulate": "lowering and `simulate`",
    "gblr-hw simulate --as scalesim-ws": "`--as scalesim-ws`",
}


def speed_table(data: Data, gemms: Sequence[str] = ()) -> str:
    """CPU time of every tool for the GEMMs that are named, or for all, and ratios to ours."""
    columns = (
        Column("M x K x N", "gemm", align="left"),
        Column("tool", "tool", lambda tool: TOOLS[str(tool)], align="left"),
        Column("cycles", "cycles", count),
        Column("CPU time", "cpu_s", seconds),
        Column("cycles per CPU s", "cycles_per_cpu_s", lambda value: with_prefix(float(str(value)), "").strip()),
        Column("CPU time over ours", "time", times),
        Column("our cycles per CPU s over theirs", "rate", times),
    )
    rows = [row for row in data["speed"] if not gemms or row["gemm"] in gemms]
    return format_table(columns, rows, markdown=True)


def peer_cycles_table(data: Data, machine: str = "mid-32") -> str:
    """Cycles of every tool, and of our machine as it is and flooded."""
    peers = [tool for tool in TOOLS if not tool.startswith("gblr-hw")]
    columns = (
        Column("M x K x N", "gemm", align="left"),
        *(Column(tool, tool, count) for tool in peers),
        Column(machine, "gblr-hw simulate", count),
        Column("of SCALE-Sim ws", "ratio", thousandths),
        Column(f"{machine}, flooded", "flooded", count),
        Column("of SCALE-Sim ws", "flooded_ratio", thousandths),
    )
    return format_table(columns, data["cycles"], markdown=True)


def gemm_cycles_table(rows: Sequence[Data], machine: str = "mid-32") -> str:
    """SCALE-Sim's count in its parts, and our machine, flooded and as it is."""
    columns = (
        Column("M x K x N", "gemm", align="left"),
        Column("SCALE-Sim ws", "scalesim_ws", count),
        Column("= load", "load", count),
        Column("+ stream", "stream", count),
        Column("+ fill and drain", "fill_and_drain", count),
        Column("flooded", "flooded", count),
        Column("of SCALE-Sim", "flooded_ratio", thousandths),
        Column(f"`{machine}`", "cycles", count),
        Column("of SCALE-Sim", "ratio", thousandths),
    )
    ratios = (("flooded_ratio", "flooded"), ("ratio", "cycles"))
    lines = [{**row, **{name: row[key] / row["scalesim_ws"] for name, key in ratios}} for row in rows]
    return format_table(columns, lines, markdown=True)


def times(value: object) -> str:
    number = float(str(value))
    return f"{number:,.0f}x" if number >= 10 else f"{number:.2g}x"


def thousandths(value: object) -> str:
    return f"{value:.3f}"
