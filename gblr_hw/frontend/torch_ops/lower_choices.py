"""What looks through rows: the largest elements and where they are, sorting, taking and putting, running sums."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from math import prod
from typing import Any

import torch

from gblr_hw.frontend.graph import layout
from gblr_hw.frontend.graph.builder import Builder, Value
from gblr_hw.frontend.graph.layout import LayoutError, View
from gblr_hw.frontend.graph.registry import Arguments, lowers
from gblr_hw.frontend.operators.join_ops import concatenated
from gblr_hw.frontend.operators.lookup_ops import as_places, flat_places, looked_up
from gblr_hw.frontend.operators.matrix_ops import linear
from gblr_hw.frontend.operators.relays import regrouped, seen
from gblr_hw.frontend.operators.vector_ops import lifted, pointwise, reduced, widthwise
from gblr_hw.frontend.torch_ops.lower_pointwise import combined
from gblr_hw.frontend.torch_ops.lower_rows import vector_norm


def _largest(builder: Builder, view: View, count: int, dim: int, largest: bool) -> tuple[View, View]:
    """The largest (or smallest) elements along a dimension, in order, and their places."""
    asked = view if largest else pointwise(builder, "negative", view)
    values = widthwise(builder, "top_values_width", [asked], dim, count, (count,))
    places = widthwise(builder, "top_places_width", [asked], dim, count, (count,))
    return values if largest else pointwise(builder, "negative", values), places


@lowers("aten.topk.default")
def _topk(builder: Builder, a: Arguments) -> tuple[View, View]:
    return _largest(builder, a["self"], a["k"], a["dim"], a["largest"])


@lowers("aten.sort.default", "aten.sort.stable")
def _sort(builder: Builder, a: Arguments) -> tuple[View, View]:
    return _largest(builder, a["self"], a["self"].shape[a["dim"]], a["dim"], bool(a["descending"]))


@lowers("aten.argsort.default", "aten.argsort.stable")
def _argsort(builder: Builder, a: Arguments) -> View:
    return _sort(builder, a)[1]


@lowers("aten.argmax.default")
def _argmax(builder: Builder, a: Arguments) -> View:
    return _place(builder, a, True)


@lowers("aten.argmin.default")
def _argmin(builder: Builder, a: Arguments) -> View:
    return _place(builder, a, False)


def _place(builder: Builder, a: Arguments, largest: bool) -> View:
    view, dim = a["self"], a["dim"]
    if dim is None:
        view, dim = regrouped(builder, view, [view.size]), 0
    places = _largest(builder, view, 1, dim, largest)[1]
    return places if a["keepdim"] else layout.drop(places, dim % len(view.dims))


@lowers("aten.max.dim")
def _max(builder: Builder, a: Arguments) -> tuple[View, View]:
    return _extreme(builder, a, True)


@lowers("aten.min.dim")
def _min(builder: Builder, a: Arguments) -> tuple[View, View]:
    return _extreme(builder, a, False)


def _extreme(builder: Builder, a: Arguments, largest: bool) -> tuple[View, View]:
    view = a["self"] if largest else pointwise(builder, "negative", a["self"])
    value = reduced(builder, "max", view, [a["dim"]], keep=bool(a["keepdim"]))
    return value if largest else pointwise(builder, "negative", value), _place(builder, a, largest)


@lowers("aten.gather.default")
def _gather(builder: Builder, a: Arguments) -> View:
    """Elements of each row at places of the row's own."""
    value, places, dim = a["self"], a["index"], a["dim"] % len(a["self"].shape)
    kept = [size if axis == dim else min(size, other) for axis, (size, other) in
            enumerate(zip(value.shape, places.shape, strict=True))]  # fmt: skip
    value = _cut(builder, value, kept)
    if isinstance(value, torch.Tensor):
        roles = "".join("w" if axis == dim else "t" if axis else "b" for axis in range(value.dim()))
        value = lifted(builder, value.contiguous(), roles)
    return widthwise(builder, "take_width", [value, places], dim, places.shape[dim])


def _cut(builder: Builder, value: Value, sizes: list[int]) -> Value:
    """The first elements along each dimension."""
    for axis, size in enumerate(sizes):
        if value.shape[axis] == size:
            continue
        if isinstance(value, torch.Tensor):
            value = value.narrow(axis, 0, size)
        else:
            value = seen(builder, value, partial(layout.take, position=axis, start=0, count=size))
    return value


