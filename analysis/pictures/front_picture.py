"""The picture of quality over latency: every family its own mark, seeds as bars, the Pareto front as a step line, dense
as the reference.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator
from matplotlib.transforms import ScaledTranslation

from analysis.pictures import colours, style
from analysis.pictures.axes import limits, log_ticks, set_x, short_number
from analysis.pictures.family_marks import REFERENCE, Mark, mark_key, marks
from analysis.tables.over_seeds import Seeds, on_front, over_seeds
from analysis.tables.qualities import Quality, one_quality
from analysis.tables.records import NetworkPoint
from simulator.base.errors import InputError

_MOST_COLUMNS = 3
_PANEL_IN = (4.2, 3.7)
_AXES_PART = 0.8  # of a panel's width and height, which its axes get, nearly
_STEP_POINTS = 8.0  # between marks that would coincide
_NEAR_POINTS = (7.0, 6.0)  # across and up: nearer marks coincide
_BARS_APART_POINTS = 2.5
_DASHES = (0, (4, 3))
_MOVED = "marks that would lie on one another stand side by side"


@dataclass(frozen=True)
class _Scale:
    """The vertical axis of all panels: what it shows, in the axis' numbers, and from where to where."""

    quality: Quality
    low: float
    high: float
    logarithmic: bool

    def up(self, value: float) -> float:
        """A quality in the axis' numbers."""
        return self.quality.scale * value


def draw_front(points: Sequence[NetworkPoint], title: str = "") -> Figure:
    """Picture of quality (accuracy in %, perplexity or loss) over latency (cycles, and as a fraction of dense), one
    panel for each machine.

    A mark is a network, at the means over its seeds, its bars the range of them. Filled marks lie on their machine's
    front, hollow ones do not. Several dense networks on a machine give one reference, their mean. Raises
    ``InputError`` when there is no point, and for points of several measures.
    """
    if not points:
        raise InputError(
            "draw_front: points", "no point", "a picture needs at least one network", "Measure a network first."
        )
    quality = one_quality("draw_front: points", {point.quality for point in points})
    networks = over_seeds(points)
    machines = list(dict.fromkeys(point.machine for point in points))
    looks = marks(sorted({point.family for point in points}, key=_family_order))
    columns = (
        len(machines) if len(machines) <= _MOST_COLUMNS else min(_MOST_COLUMNS, math.ceil(math.sqrt(len(machines))))
    )
    rows = math.ceil(len(machines) / columns)
    wide, high = max(6.4, _PANEL_IN[0] * columns), _PANEL_IN[1] * rows
    scale = _scale(networks, quality)
    with style.house_style():
        figure = style.new_figure(wide, high)
        panels = list(figure.subplots(rows, columns, squeeze=False).flat)
        room = 72 * _AXES_PART * wide / columns, 72 * _AXES_PART * _PANEL_IN[1]
        moved = [
            _draw_panel(axes, [one for one in networks if one.first.machine == machine], looks, scale, room)
            for axes, machine in zip(panels, machines, strict=False)
        ]
        for axes, machine in zip(panels, machines, strict=False):
            axes.set_title(style.shortened(f"machine: {machine}", 36))
        for axes in panels[len(machines) :]:
            axes.set_visible(False)
        style.heading(figure, title)
        legend = _legend(looks, networks)
        style.legend_below(figure, legend, 3 if columns == 1 else 2 * columns, _MOVED if any(moved) else "")
    return figure


def _draw_panel(
    axes: Axes, networks: Sequence[Seeds], looks: dict[str, Mark], scale: _Scale, room: tuple[float, float]
) -> bool:
    """Draw a machine's networks; whether some were moved aside. room: of the axes, in points."""
    reference = _dense_reference(networks)
    spans = [one.cycles for one in networks]
    low, high, logarithmic = limits(min(least for _, least, _ in spans), max(most for _, _, most in spans))
    set_x(axes, low, high, logarithmic)
    axes.set_xlabel("latency (cycles)")
    _set_y(axes, scale)
    axes.grid(True)
    front = on_front(networks)
    _draw_steps(axes, [networks[i] for i in front], scale)
    shifts = _shifts(axes, networks, scale, room)
    for index, (one, shift) in enumerate(zip(networks, shifts, strict=True)):
        _draw_mark(axes, one, looks[one.first.family], scale, shift, index in front)
    if reference is not None:
        cycles, value = reference
        axes.axhline(scale.up(value), color=colours.GREY, linewidth=1.0, linestyle=_DASHES, zorder=1)
        if cycles > 0:
            above = axes.twiny()
            set_x(above, low / cycles, high / cycles, logarithmic)
            above.set_xlabel("latency / latency of dense")
            above.spines["top"].set_visible(True)
            axes.axvline(cycles, color=colours.GREY, linewidth=1.0, linestyle=_DASHES, zorder=1)
    return any(shifts)


