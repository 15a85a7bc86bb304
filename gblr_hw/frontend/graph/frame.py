"""The rows that an operator runs over, chosen from how its operands lie, and each operand as a view of its tensor.

A frame gives every atom of the result's dimensions a place in (batch, tokens, channels) of the operator's own output;
an operand that lies differently than its frame asks raises LayoutError, and the caller moves data or refuses.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod

import numpy as np
import torch

from gblr_hw.frontend.graph.layout import (
    BATCH,
    CHANNELS,
    REPEAT,
    TOKENS,
    Atom,
    Dim,
    LayoutError,
    View,
    expand,
    simplified,
    split_atom,
)
from simulator.network.network import Operand, Tensor


@dataclass(frozen=True)
class Frame:
    """``atoms``: of each dimension of the result, in the output's own compact strides; REPEAT atoms are computed once.

    ``width`` divides the channels into groups.
    """

    atoms: tuple[Dim, ...]
    batch: int
    tokens: int
    channels: int
    width: int

    @property
    def groups(self) -> int:
        """Groups of a row."""
        return self.channels // self.width

    def view(self, tensor: str) -> View:
        """The result as the framework sees it, when it fills ``tensor``."""
        return View(tensor, tuple(simplified(dim) for dim in self.atoms))

    def with_width(self, width: int) -> Frame:
        """The same rows with channels in groups of ``width``; atoms that cross a group's edge are split."""
        atoms = tuple(tuple(part for atom in dim for part in _cut(atom, width)) for dim in self.atoms)
        return Frame(atoms, self.batch, self.tokens, self.channels, width)


