"""Programs beside each other, operator by operator, as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from analysis.tables.comparison import ComparedRow, compare_reports
from simulator.base.errors import InputError
from simulator.base.shown import Table, Tabled
from simulator.program.program import Program
from simulator.timing.report import Report
from simulator.timing.simulate import simulate

By = Literal["cycles", "bytes", "energy", "macs"]
MEASURES: Mapping[str, str] = {
    "cycles": "latency_cycles",
    "bytes": "dram_bytes",
    "energy": "energy_pj",
    "macs": "macs",
}
_UNIT = {"cycles": "cycles", "bytes": "DRAM bytes", "energy": "pJ", "macs": "multiply-accumulates"}
Compared = Program | Report | str | Path


@dataclass(frozen=True, repr=False)
class Comparison(Tabled):
    """What ``compare`` found. names: of the programs, each with its machine. by: what is compared. rows: the whole
    first, then operators by how far they differ.
    """

    names: tuple[str, ...]
    by: str
    rows: tuple[ComparedRow, ...]

    def table(self) -> Table:
        """A row for the whole and for each operator, with the cause whose cycles differ most."""
        rows = []
        for row in self.rows:
            numbers = [None if value is None else round(value) for value in row.values]
            ratio = None if row.ratio is None else round(row.ratio, 3)
            why = [row.mostly] if self.by == "cycles" else []
            rows.append((row.name, *numbers, ratio, round(row.difference), *why))
        columns = ["operator", *self.names, "ratio", "difference", *(["mostly of"] if self.by == "cycles" else [])]
        return Table(f"{_UNIT[self.by]} of {len(self.names)} programs, operator by operator", columns, rows)


def compare(programs: Sequence[Compared] | Mapping[str, Compared], by: By = "cycles") -> Comparison:
    """Where the cycles, bytes, joules or multiply-accumulates of one program differ from another's.

    Operators are matched by name; each program runs on the machine that it was lowered for.

    Parameters
    ----------
    programs: two or more programs, their files, or reports of ``simulate``; the one to compare with first. In a mapping
        they are called by its names.
    by: what is compared.

    Raises
    ------
    InputError: for fewer than two, another measure, or a file that is no program.
    """
    if by not in MEASURES:
        raise InputError("by", repr(by), f"it is one of {', '.join(MEASURES)}", "Choose one of them.")
    named: dict[str, Any] = dict(programs) if isinstance(programs, Mapping) else dict(_numbered(programs))
    reports = [_report(one) for one in named.values()]
    rows = compare_reports(reports, MEASURES[by])
    names = tuple(f"{name} on {report.machine}" for name, report in zip(named, reports, strict=True))
    return Comparison(names, by, rows)


def _numbered(programs: Sequence[Compared]) -> list[tuple[str, Compared]]:
    names = [Path(one).stem if isinstance(one, (str, Path)) else "program" for one in programs]
    alone = len(set(names)) == len(names)
    return [
        (name if alone else f"{name} {number}", one)
        for number, (name, one) in enumerate(zip(names, programs, strict=True), start=1)
    ]


def _report(one: Compared) -> Report:
    if isinstance(one, Report):
        return one
    program = one if isinstance(one, Program) else Program.load(one)
    return simulate(program, program.machine)