@lowers("aten.scatter.src", "aten.scatter.value")
def _scatter(builder: Builder, a: Arguments) -> Any:
    """Elements put at places of each row, over what stands there."""
    source = a["src"] if "src" in a else a["value"]
    dim, size = a["dim"] % len(a["self"].shape), a["self"].shape[a["dim"]]
    ones = _spread(builder, 1.0, a["index"], dim, size)
    is_one = not isinstance(source, (View, torch.Tensor)) and float(source) == 1
    put = ones if is_one else _spread(builder, source, a["index"], dim, size)
    base = a["self"]
    if isinstance(base, torch.Tensor) and not base.any():
        return put
    if isinstance(base, torch.Tensor):
        hidden = pointwise(builder, "subtract", ones, numbers=(1.0,))
        return combined(builder, "subtract", put, pointwise(builder, "multiply", hidden, builder.keep(base)))
    left = pointwise(builder, "select", pointwise(builder, "equal", ones, numbers=(0.0,)), base, numbers=(0.0,))
    return pointwise(builder, "add", left, put)


@lowers("aten.scatter_add.default")
def _scatter_add(builder: Builder, a: Arguments) -> View:
    dim = a["dim"] % len(a["self"].shape)
    put = _spread(builder, a["src"], a["index"], dim, a["self"].shape[dim])
    base = a["self"]
    return put if isinstance(base, torch.Tensor) and not base.any() else combined(builder, "add", put, base)


def _spread(builder: Builder, source: Any, places: Value, dim: int, size: int) -> View:
    """Rows of ``size`` with ``source`` (a value or a number) at places of each, 0 elsewhere."""
    if not isinstance(source, (View, torch.Tensor)) or (isinstance(source, torch.Tensor) and source.numel() == 1):
        if not isinstance(places, View):
            raise LayoutError("a number is put at constant places of a value that depends on an input")
        filled = pointwise(builder, "multiply", places, numbers=(0.0,))
        source = pointwise(builder, "add", filled, numbers=(float(source),))
    elif isinstance(source, torch.Tensor):
        roles = "".join("w" if axis == dim else "t" if axis else "b" for axis in range(source.dim()))
        source = lifted(builder, source.expand(places.shape).contiguous(), roles)
    source = _cut(builder, source, list(places.shape))
    return widthwise(builder, "spread_width", [source, places], dim, size, (size,))


@lowers("aten.cumsum.default")
def _cumsum(builder: Builder, a: Arguments) -> View:
    return widthwise(builder, "running_sum_width", [a["self"]], a["dim"], a["self"].shape[a["dim"]])


@lowers("aten.cumprod.default")
def _cumprod(builder: Builder, a: Arguments) -> View:
    return widthwise(builder, "running_product_width", [a["self"]], a["dim"], a["self"].shape[a["dim"]])


@lowers("aten.slice_scatter.default")
def _slice_scatter(builder: Builder, a: Arguments) -> Any:
    dim = a["dim"] % len(a["self"].shape)
    places = range(*slice(a["start"], a["end"], a["step"]).indices(a["self"].shape[dim]))
    return replaced(builder, a["self"], a["src"], dim, list(places))


@lowers("aten.select_scatter.default")
def _select_scatter(builder: Builder, a: Arguments) -> Any:
    dim = a["dim"] % len(a["self"].shape)
    source = a["src"]
    source = layout.insert(source, dim) if isinstance(source, View) else source.unsqueeze(dim)
    return replaced(builder, a["self"], source, dim, [a["index"] % a["self"].shape[dim]])


@lowers("aten.index_copy.default")
def _index_copy(builder: Builder, a: Arguments) -> Any:
    dim = a["dim"] % len(a["self"].shape)
    if isinstance(a["index"], View):
        return _rows_put(builder, a["self"], a["index"], a["source"], dim)
    return replaced(builder, a["self"], a["source"], dim, [one % a["self"].shape[dim] for one in a["index"].tolist()])


@lowers("aten.index_add.default")
def _index_add(builder: Builder, a: Arguments) -> Any:
    dim = a["dim"] % len(a["self"].shape)
    source = a["source"] if a["alpha"] == 1 else combined(builder, "multiply", a["source"], a["alpha"])
    index = _along(a["index"], dim, source.shape)
    return _scatter_add(builder, {"self": a["self"], "index": index, "src": source, "dim": dim})


def replaced(builder: Builder, value: Value, source: Value, dim: int, places: list[int]) -> Value:
    """``value`` with ``source`` at constant places along a dimension."""
    size = value.shape[dim]
    if places == list(range(size)):
        return source
    order: list[tuple[Value, int]] = [(value, place) for place in range(size)]
    for number, place in enumerate(places):
        order[place] = (source, number)
    parts: list[Value] = []
    begin = 0
    for end in range(1, size + 1):
        one, first = order[begin]
        if end < size and order[end] == (one, first + end - begin):
            continue
        parts.append(_part(builder, one, dim, first, end - begin))
        begin = end
    return concatenated(builder, parts, dim)


