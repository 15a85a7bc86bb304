"""Rows of a study gathered into settings: one structure family at one budget, its seeds beside each other.

A row has part, machine (trained for), family, budget, seed, and either accuracy (a fraction), latency_cycles and
energy_pj (each machine -> value), or the reason why its target is unreachable.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from analysis.pictures.family_marks import REFERENCE
from benchmarks.shared.result_lines import ResultLines
from benchmarks.study.right_ones import from_text
from simulator.base.errors import InputError

Quantity = Literal["latency_cycles", "energy_pj"]
QUANTITIES: tuple[Quantity, ...] = ("latency_cycles", "energy_pj")
KEY = ("part", "machine", "family", "budget", "seed")

RunKey = tuple[str, str, str, float, int]


@dataclass(frozen=True)
class Run:
    """One trained network: accuracy in [0, 1], and for each machine its latency in cycles and energy in pJ.

    kind: the structure that its training has chosen. right: which of the test examples it has right, where the line of
    results says it.
    """

    accuracy: float
    latency_cycles: Mapping[str, float]
    energy_pj: Mapping[str, float]
    kind: str = ""
    right: tuple[bool, ...] = ()

    def cost(self, quantity: Quantity, machine: str) -> float:
        """Latency or energy on a machine."""
        values: Mapping[str, float] = getattr(self, quantity)
        return values[machine]


@dataclass(frozen=True)
class Setting:
    """A family at one budget, trained for one machine. runs: by seed. unreachable: seeds whose target the family cannot
    reach. missing: seeds that are asked for and not there yet.
    """

    part: str
    trained_for: str
    family: str
    budget: float
    runs: Mapping[int, Run]
    unreachable: tuple[int, ...] = ()
    missing: tuple[int, ...] = ()

    @property
    def reached(self) -> bool:
        """Whether there are runs, and none of its seeds failed to reach the target."""
        return bool(self.runs) and not self.unreachable

    @property
    def accuracies(self) -> tuple[float, ...]:
        """By seed, in the order of the seeds."""
        return tuple(run.accuracy for _, run in sorted(self.runs.items()))

    @property
    def accuracy(self) -> float:
        """Mean over the seeds that are there."""
        return statistics.fmean(self.accuracies)

    def cost(self, quantity: Quantity, machine: str) -> float:
        """Mean latency or energy over the seeds that are there."""
        return statistics.fmean(run.cost(quantity, machine) for run in self.runs.values())


@dataclass(frozen=True)
class Study:
    """All settings, in the order of the rows, then of what is asked for and has no row yet."""

    settings: tuple[Setting, ...]

    @property
    def parts(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(setting.part for setting in self.settings))

    @property
    def missing(self) -> int:
        """Runs that are asked for and not there."""
        return sum(len(setting.missing) for setting in self.settings)

    @property
    def size(self) -> int:
        """Runs that are there, those that could not reach their target included."""
        return sum(len(setting.runs) + len(setting.unreachable) for setting in self.settings)

    @property
    def seeds(self) -> tuple[int, ...]:
        """All seeds that any setting has, or misses."""
        return tuple(sorted({n for s in self.settings for n in (*s.runs, *s.unreachable, *s.missing)}))

    def of(self, part: str, family: str | None = None, trained_for: str | None = None) -> tuple[Setting, ...]:
        """Settings of a part, of one family and one training machine where they are given."""
        return tuple(
            setting
            for setting in self.settings
            if setting.part == part and family in (None, setting.family) and trained_for in (None, setting.trained_for)
        )

    def training_machines(self, part: str) -> tuple[str, ...]:
        return tuple(dict.fromkeys(setting.trained_for for setting in self.of(part)))

    def budgets(self, part: str, trained_for: str) -> tuple[float, ...]:
        """Budgets of everything but the dense network, the largest first."""
        here = self.of(part, trained_for=trained_for)
        return tuple(sorted({s.budget for s in here if s.family != REFERENCE}, reverse=True))

    def dense(self, part: str) -> Setting | None:
        """The dense networks of a part: those of every training machine taken together, mean by seed."""
        runs: dict[int, list[Run]] = {}
        for setting in self.of(part, REFERENCE):
            for seed, run in setting.runs.items():
                runs.setdefault(seed, []).append(run)
        if not runs:
            return None
        missing = {seed for s in self.of(part, REFERENCE) for seed in s.missing} - set(runs)
        return Setting(
            part, "", REFERENCE, 1.0, {n: _mean(same) for n, same in runs.items()}, (), tuple(sorted(missing))
        )


def read_study(path: Path, wanted: Iterable[RunKey] = (), machines: Sequence[str] = ()) -> Study:
    """The study in a file of results; wanted and machines as in `gather`. Raises InputError where there is none, or it
    holds what is no result.
    """
    if not path.exists():
        raise InputError(
            f"results '{path}'", "no such file", "the claims rest on the study's results", "Run `make study`."
        )
    rows = ResultLines(path, KEY).rows
    if not rows:
        raise InputError(f"results '{path}'", "no rows", "the claims rest on the study's results", "Run `make study`.")
    return gather(rows, wanted, machines, str(path))


def gather(
    rows: Iterable[Mapping[str, Any]],
    wanted: Iterable[RunKey] = (),
    machines: Sequence[str] = (),
    where: str = "results",
) -> Study:
    """The settings of a study's rows.

    wanted: keys (part, machine, family, budget, seed) of all runs that are asked for. machines: those that every run
    must have been measured on. where: names the rows in messages. Raises InputError for a row that is neither a result
    nor unreachable, for impossible values, and for a key that comes twice.
    """
    found: dict[tuple[str, str, str, float], dict[int, Run | None]] = {}
    for number, row in enumerate(rows, start=1):
        part, machine, family, budget, seed = (row[field] for field in KEY)
        seeds = found.setdefault((part, machine, family, budget), {})
        if seed in seeds:
            raise InputError(
                f"{where}, line {number}", f"seed {seed} twice", "a run has one result", "Delete one of the lines."
            )
        seeds[seed] = None if "unreachable" in row else _run(row, machines, f"{where}, line {number}")
    missing: dict[tuple[str, str, str, float], list[int]] = {key: [] for key in found}
    for part, machine, family, budget, seed in wanted:
        setting = (part, machine, family, budget)
        if seed not in found.get(setting, {}):
            missing.setdefault(setting, []).append(seed)
    return Study(
        tuple(
            Setting(
                *key,
                runs={seed: run for seed, run in found.get(key, {}).items() if run is not None},
                unreachable=tuple(sorted(seed for seed, run in found.get(key, {}).items() if run is None)),
                missing=tuple(sorted(absent)),
            )
            for key, absent in missing.items()
        )
    )


def _run(row: Mapping[str, Any], machines: Sequence[str], where: str) -> Run:
    accuracy = row.get("accuracy")
    if not isinstance(accuracy, (int, float)) or not 0 <= accuracy <= 1:
        raise InputError(
            f"{where}, field 'accuracy'", repr(accuracy), "it is a fraction between 0 and 1", "Run it again."
        )
    costs: list[dict[str, float]] = []
    for quantity in QUANTITIES:
        values = row.get(quantity)
        costs.append(dict(values) if isinstance(values, Mapping) else {})
        for machine in machines:
            value = costs[-1].get(machine)
            if not isinstance(value, (int, float)) or not math.isfinite(value) or value <= 0:
                raise InputError(
                    f"{where}, field '{quantity}'",
                    f"{value!r} for {machine}",
                    f"it has a number above 0 for each of {', '.join(machines)}",
                    "Delete the line and run it again.",
                )
    right = from_text(row["right"], accuracy, f"{where}, field 'right'") if "right" in row else ()
    return Run(float(accuracy), costs[0], costs[1], str(row.get("kind", "")), right)


def _mean(runs: Sequence[Run]) -> Run:
    machines = runs[0].latency_cycles
    return Run(
        statistics.fmean(run.accuracy for run in runs),
        {machine: statistics.fmean(run.latency_cycles[machine] for run in runs) for machine in machines},
        {machine: statistics.fmean(run.energy_pj[machine] for run in runs) for machine in machines},
    )
