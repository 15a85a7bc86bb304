"""What ``plot`` draws of programs, which are simulated for it, and of machines."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from analysis.pictures import colours, style
from analysis.pictures.layer_bars import draw_layer_bars
from analysis.pictures.roofline import draw_roofline
from analysis.pictures.timeline import draw_timeline
from simulator.machine.chip import chip_area_mm2
from simulator.machine.machine import Machine
from simulator.program.program import Program
from simulator.timing.simulate import simulate


def draw_program_bars(program: Program, **options: Any) -> Figure:
    """`draw_layer_bars` of the program on the machine that it was lowered for."""
    return draw_layer_bars(simulate(program, program.machine), **options)


def draw_program_roofline(program: Program, **options: Any) -> Figure:
    """`draw_roofline` of the program on the machine that it was lowered for."""
    return draw_roofline(simulate(program, program.machine), **options)


def draw_program_timeline(program: Program, **options: Any) -> Figure:
    """`draw_timeline` of the program on the machine that it was lowered for."""
    return draw_timeline(simulate(program, program.machine), **options)


def draw_machine_area(machine: Machine, title: str = "") -> Figure:
    """One bar for each part of the chip, the largest on top: its area in mm2, with the range of its sources.

    Raises InputError for widths that the area table does not reach.
    """
    parts = sorted(chip_area_mm2(machine).items(), key=lambda item: item[1].value)
    names = [name.replace("_", " ") for name, _ in parts]
    values = [area.value for _, area in parts]
    spread = [[area.value - area.low for _, area in parts], [area.high - area.value for _, area in parts]]
    with style.house_style():
        figure = style.new_figure(6.4, 1.3 + 0.22 * len(parts))
        axes = figure.subplots()
        axes.barh(names, values, xerr=spread, height=0.7, color=colours.BLUE, ecolor=colours.GREY, capsize=2)
        axes.set_xlabel(f"area (mm2), {sum(values):.3g} in all; lines: range of the table's sources")
        axes.set_xlim(left=0)
        axes.grid(True, axis="x")
        axes.tick_params(axis="y", length=0)
        figure.suptitle(title or f"{machine.name}, {machine.energy.table}: area by part")
    return figure
