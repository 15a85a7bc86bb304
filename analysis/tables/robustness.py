"""Does an order of families survive the intervals of all prices, and other DRAM? Every claim, by entry and at worst.

A claim is that one family takes less than the next one in the order. Its ratio moves with the entries of the energy
table, each from its low to its high: alone, or all together. Energy is linear in the entries, so the worst ratio over
all of them is found exactly, by Dinkelbach's method for linear fractions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from analysis.tables.contenders import Contender
from analysis.tables.table import Column, format_table
from simulator.base.errors import InputError
from simulator.machine.energy import EnergyModel, EventCost, energy_model
from simulator.machine.machine import Machine

_EQUAL = 1e-9  # of equals neither takes less
Find = Callable[[str], Machine]


@dataclass(frozen=True)
class Claim:
    """``better`` takes ``ratio`` < 1 of what ``worse`` takes, on a machine, in a group.

    by_entry: entry -> the ratios with it at its low and at its high, all others at their values. worst: the largest
    ratio that entries inside their intervals give together, and worst_at: those at their high then. by_dram: kind of
    DRAM, or name of a recorded setting -> ratio.
    """

    measure: str
    machine: str
    group: str
    better: str
    worse: str
    ratio: float
    by_entry: Mapping[str, tuple[float, float]]
    worst: float
    worst_at: tuple[str, ...]
    by_dram: Mapping[str, float]

    @property
    def breaking_entries(self) -> tuple[str, ...]:
        """Entries that turn the order by themselves."""
        return tuple(name for name, ends in self.by_entry.items() if max(ends) >= 1)

    @property
    def breaking_dram(self) -> tuple[str, ...]:
        return tuple(name for name, ratio in self.by_dram.items() if ratio >= 1)

    @property
    def survives(self) -> bool:
        """Every entry by itself, and every DRAM."""
        return not self.breaking_entries and not self.breaking_dram


@dataclass(frozen=True)
class _Spent:
    """A run's picojoules by entry of the table, and the interval of each entry as factors of its value."""

    pj: Mapping[str, float]
    factors: Mapping[str, tuple[float, float]]


def claims_of(contenders: Sequence[Contender], machine_of: Find, accuracy: float | None = None) -> list[Claim]:
    """Claims of every group on every machine: by energy with standing power, then by latency where other DRAM was run.

    Each family is represented by its run that takes least among those with the accuracy (of None: the highest that all
    families of the group reach). InputError where fewer than two families are left.
    """
    found: list[Claim] = []
    keys = dict.fromkeys((c.group, c.machine) for c in contenders)
    for group, name in keys:
        mine = [c for c in contenders if (c.group, c.machine) == (group, name)]
        machine = machine_of(name)
        chosen = _representatives(mine, machine, accuracy)
        if len(chosen) > 1:
            found += [_by_energy(a, b, machine) for a, b in pairwise(chosen)] + _by_latency(chosen)
    found = [claim for claim in found if claim.ratio < 1 - _EQUAL]
    if not found:
        level = "" if accuracy is None else f" that reach {accuracy:g}"
        raise InputError(
            "sensitivity", f"no machine with two families{level}", "an order has two or more", "Give more runs."
        )
    return found


def _representatives(mine: Sequence[Contender], machine: Machine, accuracy: float | None) -> list[Contender]:
    """The best run of each family, those that take less first."""
    families = dict.fromkeys(c.family for c in mine)
    best = {family: [c.accuracy for c in mine if c.family == family] for family in families}
    known = [max(a for a in values if a is not None) for values in best.values() if any(a is not None for a in values)]
    level = accuracy if accuracy is not None else min(known, default=None)
    able = [c for c in mine if level is None or (c.accuracy is not None and c.accuracy >= level)]
    model = energy_model(machine)
    cost = {id(c): sum(_spent(c, model, c.latency_cycles).pj.values()) for c in able}
    chosen = [
        min((c for c in able if c.family == family), key=lambda c: cost[id(c)], default=None) for family in families
    ]
    return sorted((c for c in chosen if c is not None), key=lambda c: cost[id(c)])


def ratio_interval(
    one: tuple[Mapping[str, int], int], two: tuple[Mapping[str, int], int], machine: Machine
) -> tuple[float, float]:
    """The least and the most that entries inside their intervals make together of one run's energy over another's: of
    the work, standing power left out. one, two: counted events, and cycles.
    """
    model = energy_model(machine)
    (first, factors), (second, others) = (
        (spent.pj, spent.factors) for spent in (_priced(model.costs(events, cycles)) for events, cycles in (one, two))
    )
    both = {**factors, **others}
    return 1 / worst_ratio(second, first, both)[0], worst_ratio(first, second, both)[0]


def _spent(run: Contender, model: EnergyModel, cycles: int) -> _Spent:
    return _priced([*model.costs(run.events, cycles), *((cost, cycles) for cost in model.standing)])


def _priced(costs: Sequence[tuple[EventCost, int]]) -> _Spent:
    pj: dict[str, float] = {}
    factors: dict[str, tuple[float, float]] = {}
    for cost, times in costs:
        if cost.pj > 0:
            pj[cost.entry] = pj.get(cost.entry, 0.0) + times * cost.pj
            factors[cost.entry] = (cost.low / cost.pj, cost.high / cost.pj)
    return _Spent(pj, factors)


