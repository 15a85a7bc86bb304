"""Each claim of the study in a line, with what the results say of it: how often it holds, and how often it does not."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from analysis.tables.table import Column, format_table
from benchmarks.study.equal_accuracy import cost_at, front_volume, mean_points
from benchmarks.study.settings import Quantity, Setting, Study
from benchmarks.study.tables import (
    ANY_WIDTH,
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
    share_at,
)
from gblr_hw.weights.family import FAMILIES, renamed
from simulator.base.errors import InputError

GOAL = 0.5
# Families whose training chooses a structure by short trials; what comes out may hold no lattice at all (`chosen`).
OURS = (LEARNED, ANY_WIDTH)
_NOTHING = "nothing to compare yet"
_COMMAND = "`python -m benchmarks.study.claims`"
# Marks a claim that a standard's DRAM turns (docs/dram.md).
OTHER_MEMORY = "‡"
# A cost that is as good as the least: cycles differ by less than this where programs are the same but for an order.
_EQUAL = 1.0005


def claims(study: Study, machines: Sequence[str], plain: str, scattered: str) -> str:
    """The table of claims: results of both learned families, command, seeds and spread. Counts are over all parts and
    machines.
    """
    seeds = f"means of seeds {', '.join(map(str, study.seeds))}"
    table, paired = f"{seeds}; intervals in the table", "paired by seed; a tie has zero in its interval"
    rows: dict[str, tuple[Callable[[str], str], str]] = {
        f"keeps dense's accuracy (0.5 points) in the fewest cycles {OTHER_MEMORY}": (
            lambda family: least_cost(study, family, machines, "latency_cycles"),
            table,
        ),
        "keeps dense's accuracy (0.5 points) for the least energy": (
            lambda family: least_cost(study, family, machines, "energy_pj"),
            table,
        ),
        "is as accurate as the best single structure at every budget": (
            lambda family: at_budgets(study, family, "structure"),
            paired,
        ),
        "is as accurate as any smaller dense network of that latency, too": (
            lambda family: at_budgets(study, family, "any"),
            paired,
        ),
        f"takes at most {GOAL:g} of the cycles of width-penalty GBLR at equal accuracy": (
            lambda family: goal_at_equal_accuracy(study, family),
            f"{seeds}; by seed in the table",
        ),
        "its front of latency encloses the most": (
            lambda family: _fronts(study, family, machines, "latency_cycles"),
            table,
        ),
        "its front of energy encloses the most": (
            lambda family: _fronts(study, family, machines, "energy_pj"),
            table,
        ),
        "gains less from scatter than machine-blind GBLR": (
            lambda family: _scatter(study, family, plain, scattered),
            "geometric mean over seeds and settings",
        ),
    }
    mark = f" {INCOMPLETE}" if study.missing else ""
    lines = [
        {"claim": claim, "command": _COMMAND, "spread": spread}
        | {family: result(family) + mark if any(study.of(p, family) for p in study.parts) else None for family in OURS}
        for claim, (result, spread) in rows.items()
    ]
    columns = (
        Column("claim", "claim", align="left"),
        *(Column(family, family, align="left") for family in OURS),
        Column("command", "command", align="left"),
        Column("seeds and spread", "spread", align="left"),
    )
    return format_table(columns, lines, markdown=True)


def chosen(study: Study) -> str:
    """Runs of automatic choice by the kind of network that came out, of those that say it."""
    kinds = {
        family: Counter(
            renamed(run.kind) for one in study.settings if one.family == family for run in one.runs.values() if run.kind
        )
        for family in OURS
    }
    every = sorted({kind for counts in kinds.values() for kind in counts}, key=lambda kind: list(FAMILIES).index(kind))
    columns = (
        Column("", "family", align="left"),
        Column("runs", "runs"),
        *(Column("narrower dense" if kind == "dense" else FAMILIES[kind].label, kind) for kind in every),
    )
    lines = [
        {"family": family, "runs": counts.total(), **{kind: counts[kind] for kind in every}}
        for family, counts in kinds.items()
    ]
    return format_table(columns, lines, markdown=True)


# A row of README's table -> the family whose figures it shows.
SHORT_ROWS = {
    f"{BLIND} (a short schedule of ours)": BLIND,
    **{family: family for family in ("block sparse", "low rank", "rank groups")},
    **{family: family for family in OURS},
    "a narrower dense network, trained from scratch": "narrower",
}


def short_claims(study: Study, part: str, machines: Sequence[str]) -> str:
    """README's table: least cycles, of dense, within half a point of its accuracy. Raises InputError without dense
    or without any network of a family.
    """
    dense = study.dense(part)
    if dense is None:
        raise InputError(f"part '{part}'", "no dense network", "shares are of dense", "Run `make study`.")

    lines: list[dict[str, object]] = []
    for name, family in SHORT_ROWS.items():
        settings = study.of(part, family)
        if not settings:
            raise InputError(f"part '{part}'", f"no network of '{family}'", "README shows it", "Run `make study`.")
        shares = {m: str(share_at(settings, dense, MARGIN, "latency_cycles", m)) for m in machines}
        lines.append({"row": name} | shares)
    heading = f"{part} ViT: cycles of dense within half a point of its accuracy"
    columns = (Column(heading, "row", align="left"), *(Column(name, name) for name in machines))
    return format_table(columns, lines, markdown=True)


def _places(study: Study, family: str, machines: Sequence[str]) -> Iterator[tuple[str, str, Setting]]:
    """(part, machine, dense network) wherever a learned family can be compared."""
    for part in study.parts:
        dense = study.dense(part)
        if dense is not None and any(s.reached for s in study.of(part, family)):
            for machine in machines:
                yield part, machine, dense


def least_cost(study: Study, family: str, machines: Sequence[str], quantity: Quantity) -> str:
    """On how many pairs of part and machine a family keeps dense's accuracy for the least, in words."""
    counts: Counter[str] = Counter()
    for part, machine, dense in _places(study, family, machines):
        found = share_at(study.of(part, family), dense, MARGIN, quantity, machine)
        counts["all"] += 1
        counts["none"] += found.setting is None
        for name, families in RIVALS.items():
            rivals = [share_at(study.of(part, one), dense, MARGIN, quantity, machine) for one in families]
            best = min((one.value for one in rivals if one.setting is not None), default=1.0)
            counts[name] += found.value <= _EQUAL * best
            counts[f"{name}, clear"] += found.clear_of(rivals)
    if not counts["all"]:
        return _NOTHING
    return (
        f"{_of(counts['structure'], counts['all'])} part-machine pairs among structures ({counts['structure, clear']} "
        f"clear of their intervals), {counts['any']} ({counts['any, clear']}) with smaller dense networks among the "
        f"rivals; it does not keep it on {counts['none']}"
    )


