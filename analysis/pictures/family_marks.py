"""How each family of networks is drawn: one mark a family, of its own colour and shape, so that no picture depends on
colour alone.

Families are known by their labels in one form: lower case, underscores for blanks and hyphens, no commas. Nothing here
is heavy to import, so that a registry of families may ask at its own import whether each of them has a mark.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from analysis.pictures.colours import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, VERMILLION
from simulator.base.errors import InputError

Marker = str | tuple[int, Literal[1], int]

# The family that all others are measured against.
REFERENCE = "dense"


@dataclass(frozen=True)
class Mark:
    """How a family is drawn: legend text, colour and matplotlib marker (also as sides, 1 for a star, angle)."""

    label: str
    colour: str
    marker: Marker


_OWN = {
    "dense": Mark("dense", BLACK, "*"),
    "low_rank": Mark("low rank", ORANGE, "o"),
    "block_sparse": Mark("block sparse", GREEN, "D"),
    "rank_groups": Mark("rank groups", SKY, "s"),
    "gblr_width_penalty": Mark("GBLR, width penalty", PURPLE, "^"),
    "gblr_published_recipe": Mark("GBLR, published recipe", "#BB5566", (3, 1, 180)),
    "gblr_hardware_penalty": Mark("GBLR, hardware penalty", VERMILLION, "v"),
    "lattice": Mark("lattice", BLUE, "P"),
    "monarch": Mark("Monarch", GREY, "X"),
    "blast": Mark("BLAST", "#AA3377", (5, 1, 0)),
    "kronecker": Mark("Kronecker", "#997700", (4, 1, 45)),
    "tensor_train": Mark("tensor train", "#225555", (7, 1, 0)),
    "gblr": Mark("GBLR", "#882255", "h"),
    "narrower": Mark("narrower", "#999933", "<"),
    "shallower": Mark("shallower", "#44AA99", ">"),
    "ranks": Mark("ranks", "#332288", "p"),
    "automatic_choice_any_width": Mark("automatic choice, any width", "#EE3377", "d"),
}
# Families that are drawn as another one, which no picture shows beside them.
_ALIKE = {
    "gblr_width_shrinkage": ("gblr_width_penalty", "GBLR, width shrinkage"),
    "gblr_hardware_cost": ("gblr_hardware_penalty", "GBLR, hardware cost"),
    "automatic_choice": ("lattice", "automatic choice"),
}
MARKS = {**_OWN, **{key: replace(_OWN[like], label=label) for key, (like, label) in _ALIKE.items()}}
# For families that are not known here.
_SPARE: tuple[tuple[str, Marker], ...] = (
    ("#AA4499", (3, 1, 0)),
    ("#661100", "8"),
    ("#117733", "H"),
    ("#6699CC", (4, 1, 0)),
    ("#DDCC77", (6, 1, 0)),
    ("#CC6677", (8, 1, 0)),
)


def mark_key(label: str) -> str:
    """The form of a family's label under which its mark is kept: ``"GBLR, width penalty"`` is gblr_width_penalty."""
    return label.strip().lower().replace(" ", "_").replace("-", "_").replace(",", "")


def marks(families: Iterable[str]) -> dict[str, Mark]:
    """Mark of each family, in the order of first appearance, the known ones always the same.

    ``"rank groups"``, ``"rank-groups"`` and ``"rank_groups"`` are one family. Unknown families get spare marks in
    alphabetical order, so that the same set looks the same in every picture; there are six of them, and
    ``InputError`` when a picture needs more.
    """
    names = list(dict.fromkeys(families))
    keys = {name: mark_key(name) for name in names}
    strangers = sorted({key for key in keys.values() if key not in MARKS})
    if len(strangers) > len(_SPARE):
        raise InputError(
            "families",
            f"{len(strangers)} unknown families ({', '.join(strangers)})",
            f"a picture has {len(_SPARE)} spare marks",
            f"Use the known families ({', '.join(_OWN)}).",
        )
    spare = {key: Mark(key.replace("_", " "), *look) for key, look in zip(strangers, _SPARE, strict=False)}
    return {name: MARKS.get(key) or spare[key] for name, key in keys.items()}
