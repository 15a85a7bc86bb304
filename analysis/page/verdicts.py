"""What the figures say, in one sentence each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from analysis.page.content import Content, PagePoint, Run
from analysis.pictures.family_marks import REFERENCE, mark_key
from analysis.tables.qualities import QUALITIES


def verdicts(content: Content) -> dict[str, str]:
    """Sentence by "group|machine" of the points; under "" the page's first, of whatever it has."""
    said = {}
    for key in dict.fromkeys((p.group, p.machine) for p in content.points):
        here = [p for p in content.points if (p.group, p.machine) == key]
        said["|".join(key)] = _of_points(here, key[1])
    if said:
        first = next(iter(said.values()))
    elif content.runs:
        first = _of_runs(content.runs)
    else:
        first = _of_sweep([row for row in content.swept if row.get("error") in (None, "")], content.fields)
    return {"": first, **said}


def _of_points(points: Sequence[PagePoint], machine: str) -> str:
    quality = QUALITIES[points[0].quality]
    name, told, within = quality.name, quality.told, quality.margin
    of_dense = f"dense\N{RIGHT SINGLE QUOTATION MARK}s {name}"
    dense = [p for p in points if mark_key(p.family) == REFERENCE]
    others = [p for p in points if p not in dense]
    if not dense or not others:
        best = max(points, key=lambda p: (quality.sign * p.value, -p.latency_cycles))
        return f"On {machine}, {best.name} is {quality.best}: {told(best.value)} in {best.latency_cycles:,.0f} cycles."
    reference = max(dense, key=lambda p: (p.latency_cycles, quality.sign * p.value))
    good = [p for p in others if quality.is_close(p.value, reference.value)]
    stands = f"(dense: {reference.latency_cycles:,.0f} cycles, {told(reference.value)})"
    if not good:
        nearest = max(others, key=lambda p: (quality.sign * p.value, -p.latency_cycles))
        return (
            f"On {machine}, nothing stays within {within} of {of_dense}; {nearest.name} comes nearest, "
            f"{told(nearest.value)} {stands}."
        )
    best = min(good, key=lambda p: (p.latency_cycles, -quality.sign * p.value, p.name))
    if best.latency_cycles >= reference.latency_cycles:
        return f"On {machine}, no structure within {within} of {of_dense} is faster than dense {stands}."
    cycles, energy = best.latency_cycles / reference.latency_cycles, best.energy_pj / reference.energy_pj
    return (
        f"On {machine}, {best.name} needs {cycles:.2f} of dense\N{RIGHT SINGLE QUOTATION MARK}s cycles and "
        f"{energy:.2f} of its energy at {told(best.value)} {name} {stands}; nothing else within {within} of "
        f"{of_dense} is faster."
    )


def _of_runs(runs: Sequence[Run]) -> str:
    best = min(runs, key=lambda run: (run.report.latency_s, run.name))
    report = best.report
    cause = max(_causes(best).items(), key=lambda item: item[1])
    share = cause[1] / max(1, report.latency_cycles)
    took = f"{report.latency_cycles:,} cycles ({1e3 * report.latency_s:.3g} ms, {1e-6 * report.energy_pj:.4g} uJ)"
    ending = f"{share:.0%} of its cycles are {cause[0].replace('_', ' ')}, and the {report.bound} roof is the lowest."
    if len(runs) == 1:
        return f"{best.name} takes {took} on {report.machine}; {ending}"
    worst = max(runs, key=lambda run: (run.report.latency_s, run.name))
    ratio = report.latency_s / worst.report.latency_s
    return (
        f"{best.name} is the fastest of {len(runs)} programs: {took} on {report.machine}, {ratio:.2f} of the time of "
        f"{worst.name} on {worst.report.machine}; {ending}"
    )


def _causes(run: Run) -> dict[str, int]:
    causes: dict[str, int] = {}
    for layer in run.report.layers:
        for cause, cycles in layer.cycles_by_cause.items():
            causes[cause] = causes.get(cause, 0) + cycles
    return causes or {"compute": 0}


def _of_sweep(rows: Sequence[Mapping[str, Any]], fields: Sequence[str]) -> str:
    if not rows:
        return "No point of this sweep has figures."
    fast = min(rows, key=lambda row: float(row["latency_ms"]))
    frugal = min(rows, key=lambda row: float(row["energy_pj"]))
    told = f"Of {len(rows)} points the fastest takes {float(fast['latency_ms']):.4g} ms ({_settings(fast, fields)})"
    if fast is frugal:
        return f"{told}, and it needs the least energy too, {1e-6 * float(fast['energy_pj']):.4g} uJ."
    return (
        f"{told}; the least energy is {1e-6 * float(frugal['energy_pj']):.4g} uJ ({_settings(frugal, fields)}), "
        f"where the fastest needs {1e-6 * float(fast['energy_pj']):.4g} uJ."
    )


def _settings(row: Mapping[str, Any], fields: Sequence[str]) -> str:
    return ", ".join(f"{field} {row[field]}" for field in fields if row.get(field) not in (None, ""))
