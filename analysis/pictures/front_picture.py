"""The latency-accuracy picture: every family its own mark, the Pareto front as a step line, dense as the reference."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from analysis.pictures import colours, style
from analysis.pictures.axes import limits, set_x
from analysis.pictures.family_marks import REFERENCE, Mark, marks
from analysis.tables.pareto import pareto_front
from analysis.tables.records import NetworkPoint
from simulator.base.errors import InputError

_MOST_COLUMNS = 3


@dataclass(frozen=True)
class _Reference:
    latency_cycles: float
    accuracy: float


def draw_front(points: Sequence[NetworkPoint], title: str = "") -> Figure:
    """Picture of accuracy (%) over latency (cycles, and as a fraction of dense), one panel for each machine.

    Filled marks lie on their machine's front, hollow ones do not. Several dense networks on a machine (seeds) give one
    reference, their mean. Raises ``InputError`` when there is no point.
    """
    if not points:
        raise InputError(
            "draw_front: points", "no point", "a picture needs at least one network", "Measure a network first."
        )
    machines = list(dict.fromkeys(point.machine for point in points))
    looks = marks(sorted({point.family for point in points}, key=_family_order))
    columns = (
        len(machines) if len(machines) <= _MOST_COLUMNS else min(_MOST_COLUMNS, math.ceil(math.sqrt(len(machines))))
    )
    rows = math.ceil(len(machines) / columns)
    legend_rows = math.ceil((len(looks) + 2) / _legend_columns(columns))
    with style.house_style():
        figure = style.new_figure(max(6.4, 4.2 * columns), 3.9 * rows + 0.22 * legend_rows + 0.2)
        grid = figure.subplots(rows, columns, squeeze=False)
        low, high = _accuracy_limits(points)
        panels = list(grid.flat)
        for axes, machine in zip(panels, machines, strict=False):
            _draw_panel(axes, [p for p in points if p.machine == machine], looks)
            axes.set_ylim(low, high)
            axes.set_title(style.shortened(f"machine: {machine}", 36))
        for axes in panels[len(machines) :]:
            axes.set_visible(False)
        if title:
            figure.suptitle(title)
        figure.legend(
            handles=_legend(looks, points), loc="outside lower center", ncols=_legend_columns(columns), frameon=False
        )
    return figure


def _draw_panel(axes: Axes, points: Sequence[NetworkPoint], looks: dict[str, Mark]) -> None:
    reference = _dense_reference(points)
    cycles = [point.latency_cycles for point in points]
    low, high, logarithmic = limits(min(cycles), max(cycles))
    set_x(axes, low, high, logarithmic)
    axes.set_xlabel("latency (cycles)")
    axes.set_ylabel("accuracy (%)")
    axes.yaxis.set_major_locator(MaxNLocator(7))
    axes.grid(True)
    front = pareto_front([(point.latency_cycles, point.accuracy) for point in points], ("min", "max"))
    _draw_steps(axes, [points[i] for i in front])
    on_front = set(front.tolist())
    coinciding = Counter((point.latency_cycles, point.accuracy) for point in points)
    for index, point in enumerate(points):
        look = looks[point.family]
        # Points at one place: the earlier ones are larger, so that each stays visible around the next.
        coinciding[point.latency_cycles, point.accuracy] -= 1
        beneath = coinciding[point.latency_cycles, point.accuracy]
        axes.plot(
            point.latency_cycles,
            100 * point.accuracy,
            linestyle="none",
            marker=look.marker,
            markersize=(11 if look.marker == "*" else 7) + 4 * min(beneath, 4),
            markeredgecolor=look.colour,
            markeredgewidth=1.3,
            markerfacecolor=look.colour if index in on_front else "white",
            zorder=4 if index in on_front else 3,
        )
    if reference is not None:
        axes.axhline(100 * reference.accuracy, color=colours.GREY, linewidth=1.0, linestyle=(0, (4, 3)), zorder=1)
        if reference.latency_cycles > 0:
            above = axes.twiny()
            set_x(above, low / reference.latency_cycles, high / reference.latency_cycles, logarithmic)
            above.set_xlabel("latency / latency of dense")
            above.spines["top"].set_visible(True)
            axes.axvline(reference.latency_cycles, color=colours.GREY, linewidth=1.0, linestyle=(0, (4, 3)), zorder=1)


def _draw_steps(axes: Axes, front: Sequence[NetworkPoint]) -> None:
    best = sorted({(point.latency_cycles, 100 * point.accuracy) for point in front})
    # From the first point down to the axis and from the last one to the right: all that the front dominates lies below.
    across = [best[0][0], *(x for x, _ in best), max(axes.get_xlim()[1], best[-1][0])]
    up = [-1.0, *(y for _, y in best), best[-1][1]]
    axes.step(across, up, where="post", color="#444444", linewidth=1.2, zorder=2)


def _dense_reference(points: Sequence[NetworkPoint]) -> _Reference | None:
    dense = [point for point in points if point.family == REFERENCE]
    if not dense:
        return None
    count = len(dense)
    return _Reference(sum(p.latency_cycles for p in dense) / count, sum(p.accuracy for p in dense) / count)


def _accuracy_limits(points: Sequence[NetworkPoint]) -> tuple[float, float]:
    values = [100 * point.accuracy for point in points]
    margin = 0.08 * (max(values) - min(values)) or 0.5
    return min(values) - margin, max(values) + margin


def _legend(looks: dict[str, Mark], points: Sequence[NetworkPoint]) -> list[Line2D]:
    handles = [
        Line2D(
            [],
            [],
            linestyle="none",
            marker=look.marker,
            color=look.colour,
            label=look.label,
            markersize=10 if look.marker == "*" else 7,
        )
        for look in looks.values()
    ]
    handles.append(Line2D([], [], color="#444444", linewidth=1.2, label="Pareto front (filled marks)"))
    dense = [point for point in points if point.family == REFERENCE]
    if dense:
        most = max(sum(p.machine == machine for p in dense) for machine in {p.machine for p in dense})
        label = "dense reference" + (f" (mean of {most})" if most > 1 else "")
        handles.append(Line2D([], [], color=colours.GREY, linewidth=1.0, linestyle=(0, (4, 3)), label=label))
    return handles


def _legend_columns(panel_columns: int) -> int:
    return 3 if panel_columns == 1 else 2 * panel_columns


def _family_order(family: str) -> tuple[bool, str]:
    return family != REFERENCE, family
