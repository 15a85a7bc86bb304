"""Which part of a model input is batch, tokens, groups and width: decided by the operation that reads it first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from gblr_hw.frontend.layout import (
    BATCH,
    CHANNELS,
    FLAT,
    REPEAT,
    TOKENS,
    Atom,
    LayoutError,
    Origin,
    View,
    contiguous,
    simplified,
)

# Roles of a dimension, and the axis that each walks along.
ROLES = {"b": BATCH, "t": TOKENS, "g": CHANNELS, "w": CHANNELS}


@dataclass(frozen=True)
class Factor:
    """A digit of the input's flat index: ``size`` values at ``flat`` apart, which walk ``axis`` at ``stride``."""

    flat: int
    size: int
    axis: str
    stride: int


@dataclass(frozen=True)
class Placement:
    """An input's digits, largest first, its four sizes, and how its array becomes them (`simulator.network.Port`)."""

    factors: tuple[Factor, ...]
    sizes: tuple[int, int, int, int]
    split: tuple[int, ...]
    order: tuple[int, ...]


def default_roles(rank: int) -> str:
    """Roles of the dimensions of an input that nothing else decides: sequences, positions, channels (images first)."""
    return {0: "", 1: "w", 2: "bw", 3: "btw", 4: "bwtt"}.get(rank, "b" + "t" * (rank - 2) + "w")


def place(view: View, roles: Sequence[str], shape: Sequence[int]) -> Placement:
    """Place the input that ``view`` shows whole, each of its dimensions in one of ROLES; groups before width.

    Raises LayoutError if the view shows only a part of the input, whose shape is ``shape``.
    """
    atoms = [(atom, role) for dim, role in zip(view.dims, roles, strict=True) for atom in dim]
    if any(atom.axis != FLAT for atom, _ in atoms) or prod(atom.size for atom, _ in atoms) != prod(shape):
        raise LayoutError("only a part of the input is seen")
    strides: dict[int, int] = {}
    for axis in (BATCH, TOKENS, CHANNELS):
        stride = 1
        for role in [role for role in "wgtb" if ROLES[role] == axis]:
            for atom, _ in reversed([pair for pair in atoms if pair[1] == role]):
                strides[atom.stride] = stride
                stride *= atom.size
    ordered = sorted(atoms, key=lambda pair: -pair[0].stride)
    factors = tuple(Factor(atom.stride, atom.size, ROLES[role], strides[atom.stride]) for atom, role in ordered)
    left = prod(shape)
    for factor in factors:
        left //= factor.size
        if factor.flat != left:
            raise LayoutError("only a part of the input is seen")
    sizes = [prod(atom.size for atom, role in atoms if role == one) for one in "btgw"]
    ranked = sorted(range(len(factors)), key=lambda i: ("btc".index(factors[i].axis), -factors[i].stride))
    split = tuple(factor.size for factor in factors)
    return Placement(factors, (sizes[0], sizes[1], sizes[2], sizes[3]), split, tuple(ranked))


def whole_input(name: str, shape: Sequence[int]) -> View:
    """An input before it is placed."""
    return View(name, contiguous(shape, FLAT))


def resolve(view: View, placement: Placement) -> View:
    """A view of an input in the axes that it has been placed on (a view that is in them already stays)."""
    if view.origin.f == 0 and not any(atom.axis == FLAT for dim in view.dims for atom in dim):
        return view
    dims = tuple(simplified([part for atom in dim for part in _resolved(atom, placement)]) for dim in view.dims)
    origin = Origin()
    for factor in placement.factors:
        origin = origin.moved(factor.axis, view.origin.f // factor.flat % factor.size * factor.stride)
    return View(view.tensor, dims, origin)


def _resolved(atom: Atom, placement: Placement) -> list[Atom]:
    if atom.axis == REPEAT:
        return [atom]
    parts = []
    end = atom.stride * atom.size
    for factor in placement.factors:
        low, high = max(atom.stride, factor.flat), min(end, factor.flat * factor.size)
        if high <= low:
            continue
        if low % factor.flat or high % low:
            raise LayoutError("the input is cut across the axes that it was read by before")
        parts.append(Atom(high // low, factor.axis, factor.stride * (low // factor.flat)))
    if prod(part.size for part in parts) != atom.size:
        raise LayoutError("the input is cut across the axes that it was read by before")
    return parts
