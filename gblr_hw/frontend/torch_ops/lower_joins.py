"""Concatenation, tables, constant indices and padding."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch

from gblr_hw.frontend.graph import layout
from gblr_hw.frontend.graph.builder import Builder, Value
from gblr_hw.frontend.graph.layout import CHANNELS, LayoutError, View
from gblr_hw.frontend.graph.registry import Arguments, Lowering, lowers
from gblr_hw.frontend.operators.join_ops import concatenated, picked
from gblr_hw.frontend.operators.lookup_ops import as_places, gathered, looked_up
from gblr_hw.frontend.operators.relays import natural, relaid, seen


@lowers("aten.cat.default", "aten.concat.default", "aten.concatenate.default")
def _cat(builder: Builder, a: Arguments) -> View:
    return concatenated(builder, a["tensors"], a["dim"])


@lowers("aten.stack.default")
def _stack(builder: Builder, a: Arguments) -> View:
    dim = a["dim"] % (len(a["tensors"][0].shape) + 1)
    parts: list[Value] = [
        layout.insert(part, dim) if isinstance(part, View) else part.unsqueeze(dim) for part in a["tensors"]
    ]
    return concatenated(builder, parts, dim)


@lowers("aten.embedding.default")
def _embedding(builder: Builder, a: Arguments) -> View:
    if not isinstance(a["indices"], View):
        return looked_up(builder, a["weight"], [a["indices"]])
    return gathered(builder, a["weight"], a["indices"])


@lowers("aten.index_select.default")
def _index_select(builder: Builder, a: Arguments) -> View:
    return _pick(builder, a["self"], a["dim"], a["index"])


@lowers("aten.index.Tensor")
def _index(builder: Builder, a: Arguments) -> View:
    """At places along some dimensions: a table's rows, a part, the whole in its order (masks do it), or any places."""
    view, places = a["self"], as_places(a["indices"])
    given = [(dim, one) for dim, one in enumerate(places) if one is not None]
    if isinstance(view, torch.Tensor):
        if view.dim() == 2 and len(given) == 1 and given[0][0] == 0 and isinstance(given[0][1], View):
            return gathered(builder, view, given[0][1])
        return looked_up(builder, view, places)
    if any(isinstance(one, View) for _, one in given):
        return looked_up(builder, view, places)
    if len(given) == 1 and given[0][1].dim() == 1:
        return _pick(builder, view, given[0][0], given[0][1])
    try:
        return _along_axes(view, given)
    except LayoutError:
        if not builder.relays:
            raise
        return looked_up(builder, view, places)


def _along_axes(view: View, given: list[tuple[int, torch.Tensor]]) -> View:
    """Several indices, each counting 0, 1, ... along one dimension of the result."""
    if [dim for dim, _ in given] != list(range(len(view.dims))):
        raise LayoutError("some dimensions are read at places, others whole")
    shape = torch.broadcast_shapes(*(index.shape for _, index in given))
    dims: list[layout.Dim] = [()] * len(shape)
    origin = view
    for dim, index in given:
        index = index.reshape((1,) * (len(shape) - index.dim()) + tuple(index.shape))
        along = [place for place, size in enumerate(index.shape) if size > 1]
        numbers = index.flatten().tolist()
        start = numbers[0]
        if len(along) > 1 or numbers != list(range(start, start + len(numbers))):
            raise LayoutError("a value is read at scattered places")
        origin = layout.take(origin, dim, start % view.shape[dim], len(numbers))
        if along:
            dims[along[0]] = origin.dims[dim]
    seen = View(view.tensor, tuple(dims), origin.origin)
    return layout.expand(seen, shape)