def _draw_mark(axes: Axes, one: Seeds, look: Mark, scale: _Scale, shift: float, chosen: bool) -> None:
    """A network at its means, with bars for the range of its seeds, so many points to the right of where it is."""
    figure = axes.figure
    cycles, least, most = one.cycles
    value, low, high = scale.up(one.value), scale.up(min(one.values)), scale.up(max(one.values))
    place = axes.transData + ScaledTranslation(shift / 72, 0, figure.dpi_scale_trans)
    bars: dict[str, Any] = {
        "color": look.colour,
        "linewidth": 0.9,
        "transform": place,
        "zorder": 3,
        "solid_capstyle": "butt",
    }
    if high > low:
        axes.plot([cycles, cycles], [low, high], label="seeds", **bars)
    if most > least:
        axes.plot([least, most], [value, value], label="seeds", **bars)
    axes.plot(
        cycles, value, linestyle="none", marker=look.marker, markersize=11 if look.marker == "*" else 7,
        markeredgecolor=look.colour, markeredgewidth=1.3, markerfacecolor=look.colour if chosen else "white",
        zorder=5 if chosen else 4, transform=place,
    )  # fmt: skip


def _shifts(axes: Axes, networks: Sequence[Seeds], scale: _Scale, room: tuple[float, float]) -> list[float]:
    """Points by which each mark is moved sideways, so that neither it nor its bar lies on an earlier one's."""
    across, up = (
        _Place(*axes.get_xlim(), axes.get_xscale() == "log", room[0]),
        _Place(scale.low, scale.high, scale.logarithmic, room[1]),
    )
    taken: list[_Taken] = []
    shifts = []
    for one in networks:
        x = across.points(one.cycles[0])
        mean, low, high = (up.points(scale.up(value)) for value in (one.value, min(one.values), max(one.values)))
        turn, shift = 0, 0.0
        while any(other.touches(_Taken(x + shift, mean, low, high)) for other in taken):
            turn += 1
            shift = _STEP_POINTS * math.ceil(turn / 2) * (1 if turn % 2 else -1)
        taken.append(_Taken(x + shift, mean, low, high))
        shifts.append(shift)
    return shifts


@dataclass(frozen=True)
class _Taken:
    """Where a mark and its upright bar are, in points."""

    x: float
    mean: float
    low: float
    high: float

    def touches(self, other: _Taken) -> bool:
        """Whether another mark lies on this one, or their bars on each other."""
        apart = abs(self.x - other.x)
        if apart < _NEAR_POINTS[0] and abs(self.mean - other.mean) < _NEAR_POINTS[1]:
            return True
        return apart < _BARS_APART_POINTS and self.low < other.high and other.low < self.high


@dataclass(frozen=True)
class _Place:
    """An axis from ``low`` to ``high``, and how long it is in points."""

    low: float
    high: float
    logarithmic: bool
    length: float

    def points(self, value: float) -> float:
        """From its beginning to a value."""
        if self.logarithmic:
            return self.length * math.log(value / self.low) / math.log(self.high / self.low)
        return self.length * (value - self.low) / (self.high - self.low)


def _draw_steps(axes: Axes, front: Sequence[Seeds], scale: _Scale) -> None:
    best = sorted({(one.cycles[0], scale.up(one.value)) for one in front})
    # From the first point to the axis' worst end and from the last one to the right: all that the front dominates.
    worst = min(-1.0, scale.low) if scale.quality.sense == "max" else 2 * scale.high
    across = [best[0][0], *(x for x, _ in best), max(axes.get_xlim()[1], best[-1][0])]
    up = [worst, *(y for _, y in best), best[-1][1]]
    axes.step(across, up, where="post", color=colours.LINE_GREY, linewidth=1.2, zorder=2)


def _set_y(axes: Axes, scale: _Scale) -> None:
    axes.set_ylabel(scale.quality.axis)
    if scale.logarithmic:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(FixedLocator(log_ticks(scale.low, scale.high)))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: short_number(value)))
    else:
        axes.yaxis.set_major_locator(MaxNLocator(7))
    axes.set_ylim(scale.low, scale.high)


def _scale(networks: Sequence[Seeds], quality: Quality) -> _Scale:
    """One vertical axis for all panels, with the seeds' bars on it. Accuracies are never on a logarithmic one."""
    values = [quality.scale * value for one in networks for value in one.values]
    if quality.sense == "min":
        return _Scale(quality, *limits(min(values), max(values)))
    margin = 0.08 * (max(values) - min(values)) or 0.5
    return _Scale(quality, min(values) - margin, max(values) + margin, False)


def _dense_reference(networks: Sequence[Seeds]) -> tuple[float, float] | None:
    """Cycles and quality of the dense networks, their means."""
    dense = [point for one in networks for point in one.points if mark_key(point.family) == REFERENCE]
    if not dense:
        return None
    return statistics.fmean(p.latency_cycles for p in dense), statistics.fmean(p.value for p in dense)


def _legend(looks: dict[str, Mark], networks: Sequence[Seeds]) -> list[Line2D]:
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
    handles.append(Line2D([], [], color=colours.LINE_GREY, linewidth=1.2, label="Pareto front (filled marks)"))
    most = max(len(one.points) for one in networks)
    if most > 1:
        handles.append(Line2D([], [], color=colours.GREY, linewidth=0.9, marker="|", label=f"range of {most} seeds"))
    dense = [point for one in networks for point in one.points if mark_key(point.family) == REFERENCE]
    if dense:
        count = max(sum(p.machine == machine for p in dense) for machine in {p.machine for p in dense})
        label = "dense reference" + (f" (mean of {count})" if count > 1 else "")
        handles.append(Line2D([], [], color=colours.GREY, linewidth=1.0, linestyle=_DASHES, label=label))
    return handles


def _family_order(family: str) -> tuple[bool, str]:
    return mark_key(family) != REFERENCE, family
