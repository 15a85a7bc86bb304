"""Colours and shapes of the pictures, in the words of Vega: one a family, one an operation, one a cause."""

from __future__ import annotations

import math
from collections.abc import Iterable

from analysis.pictures import colours
from analysis.pictures.family_marks import Marker, marks
from analysis.pictures.style import group_colour, operation_colour
from analysis.tables.qualities import QUALITIES
from simulator.program.operations import Op
from simulator.timing.report import GROUPS

# Matplotlib's letter -> Vega's name, where there is one.
_NAMED = {
    "o": "circle", "s": "square", "D": "diamond", "d": "diamond", "P": "cross", "^": "triangle-up",
    "v": "triangle-down", "<": "triangle-left", ">": "triangle-right",
}  # fmt: skip
_CORNERS = {"p": 5, "h": 6, "H": 6, "8": 8}
_STARS = {"*": 5, "X": 4}

CAUSES = dict(colours.CAUSE_COLOURS)
OPERATIONS = {op.name: operation_colour(op) for op in Op} | {"mixed": colours.LIGHT_GREY}
ROOFLINE_GROUPS = {group: group_colour(group) for group in GROUPS}

# How the page's front shows what networks are measured by.
QUALITIES_SHOWN = {
    one.name: {
        "sign": one.sign, "near": one.near, "axis": one.name,
        "format": ".1~%" if one.scale == 100 else "~g", "digits": ".2%" if one.scale == 100 else ".4~g",
    }
    for one in QUALITIES.values()
}  # fmt: skip


def families(names: Iterable[str]) -> dict[str, dict[str, str]]:
    """Label, colour and shape of each family, the same as in every picture."""
    return {
        name: {"label": mark.label, "colour": mark.colour, "shape": vega_shape(mark.marker)}
        for name, mark in marks(names).items()
    }


def vega_shape(marker: Marker) -> str:
    """A matplotlib marker as Vega takes it: a name of its own, or a path within -1 to 1."""
    if isinstance(marker, tuple):
        sides, _, angle = marker
        return _outline(2 * sides, 0.45, math.radians(angle))
    if marker in _NAMED:
        return _NAMED[marker]
    if marker in _STARS:
        return _outline(2 * _STARS[marker], 0.45, math.pi / 4 if marker == "X" else 0.0)
    return _outline(_CORNERS[marker], 1.0, 0.0)


def _outline(corners: int, inner: float, turned: float) -> str:
    """A polygon, whose every second corner lies at ``inner`` of the radius."""
    places = []
    for index in range(corners):
        radius, angle = (inner if index % 2 else 1.0), turned + 2 * math.pi * index / corners
        places.append(f"{radius * math.sin(angle):.3f},{-radius * math.cos(angle):.3f}")
    return f"M{'L'.join(places)}Z"
