"""The map of winners: which way is best by tokens and by bandwidth over compute."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from analysis.pictures.style import heading, house_style, legend_below, new_figure
from simulator.base.errors import InputError

_NARROWEST_IN, _LOWEST_IN = 4.2, 3.0  # of the legend's title, of the label at the side
_DARK = 0.45  # brightness of a colour on which text is white


@dataclass(frozen=True)
class Winner:
    """One cell: who wins, its colour, and its cost as a share of the dense layers' in eight bits."""

    tokens: int
    gb_per_s: float
    label: str
    colour: str
    share: float


def draw_advice(cells: Sequence[Winner], macs_per_s: float, title: str, measure: str) -> Figure:
    """Cells by tokens (across) and bandwidth (up, also as DRAM bytes for each multiplication that the array can do).

    macs_per_s: the array's peak. Raises InputError without cells.
    """
    if not cells:
        raise InputError("advice", "no regime", "a map has a cell or more", "Give tokens and bandwidths.")
    across, up = sorted({cell.tokens for cell in cells}), sorted({cell.gb_per_s for cell in cells})
    with house_style():
        figure = new_figure(max(_NARROWEST_IN, 2.6 + 0.62 * len(across)), max(_LOWEST_IN, 1.4 + 0.42 * len(up)))
        axes = figure.add_subplot()
        for cell in cells:
            x, y = across.index(cell.tokens), up.index(cell.gb_per_s)
            axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=cell.colour, edgecolor="white", linewidth=1.2))
            ink = "white" if sum(to_rgb(cell.colour)) / 3 < _DARK else "black"
            axes.text(x, y, f"{cell.share:.2f}", ha="center", va="center", color=ink, fontsize=7.5)
        axes.set_xlim(-0.5, len(across) - 0.5)
        axes.set_ylim(-0.5, len(up) - 0.5)
        axes.set_xticks(range(len(across)), [f"{tokens:,}" for tokens in across])
        ratio = [f"{value:g}\n({1e9 * value / macs_per_s:.3g})" for value in up]
        axes.set_yticks(range(len(up)), ratio)
        axes.set_xlabel("tokens")
        axes.set_ylabel("DRAM GB/s\n(bytes a multiplication)")
        heading(figure, title)
        seen = dict.fromkeys((cell.label, cell.colour) for cell in cells)
        handles = [Patch(facecolor=colour, label=label) for label, colour in seen]
        legend_below(figure, handles, 4, f"best by {measure}; numbers: over dense, 8 bits")
    return figure
