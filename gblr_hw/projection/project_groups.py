"""Project layers of rank groups: P ranks at a time share their chunk sets, so that a plain array runs them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from gblr_hw.projection.projection import Importance, project_jointly
from gblr_hw.weights.structure import Structure, check_square
from simulator.base.errors import InputError


def project_groups(
    layers: Mapping[str, tuple[Structure, Importance]], budget: float, rows: int, cols: int
) -> dict[str, Structure]:
    """Drop chunks of whole rank groups so that all layers together take at most `budget` tiles.

    Ranks 0 .. P-1 of a layer are its first group, and so on; a group's ranks must share their chunks, and what is kept
    they share again. A group's reading or writing of a chunk is one tile, so groups project as single ranks do on a
    1 x 1 array, as exactly. Budget, dense tiles and errors are those of `project_jointly`.

    Raises
    ------
    InputError: an array that is not square, or a group whose ranks do not share their chunks.
    """
    check_square(rows, cols)
    grouped = {name: _grouped(name, *layer, rows) for name, layer in layers.items()}
    found = project_jointly(grouped, budget, 1, 1)
    chosen = {}
    for name, (structure, _) in layers.items():
        group = np.arange(len(structure.reads)) // rows
        kept = found[name]
        chosen[name] = Structure(kept.tiles, kept.reads[group], kept.writes[group])
    return chosen


def _grouped(name: str, structure: Structure, importance: Importance, size: int) -> tuple[Structure, Importance]:
    sides = {}
    for side in ("reads", "writes"):
        touches = getattr(structure, side)
        first = touches[::size]
        if not (touches == np.repeat(first, size, axis=0)[: len(touches)]).all():
            raise InputError(
                f"layer '{name}'",
                f"{side} that differ within {size} ranks",
                "a group's ranks share their chunks",
                "Start from a structure of groups, such as full ranks.",
            )
        sides[side] = first, _group_sums(getattr(importance, side), size)
    worth = Importance(importance.tiles, sides["reads"][1], sides["writes"][1])
    return Structure(structure.tiles, sides["reads"][0], sides["writes"][0]), worth


def _group_sums(worth: npt.NDArray[np.float64], size: int) -> npt.NDArray[np.float64]:
    if len(worth) == 0:
        return worth
    return np.add.reduceat(worth, np.arange(0, len(worth), size), axis=0)