def _part(builder: Builder, value: Value, dim: int, first: int, count: int) -> Value:
    if isinstance(value, torch.Tensor):
        return builder.keep(value.narrow(dim, first, count))
    return seen(builder, value, lambda view: layout.take(view, dim, first, count))


@lowers("aten.index_put.default", "aten._unsafe_index_put.default")
def _index_put(builder: Builder, a: Arguments) -> Any:
    """At truth values, or at places along neighbouring dimensions; either constant or depending on an input."""
    value, source = a["self"], a["values"]
    if builder.dtype_of("indices") in (torch.bool, torch.uint8) and any(isinstance(one, View) for one in a["indices"]):
        return _put_where(builder, value, a["indices"], source)
    given = [(dim, one) for dim, one in enumerate(as_places(a["indices"])) if one is not None]
    first, count = given[0][0], len(given)
    if [dim for dim, _ in given] != list(range(first, first + count)):
        raise LayoutError("values are written at places along dimensions that are not neighbours")
    sizes, shape = value.shape, tuple(torch.broadcast_shapes(*(tuple(one.shape) for _, one in given)))
    outer, inner = tuple(sizes[:first]), tuple(sizes[first + count :])
    room, number = prod(sizes[first : first + count]), prod(shape)
    places = flat_places(builder, [one for _, one in given], sizes[first : first + count], shape)
    spread = _broadcast(builder, source, (*outer, *shape, *inner))
    rows, new = (_regrouped(builder, one, (*outer, size, *inner)) for one, size in ((value, room), (spread, number)))
    flat = _regrouped(builder, places, (number,))
    if a["accumulate"]:
        index = _along(flat, first, new.shape)
        put = _scatter_add(builder, {"self": rows, "index": index, "src": new, "dim": first})
    elif isinstance(flat, View):
        put = _rows_put(builder, rows, flat, new, first)
    else:
        put = replaced(builder, rows, new, first, flat.tolist())
    return _regrouped(builder, put, tuple(sizes))


@lowers("aten.masked_select.default")
def _masked_select(builder: Builder, a: Arguments) -> Any:
    """The elements, in order, where constant truth values say so."""
    if isinstance(a["mask"], View):
        raise LayoutError("values are taken where a truth value that depends on an input says so")
    sizes = tuple(torch.broadcast_shapes(tuple(a["self"].shape), tuple(a["mask"].shape)))
    flat = _regrouped(builder, _broadcast(builder, a["self"], sizes), (prod(sizes),))
    return looked_up(builder, flat, [a["mask"].expand(sizes).flatten().nonzero().flatten()])