def at_budgets(study: Study, family: str, name: str) -> str:
    """Wins, ties and losses against the best rival of every budget, in words."""
    verdicts: Counter[str] = Counter()
    for part, machine, budget, ours in learned_settings(study, family):
        _, difference = best_rival(ours, rivals_at(study, part, machine, budget, RIVALS[name]))
        verdicts["not reached" if ours.unreachable else "missing" if difference is None else difference.verdict] += 1
    plural = {"win": "wins", "tie": "ties", "loss": "losses"}
    text = ", ".join(f"{verdicts[one]} {one if verdicts[one] == 1 else many}" for one, many in plural.items())
    others = [f"{verdicts[key]} {words}" for key, words in _OTHERS.items() if verdicts[key]]
    return ", ".join([text, *others])


_OTHERS = {"one seed": "of one seed only", "not reached": "not reached", "missing": "not compared"}


def goal_at_equal_accuracy(study: Study, family: str) -> str:
    """How many settings of width shrinkage are met in half of their cycles, and by what ratios, in words."""
    ratios, compared, bounds = [], 0, 0
    for blind, learned in blind_settings(study, family):
        compared += 1
        cost = cost_at(mean_points(learned, "latency_cycles", blind.trained_for), blind.accuracy)
        if cost is not None:
            bounds += cost.at_most
            ratios.append(cost.value / blind.cost("latency_cycles", blind.trained_for))
    if not compared:
        return _NOTHING
    if not ratios:
        return f"not reached in any of {compared} comparisons"
    met = sum(ratio <= GOAL for ratio in ratios)
    return (
        f"{_of(met, compared)} settings of width-penalty GBLR; median ratio {statistics.median(ratios):.2f}, "
        f"{min(ratios):.2f} to {max(ratios):.2f}, upper bounds in {bounds}; accuracy not reached in "
        f"{compared - len(ratios)}"
    )


def _fronts(study: Study, family: str, machines: Sequence[str], quantity: Quantity) -> str:
    counts: Counter[str] = Counter()
    for part, machine, dense in _places(study, family, machines):
        counts["all"] += 1
        floor = dense.accuracy - FLOOR
        ours = front_volume(study, part, family, quantity, machine, floor)
        for name, families in RIVALS.items():
            volumes = [front_volume(study, part, rival, quantity, machine, floor) for rival in families]
            best = max((volume.mean for volume in volumes if volume is not None), default=0.0)
            counts[name] += ours is not None and ours.mean >= best
    if not counts["all"]:
        return _NOTHING
    return (
        f"{_of(counts['structure'], counts['all'])} part-machine pairs among structures, {counts['any']} with smaller "
        "dense networks among the rivals"
    )


def _scatter(study: Study, family: str, plain: str, scattered: str) -> str:
    found = []
    for name in (family, BLIND):
        ratios = [
            run.cost("latency_cycles", plain) / run.cost("latency_cycles", scattered)
            for setting in study.settings
            if setting.family == name
            for run in setting.runs.values()
        ]
        if not ratios:
            return _NOTHING
        found.append(f"{statistics.geometric_mean(ratios):.2f}")
    return f"cycles on {plain} over {scattered}: {found[0]} against {found[1]}"


def _of(count: int, every: int) -> str:
    return f"{count} of {every}"
