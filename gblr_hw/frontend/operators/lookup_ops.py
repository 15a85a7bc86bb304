"""Lookup: rows of a table, constant or computed, by places that are constant, given or computed."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch

from gblr_hw.frontend.graph.builder import Builder, Value
from gblr_hw.frontend.graph.frame import Frame, as_float
from gblr_hw.frontend.graph.layout import CHANNELS, TOKENS, Atom, LayoutError, View, expand, permute
from gblr_hw.frontend.operators.relays import or_relaid, regrouped, relaid
from gblr_hw.frontend.operators.vector_ops import copied, pointwise
from simulator.network.network import Operand
from simulator.network.vector_steps import Step


def gathered(builder: Builder, table: Value, indices: View) -> View:
    """Rows of a table (rows, width) by indices that depend on an input."""
    roles = "t" if len(indices.dims) == 1 else "b" + "t" * (len(indices.dims) - 1)
    return or_relaid(builder, lambda value: _gathered(builder, table, value), [indices], [[roles]])


def _gathered(builder: Builder, table: Value, indices: View) -> View:
    indices = builder.place(indices, "r" * len(indices.dims), index=True)
    frame = builder.frame(indices)
    if frame.channels != 1:
        raise LayoutError("a table is read by indices that lie side by side")
    if not builder.is_whole(indices, frame):
        indices = copied(builder, indices, frame=frame)
    return _rows(builder, _table(builder, table), table.shape[1], indices.tensor, frame)


def _rows(builder: Builder, table: str, width: int, indices: str, frame: Frame) -> View:
    """Row ``indices``[t] of a table for each row t of the frame."""
    operand = Operand(table, frame.tokens, 1, width, access="gather", indices=indices)
    atoms = (*frame.atoms, (Atom(width, CHANNELS, 1),) if width > 1 else ())
    out = Frame(atoms, frame.batch, frame.tokens, width, width)
    return builder.add_operator("vector", builder.name_here(), (operand,), out, (Step("copy", (0,)),))


def _table(builder: Builder, table: Value) -> str:
    """The tensor in which each row of a table is a token."""
    rows, width = table.shape
    if isinstance(table, torch.Tensor):
        array = as_float(table.detach()).reshape(1, rows, 1, width)
        return builder.table(builder.constant_names.get(id(table), builder.site.path or "table"), id(table), array)
    view = builder.placed(table)
    frame = Frame(((Atom(rows, TOKENS, 1),), (Atom(width, CHANNELS, 1),)), 1, rows, width, width)
    return view.tensor if builder.is_whole(view, frame) else relaid(builder, view, "tw").tensor


def as_places(indices: Sequence[Value | None]) -> list[Any]:
    """Indices with constant truth values turned into the places where they are true, one for each dimension that they
    cover.
    """
    found: list[Any] = []
    for one in indices:
        if isinstance(one, torch.Tensor) and one.dtype == torch.bool:
            found += one.nonzero(as_tuple=True)
        else:
            found.append(one)
    return found


def looked_up(builder: Builder, value: Value, places: Sequence[Value | None]) -> View:
    """``value[places]`` as the framework means it: along each dimension that has places, at these, broadcast together;
    the others whole (None).
    """
    rank = len(value.shape)
    given = [dim for dim, one in enumerate(places) if one is not None]
    rest = [dim for dim in range(rank) if dim not in given]
    indices = [one for one in places if one is not None]
    shape = tuple(torch.broadcast_shapes(*(tuple(one.shape) for one in indices)))
    sizes = [value.shape[dim] for dim in given]
    order = [*given, *rest]
    kept = [value.shape[dim] for dim in rest]
    if isinstance(value, torch.Tensor):
        table: Value = builder.keep(value.permute(order).reshape(prod(sizes), prod(kept)).contiguous())
    else:
        copy = relaid(builder, permute(value, order), "t" * len(given) + "w" * len(rest))
        table = regrouped(builder, copy, (prod(sizes), prod(kept)))
    flat = flat_places(builder, indices, sizes, shape)
    found = _rows_at(builder, table, flat) if isinstance(flat, torch.Tensor) else gathered(builder, table, flat)
    result = regrouped(builder, found, [*shape, *kept])
    together = given == list(range(given[0], given[0] + len(given)))
    if not together or given[0] == 0:
        return result
    count = len(shape)
    before = [count + place for place in range(given[0])]
    after = [count + place for place in range(given[0], len(rest))]
    return permute(result, [*before, *range(count), *after])


def flat_places(builder: Builder, indices: Sequence[Value], sizes: Sequence[int], shape: tuple[int, ...]) -> Value:
    """Rows of a table of dimensions ``sizes`` whose digits the indices, broadcast to ``shape``, are."""
    total: Value | None = None
    for place, (one, size) in enumerate(zip(indices, sizes, strict=True)):
        stride = prod(sizes[place + 1 :])
        if isinstance(one, torch.Tensor):
            term: Value = torch.where(one < 0, one + size, one) * stride
        else:
            term = one if stride == 1 else pointwise(builder, "multiply", one, numbers=(stride,))
        total = term if total is None else _sum(builder, total, term)
    assert total is not None
    if isinstance(total, torch.Tensor):
        return total.expand(shape)
    return expand(total, shape)


def _sum(builder: Builder, left: Value, right: Value) -> Value:
    if isinstance(left, torch.Tensor) and isinstance(right, torch.Tensor):
        return left + right
    if isinstance(left, torch.Tensor):
        left, right = right, left
    if isinstance(right, torch.Tensor) and right.numel() == 1:
        return pointwise(builder, "add", left, numbers=(float(right),))
    if isinstance(right, torch.Tensor):
        right = builder.keep(right)
    return pointwise(builder, "add", left, right)


def _rows_at(builder: Builder, table: Value, places: torch.Tensor) -> View:
    """Rows of a computed table at constant places, (places, width)."""
    flat = places.flatten()
    name = builder.add_constant(f"{builder.name_here('places')}", as_float(flat.double()).reshape(1, -1, 1, 1))
    frame = Frame(((Atom(len(flat), TOKENS, 1),),), 1, len(flat), 1, 1)
    return _rows(builder, _table(builder, table), table.shape[1], name, frame)
