"""The points of a sweep: energy over latency, coloured by one of the things that varied, with what no other beats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.pictures.axes import limits, set_x
from analysis.pictures.colours import LINE_GREY
from analysis.pictures.style import heading, house_style, legend_below, new_figure, series_colour, shortened
from analysis.tables.pareto import pareto_front
from simulator.base.errors import InputError

_MOST_COLOURS = 8
_MOST_NAMED = 12  # points of the front whose settings are written beside them


@dataclass(frozen=True)
class SweptPoint:
    """One point: its latency in cycles, energy in microjoules, what colours it, and its settings in short."""

    latency_cycles: float
    energy_uj: float
    group: str
    label: str


def draw_sweep(points: Sequence[SweptPoint], title: str, grouped_by: str) -> Figure:
    """Marks of all points, a step line through those that no other beats in both. grouped_by: what the colours tell.

    Raises InputError without a point.
    """
    if not points:
        raise InputError("sweep", "no point with figures", "a picture has one or more", "See the rows' errors.")
    groups = list(dict.fromkeys(point.group for point in points))
    shown = groups if len(groups) <= _MOST_COLOURS else []
    with house_style():
        figure = new_figure(7.2, 4.6)
        axes = figure.add_subplot()
        for index, group in enumerate(groups):
            here = [point for point in points if point.group == group]
            axes.plot(
                [point.latency_cycles for point in here], [point.energy_uj for point in here], linestyle="none",
                marker="o", markersize=5, alpha=0.8, color=series_colour(index if shown else 0),
            )  # fmt: skip
        best = pareto_front([(point.latency_cycles, point.energy_uj) for point in points], ("min", "min"))
        front = sorted((points[int(i)] for i in best), key=lambda point: point.latency_cycles)
        axes.plot(
            [point.latency_cycles for point in front], [point.energy_uj for point in front], drawstyle="steps-post",
            color=LINE_GREY, linewidth=1, zorder=0,
        )  # fmt: skip
        for point in front[:_MOST_NAMED]:
            axes.annotate(
                shortened(point.label, 40), (point.latency_cycles, point.energy_uj), xytext=(5, 4),
                textcoords="offset points", fontsize=6.5,
            )  # fmt: skip
        cycles = [point.latency_cycles for point in points]
        set_x(axes, *limits(min(cycles), max(cycles)))
        axes.set_ylim(0, 1.08 * max(point.energy_uj for point in points))
        axes.set_xlabel("latency (cycles)")
        axes.set_ylabel("energy (uJ)")
        axes.grid(True)
        heading(figure, title)
        handles = [
            Line2D([], [], linestyle="none", marker="o", color=series_colour(index), label=shortened(group, 28))
            for index, group in enumerate(shown)
        ]
        handles.append(Line2D([], [], color=LINE_GREY, linewidth=1, label="not beaten in both"))
        told = grouped_by if shown else ""
        legend_below(figure, handles, 4, told)
    return figure