@lowers("aten.masked_scatter.default")
def _masked_scatter(builder: Builder, a: Arguments) -> Any:
    """The first of ``source``'s elements, in order, where constant truth values say so: whole rows if they may be."""
    value, mask, source = a["self"], a["mask"], a["source"]
    if isinstance(mask, View):
        raise LayoutError("values are put where a truth value that depends on an input says so")
    sizes, mask = tuple(value.shape), mask.expand(tuple(value.shape))
    by_row = torch.equal(mask[..., :1].expand(sizes), mask) and tuple(source.shape)[-1:] == sizes[-1:]
    width = sizes[-1] if by_row else 1
    places = mask.reshape(-1, width)[:, 0].nonzero().flatten().tolist()
    if not places:
        return value
    rows, new = (_regrouped(builder, one, (prod(one.shape) // width, width)) for one in (value, source))
    return _regrouped(builder, replaced(builder, rows, _part(builder, new, 0, 0, len(places)), 0, places), sizes)


def _put_where(builder: Builder, value: Value, indices: Sequence[Any], source: Value) -> View:
    """One number where a truth value that depends on an input says so."""
    (dim, mask), *more = [(dim, one) for dim, one in enumerate(indices) if one is not None]
    if more or not isinstance(source, torch.Tensor) or source.numel() != 1:
        raise LayoutError("several values are written where a truth value that depends on an input says so")
    after = len(value.shape) - dim - len(mask.shape)
    return _filled(builder, value, regrouped(builder, mask, [*[1] * dim, *mask.shape, *[1] * after]), float(source))


def _broadcast(builder: Builder, value: Value, shape: tuple[int, ...]) -> Value:
    return layout.expand(value, shape) if isinstance(value, View) else builder.keep(value.expand(shape))


def _regrouped(builder: Builder, value: Value, shape: tuple[int, ...]) -> Value:
    if tuple(value.shape) == shape:
        return value
    return regrouped(builder, value, shape) if isinstance(value, View) else builder.keep(value.reshape(shape))


def _along(index: Value, dim: int, shape: Sequence[int]) -> Value:
    """Places along one dimension, the same at all others."""
    after = len(shape) - dim - 1
    if isinstance(index, torch.Tensor):
        return index.reshape(-1, *[1] * after).expand(*shape)
    for _ in range(dim):
        index = layout.insert(index, 0)
    for _ in range(after):
        index = layout.insert(index, len(index.dims))
    return layout.expand(index, shape)


def _rows_put(builder: Builder, value: Value, index: View, source: Value, dim: int) -> View:
    """``source`` along one dimension at places that depend on an input."""
    places = _along(index, dim, source.shape)
    found: View = _scatter(builder, {"self": value, "index": places, "src": source, "dim": dim})
    return found


@lowers("aten.histc.default")
def _histogram(builder: Builder, a: Arguments) -> View:
    """How often each whole number from 0 on appears."""
    bins, view = a["bins"], a["self"]
    if (float(a["min"]), float(a["max"])) != (0.0, bins - 1.0):
        raise LayoutError("values are counted in ranges that are not one whole number each")
    return _spread(builder, 1.0, regrouped(builder, view, [view.size]), 0, bins)


@lowers("aten._grouped_mm.default", "transformers.grouped_mm_fallback.default")
def _experts(builder: Builder, a: Arguments) -> View:
    """Rows times the matrix of their expert, where rows of one expert stand together up to its offset.

    Which rows an expert has depends on the data, and a program is the same for any: every expert runs on all of the
    rows, and those that are its own are kept.
    """
    rows, weights, offsets = (a.get(new, a.get(old)) for new, old in
                              (("self", "input"), ("mat2", "weight"), ("offs", "offs")))  # fmt: skip
    if not isinstance(rows, View) or not isinstance(weights, torch.Tensor) or not isinstance(offsets, View):
        raise LayoutError("experts' weights that depend on an input, or places that do not")
    if weights.dim() != 3:
        raise LayoutError(f"experts' weights of shape {tuple(weights.shape)}")
    count, name = weights.shape[0], builder.weight_name(weights)
    builder.note(
        f"'{name}': each of {count} experts runs on all {rows.shape[0]} rows and keeps its own, whichever they are: "
        f"{count} times the multiplications of the rows themselves."
    )
    places = builder.keep(torch.arange(rows.shape[0], dtype=torch.float32).reshape(-1, 1))
    total: View | None = None
    before: View | None = None
    for expert in range(count):
        matrix = builder.dense(weights[expert], None, across=True)
        product = linear(builder, rows, matrix, f"{name}.{expert}")
        end = layout.take(offsets, 0, expert, 1)
        inside = pointwise(builder, "greater", layout.insert(end, 1), places)
        own = inside if before is None else pointwise(builder, "subtract", inside, before)
        before = inside
        part = pointwise(builder, "multiply", product, own)
        total = part if total is None else pointwise(builder, "add", total, part)
    assert total is not None
    return total


@lowers("aten.unfold.default")
def _unfold(builder: Builder, a: Arguments) -> View:
    """Windows along one dimension, which may overlap; their places come last."""
    dim = a["dimension"] % len(a["self"].dims)
    return seen(builder, a["self"], partial(_windows, dim=dim, size=a["size"], step=a["step"]))


def _windows(view: View, dim: int, size: int, step: int) -> View:
    if len(view.dims[dim]) != 1:
        raise LayoutError("windows go along several axes")
    (atom,) = view.dims[dim]
    count = (atom.size - size) // step + 1
    outer = (layout.Atom(count, atom.axis, atom.stride * step),) if count > 1 else ()
    inner = (layout.Atom(size, atom.axis, atom.stride),) if size > 1 else ()
    return layout.View(view.tensor, (*view.dims[:dim], outer, *view.dims[dim + 1 :], inner), view.origin)


def _filled(builder: Builder, value: Value, mask: View, number: float) -> View:
    keep = pointwise(builder, "equal", mask, numbers=(0.0,))
    if isinstance(value, View):
        return pointwise(builder, "select", keep, value, numbers=(number,))
    spread = pointwise(builder, "multiply", keep, builder.keep(value - number))
    return pointwise(builder, "add", spread, numbers=(number,))


@lowers("aten.copy.default")
def _copy(builder: Builder, a: Arguments) -> Any:
    shape = tuple(a["self"].shape)
    return layout.expand(a["src"], shape) if isinstance(a["src"], View) else a["src"].expand(shape)


@lowers("aten.kthvalue.default")
def _kth_value(builder: Builder, a: Arguments) -> tuple[View, View]:
    return _ranked(builder, a["self"], a["dim"], a["k"] - 1, bool(a["keepdim"]))


@lowers("aten.median.dim")
def _median(builder: Builder, a: Arguments) -> tuple[View, View]:
    """The lower one of two in the middle, as the framework's."""
    return _ranked(builder, a["self"], a["dim"], (a["self"].shape[a["dim"]] - 1) // 2, bool(a["keepdim"]))


def _ranked(builder: Builder, view: View, dim: int, rank: int, keep: bool) -> tuple[View, View]:
    """The element of a rank, from the smallest, along a dimension, and its place."""
    dim %= len(view.dims)
    found = [
        seen(builder, one, partial(layout.take, position=dim, start=rank, count=1))
        for one in _largest(builder, view, rank + 1, dim, False)
    ]
    value, place = found if keep else [layout.drop(one, dim) for one in found]
    return value, place


@lowers("aten.logcumsumexp.default")
def _log_cumulative(builder: Builder, a: Arguments) -> View:
    """Of what is left when each row's largest is taken away, so that nothing overflows."""
    largest = reduced(builder, "max", a["self"], [a["dim"]], keep=True)
    powers = pointwise(builder, "exp", pointwise(builder, "subtract", a["self"], largest))
    total = _cumsum(builder, {"self": powers, "dim": a["dim"]})
    return pointwise(builder, "add", pointwise(builder, "log", total), largest)


@lowers("aten.scatter_reduce.two")
def _scatter_reduce(builder: Builder, a: Arguments) -> View:
    if a["reduce"] != "sum" or not a["include_self"]:
        raise LayoutError(f"values are put at places and reduced by '{a['reduce']}', or without what stands there")
    return _scatter_add(builder, a)


@lowers("aten._cdist_forward.default")
def _distances(builder: Builder, a: Arguments) -> View:
    """Of each row of one value from each of another: powers of differences, summed."""
    sides = []
    for name, place in (("x1", -1), ("x2", -2)):
        one, dim = a[name], len(a[name].shape) + place
        sides.append(layout.insert(one, dim) if isinstance(one, View) else builder.keep(one.unsqueeze(dim)))
    between = combined(builder, "subtract", sides[0], sides[1])
    norm: View = vector_norm(builder, {"self": between, "ord": a["p"], "dim": [len(between.dims) - 1]})
    return norm


@lowers("aten.diagonal.default")
def _diagonal(builder: Builder, a: Arguments) -> View:
    """Elements whose places along two dimensions differ by the offset; they come last."""
    view, rank, offset = a["self"], len(a["self"].dims), a["offset"]
    first, second = a["dim1"] % rank, a["dim2"] % rank
    count = min(view.shape[first] + min(offset, 0), view.shape[second] - max(offset, 0))
    rest = [dim for dim in range(rank) if dim not in (first, second)]
    numbers = torch.arange(count)
    places: list[Value | None] = [numbers - min(offset, 0), numbers + max(offset, 0)]
    found = looked_up(builder, layout.permute(view, [first, second, *rest]), places)
    return layout.permute(found, [*range(1, rank - 1), 0])


@lowers("aten.as_strided.default")
def _as_strided(builder: Builder, a: Arguments) -> View:
    """Places of a value in the order in which memory holds it: transposed and cut values keep that of what they are
    taken from.
    """
    view, like = a["self"], builder.site.tensors["self"]
    offset = a["storage_offset"]
    held = _offsets(view.shape, like.stride(), 0).flatten()
    wanted = _offsets(a["size"], a["stride"], 0 if offset is None else offset - like.storage_offset())
    places = torch.full((max(int(held.max()), int(wanted.max())) + 1,), -1)
    places[held] = torch.arange(len(held))
    if int(wanted.min()) < 0 or int(places[wanted].min()) < 0:
        raise LayoutError("memory is read by strides where the value holds nothing")
    return looked_up(builder, regrouped(builder, view, [view.size]), [places[wanted]])


def _offsets(sizes: Sequence[int], strides: Sequence[int], start: int) -> torch.Tensor:
    """Of each element of a strided value, where memory holds it."""
    offsets = torch.tensor(start)
    for size, stride in zip(sizes, strides, strict=True):
        offsets = offsets[..., None] + torch.arange(size) * stride
    return offsets


@lowers("aten.take_along_dim.default")
def _take_along(builder: Builder, a: Arguments) -> View:
    return _gather(builder, {"self": a["self"], "index": a["indices"], "dim": a["dim"]})
