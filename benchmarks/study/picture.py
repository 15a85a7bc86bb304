"""Accuracy against latency or energy of a study's part, a panel for each machine: means over seeds, bars for ranges."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.pictures import colours, style
from analysis.pictures.axes import set_x
from analysis.pictures.family_marks import Mark, marks
from analysis.tables.pareto import pareto_front
from benchmarks.study.settings import Quantity, Setting, Study
from simulator.base.arithmetic import ceil_div
from simulator.base.errors import InputError

_LABELS = {"latency_cycles": "latency / latency of dense", "energy_pj": "energy / energy of dense"}
# More than this below dense is cut off: one collapsed network would press the others together.
_DEEPEST = 0.05


def draw_study(
    study: Study, part: str, machines: Sequence[str], families: Sequence[str], quantity: Quantity = "latency_cycles"
) -> Figure:
    """Panels of a part's settings; a family's front is a line. Networks that some seed does not reach are left out.

    Raises ``InputError`` where the part has no dense network, to which costs are related.
    """
    dense = study.dense(part)
    if dense is None:
        raise InputError(
            f"draw_study: part {part!r}", "no dense network", "costs are fractions of dense", "Run `make study`."
        )
    shown = [family for family in families if any(s.reached for s in study.of(part, family))]
    looks = marks(shown)
    columns = min(2, len(machines))
    rows = ceil_div(len(machines), columns)
    with style.house_style():
        figure = style.new_figure(4.3 * columns, 2.9 * rows + 0.3)
        panels = list(figure.subplots(rows, columns, squeeze=False, sharey=True).flat)
        for axes, machine in zip(panels, machines, strict=False):
            for family in shown:
                settings = [s for s in study.of(part, family) if s.reached]
                _draw_family(axes, settings, looks[family], dense.cost(quantity, machine), quantity, machine)
            axes.axhline(100 * dense.accuracy, color=colours.GREY, linewidth=1.0, linestyle=(0, (4, 3)), zorder=1)
            axes.set_title(f"{part}, {machine}")
            axes.set_ylabel("test accuracy (%)")
            axes.set_xlabel(_LABELS[quantity])
            axes.label_outer(remove_inner_ticks=False)
            axes.grid(True)
        for axes in panels[len(machines) :]:
            axes.set_visible(False)
        for axes in panels[: len(machines)]:
            set_x(axes, *_span(study, part, shown, dense, quantity, machines), False)
        low, high = _accuracies(study, part, shown, dense)
        bottom = max(low, dense.accuracy - _DEEPEST)
        margin = 0.05 * (high - bottom) or 0.005
        panels[0].set_ylim(100 * (bottom - margin), 100 * (high + margin))
        dashes = Line2D([], [], color=colours.GREY, linewidth=1.0, linestyle=(0, (4, 3)), label="accuracy of dense")
        style.legend_below(figure, [*(_handle(look) for look in looks.values()), dashes], 2 * columns)
    return figure


def _draw_family(
    axes: Axes, settings: Sequence[Setting], look: Mark, unit: float, quantity: Quantity, machine: str
) -> None:
    points = [(setting.cost(quantity, machine) / unit, setting.accuracy) for setting in settings]
    front = sorted(points[i] for i in pareto_front(points, ("min", "max")))
    axes.plot([x for x, _ in front], [100 * y for _, y in front], color=look.colour, linewidth=1.0, zorder=2)
    for (x, y), setting in zip(points, settings, strict=True):
        least, most = min(setting.accuracies), max(setting.accuracies)
        axes.errorbar(
            x,
            100 * y,
            yerr=[[max(0.0, 100 * (y - least))], [max(0.0, 100 * (most - y))]],  # a mean may round past equal values
            marker=look.marker,
            markersize=5.5,
            color=look.colour,
            elinewidth=0.6,
            zorder=3,
        )


def _handle(look: Mark) -> Line2D:
    return Line2D([], [], marker=look.marker, color=look.colour, linewidth=1.0, label=look.label)


def _span(
    study: Study, part: str, families: Sequence[str], dense: Setting, quantity: Quantity, machines: Sequence[str]
) -> tuple[float, float]:
    """The same limits for all machines, so that panels can be compared."""
    shares = [
        setting.cost(quantity, machine) / dense.cost(quantity, machine)
        for machine in machines
        for family in families
        for setting in study.of(part, family)
        if setting.reached
    ]
    return min([*shares, 1.0]) - 0.04, max([*shares, 1.0]) + 0.04


def _accuracies(study: Study, part: str, families: Sequence[str], dense: Setting) -> tuple[float, float]:
    values = [a for f in families for s in study.of(part, f) if s.reached for a in s.accuracies]
    return min([*values, dense.accuracy]), max([*values, dense.accuracy])
