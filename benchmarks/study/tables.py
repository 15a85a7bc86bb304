"""The study's claims as tables: accuracy kept at what cost, fronts, automatic choice against each rival."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from analysis.tables.table import Column, format_table
from benchmarks.study.bootstrap import Interval
from benchmarks.study.equal_accuracy import (
    Cost,
    Paired,
    Volume,
    cheapest,
    cost_at,
    front_volume,
    mean_points,
    paired,
    seed_points,
    share_interval,
)
from benchmarks.study.settings import Quantity, Setting, Study

STRUCTURES = (
    "low rank",
    "rank groups",
    "block sparse",
    "GBLR, width shrinkage",
    "GBLR, hardware cost",
    "ranks",
    "Monarch",
    "BLAST",
)
SMALLER = ("narrower", "shallower")
LEARNED, ANY_WIDTH, BLIND = "automatic choice", "automatic choice, any width", "GBLR, width shrinkage"
SHOWN = (*SMALLER, *STRUCTURES, LEARNED, ANY_WIDTH)
RIVALS = {"structure": STRUCTURES, "any": (*STRUCTURES, *SMALLER)}
# What is compared to see what a part of a method is worth: (with it, without it).
ABLATIONS = (
    ("GBLR, penalty only", BLIND),
    ("GBLR, hardware cost", "GBLR, penalty only"),
    ("GBLR, hardware cost", "GBLR, projection only"),
    ("ranks", "ranks, intervals"),
    ("ranks, regrow", "ranks"),
)
# Accuracy that may be lost, as a fraction; how far below dense hypervolumes begin.
MARGIN, WIDER_MARGIN, FLOOR = 0.005, 0.01, 0.05
INCOMPLETE = "†"
_UNITS: dict[Quantity, str] = {"latency_cycles": "latency", "energy_pj": "energy"}


def completeness(study: Study) -> str:
    """What is there and what is missing, and what a seed's failure to reach a target did."""
    text = f"{study.size} runs, seeds {', '.join(map(str, study.seeds))}."
    if study.missing:
        text += f" **{study.missing} runs are missing**: cells marked {INCOMPLETE} rest on fewer seeds or settings."
    failed = sum(bool(setting.unreachable) for setting in study.settings)
    if failed:
        text += f" {failed} settings have a seed whose target could not be reached and are left out."
    return text + "\n"


def families_of(study: Study, part: str) -> list[str]:
    """Families that the claims are about and that the part has, in their order."""
    return [family for family in SHOWN if study.of(part, family)]


def iso_accuracy(study: Study, machines: Sequence[str], quantity: Quantity, margin: float = MARGIN) -> str:
    """Per part: for each family and machine the least mean cost, of dense, within ``margin`` of dense's accuracy."""
    parts = []
    for part in study.parts:
        dense = study.dense(part)
        if dense is None:
            parts.append(f"{part}: no dense network yet.\n")
            continue
        lines: list[dict[str, object]] = [
            {"family": family + _mark(study.of(part, family))} for family in families_of(study, part)
        ]
        for machine in machines:
            shares = {
                family: share_at(study.of(part, family), dense, margin, quantity, machine)
                for family in families_of(study, part)
            }
            for line, (family, share) in zip(lines, shares.items(), strict=True):
                others = [one for other, one in shares.items() if other != family]
                line[machine] = share.told(clear=share.clear_of(others))
        columns = [Column("family", "family", align="left"), *(Column(name, name) for name in machines)]
        head = f"{part}: dense {_accuracies(dense)}, so at least {100 * (dense.accuracy - margin):.2f}"
        parts.append(f"{head}\n\n{format_table(columns, lines, markdown=True)}")
    return "\n".join(parts)


@dataclass(frozen=True)
class Share:
    """The least cost of a family within a margin of dense's accuracy, of dense's, its setting, and the interval."""

    value: float
    setting: Setting | None
    interval: Interval

    def __str__(self) -> str:
        ends = "-".join("none" if math.isinf(end) else f"{end:.3f}" for end in (self.interval.low, self.interval.high))
        value = "none" if self.setting is None else f"{self.value:.3f}"
        return value if math.isinf(self.interval.low) else f"{value} ({ends})"

    def clear_of(self, others: Sequence[Share]) -> bool:
        """Whether all of its interval lies below all of theirs."""
        return self.setting is not None and all(self.interval.high < one.interval.low for one in others)

    def told(self, *, clear: bool) -> str:
        """The share, in bold where it is clear of the others, and where it stands."""
        text = f"**{self}**" if clear else str(self)
        if self.setting is None:
            return text
        return f"{text} {_accuracies(self.setting)}, {self.setting.trained_for} {self.setting.budget:g}"


