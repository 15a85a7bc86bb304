"""Tornado pictures: how far each entry of the energy table, and each DRAM, moves the ratio of two families."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from analysis.pictures.colours import BLACK, BLUE, GREY, ORANGE, VERMILLION
from analysis.pictures.style import heading, house_style, legend_below, new_figure, shortened
from analysis.tables.robustness import Claim, told_entry
from simulator.base.errors import InputError

_MOST_PANELS, _MOST_BARS, _COLUMNS = 12, 8, 2
_DRAM = "every DRAM"


def draw_tornado(claims: Sequence[Claim]) -> Figure:
    """A panel a claim, the closest to turning first: bars from the ratio at an entry's low to that at its high, longest
    on top, and one over all DRAM; of a latency, which no entry moves, a bar for each DRAM. Right of the line at 1 the
    order has turned. Raises InputError without claims.
    """
    if not claims:
        raise InputError("draw_tornado: claims", "no claim", "a picture needs one", "Give results of two families.")
    shown = sorted(claims, key=lambda claim: -_reach(claim))[:_MOST_PANELS]
    columns = min(_COLUMNS, len(shown))
    rows = math.ceil(len(shown) / columns)
    with house_style():
        figure = new_figure(5.4 * columns, 2.5 * rows + 0.5)
        panels = list(figure.subplots(rows, columns, squeeze=False).flat)
        for axes, claim in zip(panels, shown, strict=False):
            _draw(axes, claim)
        for axes in panels[len(shown) :]:
            axes.set_visible(False)
        handles = [
            Patch(facecolor=BLUE, label="to the entry's low"),
            Patch(facecolor=ORANGE, label="to its high"),
            Patch(facecolor=GREY, label="by DRAM"),
        ]
        legend_below(figure, handles, 3)
        if len(claims) > len(shown):
            heading(figure, f"the {len(shown)} of {len(claims)} claims that are closest to turning")
        figure.draw_without_rendering()  # the room for long names is found while drawing: the next time changes nothing
    return figure


def _reach(claim: Claim) -> float:
    """The largest ratio that one entry or one DRAM makes."""
    return max((claim.ratio, *(max(ends) for ends in claim.by_entry.values()), *claim.by_dram.values()))


def _draw(axes: Axes, claim: Claim) -> None:
    bars = sorted(claim.by_entry.items(), key=lambda item: -abs(item[1][1] - item[1][0]))[:_MOST_BARS]
    names = [told_entry(name) for name, _ in bars]
    for y, (_, ends) in enumerate(bars):
        for end, colour in zip(ends, (BLUE, ORANGE), strict=True):
            axes.barh(y, end - claim.ratio, left=claim.ratio, height=0.7, color=colour)
    if not bars:
        for y, ratio in enumerate(claim.by_dram.values()):
            axes.barh(y, ratio - claim.ratio, left=claim.ratio, height=0.7, color=GREY)
        names = list(claim.by_dram)
    elif claim.by_dram:
        low, high = min(claim.by_dram.values()), max(claim.by_dram.values())
        axes.barh(len(names), high - low, left=low, height=0.7, color=GREY)
        names.append(_DRAM)
    axes.axvline(claim.ratio, color=BLACK, linewidth=0.8)
    axes.axvline(1.0, color=VERMILLION, linewidth=1.2, linestyle="--")
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.ticklabel_format(axis="x", useOffset=False)
    axes.set_xlabel(f"{claim.measure}, {shortened(claim.better, 24)} over {shortened(claim.worse, 24)}")
    axes.set_title(shortened(", ".join(part for part in (claim.machine, claim.group) if part), 48))