def _by_energy(a: Contender, b: Contender, machine: Machine) -> Claim:
    model = energy_model(machine)
    one, two = _spent(a, model, a.latency_cycles), _spent(b, model, b.latency_cycles)
    by_entry = {}
    for entry, ends in one.factors.items():
        moved = [_ratio(one.pj, two.pj, {entry: factor}) for factor in ends]
        by_entry[entry] = (moved[0], moved[1])
    worst, worst_at = worst_ratio(one.pj, two.pj, one.factors)
    return Claim(
        "energy", a.machine, a.group, a.family, b.family, _ratio(one.pj, two.pj, {}), by_entry, worst, worst_at,
        _energy_by_dram(a, b, machine),
    )  # fmt: skip


def _energy_by_dram(a: Contender, b: Contender, machine: Machine) -> dict[str, float]:
    """By kind at the machine's own latency and bandwidth; then by recorded setting, at the price of the kind that it is
    named after ("ddr4-3200"), if it is named after one.
    """
    found = {}
    model = energy_model(machine)
    settings = dict.fromkeys((*model.table.data.dram, *(name for name in a.cycles_by_dram if name in b.cycles_by_dram)))
    for name in settings:
        kind = name.partition("-")[0]
        priced = energy_model(machine.with_(dram={"kind": kind})) if kind in model.table.data.dram else model
        one, two = (_spent(run, priced, run.cycles_by_dram.get(name, run.latency_cycles)).pj for run in (a, b))
        found[name] = _ratio(one, two, {})
    return found


def _by_latency(chosen: Sequence[Contender]) -> list[Claim]:
    """The order of latencies, where runs before other DRAM were recorded: no price moves it."""
    runs = sorted((run for run in chosen if run.cycles_by_dram), key=lambda run: run.latency_cycles)
    found = []
    for a, b in pairwise(runs):
        by_dram = {n: a.cycles_by_dram[n] / b.cycles_by_dram[n] for n in a.cycles_by_dram if n in b.cycles_by_dram}
        ratio = a.latency_cycles / b.latency_cycles
        found.append(Claim("latency", a.machine, a.group, a.family, b.family, ratio, {}, ratio, (), by_dram))
    return found


def _ratio(one: Mapping[str, float], two: Mapping[str, float], factors: Mapping[str, float]) -> float:
    over, under = (sum(pj * factors.get(entry, 1.0) for entry, pj in spent.items()) for spent in (one, two))
    return over / under


def worst_ratio(
    one: Mapping[str, float], two: Mapping[str, float], factors: Mapping[str, tuple[float, float]]
) -> tuple[float, tuple[str, ...]]:
    """The largest of (sum of one x factor) / (sum of two x factor) for factors inside their intervals, and the entries
    at their high ends there.
    """
    ratio, chosen = _ratio(one, two, {}), dict[str, float]()
    while True:
        chosen = {
            entry: high if one.get(entry, 0.0) > ratio * two.get(entry, 0.0) else low
            for entry, (low, high) in factors.items()
        }
        better = _ratio(one, two, chosen)
        if better <= ratio * (1 + 1e-12):
            return ratio, tuple(e for e, (low, high) in factors.items() if high > low and chosen[e] == high)
        ratio = better


def claim_table(claims: Sequence[Claim], markdown: bool = False) -> str:
    """A row a claim: its ratio, and the largest that one entry, all entries together and any DRAM make of it."""
    columns = [
        Column(heading, key, align="left")
        for heading, key in (
            ("machine", "machine"), ("group", "group"), ("measure", "measure"), ("takes less", "better"),
            ("than", "worse"),
        )
    ]  # fmt: skip
    columns += [
        Column(heading, key, lambda value: "-" if value is None else f"{value:.3f}")
        for heading, key in (("ratio", "ratio"), ("one entry", "one"), ("all entries", "all"), ("any DRAM", "dram"))
    ]
    rows = [
        {
            **vars(claim),
            "group": claim.group or "-",
            "one": max((max(ends) for ends in claim.by_entry.values()), default=None),
            "all": claim.worst if claim.by_entry else None,
            "dram": max(claim.by_dram.values(), default=None),
            "survives": "yes" if claim.survives else "**no**" if markdown else "no",
        }
        for claim in claims
    ]
    return format_table([*columns, Column("survives", "survives")], rows, markdown=markdown)


def sentence(claim: Claim) -> str:
    """The claim and what becomes of it, in words."""
    where = f"On {claim.machine}{f', {claim.group}' if claim.group else ''}"
    verb = {"energy": "takes less energy than", "latency": "is faster than"}[claim.measure]
    parts = [f"{where}: {claim.better} {verb} {claim.worse} ({claim.ratio:.3f} of it)"]
    if claim.by_entry:
        low, high = (pick(value for ends in claim.by_entry.values() for value in ends) for pick in (min, max))
        parts.append(
            f"any one entry of the table leaves it so ({low:.3f} to {high:.3f})"
            if not claim.breaking_entries
            else f"turned by {_listed(claim.breaking_entries)} alone (up to {high:.3f})"
        )
        parts.append(
            f"all entries together leave it so (at worst {claim.worst:.3f})"
            if claim.worst < 1
            else f"entries together can turn it ({claim.worst:.3f}, {_listed(claim.worst_at)} high, the others low)"
        )
    if claim.by_dram:
        low, high = min(claim.by_dram.values()), max(claim.by_dram.values())
        parts.append(
            f"every DRAM leaves it so ({low:.3f} to {high:.3f})"
            if not claim.breaking_dram
            else f"turned before {_any_of(claim.breaking_dram)} (up to {high:.3f})"
        )
    return f"{'; '.join(parts)}."


def _any_of(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"


def told_entry(name: str) -> str:
    """An entry as pictures and sentences name it."""
    return name.removeprefix("op.").replace("leak_uw", "leakage").replace(".", " ").replace("_", " ")


def _listed(names: Sequence[str]) -> str:
    shown = [told_entry(name) for name in names]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"
