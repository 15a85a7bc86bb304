"""Map of overlapping blocks: how many ranks write each entry of a layer's matrix; the brighter, the more."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from analysis.pictures import style
from simulator.base.errors import InputError

_MOST_CELLS = 512  # beyond this a panel has more cells than dots on paper
_RANKS_AT_ONCE = 1024
_ROWS_AT_ONCE = 1024
_MOST_LINES = 96


def coverage(writes: NDArray[np.bool_], reads: NDArray[np.bool_]) -> NDArray[np.int32]:
    """(m, n) count of the ranks k with ``writes[k, i] and reads[k, j]``, from ``writes`` (K, m) and ``reads`` (K, n).

    Works in slabs: besides the result it needs some ten megabytes for m = n = 4096, whatever K is.
    Raises ``InputError`` where the arrays are not boolean matrices of one K.
    """
    for name, array in (("writes", writes), ("reads", reads)):
        if array.ndim != 2 or array.dtype != np.bool_:
            raise InputError(
                f"coverage: {name}",
                f"{array.dtype} of shape {array.shape}",
                "it must be a boolean matrix (ranks, channels)",
                "Pass the evaluated support.",
            )
    if len(writes) != len(reads):
        raise InputError(
            "coverage: writes, reads",
            f"{len(writes)} and {len(reads)} ranks",
            "both must have one row for each rank",
            "Pass the arrays of one layer.",
        )
    ranks, outputs = writes.shape
    counts = np.zeros((outputs, reads.shape[1]), np.int32)
    for k in range(0, ranks, _RANKS_AT_ONCE):
        # Products of zeros and ones in float32 run on BLAS and are exact for fewer than 2^24 ranks.
        some_reads = reads[k : k + _RANKS_AT_ONCE].astype(np.float32)
        for i in range(0, outputs, _ROWS_AT_ONCE):
            some_writes = writes[k : k + _RANKS_AT_ONCE, i : i + _ROWS_AT_ONCE].astype(np.float32)
            counts[i : i + _ROWS_AT_ONCE] += (some_writes.T @ some_reads).astype(np.int32)
    return counts


def draw_block_maps(
    counts: Mapping[str, NDArray[np.integer]],
    chunks: tuple[int, int] | None = None,
    title: str = "",
    unit: str = "channel",
) -> Figure:
    """Grid of panels, one for each layer name of ``counts``, with one colour bar for all.

    Each value is (m, n): blocks that overlap at output i, input j. ``chunks`` = (rows P, cols Q) of the machine
    draws the grid of input chunks of P and output chunks of Q channels. Maps above 512 cells a side show
    the mean of neighbouring entries. ``unit``: what i and j count. Raises ``InputError`` for no layer, empty or
    negative maps.
    """
    if not counts:
        raise InputError("draw_block_maps: counts", "no layer", "a picture needs at least one", "Choose a layer.")
    for name, array in counts.items():
        if array.ndim != 2 or array.size == 0 or not np.issubdtype(array.dtype, np.integer) or array.min() < 0:
            raise InputError(
                f"draw_block_maps: layer {name!r}",
                f"{array.dtype} of shape {array.shape}",
                "a map must be a matrix (outputs, inputs) of counts, 0 or more",
                "Pass the result of coverage().",
            )
    if chunks is not None and min(chunks) < 1:
        raise InputError(
            "draw_block_maps: chunks", repr(chunks), "chunks must be 1 or more", "Pass the machine's rows and cols."
        )
    columns, rows = _grid(len(counts))
    side = 4.6 if columns == 1 else max(1.45, 8.4 / columns)
    brightest = max(int(array.max()) for array in counts.values())
    with style.house_style():
        # A panel is as wide and high as its shape wants, in proportions that _box_aspect limits.
        width = side * max(min(1.0, 1 / _box_aspect(array)) for array in counts.values())
        height = side * max(min(1.0, _box_aspect(array)) for array in counts.values())
        figure = style.new_figure(max(4.8, width * columns + 1.2), (height + 0.3) * rows + 0.8)
        panels = list(figure.subplots(rows, columns, squeeze=False).flat)
        scale = Normalize(0, max(brightest, 1))
        fontsize = 9.0 if side > 2.5 else 6.5
        titles = style.shortened_names(list(counts), int(side * 0.85 * 72 / (0.62 * fontsize)))
        for axes, name, array in zip(panels, titles, counts.values(), strict=False):
            _draw_panel(axes, name, array, chunks, scale, fontsize)
        for axes in panels[len(counts) :]:
            axes.set_visible(False)
        bar = figure.colorbar(
            ScalarMappable(scale, "inferno"),
            ax=panels,
            label="overlapping blocks at an entry (count)",
            shrink=0.8,
            pad=0.02,
            panchor=False,
            aspect=20 if rows < 4 else 45,
        )
        bar.ax.yaxis.set_major_locator(MaxNLocator(8, integer=True))
        note = f"; lines: chunks of {chunks[0]} inputs and {chunks[1]} outputs" if chunks else ""
        figure.supxlabel(f"input {unit}{note}", fontsize=9)
        figure.supylabel(f"output {unit}", fontsize=9)
        if title:
            style.heading(figure, title)
    return figure


def _draw_panel(
    axes: Axes, name: str, array: NDArray[np.integer], chunks: tuple[int, int] | None, scale: Normalize, fontsize: float
) -> None:
    outputs, inputs = array.shape
    axes.imshow(
        _thinned(array),
        cmap="inferno",
        norm=scale,
        interpolation="nearest",
        aspect="auto",
        extent=(0, inputs, outputs, 0),
    )
    axes.set_box_aspect(_box_aspect(array))
    if chunks is not None:
        for lines, length, step in ((axes.axvline, inputs, chunks[0]), (axes.axhline, outputs, chunks[1])):
            if math.ceil(length / step) <= _MOST_LINES:
                for position in range(step, length, step):
                    lines(position, color="white", linewidth=0.4, alpha=0.45)
    axes.set_title(f"{name}\n{outputs} x {inputs}", fontsize=fontsize, pad=3)
    axes.set_xticks([0, inputs], ["0", str(inputs)], fontsize=fontsize - 1)
    axes.set_yticks([0, outputs], ["0", str(outputs)], fontsize=fontsize - 1)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _box_aspect(array: NDArray[np.integer]) -> float:
    # True proportions would leave most of the grid empty beside a layer of 4:1; the ticks tell the sizes.
    return min(max(array.shape[0] / array.shape[1], 0.6), 1 / 0.6)


def _thinned(array: NDArray[np.integer]) -> NDArray[np.float64]:
    """Mean over neighbouring entries where the map has more cells than a panel can show."""
    thin = array.astype(np.float64)
    for axis in (0, 1):
        length = thin.shape[axis]
        if length > _MOST_CELLS:
            starts = np.arange(_MOST_CELLS) * length // _MOST_CELLS
            widths = np.diff(np.append(starts, length))
            sums = np.add.reduceat(thin, starts, axis=axis)
            thin = sums / (widths[:, None] if axis == 0 else widths)
    return thin


def _grid(count: int) -> tuple[int, int]:
    """(columns, rows): near a square, at most 8 columns, as few empty places as possible."""
    narrowest = min(8, math.ceil(math.sqrt(count)))
    columns = min(range(narrowest, min(8, count) + 1), key=lambda c: -count % c)
    return columns, math.ceil(count / columns)
