"""Execution timeline: what every unit of the machine does, cycle by cycle or, for many cycles, in averages."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from analysis.pictures import style
from analysis.pictures.axes import set_x
from analysis.pictures.colours import BLACK, PALE_GREY
from analysis.traces.spans import check_trace, layer_spans, operator_spans
from simulator.base.errors import InputError
from simulator.timing.report import Report, Trace

_MOST_BINS = 1200
_AXES_POINTS = 8.2 * 72  # width of the drawing, a little less than it comes out
_LABEL_POINTS = 6.5
_LETTER_POINTS = 0.64 * _LABEL_POINTS
_LINE_POINTS = 1.25 * _LABEL_POINTS
_LONGEST_NAME = 28
_ROW_FILL = 0.82  # part of a row's height that a unit busy all the time fills


def draw_timeline(report: Report, window: tuple[int, int] | None = None, title: str = "") -> Figure:
    """Units as rows, time in cycles to the right, instructions as spans coloured by kind, layer boundaries as lines.

    ``window`` = (first cycle, end cycle) shows a part. Where the window has more cycles than the picture has columns,
    a column's height is the fraction of its cycles in which the unit was busy, divided among the kinds in proportion.
    Raises ``InputError`` for an empty trace or a window outside the run.
    """
    trace, spans = check_trace(report), _layers_in_turn(report)
    if len(trace.op) == 0:
        raise InputError(
            "draw_timeline: trace", "no instruction", "a picture needs at least one", "Simulate a program."
        )
    low, high = window if window is not None else (0, max(report.latency_cycles, 1))
    if not 0 <= low < high <= max(report.latency_cycles, 1):
        raise InputError(
            "draw_timeline: window",
            f"({low}, {high})",
            f"it must lie in 0 to {report.latency_cycles} cycles, first below last",
            "Choose another window.",
        )
    bins = min(_MOST_BINS, high - low)
    kinds = np.unique(trace.op).tolist()
    colours = {op: style.operation_colour(op) for op in kinds}
    units = len(trace.unit_names)
    shown = [(name, max(a, low), min(b, high)) for name, a, b in spans if a < high and b > low]
    labels, upright = _layer_labels(shown, low, high)
    label_in = max((len(name) for name, _ in labels), default=0) * _LETTER_POINTS / 72 if upright else 0.0
    with style.house_style():
        figure = style.new_figure(9.6, 1.75 + 0.42 * units + label_in)
        axes = figure.subplots()
        for unit in range(units):
            _draw_unit(axes, trace, unit, np.linspace(low, high, bins + 1), colours)
        set_x(axes, low, high, False)
        axes.set_ylim(units - 0.4, -0.6)
        axes.set_yticks(range(units), [style.shortened(name, 24) for name in trace.unit_names])
        axes.set_ylabel("unit")
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel(f"time (cycles)\n{_caption(high - low, bins, report.network)}")
        handles = [Patch(color=colours[op], label=trace.op_names[op].replace("_", " ")) for op in kinds]
        style.legend_below(figure, handles, 5)
        style.heading(figure, title or f"{style.shortened(report.program, 40)} on {report.machine}")
        _mark_layers(axes, [start for _, start, _ in shown[1:]], labels, upright)
    return figure


def _layers_in_turn(report: Report) -> list[tuple[str, int, int]]:
    """(name, first cycle, end cycle) of the layers; of a network's operators, each from where it begins to where the
    next one does.
    """
    if not report.network:
        return layer_spans(report)
    spans = operator_spans(report)
    ends = [*(begin for _, begin, _ in spans[1:]), report.latency_cycles]
    return [(report.layers[i].name, begin, end) for (i, begin, _), end in zip(spans, ends, strict=True)]


def busy_fraction(
    starts: NDArray[np.int64], ends: NDArray[np.int64], edges: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(B,) fraction of each bin between ``edges`` (B + 1, ascending) that spans [start, end) cover, none overlapping.

    O((N + B) log N): the busy time before an edge x is the sum of max(x - start, 0) - max(x - end, 0).
    """
    low, high = edges[0], edges[-1]
    seen = (ends > low) & (starts < high)
    # Times are taken from the left edge, so that sums of many large numbers do not eat the digits that matter.
    began = np.sort(np.clip(starts[seen], low, high) - low)
    ended = np.sort(np.clip(ends[seen], low, high) - low)
    at = edges - low
    before = _sum_of_excess(began, at) - _sum_of_excess(ended, at)
    return np.clip(np.diff(before) / np.diff(edges), 0.0, 1.0)


def _sum_of_excess(times: NDArray[np.float64], at: NDArray[np.float64]) -> NDArray[np.float64]:
    passed = np.searchsorted(times, at)
    sums = np.concatenate(([0.0], np.cumsum(times)))
    return passed * at - sums[passed]


def _draw_unit(axes: Axes, trace: Trace, unit: int, edges: NDArray[np.float64], colours: dict[int, str]) -> None:
    mine = trace.unit == unit
    floor = unit + _ROW_FILL / 2
    axes.axhspan(unit - _ROW_FILL / 2, floor, color=PALE_GREY, linewidth=0, zorder=0)
    level = np.zeros(len(edges) - 1)
    for op, colour in colours.items():
        chosen = mine & (trace.op == op)
        if chosen.any():
            share = busy_fraction(trace.start[chosen], trace.end[chosen], edges)
            axes.stairs(
                floor - _ROW_FILL * (level + share),
                edges,
                baseline=floor - _ROW_FILL * level,
                fill=True,
                color=colour,
                linewidth=0,
                zorder=2,
            )
            level += share


def _layer_labels(spans: list[tuple[str, int, int]], low: int, high: int) -> tuple[list[tuple[str, float]], bool]:
    """(name, place in cycles) of the layers to name, as many as fit side by side, and whether names stand upright."""
    points_per_cycle = _AXES_POINTS / (high - low)
    names = style.shortened_names([name for name, _, _ in spans], _LONGEST_NAME)
    upright = any(
        len(n) * _LETTER_POINTS > (b - a) * points_per_cycle for n, (_, a, b) in zip(names, spans, strict=True)
    )
    places = [(start + end) / 2 for _, start, end in spans]
    labels: list[tuple[str, float]] = []
    for name, place in zip(names, places, strict=True):
        if not upright or not labels or (place - labels[-1][1]) * points_per_cycle >= _LINE_POINTS:
            labels.append((name, place))
    return labels, upright


def _mark_layers(axes: Axes, boundaries: list[int], labels: list[tuple[str, float]], upright: bool) -> None:
    for start in boundaries:
        axes.axvline(start, color=BLACK, linewidth=0.6, alpha=0.7 if len(boundaries) <= 40 else 0.25, zorder=3)
    for name, place in labels:
        axes.annotate(
            name,
            (place, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(0, 2),
            textcoords="offset points",
            ha="center",
            va="bottom",
            fontsize=_LABEL_POINTS,
            rotation=90 if upright else 0,
        )


def _caption(cycles: int, bins: int, network: bool) -> str:
    lines = "black lines and names: " + ("where operators begin" if network else "layers on the array")
    if bins == cycles:
        return f"every cycle drawn; {lines}"
    return f"height of a column = fraction of its {cycles / bins:,.1f} cycles in which the unit is busy; {lines}"
