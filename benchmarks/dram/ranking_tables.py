"""Tables of whole networks' families on every DRAM, and sentences about those that change places."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import permutations
from typing import Any

from analysis.pictures.family_marks import REFERENCE
from analysis.tables.table import Column, count, format_table
from benchmarks.dram.tables import FAMILIES, memory_name, one_letter
from simulator.machine.machine import BANDWIDTH

Row = Mapping[str, Any]
Case = tuple[str, str]  # network, machine
Memory = tuple[str, float]  # model, GB/s


def networks_text(rows: Sequence[Row]) -> str:
    """Cycles over dense of each family of each network, and what changes places."""
    cases = _cases(rows)
    lines = []
    for (network, machine), mine in cases.items():
        for at, memory in enumerate(mine[REFERENCE]["on"]):
            dense = memory["cycles"]
            shares = {name: mine[name]["on"][at]["cycles"] / dense for name in FAMILIES}
            line = {"network": network, "machine": machine, "dram": memory_name(memory), "cycles": dense}
            order = "".join(one_letter(name) for name in sorted(shares, key=lambda name: shares[name]))
            lines.append(line | {name: f"{share:.3f}" for name, share in shares.items()} | {"order": order})
    columns = (
        Column("network", "network", align="left"),
        Column("machine", "machine", align="left"),
        Column("DRAM", "dram", align="left"),
        Column("dense", "cycles", count),
        *(Column(f"{name} ({one_letter(name)})", name) for name in FAMILIES),
        Column("fastest first", "order", align="left"),
    )
    sentences = [changes_sentence(f"{case[0]} on {case[1]}", mine, FAMILIES) for case, mine in cases.items()]
    return "\n".join([format_table(columns, lines, markdown=True), *sentences]) + "\n"


def _cases(rows: Sequence[Row]) -> dict[Case, dict[str, Row]]:
    """Family -> its row, of networks that were measured in all families."""
    cases: dict[Case, dict[str, Row]] = {}
    for row in rows:
        cases.setdefault((row["network"], row["machine"]), {})[row["family"]] = row
    return {case: mine for case, mine in cases.items() if {REFERENCE, *FAMILIES} <= set(mine)}


def cycles_by_memory(mine: Mapping[str, Row]) -> dict[Memory, dict[str, int]]:
    """Cycles of each name on each memory."""
    cycles: dict[Memory, dict[str, int]] = {}
    for name, row in mine.items():
        for on in row["on"]:
            cycles.setdefault((on["model"], round(on["gb_per_s"], 1)), {})[name] = on["cycles"]
    return cycles


def pairs_of(mine: Mapping[str, Row]) -> list[tuple[Memory, Memory]]:
    """Each standard's banks, behind one latency and as many bytes a second."""
    banks = [memory for memory in cycles_by_memory(mine) if memory[0] != BANDWIDTH]
    return [((BANDWIDTH, memory[1]), memory) for memory in banks]


def changes(mine: Mapping[str, Row], families: Sequence[str]) -> dict[str, tuple[float, list[str]]]:
    """Pairs of families that change places between one latency and banks of as many bytes a second: the larger of both
    distances, in shares of dense, and the standards.
    """
    cycles = cycles_by_memory(mine)
    changed: dict[str, tuple[float, list[str]]] = {}
    for before, behind in pairs_of(mine):
        plain, banks = cycles[before], cycles[behind]
        for a, b in permutations(families, 2):
            if plain[a] < plain[b] and banks[a] > banks[b]:
                apart = max(plain[b] - plain[a], banks[a] - banks[b]) / plain[REFERENCE]
                pair = " and ".join(sorted((a, b)))
                widest, where = changed.get(pair, (0.0, []))
                changed[pair] = max(widest, apart), [*where, behind[0]]
    return changed


def changes_sentence(who: str, mine: Mapping[str, Row], families: Sequence[str]) -> str:
    """How many pairs change places, and the widest of them."""
    changed, pairs = changes(mine, families), len(families) * (len(families) - 1) // 2
    if not changed:
        return f"- {who}: the order is that of one latency under all {len(pairs_of(mine))} standards."
    ordered = sorted(changed.items(), key=lambda item: -item[1][0])
    told = "; ".join(f"{pair} by {apart:.3f} ({', '.join(where)})" for pair, (apart, where) in ordered[:_TOLD])
    first = ", the widest of them" if len(changed) > _TOLD else ""
    return f"- {who}: {len(changed)} of {pairs} pairs change places{first}, in shares of dense: {told}."


_TOLD = 3  # pairs of a network that are named
