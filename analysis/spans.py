"""What the timeline picture and the trace file share: a checked trace, and the layers on the array's time line."""

from __future__ import annotations

import itertools

import numpy as np

from simulator.errors import InputError
from simulator.report import Report, Trace

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


def _refuse(where: str, value: str, rule: str) -> None:
    raise InputError(where, value, rule, "Pass a report that simulate() returned, unchanged.")
