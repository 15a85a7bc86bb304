"""Tables of families that were trained for longer, out of docs/data/trained_out.jsonl."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from analysis.pictures.family_marks import REFERENCE
from analysis.tables.table import Column, format_table
from benchmarks.study.bootstrap import Interval, mean_interval
from benchmarks.study.equal_accuracy import Paired, paired
from benchmarks.study.settings import Setting, Study, gather
from benchmarks.study.trained_out import BUDGETS, FAMILIES, MACHINE, PART, TIMES

Row = Mapping[str, Any]


def by_times(rows: Sequence[Row]) -> dict[int, Study]:
    """A study for each length of training."""
    return {times: gather([row for row in rows if row["times"] == times]) for times in TIMES}


def accuracy_interval(setting: Setting) -> Interval:
    """Of the mean accuracy, over seeds and test images."""
    return mean_interval(np.array([run.right for run in setting.runs.values()], dtype=np.float64))


def trained_out_table(rows: Sequence[Row]) -> str:
    """Accuracy of each family and budget by epochs; the longest training also less dense trained as long."""
    studies, lines = by_times(rows), []
    for family, budget in _settings():
        line: dict[str, object] = {"family": family, "budget": "" if family == REFERENCE else f"{budget:g}x"}
        seeds = []
        for times, study in studies.items():
            setting = setting_of(study, family, budget)
            if setting is not None:
                line[str(times)] = _accuracy(setting)
                seeds.append(len(setting.runs))
        longest = studies[max(TIMES)]
        ours, dense = setting_of(longest, family, budget), setting_of(longest, REFERENCE, 1.0)
        if ours is not None and dense is not None:
            share = ours.cost("latency_cycles", MACHINE) / dense.cost("latency_cycles", MACHINE)
            line["share"] = f"{share:.3f}"
            line["less"] = _difference(paired(ours, dense)) if family != REFERENCE else None
        line["seeds"] = "/".join(map(str, seeds))
        if seeds:
            lines.append(line)
    columns = (
        Column("family", "family", align="left"),
        Column("budget", "budget"),
        Column("cycles, of dense", "share"),
        *(Column(f"{times} x the epochs" if times > 1 else "the study's epochs", str(times)) for times in TIMES),
        Column(f"less dense, {max(TIMES)} x", "less"),
        Column("seeds", "seeds"),
    )
    return format_table(columns, lines, markdown=True)


def pairs_table(rows: Sequence[Row]) -> str:
    """The longest training at equal budget: less GBLR by its published recipe, and less automatic choice."""
    study, lines = by_times(rows)[max(TIMES)], []
    against = (FAMILIES[0], "automatic choice")
    for budget in BUDGETS:
        for family in FAMILIES:
            ours = setting_of(study, family, budget)
            if ours is None:
                continue
            line: dict[str, object] = {"budget": f"{budget:g}x", "family": family}
            for other in against:
                theirs = setting_of(study, other, budget)
                if theirs is not None and other != family:
                    line[other] = _difference(paired(ours, theirs))
            lines.append(line)
    columns = (
        Column("budget", "budget"),
        Column("family", "family", align="left"),
        *(Column(f"less {other}", other) for other in against),
    )
    return format_table(columns, lines, markdown=True)


def verdict(rows: Sequence[Row]) -> str:
    """Who is highest at each budget after the longest training, who is not clearly below, and who is."""
    study, told = by_times(rows)[max(TIMES)], []
    for budget in BUDGETS:
        found = {name: one for name in FAMILIES if (one := setting_of(study, name, budget)) is not None}
        best = max(found, key=lambda name: found[name].accuracy)
        differences = {name: paired(one, found[best]) for name, one in found.items() if name != best}
        close = [name for name, one in differences.items() if one is not None and one.verdict != "loss"]
        below = [name for name in differences if name not in close]
        told.append(
            f"- At {budget:g}x of dense's cycles and {max(TIMES)} times the epochs the highest mean is {best}'s "
            f"({100 * found[best].accuracy:.1f}). Within its interval: {', '.join(close) or 'none'}. Below: "
            f"{', '.join(below) or 'none'}."
        )
    return "\n".join(told) + "\n"


def trained_out_text(rows: Sequence[Row]) -> str:
    """The table and the verdict."""
    return "\n".join([trained_out_table(rows), verdict(rows)])


def _settings() -> list[tuple[str, float]]:
    return [(REFERENCE, 1.0), *((family, budget) for budget in BUDGETS for family in FAMILIES)]


def setting_of(study: Study, family: str, budget: float) -> Setting | None:
    """A family's runs at a budget, where there are some."""
    found = [one for one in study.of(PART, family, MACHINE) if one.budget == budget and one.runs]
    return found[0] if found else None


def _accuracy(setting: Setting) -> str:
    ends = accuracy_interval(setting)
    return f"{100 * setting.accuracy:.1f} ({100 * ends.low:.1f}-{100 * ends.high:.1f})"


def _difference(found: Paired | None) -> str | None:
    if found is None:
        return None
    ends = found.interval
    return f"{100 * found.mean:+.2f}" + ("" if ends is None else f" ({100 * ends.low:+.2f} to {100 * ends.high:+.2f})")
