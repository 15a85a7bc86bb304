"""One place for what all pictures share beside colours and marks: fonts, shades, legends, shortened names, saving."""

from __future__ import annotations

import io
import itertools
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.artist import Artist
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.text import Text

from analysis.file_kinds import PICTURES
from analysis.pictures.colours import GRID_GREY, PALETTE
from simulator.base import text
from simulator.base.files import replacing
from simulator.timing.report import GROUPS

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
    "grid.color": GRID_GREY,
    "grid.linewidth": 0.6,
    "text.parse_math": False,
    "svg.hashsalt": "gblr-hw",
    "savefig.dpi": "figure",
}
_LONGEST_LINE = 200  # characters
# Of legends' and titles' sizes of letters, rather fewer than there is room for.
_LETTERS_AN_INCH, _TITLE_LETTERS_AN_INCH = 12.0, 10.0
_LEGEND_MARGIN_IN = 0.1
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


class Picture(Figure):
    """A figure that a notebook shows without pyplot, in the house's style."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        with house_style(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph")  # a box stands for characters that the font lacks
            self.savefig(buffer, format="png", metadata=_DATELESS[".png"])
        return buffer.getvalue()


def new_figure(width_in: float, height_in: float) -> Picture:
    """Empty figure with an Agg canvas and a layout that makes room for every label."""
    figure = Picture(figsize=(width_in, height_in), dpi=150, layout=ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.06))
    FigureCanvasAgg(figure)
    return figure


@contextmanager
def _any_glyph() -> Iterator[None]:
    """While it lasts, a box stands for characters that the font lacks, without a warning."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")
        yield


def save_figure(figure: Figure, path: str | Path) -> None:
    """Write ``figure`` as .png, .svg or .pdf, atomically; the same figure gives the same bytes.

    Raises ``InputError`` for another ending or a place that cannot be written.
    """
    suffix = PICTURES.ending(path)
    for words in figure.findobj(Text):
        # Names come from files of others; those that are cut for their place are short already.
        lines = [text.shortened(text.printable(line), _LONGEST_LINE) for line in words.get_text().split("\n")]
        words.set_text("\n".join(lines))
    with house_style(), _any_glyph(), replacing(path) as file:
        figure.savefig(file, format=suffix[1:], metadata=_DATELESS[suffix])


def series_colour(index: int) -> str:
    """Colour of the ``index``-th of many series: the palette, then its darker and paler shades."""
    base = np.array(to_rgb(PALETTE[index % len(PALETTE)]))
    shade = index // len(PALETTE) % 3
    red, green, blue = (base, base * 0.55, base * 0.45 + 0.55)[shade].tolist()
    return to_hex((red, green, blue))


def operation_colour(op: int) -> str:
    """Colour of an operation, by its number in `simulator.program.operations.Op`, in every picture and on the page."""
    return series_colour(op)


def group_colour(group: str) -> str:
    """Colour of a group of operators (`simulator.timing.report.GROUPS`), in every picture and on the page."""
    return PALETTE[GROUPS.index(group)]


def legend_below(figure: Figure, handles: Sequence[Artist], most_columns: int, title: str = "") -> None:
    """A legend under the axes in as many columns as the paper is wide for, and paper for its rows.

    handles: at least one; a label that is too long for a row of its own loses its middle.
    """
    for handle in handles:
        handle.set_label(shortened(str(handle.get_label()), int(figure.get_figwidth() * _LETTERS_AN_INCH)))
    renderer = FigureCanvasAgg(figure).get_renderer()
    wide = (figure.get_figwidth() - 2 * _LEGEND_MARGIN_IN) * figure.dpi
    for columns in range(min(most_columns, len(handles)), 0, -1):
        legend = figure.legend(
            handles=handles, loc="outside lower center", ncols=columns, frameon=False, title=title or None
        )
        with _any_glyph():
            box = legend.get_window_extent(renderer)
        if box.width <= wide or columns == 1:
            figure.set_figheight(figure.get_figheight() + box.height / figure.dpi)
            return
        legend.remove()


def heading(figure: Figure, words: str) -> None:
    """A title over all, on as many lines as the paper is narrow for, three at the most."""
    letters = int(figure.get_figwidth() * _TITLE_LETTERS_AN_INCH)
    figure.suptitle("\n".join(textwrap.wrap(shortened(words, 3 * letters - 10), letters)))


def shortened_names(names: Sequence[str], limit: int) -> list[str]:
    """``names`` in at most ``limit`` characters each, still telling them apart.

    First the dotted parts that all names share give way to an ellipsis, then the middle of what remains; names
    that would look the same get their number in front (``"12: "``, from 1).
    """
    names = [text.printable(" ".join(name.split())) for name in names]
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
    """``name`` on one line and in at most ``limit`` characters: the middle goes."""
    return text.shortened(text.printable(" ".join(name.split())), limit)
