"""Stacked horizontal bars: where each layer's cycles go."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from analysis.pictures import colours, style
from analysis.pictures.axes import set_x, short_number
from simulator.base.errors import InputError
from simulator.timing.report import CAUSES, LayerReport, Report

_BAR_IN = 0.19
_LONGEST_NAME = 44
_FEWEST_ROWS = 4
_MOST_ROWS = 60


def draw_layer_bars(report: Report, title: str = "") -> Figure:
    """One bar for each layer of ``report``, in program order from the top, divided into cycles by cause.

    Of more than 60 layers those with the most cycles have a bar.

    At a bar's end stand its cycles and its utilisation (useful multiplications / what the array could have done).
    Raises ``InputError`` for a report without layers.
    """
    layers = _shown(report.layers)
    if not layers:
        raise InputError(
            "draw_layer_bars: report.layers", "no layer", "a picture needs at least one", "Simulate a program."
        )
    cycles = np.array([[layer.cycles_by_cause[cause] for layer in layers] for cause in CAUSES], np.float64)
    totals = cycles.sum(axis=0)
    rows = np.arange(len(layers))
    with style.house_style():
        figure = style.new_figure(8.0, 1.3 + _BAR_IN * max(len(layers), _FEWEST_ROWS))
        axes = figure.subplots()
        left = np.zeros(len(layers))
        for cause, share in zip(CAUSES, cycles, strict=True):
            if share.any():
                axes.barh(
                    rows,
                    share,
                    left=left,
                    height=0.78,
                    color=colours.CAUSE_COLOURS[cause],
                    edgecolor="white",
                    linewidth=0.3,
                    label=cause.replace("_", " "),
                )
            left += share
        longest = float(totals.max()) or 1.0
        for row, (layer, total) in enumerate(zip(layers, totals, strict=True)):
            axes.text(
                total + 0.008 * longest,
                row,
                f"{_cycles(total)}, {layer.utilisation:.0%} used",
                va="center",
                fontsize=6.5,
            )
        set_x(axes, 0.0, 1.2 * longest, False)
        axes.set_yticks(rows, style.shortened_names([layer.name for layer in layers], _LONGEST_NAME), fontsize=7)
        spare = max(0, _FEWEST_ROWS - len(layers)) / 2
        axes.set_ylim(len(layers) - 0.4 + spare, -0.6 - spare)
        axes.set_xlabel("latency (cycles); at the bar's end also the part of the array's cell-cycles that was used")
        axes.set_ylabel("layer" if len(layers) == len(report.layers) else _left_out(report, layers))
        axes.grid(True, axis="x")
        axes.tick_params(axis="y", length=0)
        heading = (
            title or f"{style.shortened(report.program, 40)} on {report.machine}: {report.latency_cycles:,} cycles"
        )
        style.heading(figure, heading)
        if totals.any():
            style.legend_below(figure, list(axes.get_legend_handles_labels()[0]), 4)
    return figure


def _shown(layers: Sequence[LayerReport]) -> list[LayerReport]:
    """The layers with the most cycles, as many as a page has lines for, in program order."""
    kept = sorted(range(len(layers)), key=lambda i: (-layers[i].latency_cycles, i))[:_MOST_ROWS]
    return [layers[i] for i in sorted(kept)]


def _left_out(report: Report, shown: Sequence[LayerReport]) -> str:
    share = 1 - sum(layer.latency_cycles for layer in shown) / max(1, report.latency_cycles)
    return f"layer ({len(report.layers) - len(shown)} with fewer cycles, {share:.1%} of all, have no bar)"


def _cycles(value: float) -> str:
    return f"{value:,.0f}" if value < 1e6 else short_number(value)
