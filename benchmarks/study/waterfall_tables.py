"""The waterfall's tables: steps from dense to automatic choice, out of docs/data/waterfall.json and study.jsonl.

The file holds what was measured of compiler and machine; what training reaches is read off the study's fronts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from analysis.tables.table import Column, count, format_table
from benchmarks.study.equal_accuracy import cost_at, mean_points
from benchmarks.study.settings import Setting, Study
from benchmarks.study.tables import ANY_WIDTH, BLIND, LEARNED
from benchmarks.study.waterfall_picture import OWNERS, Step, factors, shares
from gblr_hw.weights.family import renamed
from simulator.base.errors import InputError

TRAINED = {
    "trained with the smooth cost alone": "GBLR, penalty only",
    "smooth cost, then projection": "GBLR, hardware cost",
    LEARNED: LEARNED,
    ANY_WIDTH: ANY_WIDTH,
}


@dataclass(frozen=True)
class Waterfall:
    """Steps of one layer or network. cycles of dense come first."""

    title: str
    steps: tuple[Step, ...]


def random_waterfalls(data: Mapping[str, Any]) -> list[Waterfall]:
    """Those of random intervals, machine by machine."""
    return [Waterfall(one["title"], tuple(Step(**step) for step in one["steps"])) for one in data["random"]]


def network_waterfalls(data: Mapping[str, Any], study: Study) -> list[Waterfall]:
    """Those of kept networks, and behind them the steps of what training reaches at the same mean accuracy."""
    found = []
    for one in data["networks"]:
        setting = _setting(study, one)
        steps = [Step(**step) for step in one["steps"]]
        for label, family in TRAINED.items():
            points = mean_points(study.of(setting.part, family, setting.trained_for), "latency_cycles", one["machine"])
            cost = cost_at(points, setting.accuracy)
            value, at_most = (None, False) if cost is None else (cost.value, cost.at_most)
            steps.append(Step(label, "training", value, at_most))
        title = f"{setting.part}, {setting.trained_for}: width shrinkage {setting.budget:g}x"
        found.append(Waterfall(f"{title}, {100 * setting.accuracy:.1f} %", tuple(steps)))
    return found


def _setting(study: Study, one: Mapping[str, Any]) -> Setting:
    for setting in study.of(one["part"], BLIND, one["machine"]):
        if setting.budget == one["budget"] and one["seed"] in setting.runs:
            return setting
    raise InputError(
        "waterfall",
        f"a network of {one['part']}, {one['machine']}, {one['budget']:g}x",
        "the study has its setting",
        "Run `make study`.",
    )


def step_tables(waterfalls: Sequence[Waterfall]) -> str:
    """All of them, one below the other."""
    return "\n".join(step_table(one) for one in waterfalls)


def step_table(waterfall: Waterfall) -> str:
    """Cycles after each step, of dense and of the step before, and what each owner's steps amount to."""
    first = waterfall.steps[0].cycles or 1.0
    lines: list[dict[str, object]] = [
        {
            "step": step.label,
            "owed": step.owed_to,
            "cycles": None if step.cycles is None else ("≤ " if step.at_most else "") + count(step.cycles),
            "dense": None if step.cycles is None else f"{step.cycles / first:.3f}",
            "factor": None if factor is None else f"{factor:.3f}",
        }
        for step, factor in zip(waterfall.steps, factors(waterfall.steps), strict=True)
    ]
    columns = (
        Column("step", "step", align="left"),
        Column("owed to", "owed", align="left"),
        Column("cycles", "cycles"),
        Column("of dense", "dense"),
        Column("of the step before", "factor"),
    )
    product = shares(waterfall.steps)
    owed = ", ".join(f"{owner} x {product[owner]:.3f}" for owner in OWNERS if owner in product)
    return f"{waterfall.title}\n\n{format_table(columns, lines, markdown=True)}\nTogether: {owed}.\n"


def scatter_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The same networks with their permutation network and without it; families recorded under an old label have
    today's.
    """
    lines = [
        {
            **row,
            "family": renamed(row["family"]),
            "budget": f"{row['budget']:g}",
            "ratio": f"{row['off'] / row['on']:.3f}",
        }
        for row in rows
    ]
    columns = (
        Column("part", "part", align="left"),
        Column("trained for", "machine", align="left"),
        Column("family", "family", align="left"),
        Column("budget", "budget"),
        Column("cycles with scatter", "on", count),
        Column("without", "off", count),
        Column("without / with", "ratio"),
    )
    return format_table(columns, lines, markdown=True)
