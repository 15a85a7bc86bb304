"""Tables of whole networks' families on every DRAM, and sentences about those that change places."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import permutations
from typing import Any

from analysis.pictures.family_marks import REFERENCE
from analysis.tables.table import Column, count, format_table, percent
from benchmarks.dram.tables import FAMILIES, memory_name, one_letter
from benchmarks.study.runs import ABLATION
from gblr_hw.weights.family import renamed

Row = Mapping[str, Any]
Case = tuple[str, str]  # network, machine
Memory = tuple[str, float]  # model, GB/s
KEPT = 0.005  # of the images: as in docs/claims.md


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
    for case, every in cases.items():
        mine = {renamed(name): row for name, row in every.items() if name not in ABLATION}
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
        sentences.append(_fastest(case, mine, KEPT))
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
                pair = " and ".join(sorted((a, b)))
                widest, where = changed.get(pair, (0.0, []))
                changed[pair] = max(widest, apart), [*where, model]
    who, pairs = f"- {case[0]} on {case[1]}", len(families) * (len(families) - 1) // 2
    if not changed:
        return f"{who}: the order is that of one latency under all {len(banks)} standards."
    ordered = sorted(changed.items(), key=lambda item: -item[1][0])
    told = "; ".join(f"{pair} by {apart:.3f} ({', '.join(where)})" for pair, (apart, where) in ordered[:_TOLD])
    first = ", the widest of them" if len(changed) > _TOLD else ""
    return f"{who}: {len(changed)} of {pairs} pairs change places{first}, in shares of dense: {told}."


_TOLD = 3  # pairs of a network that are named


def _fastest(case: Case, mine: Mapping[str, Row], margin: float) -> str:
    """The fastest family of those that keep dense's accuracy, on each DRAM."""
    dense = mine[REFERENCE]
    kept = [name for name, row in mine.items() if name != REFERENCE and row["accuracy"] >= dense["accuracy"] - margin]
    found: dict[str, list[str]] = {}
    for at, memory in enumerate(dense["on"]):
        best = min(kept, key=lambda name: mine[name]["on"][at]["cycles"])
        found.setdefault(best, []).append(memory_name(memory).replace(", ", " with "))
    told = "; ".join(f"*{name}* ({', '.join(where)})" for name, where in found.items())
    return f"- {case[0]} on {case[1]}: the fastest within {100 * margin:g} points of dense's accuracy: {told}."
