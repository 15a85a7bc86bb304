"""Roofline: every operator's useful multiplications per byte of DRAM traffic and per cycle, under the machine's roofs.

After Williams, Waterman and Patterson, "Roofline: an insightful visual performance model", CACM 52(4), 2009; the
unit of work is a useful multiplication, so that dense and structured layers can be compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from matplotlib.transforms import Bbox

from analysis.pictures import colours, style
from analysis.pictures.axes import log_ticks, set_x, short_number
from simulator.base.errors import InputError
from simulator.timing.report import GROUPS, LayerReport, Report

_LARGEST_POINTS2 = 900.0  # area of the dot of the operator with most cycles
_SMALLEST_POINTS2 = 6.0
_MOST_LABELS = 10
_LONGEST_NAME = 26
_ALIKE_DECADES = 0.08  # dots closer than this share one label
# Where a label may stand, in points from its dot's rim: sideways and up, and how the text is aligned there.
_PLACES = (
    (1, 0, "left", "center"),
    (-1, 0, "right", "center"),
    (0, 1, "center", "bottom"),
    (0, -1, "center", "top"),
    (0.7, 0.7, "left", "bottom"),
    (0.7, -0.7, "left", "top"),
    (-0.7, 0.7, "right", "bottom"),
    (-0.7, -0.7, "right", "top"),
)


@dataclass(frozen=True)
class RooflinePoint:
    """An operator: its useful multiplications for each byte of its DRAM traffic, and for each cycle that it takes."""

    name: str
    group: str
    cycles: int
    per_byte: float
    per_cycle: float


def roofline_points(report: Report) -> list[RooflinePoint]:
    """The operators of ``report`` that multiply, move bytes and have cycles of their own; others have no place.

    An operator's rate is taken over the cycles charged to it or those of its transfers, whichever are more: bytes
    that moved while other operators ran took their time all the same, so that no rate lies above a roof.
    """
    return [
        RooflinePoint(
            layer.name,
            layer.group,
            layer.latency_cycles,
            layer.multiplications * layer.tokens / layer.dram_bytes,
            layer.multiplications * layer.tokens / _own_cycles(report, layer),
        )
        for layer in report.layers
        if layer.multiplications and layer.dram_bytes and layer.latency_cycles
    ]


def _own_cycles(report: Report, layer: LayerReport) -> float:
    """Cycles that the operator takes of the array's time line or of the DRAM channel, at the least."""
    return max(layer.latency_cycles, layer.dram_cycles, layer.dram_bytes / report.dram_bytes_per_cycle)


def draw_roofline(report: Report, title: str = "") -> Figure:
    """One dot an operator, its area as its cycles, coloured by group, on logarithmic axes; the program is a star.

    Operators without multiplications, bytes or cycles of their own have no dot; the line below the axis says what part
    of the cycles they are. Raises ``InputError`` where no operator has a dot.
    """
    points = roofline_points(report)
    if not points:
        raise InputError(
            "draw_roofline: report.layers",
            "no operator that multiplies and moves bytes",
            "a picture needs at least one",
            "Simulate a program with a linear layer.",
        )
    total = sum(layer.multiplications * layer.tokens for layer in report.layers)
    star = (total / report.dram_bytes, total / report.latency_cycles)
    with style.house_style():
        figure = style.new_figure(7.6, 5.2)
        axes = figure.subplots()
        _set_axes(axes, report, [*((p.per_byte, p.per_cycle) for p in points), star])
        _draw_roofs(axes, report)
        rims = _draw_dots(axes, points)
        axes.plot(*star, marker="*", markersize=15, color=colours.BLACK, markeredgecolor="white", zorder=6)
        axes.set_xlabel(f"useful multiplications for a byte of DRAM traffic\n{_caption(report, points)}")
        axes.set_ylabel("useful multiplications in a cycle")
        style.legend_below(figure, _legend(report, points), 2)
        style.heading(figure, title or f"{style.shortened(report.program, 40)} on {report.machine}")
        _place_labels(figure, axes, points, rims, star)
    return figure


def _set_axes(axes: Axes, report: Report, places: Sequence[tuple[float, float]]) -> None:
    cells = report.rows * report.cols
    ridge = cells / report.dram_bytes_per_cycle
    across, up = [ridge, *(x for x, _ in places)], [cells, *(y for _, y in places)]
    set_x(axes, min(across) / 2.5, max(across) * 2.5, True)
    low, high = min(up) / 2.5, max(up) * 2.0
    axes.set_yscale("log")
    axes.set_ylim(low, high)
    axes.yaxis.set_major_locator(FixedLocator(log_ticks(low, high)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: short_number(value)))
    axes.grid(True)


def _draw_roofs(axes: Axes, report: Report) -> None:
    cells, rate = report.rows * report.cols, report.dram_bytes_per_cycle
    (low, high), ridge = axes.get_xlim(), cells / rate
    axes.plot([low, ridge], [low * rate, cells], color=colours.GREY, linewidth=1.4, linestyle=(0, (4, 2)), zorder=1)
    axes.plot([ridge, high], [cells, cells], color=colours.GREY, linewidth=1.4, zorder=1)


