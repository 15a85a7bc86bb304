"""Tables of docs/verification.md, from what the corpus and the mutants left in docs/data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from analysis.tables.table import Column, count, format_table
from simulator.program.operations import Op

Data = dict[str, Any]

# Kind of program in tests/drawn/corpus.py -> what it is.
KINDS = {
    "columns": "any operations, durations and dependences, also such as no machine has",
    "soup": "checked programs of any instructions in any order on machines of 2..16 x 2..16 cells",
    "chain": "each instruction waits for the latest producer of every kind",
    "phases": "all loads, all tiles, all drains, all stores: crowded queues",
    "networks": "checked programs of networks of nine operators: attention, gather, transpose, window; "
    "any instructions in any order",
    "lowered": "networks of 1 to 3 layers of every family, lowered; starved, balanced and flooded DRAM",
}


def corpus_kinds_table(data: Data) -> str:
    """The kinds of program in the corpus and how many there are."""
    rows = [{"kind": kind, "size": size, "what": KINDS[kind]} for kind, size in data["programs"].items()]
    columns = (
        Column("kind", "kind", align="left"),
        Column("at scale 1", "size", count),
        Column("what it is", "what", align="left"),
    )
    return format_table(columns, rows, markdown=True)


def corpus_reach_table(data: Data) -> str:
    """What the corpus reaches: instructions by operation and stall, programs by what happens in them."""
    features: dict[str, int] = data["features"]
    stalls = {which: f"{which} stall " for which in ("array", "other")}
    sides = {side: f"{side} = " for side in "PQ"}

    def chosen(wanted: Callable[[str], bool]) -> dict[str, int]:
        return {name: number for name, number in sorted(features.items()) if wanted(name)}

    operations = chosen(lambda name: name in Op.__members__)
    by_stall = {which: chosen(lambda name, p=prefix: name.startswith(p)) for which, prefix in stalls.items()}
    by_side = {side: chosen(lambda name, p=prefix: name.removeprefix(p).isdigit()) for side, prefix in sides.items()}
    told = {*operations, *(n for found in (*by_stall.values(), *by_side.values()) for n in found)}
    ranges = {side: f"{min(found.values())} to {max(found.values())}" for side, found in by_side.items()}
    numbers = {side: sorted(int(name.removeprefix(sides[side])) for name in found) for side, found in by_side.items()}
    span = {side: f"each {side} from {found[0]} to {found[-1]}" for side, found in numbers.items()}
    rows = [
        {"what": "operations", "counts": _listed(operations)},
        *(
            {"what": f"{which} stalls", "counts": _listed({n.removeprefix(stalls[which]): k for n, k in found.items()})}
            for which, found in by_stall.items()
        ),
        {"what": "sizes", "counts": f"{span['P']} in {ranges['P']} programs, {span['Q']} in {ranges['Q']}"},
        {"what": "programs", "counts": _listed(chosen(lambda name: name not in told), "; ")},
    ]
    columns = (Column("", "what", align="left"), Column("counts", "counts", align="left"))
    return format_table(columns, rows, markdown=True)


def _listed(counts: dict[str, int], between: str = ", ") -> str:
    return between.join(f"{name} {number:,}" for name, number in counts.items())


def mutants_table(results: Sequence[Data]) -> str:
    """Who notices which one-cycle error first."""
    rows = []
    for one in results:
        killer = one["killed_by"].split("::")[-1]
        by_hand = one["check"] == "by hand"
        told = killer if by_hand else f"agreement, {one['killed_by']}"
        rows.append({**one, "killer": told if one["killed_by"] else "**nobody**"})
    columns = (
        Column("rule", "rule", align="left"),
        Column("one-cycle error", "error", align="left"),
        Column("broken in", "place", align="left"),
        Column("noticed by", "killer", align="left"),
    )
    return format_table(columns, rows, markdown=True)
