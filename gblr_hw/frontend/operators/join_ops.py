"""Concatenation: parts stored in place, or put side by side by the vector unit; elements picked of rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from gblr_hw.frontend.graph.builder import Builder, Value
from gblr_hw.frontend.graph.frame import Frame, constant_array, frame_of, refined
from gblr_hw.frontend.graph.layout import BATCH, CHANNELS, REPEAT, TOKENS, Atom, LayoutError, View, size_of
from gblr_hw.frontend.operators.matrix_ops import in_order
from gblr_hw.frontend.operators.relays import natural, or_relaid
from gblr_hw.frontend.operators.vector_ops import copied
from simulator.network.network import Operand
from simulator.network.vector_steps import Step


def concatenated(builder: Builder, parts: Sequence[Value], dim: int) -> View:
    """The parts one after another along ``dim``, each stored in its place in the whole.

    A part that fills a tensor of its own is written there at once; others are copied. Channels that are joined inside
    each group cannot lie so and are put together by the vector unit.
    """
    rank = max(len(part.shape) for part in parts)
    parts = [part for part in parts if len(part.shape) == rank and 0 not in part.shape]
    dim %= rank
    if len(parts) == 1:
        part = parts[0]
        if isinstance(part, View):
            return part
    parts = [in_order(builder, part) if isinstance(part, View) else part for part in parts]
    given = [part for part in parts if isinstance(part, View)]

    def join(*views: View) -> View:
        found = iter(views)
        return _joined(builder, [next(found) if isinstance(part, View) else part for part in parts], dim)

    roles = "b" * dim + "t" * (rank - 1 - dim) + "w" if dim < rank - 1 else natural(rank)
    return or_relaid(builder, join, given, [[roles] * len(given)])


def _joined(builder: Builder, parts: Sequence[Value], dim: int) -> View:
    views = _placed_alike(builder, parts)
    lead = next(view for view in views if isinstance(view, View))
    axis = _joined_axis(views, dim)
    frames = [_part_frame(lead, axis, dim, part.shape[dim]) for part in views]
    total = sum(part.shape[dim] for part in parts)
    whole = _part_frame(lead, axis, dim, total)
    if axis == CHANNELS and _inside_groups(whole, dim):
        return _joined_inside(builder, views, frames, dim)
    if axis == TOKENS and _inside_rows(whole, dim):
        raise LayoutError("images are joined along their width")
    return _in_place(builder, views, frames, whole, axis, dim)


def _placed_alike(builder: Builder, parts: Sequence[Value]) -> list[Value]:
    views = [part for part in parts if isinstance(part, View)]
    model = next((view for view in views if not builder.is_unplaced(view)), views[0])
    return [builder.place_like(part, model) if isinstance(part, View) else part for part in parts]


def _joined_axis(parts: Sequence[Value], dim: int) -> str:
    axes = {axis for part in parts if isinstance(part, View) for axis in part.axes(dim)}
    if not axes:
        rank = len(parts[0].shape)
        lead = next(part for part in parts if isinstance(part, View))
        last = CHANNELS in lead.axes(rank - 1) and dim != rank - 1
        axes = {TOKENS if last else CHANNELS}
    if len(axes) != 1 or not axes <= {TOKENS, CHANNELS}:
        raise LayoutError("values are joined along sequences, or along several axes at once")
    return axes.pop()


def _part_frame(lead: View, axis: str, dim: int, size: int) -> Frame:
    """The frame of a part of ``size`` along ``dim``, the rest as ``lead`` lies."""
    stride = min((atom.stride for atom in lead.dims[dim]), default=_beyond(lead, axis))
    joined = (Atom(size, axis, stride),)
    dims = tuple(joined if place == dim else _unrepeated(row, place, lead) for place, row in enumerate(lead.dims))
    return frame_of(refined([View(lead.tensor, dims)], [size_of(row) for row in dims]))


def _beyond(view: View, axis: str) -> int:
    """A stride that no atom on ``axis`` reaches."""
    return max((atom.stride * atom.size for dim in view.dims for atom in dim if atom.axis == axis), default=1)


def _unrepeated(row: tuple[Atom, ...], place: int, lead: View) -> tuple[Atom, ...]:
    if not any(atom.axis == REPEAT for atom in row):
        return row
    if place:
        raise LayoutError("a repeated value is joined with others")
    return (Atom(size_of(row), BATCH, _beyond(lead, BATCH)),)


def _inside_groups(whole: Frame, dim: int) -> bool:
    reach = max(atom.stride * atom.size for atom in whole.atoms[dim])
    return reach < whole.channels


def _inside_rows(whole: Frame, dim: int) -> bool:
    reach = max(atom.stride * atom.size for atom in whole.atoms[dim])
    return reach < whole.tokens


def _in_place(
    builder: Builder, parts: Sequence[Value], frames: Sequence[Frame], whole: Frame, axis: str, dim: int
) -> View:
    lead = next(part for part in parts if isinstance(part, View))
    width = builder.tensors[lead.tensor].width
    if axis == TOKENS and whole.channels % width == 0:
        whole = whole.with_width(width)
        frames = [frame.with_width(width) for frame in frames]
    parent = builder.add_tensor(builder.name_here(), whole)
    token, channel = 0, 0
    claimed: set[str] = set()
    for part, frame in zip(parts, frames, strict=True):
        name = _own_tensor(builder, part, frame, parent, claimed)
        claimed.add(name)
        builder.tensors[name] = replace(builder.tensors[name], within=(parent, token, channel))
        if axis == TOKENS:
            token += frame.tokens
        else:
            channel += frame.channels
    return whole.view(parent)


def _own_tensor(builder: Builder, part: Value, frame: Frame, parent: str, claimed: set[str]) -> str:
    """The name of a tensor that holds just ``part``; it may be put anywhere."""
    if isinstance(part, torch.Tensor):
        array = constant_array(part, frame)
        full = np.broadcast_to(array, (frame.batch, frame.tokens, frame.groups, frame.width))
        return builder.add_constant(f"{parent}.{builder.constant_names.get(id(part), 'constant')}", full)
    tensor = builder.tensors[part.tensor]
    free = tensor.within is None and not tensor.padded and tensor.name not in claimed
    is_parent = any(other.within is not None and other.within[0] == tensor.name for other in builder.tensors.values())
    if free and not is_parent and builder.is_whole(part, frame):
        return tensor.name
    return copied(builder, part, builder.name_here("copy"), frame).tensor


def _joined_inside(builder: Builder, parts: Sequence[Value], frames: Sequence[Frame], dim: int) -> View:
    """Parts of each group side by side, two at a time."""
    if any(isinstance(part, torch.Tensor) for part in parts):
        raise LayoutError("a constant is joined to others inside each group of channels")
    views = [part for part in parts if isinstance(part, View)]
    result = views[0]
    for part in views[1:]:
        result = _pair_inside(builder, result, part, dim)
    return result


def _pair_inside(builder: Builder, left: View, right: View, dim: int) -> View:
    reads, widths = [], [left.shape[dim], right.shape[dim]]
    whole = _part_frame(left, CHANNELS, dim, sum(widths))
    whole = whole.with_width(sum(widths))
    for view in (left, right):
        frame = builder.frame(view).with_width(view.shape[dim])
        if (frame.batch, frame.tokens, frame.groups) != (whole.batch, whole.tokens, whole.groups):
            raise LayoutError("a repeated value is joined with others")
        reads.append(builder.read(view, frame))
    if any(atom.stride != 1 for atom in whole.atoms[dim][-1:]):
        raise LayoutError("channels are joined in the middle of their groups")
    operands: list[Operand] = []
    steps: list[Step] = []
    args = []
    for read in reads:
        if read.operand not in operands:
            operands.append(read.operand)
    for read in reads:
        place = operands.index(read.operand)
        if read.picks:
            steps.append(Step("permute", (place,), numbers=tuple(map(float, read.picks))))
            place = len(operands) + len(steps) - 1
        args.append(place)
    steps.append(Step("concat", tuple(args)))
    return builder.add_operator("vector", builder.name_here(), operands, whole, steps)


def picked(builder: Builder, view: View, dim: int, places: Sequence[int]) -> View:
    """Elements ``places`` of a dimension of channels, in that order."""
    view = builder.placed(view)
    dim %= len(view.dims)
    roles = "".join("w" if place == dim else "t" if place else "b" for place in range(len(view.dims)))
    return or_relaid(builder, lambda value: _picked(builder, value, dim, places), [view], [[roles]])


def _picked(builder: Builder, view: View, dim: int, places: Sequence[int]) -> View:
    if view.axes(dim) != {CHANNELS}:
        raise LayoutError("elements of another axis than channels are picked")
    frame = frame_of(refined([view], view.shape), inner={dim}).with_width(view.shape[dim])
    read = builder.read(view, frame)
    chosen = [read.picks[place] if read.picks else place for place in places]
    scale = len(places)
    atoms = tuple(
        (Atom(scale, CHANNELS, 1),) if place == dim else tuple(
            replace(a, stride=a.stride // frame.width * scale) if a.axis == CHANNELS else a for a in row
        )
        for place, row in enumerate(frame.atoms)
    )  # fmt: skip
    out = Frame(atoms, frame.batch, frame.tokens, frame.groups * scale, scale)
    steps = (Step("permute", (0,), numbers=tuple(float(place) for place in chosen)),)
    return builder.add_operator("vector", builder.name_here(), (read.operand,), out, steps)