def _draw_dots(axes: Axes, points: Sequence[RooflinePoint]) -> list[float]:
    """Draw them, large ones first; radii in typographic points."""
    most = max(point.cycles for point in points)
    areas = [max(_SMALLEST_POINTS2, _LARGEST_POINTS2 * point.cycles / most) for point in points]
    for index in sorted(range(len(points)), key=lambda i: -areas[i]):
        point = points[index]
        axes.scatter(
            point.per_byte,
            point.per_cycle,
            s=areas[index],
            color=style.group_colour(point.group),
            alpha=0.3,
            edgecolors=style.group_colour(point.group),
            linewidths=0.8,
            zorder=3,
        )
    return [float(np.sqrt(area / np.pi)) for area in areas]


def _legend(report: Report, points: Sequence[RooflinePoint]) -> list[Line2D]:
    cells = report.rows * report.cols
    slope = f"DRAM: {report.dram_bytes_per_cycle:.4g} bytes a cycle"
    flat = f"array: {report.rows} x {report.cols} = {cells:,} multiplications a cycle"
    handles = [
        Line2D([], [], color=colours.GREY, linewidth=1.4, linestyle=(0, (4, 2)), label=slope),
        Line2D([], [], color=colours.GREY, linewidth=1.4, label=flat),
        Line2D([], [], linestyle="none", marker="*", markersize=12, color=colours.BLACK, label="whole program"),
    ]
    present = {point.group for point in points}
    handles += [
        Line2D(
            [], [], linestyle="none", marker="o", markersize=8, alpha=0.6, color=style.group_colour(group), label=group
        )
        for group in GROUPS
        if group in present
    ]
    return handles


def _caption(report: Report, points: Sequence[RooflinePoint]) -> str:
    most = max(point.cycles for point in points)
    missing = len(report.layers) - len(points)
    share = 1 - sum(point.cycles for point in points) / report.latency_cycles
    rest = f"\nnot drawn: {missing} that multiply or move nothing ({share:.1%} of the cycles)" if missing else ""
    return f"area of a dot: its cycles, the largest {short_number(most)}{rest}"


def _clusters(points: Sequence[RooflinePoint]) -> list[list[int]]:
    """Indices of dots that share a label, those with most cycles first."""
    rest = sorted(range(len(points)), key=lambda i: -points[i].cycles)
    at = np.log10([(point.per_byte, point.per_cycle) for point in points])
    clusters = []
    while rest:
        first = rest[0]
        alike = [i for i in rest if points[i].group == points[first].group and _near(at[first], at[i])]
        clusters.append(alike)
        rest = [i for i in rest if i not in set(alike)]
    return sorted(clusters, key=lambda cluster: -sum(points[i].cycles for i in cluster))


def _near(first: np.ndarray, second: np.ndarray) -> bool:
    return bool(np.abs(first - second).max() <= _ALIKE_DECADES)


def _place_labels(
    figure: Figure, axes: Axes, points: Sequence[RooflinePoint], rims: Sequence[float], star: tuple[float, float]
) -> None:
    """Name the dots with most cycles, each where its name lies on no other name, no star, and inside the axes."""
    figure.canvas.draw()  # the layout is known from here on
    pixels = figure.dpi / 72
    taken = [_box_around(axes, star, 9 * pixels)]
    inside = axes.get_window_extent()
    clusters = _clusters(points)[:_MOST_LABELS]
    names = style.shortened_names([points[cluster[0]].name for cluster in clusters], _LONGEST_NAME)
    for name, cluster in zip(names, clusters, strict=True):
        first = cluster[0]
        text = name if len(cluster) == 1 else f"{name} and {len(cluster) - 1} alike"
        for right, up, across, along in _PLACES:
            label = axes.annotate(
                text,
                (points[first].per_byte, points[first].per_cycle),
                xytext=(right * (rims[first] + 2), up * (rims[first] + 2)),
                textcoords="offset points",
                ha=across,
                va=along,
                fontsize=6.5,
                zorder=7,
                path_effects=[withStroke(linewidth=2.0, foreground="white")],
            )
            label.set_in_layout(False)
            box = label.get_window_extent()
            free = all(not _overlap(box, other) for other in taken)
            if free and box.x0 >= inside.x0 and box.x1 <= inside.x1 and box.y0 >= inside.y0 and box.y1 <= inside.y1:
                taken.append(box)
                break
            label.remove()


def _box_around(axes: Axes, place: tuple[float, float], half: float) -> Bbox:
    x, y = axes.transData.transform(place)
    return Bbox.from_extents(x - half, y - half, x + half, y + half)


def _overlap(first: Bbox, second: Bbox) -> bool:
    wide = min(first.x1, second.x1) - max(first.x0, second.x0)
    high = min(first.y1, second.y1) - max(first.y0, second.y0)
    return bool(wide > 0 and high > 0)