def share_at(settings: Sequence[Setting], dense: Setting, margin: float, quantity: Quantity, machine: str) -> Share:
    """What a family's settings take at least, within `margin` of dense's accuracy."""
    found = cheapest(settings, dense.accuracy - margin, quantity, machine)
    value = math.inf if found is None else found.cost(quantity, machine) / dense.cost(quantity, machine)
    return Share(value, found, share_interval(settings, dense, margin, quantity, machine))


def _accuracies(setting: Setting) -> str:
    values = [100 * value for value in setting.accuracies]
    return f"{100 * setting.accuracy:.1f} ({min(values):.1f}-{max(values):.1f})"


def iso_shares(study: Study, machines: Sequence[str], quantity: Quantity, margin: float) -> str:
    """The same as numbers only, all parts in one table."""
    lines: list[dict[str, object]] = []
    for part in study.parts:
        dense = study.dense(part)
        if dense is None:
            continue
        for family in families_of(study, part):
            settings = study.of(part, family)
            line: dict[str, object] = {"part": part, "family": family + _mark(settings)}
            line |= {one: str(share_at(settings, dense, margin, quantity, one)) for one in machines}
            lines.append(line)
    left = (Column("part", "part", align="left"), Column("family", "family", align="left"))
    return format_table((*left, *(Column(name, name) for name in machines)), lines, markdown=True)


def hypervolumes(study: Study, machines: Sequence[str], quantity: Quantity) -> str:
    """Per part: hypervolume of each family's front on each machine, of the means, and the range over seeds."""
    lines: list[dict[str, object]] = []
    for part in study.parts:
        dense = study.dense(part)
        for family in families_of(study, part) if dense is not None else ():
            line: dict[str, object] = {"part": part, "family": family + _mark(study.of(part, family))}
            for machine in machines:
                assert dense is not None
                volume = front_volume(study, part, family, quantity, machine, dense.accuracy - FLOOR)
                line[machine] = None if volume is None else _volume(volume)
            lines.append(line)
    left = (Column("part", "part", align="left"), Column("family", "family", align="left"))
    return format_table((*left, *(Column(name, name) for name in machines)), lines, markdown=True)


def _volume(volume: Volume) -> str:
    values = [100 * value for value in volume.seeds]
    return f"{100 * volume.mean:.2f} ({min(values):.2f}-{max(values):.2f})"


def against_singles(study: Study, learned: str) -> str:
    """A learned family against the best single structure of a budget, and against any smaller dense network too."""
    lines: list[dict[str, object]] = []
    for part, machine, budget, ours in learned_settings(study, learned):
        line: dict[str, object] = {"part": part, "machine": machine, "budget": f"{budget:g}"}
        line["ours"] = _accuracies(ours) + _mark([ours]) if ours.reached else "not reached" if ours.runs else "missing"
        for name, families in RIVALS.items():
            rivals = rivals_at(study, part, machine, budget, families)
            best, difference = best_rival(ours, rivals)
            if best is not None and difference is not None:
                line[name] = f"{_difference(difference)} {difference.verdict}, {best.family}" + _mark(rivals)
        chosen = Counter(run.kind.replace("_", " ") for run in ours.runs.values() if run.kind)
        line["kinds"] = ", ".join(f"{kind} {times}" for kind, times in sorted(chosen.items())) or None
        lines.append(line)
    columns = (
        Column("part", "part", align="left"),
        Column("trained for", "machine", align="left"),
        Column("budget", "budget"),
        Column(learned, "ours"),
        Column("chosen", "kinds"),
        Column("to the best single structure", "structure"),
        Column("to the best of these and smaller dense ones", "any"),
    )
    return format_table(columns, lines, markdown=True)


def _difference(difference: Paired) -> str:
    ends = difference.interval
    spread = "" if ends is None else f" ({100 * ends.low:+.2f} to {100 * ends.high:+.2f})"
    return f"{100 * difference.mean:+.2f}{spread}"


def best_rival(ours: Setting, rivals: Sequence[Setting]) -> tuple[Setting | None, Paired | None]:
    """The rival of the highest mean accuracy, and how ``ours`` compares with it."""
    best = max(rivals, key=lambda s: s.accuracy, default=None)
    return best, None if best is None or not ours.reached else paired(ours, best)


