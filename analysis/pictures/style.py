"""One place for what all pictures share: colours, marks, fonts, shortened names and saving.

Colours are those of Okabe and Ito ("Color Universal Design", 2008), told apart under every common colour
blindness; families also differ in their marks, so no picture depends on colour alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from simulator.base.errors import InputError
from simulator.base.files import replacing

BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
YELLOW, BLUE, VERMILLION, PURPLE = "#F0E442", "#0072B2", "#D55E00", "#CC79A7"
GREY, LIGHT_GREY = "#666666", "#BBBBBB"
PALETTE = (BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILLION, YELLOW, GREY)

CAUSE_COLOURS = {
    "compute": BLUE,
    "bank_conflict": VERMILLION,
    "weight_preload": SKY,
    "wait_weights": ORANGE,
    "wait_input": YELLOW,
    "wait_array": GREEN,
    "wait_vector": PURPLE,
    "tail": GREY,
}


@dataclass(frozen=True)
class Mark:
    """How a family is drawn: legend text, colour and matplotlib marker (also as sides, 1 for a star, angle)."""

    label: str
    colour: str
    marker: str | tuple[int, Literal[1], int]


_FAMILIES = {
    "dense": Mark("dense", BLACK, "*"),
    "low_rank": Mark("low rank", ORANGE, "o"),
    "block_low_rank": Mark("block low rank", SKY, "s"),
    "block_sparse": Mark("block sparse", GREEN, "D"),
    "gblr_width_penalty": Mark("GBLR, width penalty", PURPLE, "^"),
    "gblr_hardware_penalty": Mark("GBLR, hardware penalty", VERMILLION, "v"),
    "lattice": Mark("lattice", BLUE, "P"),
    "lattice_groups": Mark("lattice, rank groups", GREY, "X"),
    "gblr": Mark("GBLR", "#882255", "h"),
    "narrower": Mark("narrower", "#999933", "<"),
    "shallower": Mark("shallower", "#44AA99", ">"),
    "ranks": Mark("ranks", "#332288", "p"),
    "learned_lattice_any_width": Mark("learned lattice, any width", "#EE3377", "d"),
}
# Other names of the same families, drawn as they are.
_ALSO = {
    "gblr_width_shrinkage": ("gblr_width_penalty", "GBLR, width shrinkage"),
    "gblr_hardware_cost": ("gblr_hardware_penalty", "GBLR, hardware cost"),
    "learned_lattice": ("lattice", "learned lattice"),
}
_KNOWN = {**_FAMILIES, **{name: replace(_FAMILIES[like], label=label) for name, (like, label) in _ALSO.items()}}
_SPARE: tuple[tuple[str, str | tuple[int, Literal[1], int]], ...] = (
    ("#AA4499", (3, 1, 0)),
    ("#661100", "8"),
    ("#117733", "H"),
    ("#6699CC", (4, 1, 0)),
    ("#DDCC77", (6, 1, 0)),
    ("#CC6677", (8, 1, 0)),
)

_SETTINGS: dict[Any, object] = {
    "font.family": ["DejaVu Sans"],
    "font.size": 9.0,
    "axes.titlesize": 10.0,
    "axes.labelsize": 9.0,
    "xtick.labelsize": 8.0,
    "ytick.labelsize": 8.0,
    "legend.fontsize": 8.0,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.axisbelow": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.6,
    "text.parse_math": False,
    "svg.hashsalt": "gblr-hw",
    "savefig.dpi": "figure",
}
_DATELESS = {
    ".png": {"Software": None},
    ".svg": {"Date": None, "Creator": None},
    ".pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}


@contextmanager
def house_style() -> Iterator[None]:
    """Matplotlib's factory settings plus ours, whatever the user's own settings are; put back afterwards."""
    factory = {key: value for key, value in matplotlib.rcParamsDefault.items() if not key.startswith("backend")}
    with matplotlib.rc_context(factory):
        matplotlib.rcParams.update(_SETTINGS)
        yield


def new_figure(width_in: float, height_in: float) -> Figure:
    """Empty figure with an Agg canvas and a layout that makes room for every label."""
    figure = Figure(figsize=(width_in, height_in), dpi=150, layout=ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.06))
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Figure, path: str | Path) -> None:
    """Write ``figure`` as .png, .svg or .pdf, atomically; the same figure gives the same bytes.

    Raises ``InputError`` for another ending or a place that cannot be written.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in _DATELESS:
        raise InputError(
            str(path), f"the ending {suffix!r}", "pictures are .png, .svg or .pdf files", "Choose one of these endings."
        )
    with house_style(), replacing(path) as file:
        figure.savefig(file, format=suffix[1:], metadata=_DATELESS[suffix])


