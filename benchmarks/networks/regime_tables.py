"""Tables of whole programs by regime: which structure pays in prefill and which in decode."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from analysis.pictures.family_marks import REFERENCE
from analysis.tables.table import Column, count, format_table, percent

Row = Mapping[str, Any]
Case = tuple[str, str, int, str]  # network, regime, batch, machine

KEY = ("network", "regime", "batch", "machine", "way")
FOUR_BITS = "dense, 4 bits"
STRUCTURES = ("low rank", "block sparse", "lattice", "Monarch", "BLAST")
WAYS = (*STRUCTURES, FOUR_BITS)
PAST = 1024  # tokens in the cache of one that decodes


@dataclass(frozen=True)
class Regime:
    """Tokens of each sequence, sequences at once, and tokens whose keys and values come from a cache."""

    title: str
    tokens: int
    batch: int
    past: int = 0


REGIMES = (
    *(Regime("prefill 16", 16, batch) for batch in (1, 8)),
    *(Regime(f"prefill {tokens}", tokens, 1) for tokens in (197, 1024)),
    *(Regime("decode", 1, batch, PAST) for batch in (1, 8)),
)


def whole_cases(rows: Sequence[Row]) -> dict[Case, dict[str, Row]]:
    """Way -> its row, of programs that were measured in all ways, in the order of REGIMES."""
    found: dict[Case, dict[str, Row]] = {}
    for row in rows:
        found.setdefault((row["network"], row["regime"], row["batch"], row["machine"]), {})[row["way"]] = row
    turn = [(regime.title, regime.batch) for regime in REGIMES]
    whole = {case: mine for case, mine in found.items() if {REFERENCE, *WAYS} <= set(mine)}
    return dict(sorted(whole.items(), key=lambda item: (turn.index(item[0][1:3]), item[0][0])))


def shares_of(mine: Mapping[str, Row]) -> dict[str, float]:
    """Cycles of each way over dense."""
    return {way: mine[way]["latency_cycles"] / mine[REFERENCE]["latency_cycles"] for way in WAYS}


def regimes_table(rows: Sequence[Row]) -> str:
    """One row a program: dense, and each way's cycles over dense."""
    lines = []
    for (network, regime, batch, machine), mine in whole_cases(rows).items():
        shares, dense = shares_of(mine), mine[REFERENCE]
        lines.append(
            {
                "network": network,
                "regime": regime,
                "batch": batch,
                "machine": machine,
                "cycles": dense["latency_cycles"],
                "roof": f"{dense['roofline_fraction']:.0%} {dense['bound']}",
                "share": percent(dense["linear_share"]),
                **{way: f"{share:.3f}" for way, share in shares.items()},
                "fastest": min(WAYS, key=lambda way: shares[way]),
            }
        )
    columns = (
        Column("network", "network", align="left"),
        Column("regime", "regime", align="left"),
        Column("batch", "batch"),
        Column("machine", "machine", align="left"),
        Column("dense", "cycles", count),
        Column("of the roof", "roof"),
        Column("linears", "share"),
        *(Column(way, way) for way in WAYS),
        Column("fastest", "fastest", align="left"),
    )
    return format_table(columns, lines, markdown=True)


def summary_table(rows: Sequence[Row]) -> str:
    """One row a regime and machine: each way's cycles over dense, least and most of the networks."""
    groups: dict[tuple[str, int, str], list[dict[str, float]]] = {}
    for (_, *group), mine in whole_cases(rows).items():
        groups.setdefault(tuple(group), []).append(shares_of(mine))
    lines = [
        {"regime": regime, "batch": batch, "machine": machine, "networks": len(found)}
        | {way: span([shares[way] for shares in found]) for way in WAYS}
        for (regime, batch, machine), found in groups.items()
    ]
    columns = (
        Column("regime", "regime", align="left"),
        Column("batch", "batch"),
        Column("machine", "machine", align="left"),
        Column("networks", "networks"),
        *(Column(way, way) for way in WAYS),
    )
    return format_table(columns, lines, markdown=True)


def span(shares: Sequence[float]) -> str:
    """The least and the most."""
    low, high = f"{min(shares):.2f}", f"{max(shares):.2f}"
    return low if low == high else f"{low} to {high}"


def structures_text(rows: Sequence[Row]) -> str:
    """Of each structure, a sentence: its share of dense, how often it beats four bits and is fastest, and where not."""
    cases = {case: shares_of(mine) for case, mine in whole_cases(rows).items()}
    return "".join(f"{_sentence(way, cases)}\n" for way in STRUCTURES)


def _sentence(way: str, cases: Mapping[Case, Mapping[str, float]]) -> str:
    behind = [case for case, shares in cases.items() if shares[way] >= shares[FOUR_BITS]]
    fastest = sum(shares[way] == min(shares[one] for one in STRUCTURES) for shares in cases.values())
    places: dict[str, list[str]] = {}
    for network, regime, batch, machine in behind:
        places.setdefault(f"{regime} x {batch} on {machine}", []).append(network)
    where = "; ".join(f"{place} ({', '.join(networks)})" for place, networks in places.items())
    return (
        f"- *{way}*: {span([shares[way] for shares in cases.values()])} of dense's cycles, the fewest of the "
        f"{len(STRUCTURES)} in {fastest} of {len(cases)} programs, and fewer than four bits in "
        f"{len(cases) - len(behind)}. {f'Not fewer than those: {where}.' if behind else ''}".strip()
    )


def regimes_text(rows: Sequence[Row]) -> str:
    """All of them."""
    return "\n".join(table(rows) for table in (summary_table, structures_text, regimes_table))