def learned_settings(study: Study, learned: str) -> list[tuple[str, str, float, Setting]]:
    """(part, training machine, budget, setting) of every setting of a learned family."""
    return [
        (part, machine, budget, setting)
        for part in study.parts
        for machine in study.training_machines(part)
        for budget in study.budgets(part, machine)
        for setting in study.of(part, learned, machine)
        if setting.budget == budget
    ]


def rivals_at(study: Study, part: str, machine: str, budget: float, families: Sequence[str]) -> list[Setting]:
    """Settings of ``families`` that a setting at a budget is compared with.

    Structures: those of the same budget that are trained for the machine; where a family is not trained for it, those
    for another machine that meet the budget on this one. Smaller dense networks: all that meet it.
    """
    dense, found = study.dense(part), []
    most = 0.0 if dense is None else budget * dense.cost("latency_cycles", machine)
    for family in families:
        settings = [s for s in study.of(part, family) if s.reached]
        if family not in SMALLER:
            settings = [s for s in settings if s.budget == budget]
        if family not in SMALLER and study.of(part, family, machine):
            found += [s for s in settings if s.trained_for == machine]
        else:
            found += [s for s in settings if s.cost("latency_cycles", machine) <= most]
    return found


def ratios_to_blind(study: Study, machines: Sequence[str], family: str) -> str:
    """Cycles of a learned family over those of GBLR with width shrinkage, at the accuracy of each of the latter's
    settings, trained for the same machine.
    """
    lines: list[dict[str, object]] = []
    for blind, learned in blind_settings(study, family):
        line: dict[str, object] = {
            "part": blind.part,
            "machine": blind.trained_for,
            "budget": f"{blind.budget:g}",
            "accuracy": _accuracies(blind) + _mark([blind, *learned]),
        }
        for machine in machines:
            cost = cost_at(mean_points(learned, "latency_cycles", machine), blind.accuracy)
            line[machine] = "not reached" if cost is None else _ratio(cost, blind.cost("latency_cycles", machine))
        line["seeds"] = _seed_ratios(blind, learned)
        lines.append(line)
    columns = (
        Column("part", "part", align="left"),
        Column("trained for", "machine", align="left"),
        Column("budget of width shrinkage", "budget"),
        Column("its accuracy", "accuracy"),
        *(Column(name, name) for name in machines),
        Column("by seed, on the training machine", "seeds"),
    )
    return format_table(columns, lines, markdown=True)


def blind_settings(study: Study, family: str) -> list[tuple[Setting, tuple[Setting, ...]]]:
    """Settings of width shrinkage that still work (at most FLOOR below dense), each with those of a learned family of
    its part and training machine.
    """
    found = []
    for part in study.parts:
        dense = study.dense(part)
        least = 0.0 if dense is None else dense.accuracy - FLOOR
        for machine in study.training_machines(part):
            learned = tuple(s for s in study.of(part, family, machine) if s.runs)
            blind = sorted(study.of(part, BLIND, machine), key=lambda s: -s.budget)
            working = [setting for setting in blind if setting.reached and setting.accuracy >= least]
            found += [(setting, learned) for setting in working if learned]
    return found


def _ratio(cost: Cost, unit: float) -> str:
    return ("≤ " if cost.at_most else "") + f"{cost.value / unit:.2f}"


def _seed_ratios(blind: Setting, learned: Sequence[Setting]) -> str:
    machine, found = blind.trained_for, []
    for seed, run in sorted(blind.runs.items()):
        points = seed_points(learned, seed, "latency_cycles", machine)
        cost = cost_at(points, run.accuracy)
        unit = run.cost("latency_cycles", machine)
        found.append("missing" if not points else "not reached" if cost is None else _ratio(cost, unit))
    return " / ".join(found)


def ablations(study: Study) -> str:
    """Difference of mean accuracies at equal budgets between a method and the same without a part of it."""
    lines: list[dict[str, object]] = []
    for part in study.parts:
        for machine in study.training_machines(part):
            for whole, less in ABLATIONS:
                line: dict[str, object] = {"part": part, "machine": machine, "pair": f"{whole} - {less}"}
                for number, budget in enumerate(study.budgets(part, machine)):
                    pair = [
                        s
                        for family in (whole, less)
                        for s in study.of(part, family, machine)
                        if s.budget == budget and s.reached
                    ]
                    difference = paired(*pair) if len(pair) == 2 else None
                    if difference is not None:
                        line[str(number)] = f"{budget:g}x: {_difference(difference)}" + _mark(pair)
                if len(line) > 3:
                    lines.append(line)
    most = max((len(study.budgets(p, m)) for p in study.parts for m in study.training_machines(p)), default=0)
    columns = (
        Column("part", "part", align="left"),
        Column("trained for", "machine", align="left"),
        Column("difference", "pair", align="left"),
        *(Column(f"budget {number + 1}", str(number)) for number in range(most)),
    )
    return format_table(columns, lines, markdown=True)


