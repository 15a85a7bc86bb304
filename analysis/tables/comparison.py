"""Two or more simulations beside each other, operator by operator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from simulator.base.errors import InputError
from simulator.timing.report import CAUSES, LayerReport, Report

# What is summed over operators and compared.
MEASURES = ("latency_cycles", "dram_bytes", "energy_pj", "macs")


@dataclass(frozen=True)
class ComparedRow:
    """One operator (or "all"): a value for each program, None where a program has no operator of that name.

    causes: cause -> cycles for each program, of operators that all programs have; empty for others.
    """

    name: str
    values: tuple[float | None, ...]
    causes: Mapping[str, tuple[int, ...]]

    @property
    def ratio(self) -> float | None:
        """The last program's value over the first one's; None where either has none or the first is zero."""
        first, last = self.values[0], self.values[-1]
        return None if first is None or last is None or not first else last / first

    @property
    def difference(self) -> float:
        """The last program's value less the first one's, what is missing counted as nothing."""
        return (self.values[-1] or 0.0) - (self.values[0] or 0.0)

    @property
    def mostly(self) -> str | None:
        """The cause whose cycles differ most, and by how much; None where none differs."""
        moved = {cause: cycles[-1] - cycles[0] for cause, cycles in self.causes.items()}
        cause = max(moved, key=lambda one: abs(moved[one]), default=None)
        return None if cause is None or not moved[cause] else f"{cause} {moved[cause]:+,}"


def compare_reports(reports: Sequence[Report], measure: str = "latency_cycles") -> tuple[ComparedRow, ...]:
    """A row for the whole, then one for each operator, in the order of the largest differences.

    Operators are matched by name. The cycles of a program's operators sum to its latency (machine.md, C4). Raises
    InputError for fewer than two reports, or an unknown measure.
    """
    if len(reports) < 2:
        raise InputError("programs", str(len(reports)), "two or more are compared", "Name another one.")
    if measure not in MEASURES:
        raise InputError("measure", repr(measure), f"it is one of {', '.join(MEASURES)}", "Choose one of them.")
    by_name: list[dict[str, LayerReport]] = [{layer.name: layer for layer in report.layers} for report in reports]
    names = dict.fromkeys(name for layers in by_name for name in layers)
    rows = [_row(name, [layers.get(name) for layers in by_name], measure) for name in names]
    whole = ComparedRow("all", tuple(float(getattr(report, measure)) for report in reports), _causes_of(reports))
    return (whole, *sorted(rows, key=lambda row: -abs(row.difference)))


def _row(name: str, layers: Sequence[LayerReport | None], measure: str) -> ComparedRow:
    values = tuple(None if layer is None else float(getattr(layer, measure)) for layer in layers)
    held = [layer for layer in layers if layer is not None]
    if len(held) < len(layers):
        return ComparedRow(name, values, {})
    causes = {cause: tuple(layer.cycles_by_cause[cause] for layer in held) for cause in CAUSES}
    return ComparedRow(name, values, causes)


def _causes_of(reports: Sequence[Report]) -> dict[str, tuple[int, ...]]:
    return {
        cause: tuple(sum(layer.cycles_by_cause[cause] for layer in report.layers) for report in reports)
        for cause in CAUSES
    }
