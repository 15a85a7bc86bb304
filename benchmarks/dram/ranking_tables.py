"""Tables of whole networks' families on every DRAM, and sentences about those that change places."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import permutations
from typing import Any

from analysis.pictures.family_marks import REFERENCE
from analysis.tables.table import Column, count, format_table, percent
from benchmarks.dram.tables import FAMILIES, memory_name, one_letter

Row = Mapping[str, Any]
Case = tuple[str, str]  # network, machine
Memory = tuple[str, float]  # model, GB/s


def networks_text(rows: Sequence[Row]) -> str:
    """Cycles over dense of each family of each network, and what changes places."""
    cases = _cases(rows, "network")
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
    sentences = [_sentence(case, mine, FAMILIES) for case, mine in cases.items()]
    return "\n".join([format_table(columns, lines, markdown=True), *sentences]) + "\n"


def study_text(rows: Sequence[Row]) -> str:
    """Accuracy and cycles over dense of the study's families on each DRAM, and what changes places."""
    cases = _cases(rows, "study")
    parts, sentences = [], []
    for case, mine in cases.items():
        memories = mine[REFERENCE]["on"]
        keys = [memory_name(memory) for memory in memories]
        lines = [
            {"family": f"{name}", "accuracy": row["accuracy"]}
            | {
                key: f"{on['cycles'] / dense['cycles']:.3f}"
                for key, on, dense in zip(keys, row["on"], memories, strict=True)
            }
            for name, row in sorted(mine.items(), key=lambda item: item[1]["on"][0]["cycles"])
        ]
        columns = (
            Column(f"{case[0]} on {case[1]}", "family", align="left"),
            Column("accuracy", "accuracy", percent),
            *(Column(key, key) for key in keys),
        )
        parts.append(format_table(columns, lines, markdown=True))
        sentences.append(_sentence(case, mine, tuple(name for name in mine if name != REFERENCE)))
    return "\n".join([*parts, *sentences]) + "\n"


def _cases(rows: Sequence[Row], kind: str) -> dict[Case, dict[str, Row]]:
    cases: dict[Case, dict[str, Row]] = {}
    for row in rows:
        if row["kind"] == kind:
            cases.setdefault((row["network"], row["machine"]), {})[row["family"]] = row
    return cases


def _sentence(case: Case, mine: Mapping[str, Row], families: Sequence[str]) -> str:
    """Families of one network that change places between one latency and banks of as many bytes a second."""
    cycles: dict[Memory, dict[str, int]] = {}
    for name, row in mine.items():
        for on in row["on"]:
            cycles.setdefault((on["model"], round(on["gb_per_s"], 1)), {})[name] = on["cycles"]
    changed: dict[str, tuple[float, list[str]]] = {}
    banks = {memory: one for memory, one in cycles.items() if memory[0] != "bandwidth"}
    for (model, gb_per_s), one in banks.items():
        plain = cycles["bandwidth", gb_per_s]
        for a, b in permutations(families, 2):
            if plain[a] < plain[b] and one[a] > one[b]:
                apart = max(plain[b] - plain[a], one[a] - one[b]) / plain[REFERENCE]
                widest, where = changed.get(f"{a} and {b}", (0.0, []))
                changed[f"{a} and {b}"] = max(widest, apart), [*where, model]
    who = f"{case[0]} on {case[1]}"
    if not changed:
        return f"- {who}: the order is the same under {len(banks)} of {len(banks)} standards."
    widest = max(apart for apart, _ in changed.values())
    pairs = "; ".join(f"{pair} ({', '.join(where)})" for pair, (_, where) in changed.items())
    return f"- {who}: these change places, never further apart than {widest:.3f} of dense: {pairs}."
