"""Error over latency of machine-and-network pairs, plain machines against those with scatter, a panel for each area."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.pictures import colours, style
from analysis.pictures.axes import limits, set_x
from analysis.pictures.family_marks import Mark, marks
from analysis.tables.pareto import pareto_front
from simulator.base.errors import InputError

Dashes = Literal["-"] | tuple[float, tuple[float, float]]
# A colour is a family's, so kinds of machines differ in their lines, and in whether their marks are filled.
_KINDS: dict[bool, tuple[str, str, Dashes]] = {
    False: ("plain array (hollow marks)", colours.GREY, (0, (4, 2))),
    True: ("with scatter (filled marks)", colours.BLACK, "-"),
}


@dataclass(frozen=True)
class CodesignPoint:
    """A pair: latency in seconds, relative error, area in mm2, its kind of machine, its network's family."""

    latency_s: float
    error: float
    area_mm2: float
    scatter: bool
    family: str


def draw_codesign(points: Sequence[CodesignPoint], areas: Sequence[float], title: str = "") -> Figure:
    """One panel an area: every pair within it as a faint mark of its family, and each kind's front of latency and error
    as steps.

    Raises ``InputError`` when no pair is within the largest area.
    """
    shown = [area for area in areas if any(point.area_mm2 <= area for point in points)]
    if not shown:
        raise InputError("draw_codesign: points", "no pair", "a picture needs a pair within an area", "Search longer.")
    looks = marks(sorted({point.family for point in points}))
    low, high, logarithmic = limits(*(1e6 * edge(point.latency_s for point in points) for edge in (min, max)))
    with style.house_style():
        figure = style.new_figure(max(6.4, 3.3 * len(shown)), 3.9)
        panels = figure.subplots(1, len(shown), squeeze=False, sharey=True)[0]
        for axes, area in zip(panels, shown, strict=True):
            _draw_panel(axes, [point for point in points if point.area_mm2 <= area], looks)
            set_x(axes, low, high, logarithmic)
            axes.set_title(f"up to {area:g} mm²")
            axes.set_xlabel("latency (µs)")
        panels[0].set_ylabel("relative error of the layers (mean)")
        style.heading(figure, title)
        handles = [
            Line2D([], [], color=colour, linewidth=1.4, linestyle=dashes, label=label)
            for label, colour, dashes in _KINDS.values()
        ]
        handles += [
            Line2D([], [], linestyle="none", marker=look.marker, color=look.colour, label=look.label, markersize=6)
            for look in looks.values()
        ]
        style.legend_below(figure, handles, 7)
    return figure


def _draw_panel(axes: Axes, points: Sequence[CodesignPoint], looks: dict[str, Mark]) -> None:
    axes.grid(True)
    for scatter, (_, colour, dashes) in _KINDS.items():
        own = [point for point in points if point.scatter == scatter]
        if not own:
            continue
        front = pareto_front([(point.latency_s, point.error) for point in own], ("min", "min"))
        best = sorted({(1e6 * own[i].latency_s, own[i].error) for i in front})
        axes.step([x for x, _ in best], [y for _, y in best], where="post", color=colour, linewidth=1.4,
                  linestyle=dashes, zorder=3)  # fmt: skip
        on_front = set(front.tolist())
        for index, point in enumerate(own):
            chosen, look = index in on_front, looks[point.family]
            axes.plot(
                1e6 * point.latency_s,
                point.error,
                linestyle="none",
                marker=look.marker,
                markersize=5.5 if chosen else 3,
                markeredgecolor=look.colour,
                markerfacecolor=look.colour if scatter else "white",
                alpha=0.9 if chosen else 0.25,
                zorder=4 if chosen else 2,
            )
