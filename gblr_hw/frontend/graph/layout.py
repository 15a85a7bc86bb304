"""How a framework's tensor lies in a tensor of the graph: reshapes, transposes, slices and expansions as arithmetic.

A tensor of the graph has three address axes: b (batch), t (tokens) and c (channels, groups x width). Each dimension of
the framework's tensor is a product of atoms, most significant first, and an atom walks along one axis at a stride.
Renaming axes rearranges atoms and moves no data. Model inputs start on one axis f, their own flat order: which part of
it is batch, tokens or channels is decided by who reads them first (`placement`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

BATCH, TOKENS, CHANNELS, FLAT, REPEAT = "b", "t", "c", "f", ""


class LayoutError(Exception):
    """A value does not lie in a way that the operation at hand can read; the caller names the node."""


@dataclass(frozen=True)
class Atom:
    """``size`` places along ``axis`` at ``stride``; axis REPEAT reads the same place each time."""

    size: int
    axis: str
    stride: int = 0


Dim = tuple[Atom, ...]


@dataclass(frozen=True)
class Origin:
    """Where a view's first element lies, by axis."""

    b: int = 0
    t: int = 0
    c: int = 0
    f: int = 0

    def moved(self, axis: str, distance: int) -> Origin:
        """The origin ``distance`` places further along ``axis``."""
        return self if axis == REPEAT else replace(self, **{axis: getattr(self, axis) + distance})


@dataclass(frozen=True)
class View:
    """A framework's tensor as places of the graph's tensor ``tensor``; ``dims`` in the framework's order."""

    tensor: str
    dims: tuple[Dim, ...]
    origin: Origin = Origin()

    @property
    def shape(self) -> tuple[int, ...]:
        """The framework's shape."""
        return tuple(size_of(dim) for dim in self.dims)

    @property
    def size(self) -> int:
        """Number of elements, repeated ones counted as often as they appear."""
        return prod(self.shape)

    def axes(self, dim: int) -> set[str]:
        """Axes along which dimension ``dim`` walks, repetition left out."""
        return {atom.axis for atom in self.dims[dim]} - {REPEAT}


def size_of(dim: Dim) -> int:
    """Size of a dimension."""
    return prod(atom.size for atom in dim)


def simplified(dim: Sequence[Atom]) -> Dim:
    """The same dimension in as few atoms as possible."""
    kept: list[Atom] = []
    for atom in dim:
        if atom.size == 1:
            continue
        last = kept[-1] if kept else None
        if last is not None and last.axis == atom.axis and last.stride == atom.size * atom.stride:
            kept[-1] = Atom(last.size * atom.size, atom.axis, atom.stride)
        else:
            kept.append(atom)
    return tuple(kept)


def split_atom(atom: Atom, inner: int) -> tuple[Atom, Atom]:
    """An atom as an outer and an inner one of size ``inner``."""
    if atom.size % inner:
        raise LayoutError(f"{atom.size} elements cannot be seen as rows of {inner}")
    return Atom(atom.size // inner, atom.axis, atom.stride * inner), Atom(inner, atom.axis, atom.stride)


def permute(view: View, order: Sequence[int]) -> View:
    """Dimensions in another order."""
    return replace(view, dims=tuple(view.dims[axis] for axis in order))


def reshape(view: View, shape: Sequence[int]) -> View:
    """The same elements in another shape (no -1). Raises LayoutError if that would mix atoms."""
    atoms = list(simplified([atom for dim in view.dims for atom in dim]))
    dims: list[Dim] = []
    for size in shape:
        taken: list[Atom] = []
        left = size
        while left > 1:
            if not atoms:
                raise LayoutError(f"shape {tuple(view.shape)} does not fit {tuple(shape)}")
            first = atoms.pop(0)
            if left % first.size == 0:
                taken.append(first)
                left //= first.size
                continue
            if first.size % left:
                raise LayoutError(f"shape {tuple(view.shape)} as {tuple(shape)} mixes axes")
            outer, inner = split_atom(first, first.size // left)
            taken.append(outer)
            atoms.insert(0, inner)
            left = 1
        dims.append(simplified(taken))
    if atoms:
        raise LayoutError(f"shape {tuple(view.shape)} does not fit {tuple(shape)}")
    return replace(view, dims=tuple(dims))


def insert(view: View, position: int) -> View:
    """A new dimension of size 1."""
    return replace(view, dims=(*view.dims[:position], (), *view.dims[position:]))


def drop(view: View, position: int) -> View:
    """A dimension of size 1 left out."""
    return replace(view, dims=view.dims[:position] + view.dims[position + 1 :])


def expand(view: View, shape: Sequence[int]) -> View:
    """Dimensions of size 1 (and new leading ones) repeated to ``shape``, by the framework's broadcasting rules."""
    dims = ((),) * (len(shape) - len(view.dims)) + view.dims
    grown = []
    for dim, size in zip(dims, shape, strict=True):
        now = size_of(dim)
        if size not in (now, -1) and now != 1:
            raise LayoutError(f"shape {view.shape} cannot be broadcast to {tuple(shape)}")
        grown.append((Atom(size, REPEAT),) if now == 1 and size > 1 else dim)
    return replace(view, dims=tuple(grown))


def take(view: View, position: int, start: int, count: int, step: int = 1) -> View:
    """``count`` elements of a dimension from ``start`` at ``step``."""
    dim, origin = _take(view.dims[position], view.origin, start, count, step)
    return replace(view, dims=(*view.dims[:position], simplified(dim), *view.dims[position + 1 :]), origin=origin)


def _take(dim: Dim, origin: Origin, start: int, count: int, step: int) -> tuple[Dim, Origin]:
    if not dim or (start == 0 and step == 1 and count == size_of(dim)):
        return dim, origin
    first, rest = dim[0], dim[1:]
    if not rest:
        return (Atom(count, first.axis, first.stride * step),), origin.moved(first.axis, start * first.stride)
    inner = size_of(rest)
    last = start + (count - 1) * step
    if start // inner == last // inner:
        return _take(rest, origin.moved(first.axis, start // inner * first.stride), start % inner, count, step)
    if step == 1 and start % inner == 0 and count % inner == 0:
        outer = Atom(count // inner, first.axis, first.stride)
        return (outer, *rest), origin.moved(first.axis, start // inner * first.stride)
    raise LayoutError(f"a slice of {count} from {start} crosses rows of {inner}")


def contiguous(shape: Sequence[int], axis: str) -> tuple[Dim, ...]:
    """Dimensions that lie one after another on one axis, as a fresh array does."""
    dims: list[Dim] = []
    stride = prod(shape)
    for size in shape:
        stride //= max(size, 1)
        dims.append((Atom(size, axis, stride),) if size > 1 else ())
    return tuple(dims)
