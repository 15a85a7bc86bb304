"""What looks through rows: the largest elements and where they are, sorting, taking and putting, running sums."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import Any

import torch

from gblr_hw.frontend.graph import layout
from gblr_hw.frontend.graph.builder import Builder, Value
from gblr_hw.frontend.graph.layout import LayoutError, View
from gblr_hw.frontend.graph.registry import Arguments, lowers
from gblr_hw.frontend.operators.join_ops import concatenated
from gblr_hw.frontend.operators.lookup_ops import looked_up
from gblr_hw.frontend.operators.matrix_ops import linear
from gblr_hw.frontend.operators.relays import regrouped, seen
from gblr_hw.frontend.operators.vector_ops import lifted, pointwise, reduced, widthwise
from gblr_hw.frontend.torch_ops.lower_pointwise import combined


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
    if isinstance(a["index"], View):
        raise LayoutError("a value is written at places that depend on an input")
    dim = a["dim"] % len(a["self"].shape)
    return replaced(builder, a["self"], a["source"], dim, [one % a["self"].shape[dim] for one in a["index"].tolist()])


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
    """At truth values that are constant or depend on an input, or at constant places along one dimension."""
    given = [(dim, one) for dim, one in enumerate(a["indices"]) if one is not None]
    value, source = a["self"], a["values"]
    if a["accumulate"] or len(given) != 1:
        raise LayoutError("values are added at places, or written along several dimensions at once")
    dim, index = given[0]
    alike = not isinstance(index, View) or index.shape == tuple(value.shape[: len(index.dims)])
    if not (alike and _one_number(source)) and isinstance(index, View) and len(index.dims) == 1:
        return _rows_put(builder, value, index, source, dim)
    if isinstance(index, View):
        if not _one_number(source):
            raise LayoutError("several values are written where a truth value that depends on an input says so")
        shape = [*index.shape, *[1] * (len(value.shape) - len(index.shape))]
        return _filled(builder, value, regrouped(builder, index, shape), float(source))
    if index.dtype == torch.bool:
        if not _one_number(source):
            raise LayoutError("several values are written where a mask says so")
        mask = index.reshape(*index.shape, *[1] * (len(value.shape) - index.dim() - dim))
        kept = pointwise(builder, "multiply", value, (~mask).float())
        return pointwise(builder, "add", kept, mask.float() * float(source)) if float(source) else kept
    size = value.shape[dim]
    shape = [*value.shape[:dim], index.numel(), *value.shape[dim + 1 :]]
    spread = layout.expand(source, shape) if isinstance(source, View) else source.expand(shape)
    return replaced(builder, value, spread, dim, [one % size for one in index.flatten().tolist()])


def _rows_put(builder: Builder, value: Value, index: View, source: Value, dim: int) -> View:
    """``source`` along one dimension at places that depend on an input."""
    shape = [*value.shape[:dim], index.shape[0], *value.shape[dim + 1 :]]
    for _ in range(dim):
        index = layout.insert(index, 0)
    while len(index.dims) < len(shape):
        index = layout.insert(index, len(index.dims))
    places = layout.expand(index, shape)
    spread = layout.expand(source, shape) if isinstance(source, View) else builder.keep(source.expand(shape))
    found: View = _scatter(builder, {"self": value, "index": places, "src": spread, "dim": dim})
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


def _one_number(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.numel() == 1


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


@lowers("aten.take_along_dim.default")
def _take_along(builder: Builder, a: Arguments) -> View:
    return _gather(builder, {"self": a["self"], "index": a["indices"], "dim": a["dim"]})


@lowers("aten.embedding_bag.default", "aten._embedding_bag.default", "aten._embedding_bag_forward_only.default")
def _embedding_bag(builder: Builder, a: Arguments) -> tuple[View]:
    """Sums, means or largest of the rows of each bag; bags are cut at constant places."""
    if isinstance(a["offsets"], View) or a["per_sample_weights"] is not None:
        raise LayoutError("bags of a table are cut at places that depend on an input, or are weighted")
    rows = looked_up(builder, a["weight"], [a["indices"]])
    cuts = [*a["offsets"].tolist(), a["indices"].shape[0]]
    cuts = cuts[:-1] if a["include_last_offset"] else cuts
    function = ("sum", "mean", "max")[a["mode"]]
    sizes = {last - first for first, last in pairwise(cuts)}
    if len(sizes) == 1 and 0 not in sizes:
        bags = regrouped(builder, rows, [len(cuts) - 1, sizes.pop(), rows.shape[1]])
        return (reduced(builder, function, bags, [1], keep=False),)
    parts: list[Value] = []
    for first, last in pairwise(cuts):
        bag = _part(builder, rows, 0, first, last - first) if last > first else torch.zeros(1, rows.shape[1])
        parts.append(reduced(builder, function, bag, [0], keep=True) if isinstance(bag, View) else builder.keep(bag))
    return (concatenated(builder, parts, 0),)
