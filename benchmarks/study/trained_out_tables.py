"""Tables of families that were trained for longer, out of docs/data/trained_out.jsonl and, for the study's own epochs,
of what it has not, the study.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from analysis.pictures.family_marks import REFERENCE
from analysis.tables.table import Column, format_table
from benchmarks.study.bootstrap import Interval, mean_interval, percentiles, seed_draws
from benchmarks.study.equal_accuracy import Paired, paired
from benchmarks.study.runs import SCRATCH
from benchmarks.study.settings import Setting, Study, gather
from benchmarks.study.trained_out import SETTINGS, TIMES

Row = Mapping[str, Any]
LONGEST = max(TIMES)


def by_times(rows: Sequence[Row], study: Study, part: str, machine: str) -> dict[int, Study]:
    """A study for each length of training; that of the study's own has the study's settings where it lacks some."""
    own = [row for row in rows if (row["part"], row["machine"]) == (part, machine)]
    found = {times: gather([row for row in own if row["times"] == times]) for times in TIMES}
    known = {(one.family, one.budget) for one in found[1].settings if one.runs}
    more = [one for one in study.of(part, trained_for=machine) if (one.family, one.budget) not in known]
    return {**found, 1: replace(found[1], settings=(*found[1].settings, *more))}


def accuracy_interval(setting: Setting) -> Interval | None:
    """Of the mean accuracy: over seeds and test images where it is known which are right, else over seeds."""
    if all(run.right for run in setting.runs.values()):
        return mean_interval(np.array([run.right for run in setting.runs.values()], dtype=np.float64))
    if len(setting.runs) < 2:
        return None
    return percentiles(
        statistics.fmean(setting.runs[seed].accuracy for seed in draw) for draw in seed_draws(sorted(setting.runs))
    )


def trained_out_table(rows: Sequence[Row], study: Study, part: str, machine: str) -> str:
    """Accuracy of each family and budget by epochs; the longest training also less dense trained as long."""
    studies, lines = by_times(rows, study, part, machine), []
    for family, budget in _families(part, machine):
        found = {times: setting_of(one, part, machine, family, budget) for times, one in studies.items()}
        if not any(found.values()):
            continue
        line: dict[str, object] = {"family": family, "budget": "" if family == REFERENCE else f"{budget:g}x"}
        line |= {str(times): _accuracy(setting) for times, setting in found.items() if setting is not None}
        ours, dense = found[LONGEST], setting_of(studies[LONGEST], part, machine, REFERENCE, 1.0)
        if ours is not None and dense is not None:
            share = ours.cost("latency_cycles", machine) / dense.cost("latency_cycles", machine)
            line["share"] = f"{share:.3f}"
            line["less"] = _difference(paired(ours, dense)) if family != REFERENCE else None
        line["seeds"] = ", ".join(str(0 if setting is None else len(setting.runs)) for setting in found.values())
        lines.append(line)
    columns = (
        Column("family", "family", align="left"),
        Column("budget", "budget"),
        *(Column("the study's epochs" if times == 1 else f"{times} times", str(times)) for times in TIMES),
        Column(f"cycles, of dense, {LONGEST} times", "share"),
        Column(f"less dense, {LONGEST} times", "less"),
        Column("seeds", "seeds"),
    )
    return format_table(columns, lines, markdown=True)


def pairs_table(rows: Sequence[Row]) -> str:
    """The longest training at equal budget: less GBLR by its published recipe, and less automatic choice."""
    study, lines = gather([row for row in rows if row["times"] == LONGEST]), []
    against = (*SCRATCH, "automatic choice")
    for (part, machine), budgets in SETTINGS.items():
        for budget, families in budgets.items():
            for family in families:
                ours = setting_of(study, part, machine, family, budget)
                if ours is None:
                    continue
                line: dict[str, object] = {"part": part, "budget": f"{budget:g}x", "family": family}
                for other in against:
                    theirs = setting_of(study, part, machine, other, budget)
                    if theirs is not None and other != family:
                        line[other] = _difference(paired(ours, theirs))
                lines.append(line)
    columns = (
        Column("part", "part", align="left"),
        Column("budget", "budget"),
        Column("family", "family", align="left"),
        *(Column(f"less {other}", other) for other in against),
    )
    return format_table(columns, lines, markdown=True)


def verdict(rows: Sequence[Row], part: str, machine: str) -> str:
    """Who is highest at each budget after the longest training, who is not clearly below, and who is."""
    study, told = gather([row for row in rows if row["times"] == LONGEST]), []
    for budget, families in SETTINGS[part, machine].items():
        found = {name: one for name in families if (one := setting_of(study, part, machine, name, budget)) is not None}
        if len(found) < 2:
            continue
        best = max(found, key=lambda name: found[name].accuracy)
        differences = {name: paired(one, found[best]) for name, one in found.items() if name != best}
        close = [name for name, one in differences.items() if one is not None and one.verdict != "loss"]
        below = [name for name in differences if name not in close]
        told.append(
            f"- At {budget:g}x of dense's cycles and {LONGEST} times the epochs the highest mean is {best}'s "
            f"({100 * found[best].accuracy:.1f}; seeds {', '.join(map(str, sorted(found[best].runs)))}). Within its "
            f"interval: {', '.join(close) or 'none'}. Below: {', '.join(below) or 'none'}."
        )
    return "\n".join(told) + "\n"


def trained_out_text(rows: Sequence[Row], study: Study) -> str:
    """Of each setting the table and the verdict."""
    return "\n".join(
        f"**{part}, {machine}**\n\n{trained_out_table(rows, study, part, machine)}\n{verdict(rows, part, machine)}"
        for part, machine in SETTINGS
    )


def setting_of(study: Study, part: str, machine: str, family: str, budget: float) -> Setting | None:
    """A family's runs at a budget, where there are some."""
    found = [one for one in study.of(part, family, machine) if one.budget == budget and one.runs]
    return found[0] if found else None


def _families(part: str, machine: str) -> list[tuple[str, float]]:
    budgets = SETTINGS[part, machine]
    return [(REFERENCE, 1.0), *((family, budget) for budget, families in budgets.items() for family in families)]


def _accuracy(setting: Setting) -> str:
    ends = accuracy_interval(setting)
    return f"{100 * setting.accuracy:.1f}" + ("" if ends is None else f" ({100 * ends.low:.1f}-{100 * ends.high:.1f})")


def _difference(found: Paired | None) -> str | None:
    if found is None:
        return None
    ends = found.interval
    return f"{100 * found.mean:+.2f}" + ("" if ends is None else f" ({100 * ends.low:+.2f} to {100 * ends.high:+.2f})")
