"""Each claim of the study in a line, with what the results say of it: how often it holds, and how often it does not."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterator, Sequence

from analysis.equal_accuracy import cheapest, cost_at, front_volume, mean_points
from analysis.study_settings import Quantity, Setting, Study
from analysis.table import Column, format_table
from benchmarks.study_tables import (
    BLIND,
    FLOOR,
    INCOMPLETE,
    LEARNED,
    MARGIN,
    RIVALS,
    best_rival,
    blind_settings,
    learned_settings,
    rivals_at,
)

GOAL = 0.5
_COMMAND = "`python -m benchmarks.study_claims`"
# A cost that is as good as the least: cycles differ by less than this where programs are the same but for an order.
_EQUAL = 1.0005


def claims(study: Study, machines: Sequence[str], plain: str, scattered: str) -> str:
    """The table of claims: result, command, seeds and spread. Every count is over all parts and machines."""
    seeds = f"means of seeds {', '.join(map(str, study.seeds))}"
    table, paired = f"{seeds}; ranges in the table", "paired by seed; a tie is within one standard error"
    least, ratio = "The learned lattice keeps dense's accuracy (0.5 points)", "of the cycles of width-penalty GBLR"
    rows = (
        (f"{least} in the fewest cycles", _least(study, machines, "latency_cycles"), table),
        (f"{least} for the least energy", _least(study, machines, "energy_pj"), table),
        ("At every budget it is as accurate as the best single structure", _at_budgets(study, "structure"), paired),
        ("... and as smaller dense networks of that latency", _at_budgets(study, "any"), paired),
        (f"At equal accuracy it takes at most {GOAL:g} {ratio}", _goal(study), f"{seeds}; by seed in the table"),
        ("Its front of latency encloses the most", _fronts(study, machines, "latency_cycles"), table),
        ("Its front of energy encloses the most", _fronts(study, machines, "energy_pj"), table),
        (
            "Machine-blind structures gain more from scatter than fitted ones",
            _scatter(study, plain, scattered),
            "geometric mean over seeds and settings",
        ),
    )
    lines = [{"claim": claim, "result": text, "command": _COMMAND, "spread": spread} for claim, text, spread in rows]
    if study.missing:
        lines = [{**line, "result": f"{line['result']} {INCOMPLETE}"} for line in lines]
    columns = (
        Column("claim", "claim", align="left"),
        Column("result", "result", align="left"),
        Column("command", "command", align="left"),
        Column("seeds and spread", "spread", align="left"),
    )
    return format_table(columns, lines, markdown=True)


def _places(study: Study, machines: Sequence[str]) -> Iterator[tuple[str, str, Setting]]:
    """(part, machine, dense network) wherever a learned lattice can be compared."""
    for part in study.parts:
        dense = study.dense(part)
        if dense is not None and any(s.reached for s in study.of(part, LEARNED)):
            for machine in machines:
                yield part, machine, dense


def _least(study: Study, machines: Sequence[str], quantity: Quantity) -> str:
    counts: Counter[str] = Counter()
    for part, machine, dense in _places(study, machines):
        found = cheapest(study.of(part, LEARNED), dense.accuracy - MARGIN, quantity, machine)
        counts["all"] += 1
        counts["none"] += found is None
        if found is None:
            continue
        for name, families in RIVALS.items():
            rivals = [s for family in families for s in study.of(part, family)]
            best = cheapest(rivals, dense.accuracy - MARGIN, quantity, machine)
            most = _EQUAL * (dense if best is None else best).cost(quantity, machine)
            counts[name] += found.cost(quantity, machine) <= most
    return (
        f"{_of(counts['structure'], counts['all'])} part-machine pairs among structures, {counts['any']} with smaller "
        f"dense networks among the rivals; it does not keep it on {counts['none']}"
    )


def _at_budgets(study: Study, name: str) -> str:
    verdicts: Counter[str] = Counter()
    for part, machine, budget, ours in learned_settings(study):
        _, difference = best_rival(ours, rivals_at(study, part, machine, budget, RIVALS[name]))
        verdicts["not reached" if ours.unreachable else "missing" if difference is None else difference.verdict] += 1
    plural = {"win": "wins", "tie": "ties", "loss": "losses"}
    text = ", ".join(f"{verdicts[one]} {one if verdicts[one] == 1 else many}" for one, many in plural.items())
    others = [f"{verdicts[key]} {words}" for key, words in _OTHERS.items() if verdicts[key]]
    return ", ".join([text, *others])


_OTHERS = {"one seed": "of one seed only", "not reached": "not reached", "missing": "not compared"}


def _goal(study: Study) -> str:
    ratios, compared, bounds = [], 0, 0
    for blind, learned in blind_settings(study):
        compared += 1
        cost = cost_at(mean_points(learned, "latency_cycles", blind.trained_for), blind.accuracy)
        if cost is not None:
            bounds += cost.at_most
            ratios.append(cost.value / blind.cost("latency_cycles", blind.trained_for))
    if not ratios:
        return f"not reached in any of {compared} comparisons"
    met = sum(ratio <= GOAL for ratio in ratios)
    return (
        f"{_of(met, compared)} settings of width-penalty GBLR; median ratio {statistics.median(ratios):.2f}, "
        f"{min(ratios):.2f} to {max(ratios):.2f}, upper bounds in {bounds}; accuracy not reached in "
        f"{compared - len(ratios)}"
    )


def _fronts(study: Study, machines: Sequence[str], quantity: Quantity) -> str:
    counts: Counter[str] = Counter()
    for part, machine, dense in _places(study, machines):
        counts["all"] += 1
        floor = dense.accuracy - FLOOR
        ours = front_volume(study, part, LEARNED, quantity, machine, floor)
        for name, families in RIVALS.items():
            volumes = [front_volume(study, part, family, quantity, machine, floor) for family in families]
            best = max((volume.mean for volume in volumes if volume is not None), default=0.0)
            counts[name] += ours is not None and ours.mean >= best
    return (
        f"{_of(counts['structure'], counts['all'])} part-machine pairs among structures, {counts['any']} with smaller "
        "dense networks among the rivals"
    )


def _scatter(study: Study, plain: str, scattered: str) -> str:
    found = {}
    for family in (BLIND, LEARNED):
        ratios = [
            run.cost("latency_cycles", plain) / run.cost("latency_cycles", scattered)
            for setting in study.settings
            if setting.family == family
            for run in setting.runs.values()
        ]
        if ratios:
            found[family] = f"{family} {statistics.geometric_mean(ratios):.2f}"
    return f"cycles on {plain} over {scattered}: {', '.join(found.values())}" if found else "not measured yet"


def _of(count: int, every: int) -> str:
    return f"{count} of {every}"