def marks(families: Iterable[str]) -> dict[str, Mark]:
    """Mark of each family, in the order of first appearance, the known ones always the same.

    ``"block low rank"``, ``"block-low-rank"`` and ``"block_low_rank"`` are one family. Unknown families get spare
    marks in alphabetical order; raises ``InputError`` when there are more of them than spare marks.
    """
    names = list(dict.fromkeys(families))
    keys = {name: name.strip().lower().replace(" ", "_").replace("-", "_").replace(",", "") for name in names}
    strangers = sorted({key for key in keys.values() if key not in _KNOWN})
    if len(strangers) > len(_SPARE):
        raise InputError(
            "families",
            f"{len(strangers)} unknown families ({', '.join(strangers)})",
            f"a picture has {len(_SPARE)} spare marks",
            f"Use the known families ({', '.join(_FAMILIES)}).",
        )
    spare = {key: Mark(key.replace("_", " "), *look) for key, look in zip(strangers, _SPARE, strict=False)}
    return {name: _KNOWN.get(key) or spare[key] for name, key in keys.items()}


def series_colour(index: int) -> str:
    """Colour of the ``index``-th of many series: the palette, then its darker and paler shades."""
    base = np.array(to_rgb(PALETTE[index % len(PALETTE)]))
    shade = index // len(PALETTE) % 3
    red, green, blue = (base, base * 0.55, base * 0.45 + 0.55)[shade].tolist()
    return to_hex((red, green, blue))


def shortened_names(names: Sequence[str], limit: int) -> list[str]:
    """``names`` in at most ``limit`` characters each, still telling them apart.

    First the dotted parts that all names share give way to an ellipsis, then the middle of what remains; names
    that would look the same get their number in front (``"12: "``, from 1).
    """
    names = [" ".join(name.split()) for name in names]
    if max(map(len, names), default=0) <= limit:
        return names
    short = [shortened(name, limit) for name in _without_shared_parts(names, limit)]
    if len(set(short)) == len(set(names)):
        return short
    return [shortened(f"{i}: {name}", limit) for i, name in enumerate(short, start=1)]


def _without_shared_parts(names: Sequence[str], limit: int) -> list[str]:
    """``names`` less their longest shared dotted parts, as many as it takes to fit into ``limit``."""
    parts = [name.split(".") for name in names]
    depth = min(map(len, parts))
    shared = [i for i in range(depth) if len({name[i] for name in parts}) == 1]
    if max(map(len, parts)) > depth:
        # With names of several depths a position means the same only up to the first difference.
        shared = [i for i in shared if shared[: i + 1] == list(range(i + 1))]
    dropped: set[int] = set()
    for position in sorted(shared, key=lambda i: (-len(parts[0][i]), i)):
        dropped.add(position)
        names = [_with_gaps(name, dropped) for name in parts]
        if max(map(len, names)) <= limit:
            break
    return list(names)


def _with_gaps(parts: Sequence[str], dropped: set[int]) -> str:
    runs = itertools.groupby(range(len(parts)), key=lambda i: i in dropped)
    return "".join("…" if gap else ".".join(parts[i] for i in run) for gap, run in runs)


def shortened(name: str, limit: int) -> str:
    """``name`` in at most ``limit`` characters: the middle goes, because layer names differ at both ends."""
    name = " ".join(name.split())
    if len(name) <= limit:
        return name
    head = (limit - 1) // 2
    return name[:head] + "…" + name[len(name) - (limit - 1 - head) :]
