"""Waterfall: from step to step, how many cycles a network takes and what the difference is owed to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from analysis.pictures import colours, style
from analysis.pictures.axes import short_number
from simulator.base.errors import InputError

OWNERS = ("network", "compiler", "machine", "training")
_COLOURS = dict(zip(OWNERS, (colours.GREY, colours.ORANGE, colours.BLUE, colours.GREEN), strict=True))
_BAR_IN = 0.3


@dataclass(frozen=True)
class Step:
    """What changes and the cycles after it. owed_to: one of OWNERS. at_most: the cycles are an upper bound. cycles is
    None where the step could not be measured; it is then left out of the picture and of all shares.

    Raises ``InputError`` for an unknown owner and for cycles that are not above 0.
    """

    label: str
    owed_to: str
    cycles: float | None
    at_most: bool = False

    def __post_init__(self) -> None:
        if self.owed_to not in OWNERS:
            raise InputError(
                f"waterfall step {self.label!r}",
                repr(self.owed_to),
                f"owed_to is one of {', '.join(OWNERS)}",
                "Choose.",
            )
        if self.cycles is not None and not (math.isfinite(self.cycles) and self.cycles > 0):
            raise InputError(
                f"waterfall step {self.label!r}", repr(self.cycles), "cycles are above 0", "Leave the step out."
            )


def factors(steps: Sequence[Step]) -> list[float | None]:
    """Cycles of each step over those of the measured step before it; None for the first and for missing ones."""
    found: list[float | None] = []
    before: float | None = None
    for step in steps:
        found.append(None if step.cycles is None or before is None else step.cycles / before)
        before = before if step.cycles is None else step.cycles
    return found


def shares(steps: Sequence[Step]) -> dict[str, float]:
    """What each owner's steps multiply the cycles by, taken together; owners without steps are left out. Their product
    is the last measured cycles over the first.
    """
    product: dict[str, float] = {}
    for step, factor in zip(steps, factors(steps), strict=True):
        if factor is not None:
            product[step.owed_to] = product.get(step.owed_to, 1.0) * factor
    return product


def draw_waterfall(panels: Sequence[tuple[str, Sequence[Step]]]) -> Figure:
    """One panel for each (title, steps), bars from the cycles before a step to those after it, the first from 0.

    Raises ``InputError`` where there is no panel, or one without a measured step.
    """
    if not panels:
        raise InputError("draw_waterfall: panels", "none", "a picture needs at least one", "Measure something.")
    measured = [(title, [step for step in steps if step.cycles is not None]) for title, steps in panels]
    for title, steps in measured:
        if not steps:
            raise InputError(f"waterfall {title!r}", "no measured step", "it needs one", "Leave the panel out.")
    heights = [_BAR_IN * len(steps) + 0.55 for _, steps in measured]
    with style.house_style():
        figure = style.new_figure(8.2, sum(heights) + 0.6)
        column = figure.subplots(len(measured), 1, squeeze=False, gridspec_kw={"height_ratios": heights})[:, 0]
        for axes, (title, steps) in zip(column, measured, strict=True):
            _draw_panel(axes, title, steps)
        column[-1].set_xlabel("cycles; at the bar's end: cycles, and their factor to the step before")
        owners = [owner for owner in OWNERS if any(s.owed_to == owner for _, steps in measured for s in steps)]
        style.legend_below(figure, [Patch(color=_COLOURS[owner], label=owner) for owner in owners], len(owners))
    return figure


def _draw_panel(axes: Axes, title: str, steps: Sequence[Step]) -> None:
    most = max(step.cycles or 0.0 for step in steps)
    before = 0.0
    for row, (step, factor) in enumerate(zip(steps, factors(steps), strict=True)):
        cycles = step.cycles or 0.0
        low, high = min(before, cycles), max(before, cycles)
        axes.barh(row, max(high - low, 0.003 * most), left=low, height=0.62, color=_COLOURS[step.owed_to])
        text = ("at most " if step.at_most else "") + f"{cycles:,.0f}" + ("" if factor is None else f"  x {factor:.2f}")
        axes.text(high + 0.01 * most, row, text, va="center", fontsize=7)
        if row + 1 < len(steps):
            axes.plot([cycles, cycles], [row + 0.31, row + 0.69], color=colours.GREY, linewidth=0.7)
        before = cycles
    axes.set_yticks(range(len(steps)), [step.label for step in steps], fontsize=7.5)
    axes.set_ylim(len(steps) - 0.4, -0.6)
    axes.set_xlim(0, 1.28 * most)
    axes.xaxis.set_major_formatter(lambda value, _: short_number(value))
    axes.tick_params(axis="y", length=0)
    axes.grid(True, axis="x")
    axes.set_title(title, fontsize=9, loc="left")
