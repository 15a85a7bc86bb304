"""Tables of the study's networks on every DRAM: one setting in full, all settings in short, and the study's claims."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from analysis.pictures.family_marks import REFERENCE
from analysis.tables.table import Column, format_table, percent
from benchmarks.dram.ranking_tables import Memory, changes, changes_sentence, cycles_by_memory, pairs_of
from benchmarks.dram.tables import memory_name
from benchmarks.study.summary import OURS
from benchmarks.study.tables import MARGIN, RIVALS

Row = Mapping[str, Any]
SHOWN = ("digits", "edge-16", 0.5)  # the setting that is shown in full
_EQUAL = 1.0005  # as in `benchmarks.study.summary`: programs that are the same but for an order


class Place(NamedTuple):
    """Where networks of one setting were run."""

    part: str
    trained_for: str
    budget: float
    machine: str


def setting_text(rows: Sequence[Row]) -> str:
    """Accuracy and cycles over dense of one setting's families on each DRAM, and what changes places."""
    tables, sentences = [], []
    for place, mine in _settings(rows).items():
        if place[:3] != SHOWN:
            continue
        memories = mine[REFERENCE]["on"]
        keys = [memory_name(memory) for memory in memories]
        lines = []
        for name, row in sorted(mine.items(), key=lambda item: item[1]["on"][0]["cycles"]):
            shares = (on["cycles"] / dense["cycles"] for on, dense in zip(row["on"], memories, strict=True))
            line = {"family": name, "accuracy": row["accuracy"]}
            lines.append(line | {key: f"{share:.3f}" for key, share in zip(keys, shares, strict=True)})
        columns = (
            Column(f"{place.part} on {place.machine}", "family", align="left"),
            Column("accuracy", "accuracy", percent),
            *(Column(key, key) for key in keys),
        )
        tables.append(format_table(columns, lines, markdown=True))
        sentences.append(changes_sentence(f"{place.part} on {place.machine}", mine, _families(mine)))
    return "\n".join([*tables, *sentences]) + "\n"


def settings_text(rows: Sequence[Row]) -> str:
    """Of every setting: pairs of families that change places, and whether the fastest accurate one is another."""
    lines, same, cases = [], 0, 0
    for place, mine in _settings(rows).items():
        families = _families(mine)
        changed = changes(mine, families)
        kept = [name for name in families if mine[name]["accuracy"] >= mine[REFERENCE]["accuracy"] - MARGIN]
        fastest = [(_fastest(mine, kept, plain), _fastest(mine, kept, banks)) for plain, banks in pairs_of(mine)]
        agree = sum(one == other for one, other in fastest)
        same, cases = same + agree, cases + len(fastest)
        lines.append(
            place._asdict()
            | {
                "families": len(families),
                "changed": f"{len(changed)} of {len(families) * (len(families) - 1) // 2}",
                "widest": f"{max((apart for apart, _ in changed.values()), default=0.0):.3f}",
                "kept": len(kept),
                "same": f"{agree} of {len(fastest)}" if kept else "-",
            }
        )
    columns = (
        Column("part", "part", align="left"),
        Column("trained for", "trained_for", align="left"),
        Column("budget", "budget", lambda value: f"{value:g}x"),
        Column("on", "machine", align="left"),
        Column("families", "families"),
        Column("pairs that change places", "changed"),
        Column("widest, of dense", "widest"),
        Column("keep the accuracy", "kept"),
        Column("fastest of these is the same", "same"),
    )
    return f"{format_table(columns, lines, markdown=True)}\nThe fastest is the same in {same} of {cases} cases.\n"


