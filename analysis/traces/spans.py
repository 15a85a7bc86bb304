"""What the timeline picture and the trace file share: a checked trace, and when layers and operators run."""

from __future__ import annotations

import itertools

import numpy as np

from simulator.base.errors import InputError
from simulator.timing.report import Report, Trace

_COMPUTING = ("array", "vector")
_COLUMNS = ("op", "unit", "layer", "start", "end", "done")


def check_trace(report: Report) -> Trace:
    """The report's trace; raises ``InputError`` where columns do not fit together or a unit does two things at once."""
    trace = report.trace
    columns = {name: getattr(trace, name) for name in _COLUMNS}
    length = len(trace.op)
    for name, column in columns.items():
        if column.ndim != 1 or len(column) != length or not np.issubdtype(column.dtype, np.integer):
            _refuse(
                f"trace.{name}",
                f"{column.dtype} of shape {column.shape}",
                f"all columns must be {length} whole numbers",
            )
    if length == 0:
        return trace
    for name, known in (("op", trace.op_names), ("unit", trace.unit_names), ("layer", report.layers)):
        column = columns[name]
        if column.min() < 0 or column.max() >= len(known):
            _refuse(f"trace.{name}", f"{column.min()} to {column.max()}", f"indices must lie below {len(known)}")
    if trace.start.min() < 0 or np.any(trace.end < trace.start) or np.any(trace.done < trace.start):
        _refuse("trace", "an instruction that ends before it starts", "0 <= start <= end, done must hold")
    order = np.lexsort((trace.end, trace.start, trace.unit))
    together = trace.unit[order[1:]] == trace.unit[order[:-1]]
    early = together & (trace.start[order[1:]] < trace.end[order[:-1]])
    if early.any():
        first, second = order[:-1][early][0], order[1:][early][0]
        unit = trace.unit_names[trace.unit[first]]
        _refuse(
            "trace", f"instructions {first} and {second} in unit {unit!r} at once", "a unit does one thing at a time"
        )
    return trace


def layer_spans(report: Report) -> list[tuple[str, int, int]]:
    """(name, first cycle, end cycle) of each layer on the array's time line; the spans follow each other without a gap.

    Raises ``InputError`` where the layers' cycles do not sum to the report's latency.
    """
    ends = list(itertools.accumulate((layer.latency_cycles for layer in report.layers), initial=0))
    if ends[-1] != report.latency_cycles:
        _refuse(
            "report.layers",
            f"{ends[-1]} cycles in all",
            f"they must sum to the latency, {report.latency_cycles} cycles",
        )
    return [(layer.name, a, b) for layer, (a, b) in zip(report.layers, itertools.pairwise(ends), strict=True)]


def operator_spans(report: Report) -> list[tuple[int, int, int]]:
    """(index of the layer, first cycle, end cycle) of each operator of a network on array and vector unit, by first
    cycle; operators overlap. One that only moves data has the span of its transfers; one without instructions has none.
    """
    trace, count = report.trace, len(report.layers)
    computes = np.isin(trace.unit, [trace.unit_names.index(name) for name in _COMPUTING if name in trace.unit_names])
    spans = {}
    for chosen in (np.ones(len(trace.op), dtype=bool), computes):
        first, last = np.full(count, np.iinfo(np.int64).max), np.full(count, -1, dtype=np.int64)
        np.minimum.at(first, trace.layer[chosen], trace.start[chosen])
        np.maximum.at(last, trace.layer[chosen], trace.end[chosen])
        spans.update({i: (int(first[i]), int(last[i])) for i in np.flatnonzero(last >= 0).tolist()})
    return sorted(((i, begin, end) for i, (begin, end) in spans.items()), key=lambda span: (span[1], span[0]))


def lanes(spans: list[tuple[int, int, int]]) -> list[int]:
    """The first lane that is free for each of the spans of ``operator_spans``, so that none overlap in a lane."""
    free: list[int] = []
    chosen = []
    for _, begin, end in spans:
        lane = next((i for i, until in enumerate(free) if until <= begin), len(free))
        free[lane : lane + 1] = [end]
        chosen.append(lane)
    return chosen


def _refuse(where: str, value: str, rule: str) -> None:
    raise InputError(where, value, rule, "Pass a report that simulate() returned, unchanged.")