def _pick(builder: Builder, view: Any, dim: int, index: Any) -> View:
    dim %= len(view.shape)
    if not isinstance(view, View) or not isinstance(index, torch.Tensor):
        return looked_up(builder, view, [*[None] * dim, index])
    size = view.shape[dim]
    places = [place % size for place in index.flatten().tolist()]
    step = places[1] - places[0] if len(places) > 1 else 1
    if step > 0 and places == list(range(places[0], places[0] + step * len(places), step)):
        return seen(builder, view, lambda value: layout.take(value, dim, places[0], len(places), step))
    if builder.relays and view.axes(dim) != {CHANNELS}:
        return looked_up(builder, view, [*[None] * dim, index.flatten()])
    return picked(builder, view, dim, places)


@lowers("aten.flip.default")
def _flip(builder: Builder, a: Arguments) -> View:
    view = builder.placed(a["self"])
    for dim in a["dims"]:
        size, place = view.shape[dim], dim % len(view.dims)
        if builder.relays and view.axes(place) != {CHANNELS}:
            view = relaid(builder, view, _like(view), [place])
        else:
            view = picked(builder, view, dim, list(reversed(range(size))))
    return view


def _like(view: View) -> str:
    """Roles in which a value's dimensions stay on their axes, if each lies on one."""
    axes = [view.axes(dim) for dim in range(len(view.dims))]
    if any(len(one) > 1 for one in axes):
        return natural(len(axes))
    return "".join({"b": "b", "t": "t", "c": "w", "": "t"}["".join(one)] for one in axes)


@lowers("aten.roll.default")
def _roll(builder: Builder, a: Arguments) -> View:
    view = builder.placed(a["self"])
    for shift, dim in zip(a["shifts"], a["dims"], strict=True):
        size = view.shape[dim]
        if view.axes(dim) == {CHANNELS}:
            view = picked(builder, view, dim, [(place - shift) % size for place in range(size)])
            continue
        cut = -shift % size
        if cut:
            view = seen(builder, view, partial(_rolled, builder, dim=dim, cut=cut))
    return view


def _rolled(builder: Builder, view: View, dim: int, cut: int) -> View:
    parts = (layout.take(view, dim, cut, view.shape[dim] - cut), layout.take(view, dim, 0, cut))
    return concatenated(builder, parts, dim)


def _padded_by_itself(builder: Builder, view: View, pad: Sequence[int], mode: str) -> View:
    """Elements of a value before and after it, as the framework chooses them for ``mode``."""
    for place in range(len(pad) // 2):
        dim, sides = len(view.dims) - 1 - place, list(pad[2 * place : 2 * place + 2])
        if any(sides):
            numbers = torch.arange(view.shape[dim], dtype=torch.float64).reshape(1, 1, -1)
            places = torch.nn.functional.pad(numbers, sides, mode=mode).flatten().long()
            view = _pick(builder, view, dim, places)
    return view


def _named_pad(mode: str) -> Lowering:
    return lambda builder, a: _padded_by_itself(builder, a["self"], a["padding"], mode)


for _rank in ("1d", "2d", "3d"):
    lowers(f"aten.reflection_pad{_rank}")(_named_pad("reflect"))
    lowers(f"aten.replication_pad{_rank}")(_named_pad("replicate"))


@lowers("aten.pad.default", "aten.constant_pad_nd.default")
def _pad(builder: Builder, a: Arguments) -> View:
    """A constant before and after, dimension by dimension from the last."""
    view, value, mode = a["self"], float(a.get("value") or 0.0), a.get("mode", "constant")
    if mode != "constant":
        return _padded_by_itself(builder, view, a["pad"], mode)
    for place in range(len(a["pad"]) // 2):
        dim = len(view.dims) - 1 - place
        before, after = a["pad"][2 * place], a["pad"][2 * place + 1]
        if before < 0 or after < 0:
            view = layout.take(view, dim, max(-before, 0), view.shape[dim] + min(before, 0) + min(after, 0))
        parts: list[Value] = [view]
        for size, position in ((before, 0), (after, len(parts))):
            if size > 0:
                shape = [*view.shape[:dim], size, *view.shape[dim + 1 :]]
                filler = builder.keep(torch.full(shape, value))
                parts.insert(position if position == 0 else len(parts), filler)
        view = concatenated(builder, parts, dim) if len(parts) > 1 else view
    return view
