"""Which part of a model input is batch, tokens, groups and width: decided by the operation that reads it first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from gblr_hw.frontend.graph.layout import (
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
    split_atom,
)

# Roles of a dimension, and the axis that each walks along. "r" is rows: sequences where the input has such, or tokens.
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
    """An input's digits, largest first, its four sizes, and how its array becomes them
    (`simulator.network.network.Port`).
    """

    factors: tuple[Factor, ...]
    sizes: tuple[int, int, int, int]
    split: tuple[int, ...]
    order: tuple[int, ...]


def default_roles(shape: Sequence[int]) -> str:
    """Roles of the dimensions of a value that nothing else decides: rows, then channels; images (B, C, H, W) have these
    first, unless they are one row (a mask).
    """
    if len(shape) == 4 and prod(shape[1:3]) > 1:
        return "rwtt"
    return "r" * (len(shape) - 1) + "w" if shape else ""


def place(view: View, roles: Sequence[str], shape: Sequence[int], batch_dim: int) -> Placement:
    """Place the input that ``view`` shows whole, each of its dimensions in one of ROLES or "r"; groups before width.

    Repetitions (query heads that share keys) have no part in it. batch_dim: which dimension of the input, of ``shape``,
    counts sequences (-1: none). Raises LayoutError if the view shows only a part of the input.
    """
    low, high = _span(shape, batch_dim)
    atoms: list[tuple[Atom, str]] = []
    for dim, role in zip(view.dims, roles, strict=True):
        for atom in dim:
            if atom.axis == REPEAT:
                continue  # the input is read again: it has no place of its own
            if atom.axis != FLAT:
                raise LayoutError("only a part of the input is seen")
            atoms += _in_roles(atom, role, low, high)
    if prod(atom.size for atom, _ in atoms) != prod(shape):
        raise LayoutError("only a part of the input is seen")
    return _placement(atoms, prod(shape))


def _span(shape: Sequence[int], dim: int) -> tuple[int, int]:
    """Strides between which atoms belong to a dimension of a packed array."""
    if dim < 0 or dim >= len(shape):
        return 0, 0
    low = prod(shape[dim + 1 :])
    return low, low * shape[dim]


def _in_roles(atom: Atom, role: str, low: int, high: int) -> list[tuple[Atom, str]]:
    """An atom with its role; rows are cut into sequences and tokens."""
    if role != "r":
        return [(atom, role)]
    for edge in (high, low):
        if atom.stride < edge < atom.stride * atom.size:
            if edge % atom.stride:
                raise LayoutError("sequences and tokens of an input are mixed")
            outer, inner = split_atom(atom, edge // atom.stride)
            return _in_roles(outer, role, low, high) + _in_roles(inner, role, low, high)
    return [(atom, "b" if low <= atom.stride < high else "t")]


def _placement(atoms: Sequence[tuple[Atom, str]], count: int) -> Placement:
    strides: dict[int, int] = {}
    for axis in (BATCH, TOKENS, CHANNELS):
        stride = 1
        for role in [role for role in "wgtb" if ROLES[role] == axis]:
            for atom, _ in reversed([pair for pair in atoms if pair[1] == role]):
                strides[atom.stride] = stride
                stride *= atom.size
    ordered = sorted(atoms, key=lambda pair: -pair[0].stride)
    factors = tuple(Factor(atom.stride, atom.size, ROLES[role], strides[atom.stride]) for atom, role in ordered)
    left = count
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
