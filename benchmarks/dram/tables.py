"""Tables of DRAM standards, from the figures in docs/data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from analysis.tables.table import Column, count, format_table, percent

Row = dict[str, Any]

FAMILIES = ("low rank", "block sparse", "lattice", "Monarch", "BLAST", "GBLR")


def families_table(rows: Sequence[Row]) -> str:
    """Cycles over dense of each family on each DRAM, and the families from the fastest on."""
    lines = []
    for machine, tokens, memory in dict.fromkeys((row["machine"], row["tokens"], memory_name(row)) for row in rows):
        here = (machine, tokens, memory)
        mine = {r["family"]: r for r in rows if (r["machine"], r["tokens"], memory_name(r)) == here}
        dense = mine["dense"]
        shares = {name: mine[name]["cycles"] / dense["cycles"] for name in FAMILIES}
        lines.append(
            {
                "machine": machine,
                "tokens": tokens,
                "dram": memory,
                "cycles": dense["cycles"],
                **{name: f"{share:.3f}" for name, share in shares.items()},
                "order": "".join(_LETTERS[name] for name in sorted(shares, key=lambda name: shares[name])),
            }
        )
    columns = (
        Column("machine", "machine", align="left"),
        Column("rows", "tokens", count),
        Column("DRAM", "dram", align="left"),
        Column("dense", "cycles", count),
        *(Column(f"{name} ({_LETTERS[name]})", name) for name in FAMILIES),
        Column("fastest first", "order", align="left"),
    )
    return format_table(columns, lines, markdown=True)


def families_text(rows: Sequence[Row]) -> str:
    """The table, and how far banks move a share and an order that one latency and as many bytes a second give."""
    shares = _shares(rows)
    moves, swapped = [], []
    for (machine, tokens, memory, gb_per_s), banks in shares.items():
        plain = shares[machine, tokens, "bandwidth", gb_per_s]
        if memory != "bandwidth":
            moves += [(abs(banks[name] - plain[name]), name, machine, tokens, memory) for name in FAMILIES]
            pairs = [(a, b) for a in FAMILIES for b in FAMILIES if plain[a] < plain[b] and banks[a] > banks[b]]
            swapped += [max(plain[b] - plain[a], banks[a] - banks[b]) for a, b in pairs]
    largest, name, machine, tokens, memory = max(moves)
    apart = max(swapped, default=0.0)
    return (
        f"{families_table(rows)}\nBanks move a family's share of dense by {largest:.3f} at most ({name}, {tokens} row"
        f"{'s' * (tokens > 1)} on {machine}, {memory}), against one latency and as many bytes a second. Families "
        f"change places {len(swapped)} times; those that do are never further apart than {apart:.3f} of dense.\n"
    )


def _shares(rows: Sequence[Row]) -> dict[tuple[str, int, str, float], dict[str, float]]:
    cycles: dict[tuple[str, int, str, float], dict[str, int]] = {}
    for row in rows:
        key = (row["machine"], row["tokens"], row["model"], round(row["gb_per_s"], 1))
        cycles.setdefault(key, {})[row["family"]] = row["cycles"]
    return {key: {name: mine[name] / mine["dense"] for name in FAMILIES} for key, mine in cycles.items()}


def layout_text(rows: Sequence[Row]) -> str:
    """The table, and what the order is worth."""
    cycles = {(row["form"], row["order"]): row["cycles"] for row in rows}
    gains = [
        f"{1 - cycles[form, 'as loaded'] / cycles[form, 'shuffled']:.1%} of the cycles, {form}"
        for form in dict.fromkeys(row["form"] for row in rows)
    ]
    return f"{layout_table(rows)}\nThe order saves {'; '.join(gains)}.\n"


def one_letter(family: str) -> str:
    """Of ``FAMILIES``, as orders are written."""
    return _LETTERS[family]


_LETTERS = {"low rank": "r", "block sparse": "s", "lattice": "l", "Monarch": "m", "BLAST": "b", "GBLR": "g"}


def memory_name(row: Row) -> str:
    """A DRAM as tables name it: its model, channels and bandwidth."""
    if row["model"] == "bandwidth":
        return f"{row['gb_per_s']:g} GB/s, one latency"
    return f"{row['channels']} x {row['model']}, {row['gb_per_s']:.1f} GB/s"


def networks_table(rows: Sequence[Row]) -> str:
    """ViT-Base's linears on each DRAM."""
    lines = []
    dense = {(row["machine"], row["model"]): row["cycles"] for row in rows if row["form"] == "dense"}
    for row in rows:
        line = {**row, "dram": memory_name(row), "share": row["cycles"] / dense[row["machine"], row["model"]]}
        if "bursts" in row:
            line |= {f"{name}_share": row[name] / row["bursts"] for name in ("hits", "misses", "conflicts")}
        lines.append(line)
    columns = (
        Column("ViT-Base", "form", align="left"),
        Column("machine", "machine", align="left"),
        Column("DRAM", "dram", align="left"),
        Column("cycles", "cycles", count),
        Column("of dense", "share", lambda value: f"{value:.3f}"),
        Column("hits", "hits_share", percent),
        Column("misses", "misses_share", percent),
        Column("conflicts", "conflicts_share", percent),
        Column("data of busy clocks", "efficiency", percent),
        Column("of all", "utilisation", percent),
    )
    return format_table(columns, lines, markdown=True)


def layout_table(rows: Sequence[Row]) -> str:
    """Weight records as they are loaded, and in any order."""
    columns = (
        Column("ViT-Base", "form", align="left"),
        Column("rows", "tokens", count),
        Column("weight records", "order", align="left"),
        Column("behind the one before", "behind", percent),
        Column("hits", "hits", percent),
        Column("conflicts", "conflicts", percent),
        Column("cycles", "cycles", count),
    )
    return format_table(columns, rows, markdown=True)


def patterns_table(rows: Sequence[Row]) -> str:
    """Share of a channel's clocks that data take."""
    names = list(dict.fromkeys(row["pattern"] for row in rows))
    lines = []
    for key in dict.fromkeys((row["standard"], row["mapping"], row["scheduler"]) for row in rows):
        mine = [row for row in rows if (row["standard"], row["mapping"], row["scheduler"]) == key]
        lines.append(dict(zip(("standard", "mapping", "scheduler"), key, strict=True)))
        lines[-1] |= {row["pattern"]: row["efficiency"] for row in mine}
    columns = (
        Column("standard", "standard", align="left"),
        Column("mapping", "mapping", align="left"),
        Column("scheduler", "scheduler", align="left"),
        *(Column(name, name, percent) for name in names),
    )
    return format_table(columns, lines, markdown=True)


def speed_table(rows: Sequence[Row]) -> str:
    """CPU time of ``simulate`` with banks."""
    columns = (
        Column("ViT-Base", "form", align="left"),
        Column("machine", "machine", align="left"),
        Column("DRAM", "model", align="left"),
        Column("bursts", "bursts", count),
        Column("one bandwidth (ms)", "bandwidth_s", _milliseconds),
        Column("banks (ms)", "banks_s", _milliseconds),
        Column("ratio", "ratio", lambda value: f"{value:.1f}"),
    )
    return format_table(columns, rows, markdown=True)


def _milliseconds(seconds: object) -> str:
    assert isinstance(seconds, float)
    return f"{1e3 * seconds:.1f}"
