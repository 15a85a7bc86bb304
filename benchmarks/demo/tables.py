"""Tables and the front of the demo's digits networks, from docs/data/demo.json."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from analysis.pictures.front_picture import draw_front
from analysis.tables.records import NetworkPoint
from analysis.tables.table import Column, count, energy_from_pj, format_table, percent

Row = dict[str, Any]
_CLOCK_HZ = 1e9  # of both machines
_TITLE = "Digits, 8 x 8: accuracy and latency of a batch of 16"


def first_seed_table(rows: Sequence[Row]) -> str:
    """What `make demo` prints: seed 0 on every machine."""
    machines = list(rows[0]["machines"])
    dense = {name: rows[0]["machines"][name]["latency_cycles"] for name in machines}
    lines = []
    for row in rows:
        line = {**row, "accuracy": row["accuracies"][0]}
        for name, one in row["machines"].items():
            line |= {f"cycles {name}": one["latency_cycles"], f"energy {name}": one["energy_pj"]}
            line[f"share {name}"] = one["latency_cycles"] / dense[name]
        lines.append(line)
    columns = [
        Column("network", "network", align="left"),
        Column("accuracy", "accuracy", percent),
        Column("int8 accuracy", "int8_accuracy", percent),
        Column("multiplications an image", "multiplications", count),
    ]
    for name in machines:
        columns += [
            Column(f"cycles {name}", f"cycles {name}", count),
            Column("of dense", f"share {name}", percent),
            Column("energy", f"energy {name}", energy_from_pj),
        ]
    return format_table(columns, lines, markdown=True)


def seeds_table(rows: Sequence[Row], seeds: Sequence[int]) -> str:
    """Accuracy of every seed, and what networks take of dense: means over seeds."""
    machines = list(rows[0]["machines"])
    lines = []
    for row in rows:
        line = {
            "network": row["network"],
            "accuracies": " / ".join(f"{100 * accuracy:.1f}" for accuracy in row["accuracies"]),
            "mean": f"{100 * statistics.fmean(row['accuracies']):.1f}",
            "multiplications": f"{row['multiplications_of_dense']:.2f}",
        }
        for name, one in row["machines"].items():
            line |= {f"{key} {name}": f"{one[f'{key}_of_dense']:.3f}" for key in ("cycles", "energy")}
        lines.append(line)
    columns = [
        Column("network", "network", align="left"),
        Column(f"accuracy, seeds {' / '.join(map(str, seeds))} (%)", "accuracies"),
        Column("mean", "mean"),
        Column("multiplications of dense", "multiplications"),
        *(Column(f"{key} of dense, {name}", f"{key} {name}") for key in ("cycles", "energy") for name in machines),
    ]
    return format_table(columns, lines, markdown=True)


def front_picture(rows: Sequence[Row], seeds: Sequence[int]) -> Figure:
    """Accuracy of every seed over latency, which is the first seed's."""
    return draw_front(
        [
            NetworkPoint(
                row["network"], _family(row["network"]), accuracy, row["multiplications"], machine,
                one["latency_cycles"], one["latency_cycles"] / _CLOCK_HZ, one["energy_pj"], seed=seed,
            )
            for row in rows
            for machine, one in row["machines"].items()
            for seed, accuracy in zip(seeds, row["accuracies"], strict=True)
        ],
        _TITLE,
    )  # fmt: skip


def _family(network: str) -> str:
    """What pictures know a network's family by: its name without its budget."""
    return network.partition(", 0.")[0].removesuffix(" projection")
