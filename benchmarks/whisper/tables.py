"""Whisper tiny.en on fewer cycles: tables, from docs/data/whisper.jsonl."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from analysis.tables.table import Column, format_table
from benchmarks.shared.bootstrap import mean_interval

Row = dict[str, Any]
LABELS = {
    "dense": "dense",
    "silence": "dense, hearing silence",
    "int4": "dense in 4 bits",
    "layers-dropped": "layers dropped",
    "low-rank-by-loss": "low rank, by loss",
    "low-rank-by-loss-spared": "low rank, by loss, first self-attention dense",
    "low-rank-in-order": "low rank, by loss, in order",
    "lattice-by-loss": "lattice, by loss",
    "lattice-by-loss-spared": "lattice, by loss, first self-attention dense",
    "lattice-in-order": "lattice, by loss, in order",
    "block-sparse-by-loss": "block sparse, by loss",
}
SETS = ("spoken", "recorded")
_COSTS = {"latency_cycles": "cycles", "encoder_cycles": "encoder's", "dram_bytes": "DRAM bytes"}
# Of an utterance's figures, as `measure.Written` has them.
_LOSS, _TOKENS, _ERRORS, _WORDS = range(4)


def speech_table(rows: Sequence[Row]) -> str:
    """One line a network: tiles, cycles and bytes over dense's, and on both sets the loss a token, what it is above
    dense's with its interval, and words wrong in percent with theirs.
    """
    dense = next(row for row in rows if row["method"] == "dense")
    lines = []
    for row in in_order(rows):
        line = {"network": LABELS[row["method"]], "tiles": f"{row['tiles']:.3f}"}
        line |= {name: f"{row[name] / dense[name]:.3f}" for name in _COSTS}
        for name in SETS:
            loss, above, wrong = _figures(row[name], dense[name])
            line |= {f"loss {name}": f"{loss:.2f}", f"wrong {name}": wrong}
            line[f"above {name}"] = "" if row["method"] == "dense" else above
        lines.append(line)
    columns = [
        Column("network", "network", align="left"),
        Column("tiles", "tiles"),
        *(Column(label, name) for name, label in _COSTS.items()),
    ]
    for name in SETS:
        columns += [
            Column(f"loss, {name}", f"loss {name}"),
            Column("above dense's, 95 %", f"above {name}"),
            Column("words wrong (%), 95 %", f"wrong {name}"),
        ]
    return format_table(columns, lines, markdown=True)


def rivals_table(rows: Sequence[Row], most: float = 0.03) -> str:
    """The lattice's loss less each rival's on the same utterances, where both take about the same cycles: at most so
    many of dense's apart.
    """
    dense = next(row for row in rows if row["method"] == "dense")
    lines = []
    for row, lattice in pairs(rows, most):
        line = {"lattice": LABELS[lattice["method"]], "rival": LABELS[row["method"]]}
        line |= {name: f"{one['latency_cycles'] / dense['latency_cycles']:.3f}"
                 for name, one in (("own", lattice), ("cycles", row))}  # fmt: skip
        for name in SETS:
            mean, low, high = apart(lattice[name], row[name])
            line |= {name: f"{mean:+.2f}", f"95 {name}": f"{low:+.2f} to {high:+.2f}"}
            line[f"better {name}"] = "lattice" if high < 0 else "rival" if low > 0 else "level"
        lines.append(line)
    columns = [
        Column("lattice", "lattice", align="left"),
        Column("its cycles", "own"),
        Column("rival", "rival", align="left"),
        Column("its cycles", "cycles"),
    ]
    for name in SETS:
        columns += [Column(f"loss apart, {name}", name), Column("95 %", f"95 {name}")]
        columns += [Column("better", f"better {name}", align="left")]
    return format_table(columns, lines, markdown=True)


def in_order(rows: Sequence[Row]) -> list[Row]:
    """As the tables have them."""
    order = list(LABELS)
    return sorted(rows, key=lambda one: (order.index(one["method"]), -one["share"]))


def pairs(rows: Sequence[Row], most: float) -> list[tuple[Row, Row]]:
    """Rivals and lattices of about the same cycles, tiles chosen alike where the rival has tiles to choose."""
    dense = next(row for row in rows if row["method"] == "dense")
    found = []
    for lattice in (row for row in in_order(rows) if row["method"].startswith("lattice-")):
        way = lattice["method"].removeprefix("lattice-")
        for row in in_order(rows):
            alike = row["method"].endswith(f"-{way}") or row["method"] == "layers-dropped"
            near = abs(row["latency_cycles"] - lattice["latency_cycles"]) <= most * dense["latency_cycles"]
            found += [(row, lattice)] if alike and near and not row["method"].startswith("lattice-") else []
    return found


def apart(own: Sequence[Sequence[float]], other: Sequence[Sequence[float]]) -> tuple[float, float, float]:
    """How much more one loses a token than another on the same utterances, and its 95 % interval over these."""
    tokens = [one[_TOKENS] for one in own]
    each = [(one[_LOSS] - two[_LOSS]) / one[_TOKENS] for one, two in zip(own, other, strict=True)]
    low, high = mean_interval(each, tokens)
    return sum(a * b for a, b in zip(each, tokens, strict=True)) / sum(tokens), low, high


def _figures(found: Sequence[Sequence[float]], dense: Sequence[Sequence[float]]) -> tuple[float, str, str]:
    loss = sum(one[_LOSS] for one in found) / sum(one[_TOKENS] for one in found)
    _, low, high = apart(found, dense)
    words = [one[_WORDS] for one in found]
    wrong = [one[_ERRORS] / one[_WORDS] for one in found]
    ends = [100 * one for one in mean_interval(wrong, words)]
    mean = 100 * sum(one[_ERRORS] for one in found) / sum(words)
    return loss, f"{low:+.2f} to {high:+.2f}", f"{mean:.0f} ({ends[0]:.0f}-{ends[1]:.0f})"