def everything(study: Study) -> str:
    """Mean accuracy and range of every setting: a table for each part and training machine, all families."""
    parts = []
    for part in study.parts:
        for machine in study.training_machines(part):
            budgets = study.budgets(part, machine)
            lines: list[dict[str, object]] = []
            named = [s.family for s in study.of(part, trained_for=machine)]
            for family in dict.fromkeys([f for f in ("dense", *SHOWN) if f in named] + named):
                cells = {f"{s.budget:g}": _result(s) for s in study.of(part, family, machine)}
                lines.append({"family": family, **cells})
            names = ["1", *(f"{budget:g}" for budget in budgets)]
            columns = (Column("family", "family", align="left"), *(Column(f"{name}x", name) for name in names))
            parts.append(f"{part}, trained for {machine}\n\n{format_table(columns, lines, markdown=True)}")
    return "\n".join(parts)


def _result(setting: Setting) -> str:
    if setting.runs:
        kept = _accuracies(setting) + _mark([setting])
        return kept if setting.reached else f"{kept}, {len(setting.unreachable)} not reached"
    return "not reached" if setting.unreachable else "missing"


def _mark(settings: Sequence[Setting]) -> str:
    return f" {INCOMPLETE}" if any(setting.missing for setting in settings) else ""


def scatter_worth(study: Study, plain: str, scattered: str) -> str:
    """Cycles of the same networks without the permutation network over those with it, by family; all seeds and settings
    of a part, geometric mean and range.
    """
    lines: list[dict[str, object]] = []
    named = [s.family for s in study.settings if s.runs]
    for family in dict.fromkeys([f for f in ("dense", *SHOWN) if f in named] + named):
        line: dict[str, object] = {"family": family}
        for part in study.parts:
            for trained_for in study.training_machines(part):
                ratios = [
                    run.cost("latency_cycles", plain) / run.cost("latency_cycles", scattered)
                    for setting in study.of(part, family, trained_for)
                    for run in setting.runs.values()
                ]
                if ratios:
                    mean = statistics.geometric_mean(ratios)
                    line[f"{part}, {trained_for}"] = f"{mean:.2f} ({min(ratios):.2f}-{max(ratios):.2f})"
        lines.append(line)
    heads = [f"{part}, {machine}" for part in study.parts for machine in study.training_machines(part)]
    columns = (Column("family", "family", align="left"), *(Column(head, head) for head in heads))
    return format_table(columns, lines, markdown=True)


def groups_against_lattice(study: Study, plain: str, scattered: str) -> str:
    """Cycles of structures trained for the plain array that need no permutation network, over those of the lattice
    trained for the machine with one, at the accuracy of each of the lattice's settings. Above 1 the network pays.
    """
    without = ("low rank", "rank groups", "block sparse")
    lines: list[dict[str, object]] = []
    for part in study.parts:
        fronts = {name: mean_points(study.of(part, name, plain), "latency_cycles", plain) for name in without}
        fronts["any of them"] = [point for points in list(fronts.values()) for point in points]
        for family in ("ranks", LEARNED) if fronts["any of them"] else ():
            for cycles, accuracy in sorted(mean_points(study.of(part, family, scattered), "latency_cycles", scattered)):
                line: dict[str, object] = {"part": part, "family": family, "cycles": f"{cycles:,.0f}"}
                line["accuracy"] = f"{100 * accuracy:.1f}"
                for name, front in fronts.items():
                    cost = cost_at(front, accuracy)
                    line[name] = "not reached" if cost is None else _ratio(cost, cycles)
                lines.append(line)
    columns = (
        Column("part", "part", align="left"),
        Column("with scatter", "family", align="left"),
        Column(f"cycles, {scattered}", "cycles"),
        Column("accuracy", "accuracy"),
        *(Column(f"{name}, {plain}", name) for name in (*without, "any of them")),
    )
    return format_table(columns, lines, markdown=True)