def claims_text(rows: Sequence[Row]) -> str:
    """The least cycles within half a point of dense, over all settings of a part: who has them before one latency and
    before banks of as many bytes a second, and whether the claims of automatic choice hold before both.
    """
    lines: list[dict[str, object]] = []
    claims: dict[tuple[str, str], list[tuple[bool, bool]]] = {}
    for (part, machine), networks in _parts(rows).items():
        dense = next(row for row in networks if row["family"] == REFERENCE)
        kept = [row for row in networks if row["accuracy"] >= dense["accuracy"] - MARGIN and row is not dense]
        for plain, banks in pairs_of({REFERENCE: dense}):
            line: dict[str, object] = {"part": part, "machine": machine, "dram": f"{banks[0]}, {banks[1]:g} GB/s"}
            for rival, families in RIVALS.items():
                rivals = [row for row in kept if row["family"] in families]
                for when, memory in (("plain", plain), ("banks", banks)):
                    line[f"{rival} {when}"] = _told(rivals, dense, memory)
                for ours in OURS:
                    own = [row for row in kept if row["family"] == ours]
                    held = (_least(own, rivals, dense, plain), _least(own, rivals, dense, banks))
                    claims.setdefault((ours, rival), []).append(held)
            lines.append(line)
    columns = (
        Column("part", "part", align="left"),
        Column("on", "machine", align="left"),
        Column("banks", "dram", align="left"),
        Column("structure, one latency", "structure plain", align="left"),
        Column("structure, banks", "structure banks", align="left"),
        Column("any, one latency", "any plain", align="left"),
        Column("any, banks", "any banks", align="left"),
    )
    return "\n".join([format_table(columns, lines, markdown=True), *_claim_sentences(claims)]) + "\n"


_AMONG = {"structure": "among structures", "any": "with smaller dense networks among the rivals"}


def _claim_sentences(claims: Mapping[tuple[str, str], Sequence[tuple[bool, bool]]]) -> Iterator[str]:
    for (ours, rival), held in claims.items():
        before, behind = (sum(pair[at] for pair in held) for at in (0, 1))
        yield (
            f"- *{ours}* has the fewest cycles {_AMONG[rival]} in {before} of {len(held)} cases before one "
            f"latency, {behind} before banks; in {sum(one != other for one, other in held)} the two differ."
        )


def _settings(rows: Sequence[Row]) -> dict[Place, dict[str, Row]]:
    """Family -> its row, by setting and machine, dense first; networks that could not reach their target are none."""
    dense = {(row["part"], row["machine"]): row for row in rows if row["family"] == REFERENCE}
    found: dict[Place, dict[str, Row]] = {}
    for row in rows:
        if "accuracy" in row and row["family"] != REFERENCE:
            place = Place(row["part"], row["trained_for"], row["budget"], row["machine"])
            mine = found.setdefault(place, {REFERENCE: dense[row["part"], row["machine"]]})
            mine[row["family"]] = row
    order = list(dict.fromkeys(row["part"] for row in rows))
    return dict(sorted(found.items(), key=lambda item: (order.index(item[0].part), *item[0][1:2], -item[0].budget)))


def _parts(rows: Sequence[Row]) -> dict[tuple[str, str], list[Row]]:
    found: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if "accuracy" in row:
            found.setdefault((row["part"], row["machine"]), []).append(row)
    return found


def _families(mine: Mapping[str, Row]) -> tuple[str, ...]:
    return tuple(name for name in mine if name != REFERENCE)


def _cycles(row: Row, memory: Memory) -> int:
    return cycles_by_memory({"it": row})[memory]["it"]


def _fastest(mine: Mapping[str, Row], names: Sequence[str], memory: Memory) -> str | None:
    return min(names, key=lambda name: (_cycles(mine[name], memory), name), default=None)


def _told(rows: Sequence[Row], dense: Row, memory: Memory) -> str:
    """The network of least cycles: its family, and its share of dense."""
    if not rows:
        return "none"
    best = min(rows, key=lambda row: _cycles(row, memory))
    return f"{best['family']} {_cycles(best, memory) / _cycles(dense, memory):.3f}"


def _least(own: Sequence[Row], rivals: Sequence[Row], dense: Row, memory: Memory) -> bool:
    """Whether one of ``own`` takes no more than every rival, or than dense where there is none."""
    best = min(_cycles(row, memory) for row in rivals or (dense,))
    return any(_cycles(row, memory) <= _EQUAL * best for row in own)
