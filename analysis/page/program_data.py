"""What the page's pictures of one program are drawn from: causes by layer, the roofline, the timeline."""

from __future__ import annotations

import base64
import tempfile
from pathlib import Path
from typing import Any

from analysis.page.content import Run
from analysis.pictures.roofline import roofline_points
from analysis.traces.chrome_trace import save_chrome_trace
from analysis.traces.compact_trace import MIXED, compact
from simulator.timing.report import CAUSES, Report

_MOST_BARS = 40
_DIGITS = 5  # of figures that are drawn


def run_data(run: Run, most_spans: int) -> dict[str, Any]:
    """Plain figures of one program; its timeline in at most about ``most_spans`` spans."""
    report = run.report
    return {
        "name": run.name,
        "machine": report.machine,
        "cycles": report.latency_cycles,
        "ms": _short(1e3 * report.latency_s),
        "uj": _short(1e-6 * report.energy_pj),
        "bytes": report.dram_bytes,
        "utilisation": _short(report.utilisation),
        "bound": report.bound,
        "roof": _short(report.roofline_fraction),
        "tiles": report.tiles,
        "causes": _causes(report),
        "roofline": _roofline(report),
        "timeline": _timeline(report, most_spans),
    }


def trace_url(run: Run, most_spans: int, most_bytes: int) -> str | None:
    """The Perfetto trace as a data address, None where it is longer than ``most_bytes`` characters."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "trace.json.gz")
        save_chrome_trace(run.report, path, most_spans)
        text = "data:application/gzip;base64," + base64.b64encode(path.read_bytes()).decode()
    return text if len(text) <= most_bytes else None


def _causes(report: Report) -> list[dict[str, Any]]:
    """Bars in the program's order; of many layers those with the most cycles, and the others as one."""
    layers = list(enumerate(report.layers))
    kept = {i for i, _ in sorted(layers, key=lambda one: (-one[1].latency_cycles, one[0]))[:_MOST_BARS]}
    bars: list[dict[str, Any]] = [
        {"layer": layer.name, "used": _short(layer.utilisation), "causes": dict(layer.cycles_by_cause)}
        for i, layer in layers
        if i in kept
    ]
    rest = [layer for i, layer in layers if i not in kept]
    if rest:
        together = {cause: sum(layer.cycles_by_cause[cause] for layer in rest) for cause in CAUSES}
        bars.append({"layer": f"{len(rest)} others", "used": None, "causes": together})
    return [bar for bar in bars if any(bar["causes"].values())]


def _roofline(report: Report) -> dict[str, Any]:
    dots = [
        {"layer": p.name, "group": p.group, "cycles": p.cycles, "x": _short(p.per_byte), "y": _short(p.per_cycle)}
        for p in roofline_points(report)
    ]
    useful = sum(layer.multiplications * layer.tokens for layer in report.layers)
    whole = {"x": _short(useful / max(1, report.dram_bytes)), "y": _short(useful / max(1, report.latency_cycles))}
    return {"dots": dots, "whole": whole, "flat": report.rows * report.cols, "slope": report.dram_bytes_per_cycle}


def _timeline(report: Report, most_spans: int) -> dict[str, Any]:
    trace = report.trace
    spans = compact(trace, most_spans)
    columns = (spans.unit, spans.op, spans.layer, spans.start, spans.end)
    names = [*trace.op_names, "mixed"]
    rows = [
        [unit, len(names) - 1 if op == MIXED else op, layer, start, end]
        for unit, op, layer, start, end in zip(*(column.tolist() for column in columns), strict=True)
    ]
    return {
        "units": list(trace.unit_names),
        "operations": names,
        "layers": [layer.name for layer in report.layers],
        "spans": rows,
        "gap": spans.gap_cycles,
    }


def _short(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")
