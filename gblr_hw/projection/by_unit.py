"""The projection of each unit: what layers lose at a time is a field of their family."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from gblr_hw.projection.project_groups import project_groups
from gblr_hw.projection.project_low_rank import project_low_rank
from gblr_hw.projection.projection import Importance, project_jointly
from gblr_hw.weights.family import UNITS, Unit, complete
from gblr_hw.weights.structure import Structure
from simulator.base.errors import InputError

Layers = Mapping[str, tuple[Structure, Importance]]

_PROJECTIONS: Mapping[Unit, Callable[[Layers, float, int, int], dict[str, Structure]]] = complete(
    {
        "tile": project_jointly,
        "rank": project_low_rank,
        "rank_group": project_groups,
        "chunk": project_jointly,
    },
    UNITS,
    "unit",
)


def project_by_unit(
    units: Collection[Unit], layers: Layers, budget: float, rows: int, cols: int, *, intervals_only: bool = False
) -> dict[str, Structure]:
    """Project layers that lose such units onto `budget` tiles in all (see the projection of each).

    intervals_only: keep every rank's chunks one cyclic run.

    Raises
    ------
    InputError: units that no one projection takes together, or runs asked of one that does not keep them; and whatever
    the projection raises.
    """
    projections = {_PROJECTIONS[unit] for unit in units}
    if len(projections) != 1:
        raise InputError(
            "layers to project",
            f"some that lose a {' and some that lose a '.join(sorted(units))} at a time" if units else "none",
            "all of them together must be dropped by one order of importance",
            "Give one family to all layers, or project tiles and chunks together.",
        )
    project = projections.pop()
    if project is project_jointly:
        return project_jointly(layers, budget, rows, cols, intervals_only=intervals_only)
    if intervals_only:
        raise InputError(
            "intervals_only", f"with layers that lose a {min(units)} at a time", "chunks are kept as they are",
            "Leave it out.",
        )  # fmt: skip
    return project(layers, budget, rows, cols)