def _cut(atom: Atom, width: int) -> tuple[Atom, ...]:
    if atom.axis != CHANNELS or atom.stride >= width or atom.stride * atom.size <= width:
        return (atom,)
    if width % atom.stride:
        raise LayoutError(f"groups of {width} channels begin between places that lie {atom.stride} apart")
    return split_atom(atom, width // atom.stride)


def refined(views: Sequence[View], shape: Sequence[int]) -> list[tuple[Dim, ...]]:
    """The views' dimensions, broadcast to ``shape`` and cut so that atoms of the same place have the same size."""
    grown = [expand(view, shape).dims for view in views]
    cuts = [_cuts([dims[index] for dims in grown], size) for index, size in enumerate(shape)]
    return [tuple(_cut_dim(dim, cut) for dim, cut in zip(dims, cuts, strict=True)) for dims in grown]


def _cuts(dims: Sequence[Dim], size: int) -> list[int]:
    found = {1, size}
    for dim in dims:
        inner = 1
        for atom in reversed(dim):
            found.add(inner)
            inner *= atom.size
    cuts = sorted(found)
    if any(large % small for small, large in pairwise(cuts)):
        raise LayoutError(f"a dimension of {size} is divided in different ways by the values that meet")
    return cuts


def _cut_dim(dim: Dim, cuts: Sequence[int]) -> Dim:
    sizes = [large // small for small, large in pairwise(cuts)]
    left = list(dim)
    parts: list[Atom] = []
    for size in sizes:
        if not left:
            raise LayoutError("dimensions of different sizes meet")
        atom = left.pop()
        if atom.size != size:
            outer, atom = split_atom(atom, size)
            left.append(outer)
        parts.append(atom)
    return tuple(reversed(parts))


def frame_of(dims: Sequence[tuple[Dim, ...]], varies: Sequence[bool] = (), inner: Container[int] = ()) -> Frame:
    """The frame of refined operands, the first of which says how the result lies where they differ.

    varies: dimensions along which a constant differs, so that they have to be computed even if all operands repeat.
    inner: dimensions whose channels come innermost in the result, wherever they lie in the operands.
    """
    chosen: list[list[Atom]] = []
    for index in range(len(dims[0])):
        row = []
        for place, first in enumerate(dims[0][index]):
            atoms = [first, *(other[index][place] for other in dims[1:])]
            real = next((atom for atom in atoms if atom.axis != REPEAT), first)
            if real.axis == REPEAT and varies and varies[index]:
                real = Atom(real.size, _axis_by_place(index, len(dims[0])), 0)
            row.append(real)
        chosen.append(row)
    return _compact(chosen, inner)


def _axis_by_place(index: int, count: int) -> str:
    if index == count - 1:
        return CHANNELS
    return BATCH if index == 0 else TOKENS


def _compact(chosen: Sequence[Sequence[Atom]], inner: Container[int]) -> Frame:
    strides: dict[tuple[int, int], int] = {}
    sizes = {}
    for axis in (BATCH, TOKENS, CHANNELS):
        places = [
            (index in inner, -atom.stride, index, place)
            for index, row in enumerate(chosen)
            for place, atom in enumerate(row)
            if atom.axis == axis
        ]
        stride = 1
        for *_, index, place in reversed(sorted(places)):
            strides[index, place] = stride
            stride *= chosen[index][place].size
        sizes[axis] = stride
    atoms = tuple(
        tuple(Atom(atom.size, atom.axis, strides.get((index, place), 0)) for place, atom in enumerate(row))
        for index, row in enumerate(chosen)
    )
    return Frame(atoms, sizes[BATCH], sizes[TOKENS], sizes[CHANNELS], sizes[CHANNELS])


@dataclass(frozen=True)
class Read:
    """An operand, and which of its width a first step has to pick (empty: all)."""

    operand: Operand
    picks: tuple[int, ...] = ()


def operand_of(tensor: Tensor, view: View, frame: Frame) -> Read:
    """``view`` of ``tensor`` as an operand of an operator with ``frame``. Raises LayoutError if it lies otherwise."""
    shape = [prod(atom.size for atom in dim) for dim in frame.atoms]
    dims = tuple(_like(dim, want) for dim, want in zip(expand(view, shape).dims, frame.atoms, strict=True))
    pairs = [pair for dim, want in zip(dims, frame.atoms, strict=True) for pair in zip(dim, want, strict=True)]
    if any(have.axis not in (REPEAT, want.axis) for have, want in pairs):
        raise LayoutError("the values that meet lie along different axes")
    by_axis = {axis: [pair for pair in pairs if pair[1].axis == axis] for axis in (BATCH, TOKENS, CHANNELS)}
    full_batch = _whole(by_axis[BATCH], "sequences")
    if tensor.batch != (frame.batch if full_batch else 1):
        raise LayoutError(f"{tensor.batch} sequences meet {frame.batch}")
    tokens = frame.tokens if _whole(by_axis[TOKENS], "tokens") else 1
    inner = _within_group([pair for pair in by_axis[CHANNELS] if pair[1].stride < frame.width])
    outer = [pair for pair in by_axis[CHANNELS] if pair[1].stride >= frame.width]
    groups, pitch = _groups(outer, frame, inner[-1] + 1)
    origin = view.origin
    base = origin.c // pitch * pitch if groups > 1 else origin.c
    picks = tuple(origin.c - base + place for place in inner)
    if max(picks) >= pitch:
        raise LayoutError("a group's channels cross into the next one's")
    operand = Operand(tensor.name, tokens, groups, pitch, origin.t, base)
    _check_inside(tensor, operand)
    return Read(operand, () if picks == tuple(range(pitch)) else picks)


def _within_group(pairs: Sequence[tuple[Atom, Atom]]) -> list[int]:
    """Places of a group's channels, relative to its first; [0] if they are broadcast."""
    real = [(have, want) for have, want in pairs if have.axis != REPEAT]
    if not real:
        return [0]
    if len(real) != len(pairs):
        raise LayoutError("channels are repeated in part")
    places = np.zeros(1, dtype=np.int64)
    for have, want in sorted(real, key=lambda pair: -pair[1].stride):
        places = (places[:, None] + have.stride * np.arange(want.size)).reshape(-1)
    return [int(place) for place in places]


def _groups(outer: Sequence[tuple[Atom, Atom]], frame: Frame, least: int) -> tuple[int, int]:
    """Groups that are read, and channels from one to the next."""
    real = [(have, want) for have, want in outer if have.axis != REPEAT]
    if not real:
        return 1, least
    if len(real) != len(outer):
        raise LayoutError("groups are repeated in part")
    pitches = {have.stride * frame.width / want.stride for have, want in real}
    if len(pitches) != 1 or not (pitch := pitches.pop()).is_integer():
        raise LayoutError("groups are taken in another order")
    return frame.groups, int(pitch)


def _like(dim: Dim, want: Dim) -> Dim:
    cuts = [1]
    for atom in reversed(want):
        cuts.append(cuts[-1] * atom.size)
    return _cut_dim(dim, cuts)


def _whole(pairs: Sequence[tuple[Atom, Atom]], what: str) -> bool:
    """Whether all of the places are read, in the frame's order (False: none, the value is broadcast)."""
    real = [(have, want) for have, want in pairs if have.axis != REPEAT]
    if not real:
        return False
    if len(real) != len(pairs) or any(have.stride != want.stride for have, want in real):
        raise LayoutError(f"the {what} are taken in another order, or only in part")
    return True


def _check_inside(tensor: Tensor, operand: Operand) -> None:
    if operand.channel0 + operand.groups * operand.width > tensor.groups * tensor.width:
        raise LayoutError("groups reach beyond the tensor")
    if tensor.padded and operand.groups * operand.width > 1:
        whole = operand.width == tensor.width and operand.channel0 % tensor.width == 0
        if not whole and operand.groups > 1:
            raise LayoutError("groups of a padded tensor are read across their edges")


def constant_array(value: torch.Tensor, frame: Frame) -> np.ndarray:
    """A constant that is broadcast to the frame's dimensions, as (batch, tokens, groups, width) or 1 in their place."""
    value = value.detach()
    value = value.reshape((1,) * (len(frame.atoms) - value.dim()) + tuple(value.shape))
    value = _without_copies(value)
    sizes, axes, keys = [], [], []
    for dim, size in zip(frame.atoms, value.shape, strict=True):
        for atom in dim:
            sizes.append(1 if size == 1 else atom.size)
            axes.append(_axis4(atom, frame))
            keys.append(-atom.stride)
            if atom.axis == REPEAT and sizes[-1] > 1:
                raise LayoutError("a constant differs where the values that it meets repeat")
        if size != 1 and prod(atom.size for atom in dim) != size:
            raise LayoutError(f"a constant of {size} meets a dimension of {prod(atom.size for atom in dim)}")
    order = sorted(range(len(sizes)), key=lambda place: (axes[place], keys[place], place))
    full = [atom.size for dim in frame.atoms for atom in dim]
    value = value.reshape(sizes).permute(order)
    shape = []
    for axis in range(4):
        members = [place for place in order if axes[place] == axis]
        if any(sizes[place] > 1 for place in members):
            for place in members:
                sizes[place] = full[place]
        shape.append(prod(sizes[place] for place in members))
    value = value.expand([sizes[place] for place in order]).reshape(shape)
    return as_float(value)


def _axis4(atom: Atom, frame: Frame) -> int:
    if atom.axis == CHANNELS:
        return 2 if atom.stride >= frame.width else 3
    return {BATCH: 0, TOKENS: 1, REPEAT: 4}[atom.axis]


def _without_copies(value: torch.Tensor) -> torch.Tensor:
    """Size 1 along dimensions that hold the same numbers throughout."""
    for dim in range(value.dim()):
        first = value.narrow(dim, 0, 1)
        if value.shape[dim] > 1 and (value.stride(dim) == 0 or bool((value == first).all())):
            value = first
    return value


def as_float(value: torch.Tensor) -> np.ndarray:
    """A constant as float32, or float64 if it is that."""
    if not value.dtype.is_floating_point:
        value = value.float()
    array: np.ndarray = (value if value.dtype == torch.float64 else value.float()).cpu().numpy()
    return np.ascontiguousarray(array)
