"""Pictures that are drawn from figures of docs/data alone; the others are drawn by the commands that measure."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.image import imread

from analysis.pictures import style
from analysis.pictures.tornado import draw_tornado
from analysis.tables.robustness import claims_of
from benchmarks.demo.tables import front_picture
from benchmarks.networks.network_sweeps import picture
from benchmarks.smollm.tables import perplexity_picture
from benchmarks.study.claims import study_picture
from benchmarks.study.runs import PARTS
from benchmarks.study.waterfall import waterfall_picture
from simulator import Machine

Figures = Mapping[str, Any]

PICTURES: Mapping[str, Callable[[Figures], Figure]] = {
    "docs/images/family_order.png": lambda figures: draw_tornado(claims_of(figures["family order"], Machine.load)),
    "docs/images/front.png": lambda figures: front_picture(figures["demo"]["rows"], figures["demo"]["seeds"]),
    "docs/images/sweeps.png": lambda figures: picture(figures["sweeps"]),
    "docs/images/smollm.png": lambda figures: perplexity_picture(figures["SmolLM2"]),
    "docs/images/waterfall.png": lambda figures: waterfall_picture(figures["waterfall"], figures["study"]),
    **{
        f"docs/images/study-{part}.png": partial(lambda figures, part: study_picture(figures["study"], part), part=part)
        for part in PARTS
    },
}


def stale(root: Path, figures: Figures) -> Iterator[tuple[str, Figure]]:
    """Pictures that look otherwise than the file that is there.

    Pixels are compared, not bytes: how a picture is compressed depends on the library that does it.
    """
    for name, make in PICTURES.items():
        figure, path = make(figures), root / name
        if not (path.is_file() and np.array_equal(_pixels(figure), imread(path))):
            yield name, figure


def draw(root: Path, figures: Figures) -> list[str]:
    """Draw what is stale; the names of what was written."""
    written = []
    for name, figure in stale(root, figures):
        style.save_figure(figure, root / name)
        written.append(name)
    return written


def _pixels(figure: Figure) -> np.ndarray:
    buffer = io.BytesIO()
    with style.house_style():
        figure.savefig(buffer, format="png")
    buffer.seek(0)
    return imread(buffer)
