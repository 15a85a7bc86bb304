"""Operations that only name axes otherwise, or take a part: no operator, no cost."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from gblr_hw.frontend.graph import layout
from gblr_hw.frontend.graph.builder import Builder
from gblr_hw.frontend.graph.layout import View
from gblr_hw.frontend.graph.registry import Arguments, lowers
from gblr_hw.frontend.operators.relays import regrouped, seen
from simulator.base.arithmetic import ceil_div


def _shape(wanted: Sequence[int], size: int) -> list[int]:
    known = prod(one for one in wanted if one != -1)
    return [size // known if one == -1 else one for one in wanted]


@lowers("aten.view", "aten.reshape", "aten._unsafe_view", "aten._reshape_copy", "aten.view_copy")
def _view(builder: Builder, a: Arguments) -> View:
    view = a["self"]
    return regrouped(builder, view, _shape(a.get("size") or a.get("shape") or (), view.size))


@lowers("aten.flatten.using_ints")
def _flatten(builder: Builder, a: Arguments) -> View:
    shape = a["self"].shape
    first, last = a["start_dim"] % len(shape), a["end_dim"] % len(shape)
    return regrouped(builder, a["self"], [*shape[:first], prod(shape[first : last + 1]), *shape[last + 1 :]])


@lowers("aten.unflatten.int")
def _unflatten(builder: Builder, a: Arguments) -> View:
    shape, dim = a["self"].shape, a["dim"] % len(a["self"].shape)
    return regrouped(builder, a["self"], [*shape[:dim], *_shape(a["sizes"], shape[dim]), *shape[dim + 1 :]])


@lowers("aten.permute", "aten.permute_copy")
def _permute(builder: Builder, a: Arguments) -> View:
    return layout.permute(a["self"], a["dims"])


@lowers("aten.movedim.int", "aten.movedim.intlist")
def _movedim(builder: Builder, a: Arguments) -> View:
    rank = len(a["self"].dims)
    source, target = (
        [one % rank for one in ([value] if isinstance(value, int) else value)]
        for value in (a["source"], a["destination"])
    )
    rest = iter(place for place in range(rank) if place not in source)
    moved = dict(zip(target, source, strict=True))
    return layout.permute(a["self"], [moved[place] if place in moved else next(rest) for place in range(rank)])


@lowers("aten.transpose.int", "aten.swapaxes", "aten.transpose_copy.int")
def _transpose(builder: Builder, a: Arguments) -> View:
    first, second = a.get("dim0", a.get("axis0")), a.get("dim1", a.get("axis1"))
    order = list(range(len(a["self"].dims)))
    order[first], order[second] = order[second], order[first]
    return layout.permute(a["self"], order)


@lowers("aten.t", "aten.numpy_T", "aten.mT", "aten.matrix_H")
def _t(builder: Builder, a: Arguments) -> View:
    rank = len(a["self"].dims)
    return layout.permute(a["self"], [*range(rank - 2), *reversed(range(max(rank - 2, 0), rank))])


@lowers("aten.unsqueeze", "aten.unsqueeze_copy")
def _unsqueeze(builder: Builder, a: Arguments) -> View:
    return layout.insert(a["self"], a["dim"] % (len(a["self"].dims) + 1))


@lowers("aten.squeeze.default", "aten.squeeze.dim", "aten.squeeze.dims", "aten.squeeze_copy.dim")
def _squeeze(builder: Builder, a: Arguments) -> View:
    view, dim = a["self"], a.get("dim")
    rank = len(view.dims)
    dims = range(rank) if dim is None else [one % rank for one in ([dim] if isinstance(dim, int) else dim)]
    for place in sorted(dims, reverse=True):
        view = layout.drop(view, place) if view.shape[place] == 1 else view
    return view


@lowers("aten.expand", "aten.expand_copy", "aten.broadcast_to")
def _expand(builder: Builder, a: Arguments) -> View:
    return layout.expand(a["self"], a["size"])


@lowers("aten.expand_as")
def _expand_as(builder: Builder, a: Arguments) -> View:
    return layout.expand(a["self"], a["other"].shape)


@lowers("aten.repeat")
def _repeat(builder: Builder, a: Arguments) -> View:
    view, times = a["self"], a["repeats"]
    for _ in range(len(times) - len(view.dims)):
        view = layout.insert(view, 0)
    shape = [size * count for size, count in zip(view.shape, times, strict=True)]
    for place in reversed(range(len(times))):
        view = layout.insert(view, place)
    spread = [size for count, one in zip(times, view.shape[1::2], strict=True) for size in (count, one)]
    return regrouped(builder, layout.expand(view, spread), shape)


@lowers("aten.repeat_interleave.self_int")
def _repeat_interleave(builder: Builder, a: Arguments) -> View:
    view, dim = a["self"], a["dim"] % len(a["self"].dims)
    shape = list(view.shape)
    grown = layout.insert(view, dim + 1)
    grown = layout.expand(grown, [*shape[: dim + 1], a["repeats"], *shape[dim + 1 :]])
    shape[dim] *= a["repeats"]
    return regrouped(builder, grown, shape)


def _bounds(size: int, start: int | None, end: int | None, step: int) -> tuple[int, int]:
    chosen = range(*slice(start, end, step).indices(size))
    return chosen.start, len(chosen)


@lowers("aten.slice.Tensor", "aten.slice_copy.Tensor")
def _slice(builder: Builder, a: Arguments) -> View:
    dim = a["dim"] % len(a["self"].dims)
    start, count = _bounds(a["self"].shape[dim], a["start"], a["end"], a["step"])
    return seen(builder, a["self"], lambda view: layout.take(view, dim, start, count, a["step"]))


@lowers("aten.narrow.default")
def _narrow(builder: Builder, a: Arguments) -> View:
    dim = a["dim"] % len(a["self"].dims)
    start = a["start"] % a["self"].shape[dim]
    return seen(builder, a["self"], lambda view: layout.take(view, dim, start, a["length"]))


@lowers("aten.select.int", "aten.select_copy.int")
def _select(builder: Builder, a: Arguments) -> View:
    dim = a["dim"] % len(a["self"].dims)
    return layout.drop(layout.take(a["self"], dim, a["index"] % a["self"].shape[dim], 1), dim)


def _pieces(builder: Builder, view: View, sizes: Sequence[int], dim: int) -> tuple[View, ...]:
    starts = [sum(sizes[:index]) for index in range(len(sizes))]

    def piece(start: int, size: int) -> View:
        return seen(builder, view, lambda value: layout.take(value, dim, start, size))

    return tuple(piece(start, size) for start, size in zip(starts, sizes, strict=True))


@lowers("aten.split.Tensor", "aten.split_copy.Tensor")
def _split(builder: Builder, a: Arguments) -> tuple[View, ...]:
    dim = a["dim"] % len(a["self"].dims)
    size, step = a["self"].shape[dim], a["split_size"]
    return _pieces(builder, a["self"], [min(step, size - start) for start in range(0, size, step)], dim)


@lowers("aten.split_with_sizes", "aten.split.sizes", "aten.split_with_sizes_copy")
def _split_with_sizes(builder: Builder, a: Arguments) -> tuple[View, ...]:
    sizes = a.get("split_sizes") or a.get("split_size") or ()
    return _pieces(builder, a["self"], sizes, a["dim"] % len(a["self"].dims))


@lowers("aten.chunk")
def _chunk(builder: Builder, a: Arguments) -> tuple[View, ...]:
    dim = a["dim"] % len(a["self"].dims)
    size = a["self"].shape[dim]
    step = ceil_div(size, a["chunks"])
    return _pieces(builder, a["self"], [min(step, size - start) for start in range(0, size, step)], dim)


@lowers("aten.unbind.int", "aten.unbind_copy.int")
def _unbind(builder: Builder, a: Arguments) -> tuple[View, ...]:
    view, dim = a["self"], a["dim"] % len(a["self"].dims)
    return tuple(layout.drop(layout.take(view, dim, place, 1), dim) for place in range(view.shape[dim]))


@lowers(
    "aten.clone", "aten.alias", "aten.contiguous", "aten.detach", "aten.detach_", "aten.lift_fresh_copy",
    "aten.type_as", "aten.alias_copy",
)  # fmt: skip
def _same(builder: Builder, a: Arguments) -> Any:
    return a.get("self") if a.get("self") is not None else a.get("input")


@lowers("aten.dropout", "aten.native_dropout", "aten.feature_dropout", "aten.alpha_dropout")
def _dropout(builder: Builder, a: Arguments) -> Any:
    if a.get("train"):
        raise layout.LayoutError("dropout is on in a model that is in evaluation mode")
    return a["input"]


@lowers("aten._assert_tensor_metadata", "aten._assert_async", "aten.sym_constrain_range")
def _assertion(builder: Builder, a: Arguments) -> None:
    return None
