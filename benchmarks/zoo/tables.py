"""The zoo's tables: what goes through whole, at what cost, and why the rest is refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from analysis.tables.table import Column, count, format_table

MACHINE = "mid-32"

Record = dict[str, Any]

_WHOLE = (
    Column("network", "network", align="left"),
    Column("parameters", "parameters", count),
    Column("operators", "operators"),
    Column("of them copies", "copies"),
    Column("useful mult.", "multiplications", count),
    Column("spent", "spent", count),
    Column("cycles", "cycles", count),
    Column("error", "error", lambda value: f"{value:.0e}"),
)
_REFUSED = tuple(Column(name, name, align="left") for name in ("network", "where", "why"))


def whole_table(records: Sequence[Record]) -> str:
    """How many of those that could be built go through whole, and a row for each."""
    tried = _tried(records)
    whole = [one for one in tried if one["state"] == "whole"]
    worst = max((one["error"] for one in whole), default=0.0)
    rows = sorted(whole, key=lambda one: (one["source"], one["network"]))
    decided = sum(one.get("way", "") == "by_example" for one in whole)
    return (
        f"{len(whole)} of {len(tried)} architectures go through whole ({MACHINE}; worst error against PyTorch "
        f"{worst:.1e}), {decided} of them by the way out that their refusal names, `--by-example` (marked \\*)."
        f"\n\n{format_table(_WHOLE, [_marked(one) for one in rows], markdown=True)}"
    )


def refused_table(records: Sequence[Record]) -> str:
    """A row for each that does not."""
    refused = [one for one in _tried(records) if one["state"] != "whole"]
    return format_table(_REFUSED, sorted(refused, key=lambda one: str(one["network"])), markdown=True)


def _marked(record: Record) -> Record:
    mark = " \\*" if record.get("way", "") == "by_example" else ""
    return {**record, "network": record["network"] + mark}


def _tried(records: Sequence[Record]) -> list[Record]:
    return [one for one in records if one["state"] != "not built"]
