"""Pools of images and lines: the largest or the mean of windows, even and uneven ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from math import prod
from typing import Any

import torch

from gblr_hw.frontend.graph import layout
from gblr_hw.frontend.graph.builder import Builder, Value
from gblr_hw.frontend.graph.layout import LayoutError, View
from gblr_hw.frontend.graph.registry import Arguments, lowers
from gblr_hw.frontend.operators.join_ops import concatenated
from gblr_hw.frontend.operators.lookup_ops import looked_up
from gblr_hw.frontend.operators.matrix_ops import Convolution, along, pooled
from gblr_hw.frontend.operators.relays import regrouped, seen
from gblr_hw.frontend.operators.vector_ops import pointwise, reduced, widthwise
from gblr_hw.frontend.torch_ops.lower_logic import FAR_BELOW
from simulator.base.arithmetic import ceil_div


def pair(value: Sequence[int] | int | None, otherwise: tuple[int, int] = (0, 0)) -> tuple[int, int]:
    """One or two numbers, or none, as two."""
    if value is None or (not isinstance(value, int) and len(value) == 0):
        return otherwise
    if isinstance(value, int):
        return value, value
    return (value[0], value[0]) if len(value) == 1 else (value[0], value[1])


@lowers("aten.max_pool2d_with_indices.default")
def _max_pool_with_places(builder: Builder, a: Arguments) -> tuple[View, View]:
    """The largest of each window, and its place in the image, counted row by row."""
    view = a["self"]
    kernel = pair(a["kernel_size"])
    stride, padding, dilation = pair(a["stride"], kernel), pair(a["padding"]), pair(a["dilation"], (1, 1))
    sizes = to_the_edge(Convolution(kernel, stride, padding, dilation), view.shape[-2:], bool(a["ceil_mode"]))
    height, width = sizes.window((view.shape[-2], view.shape[-1])).output
    rows, columns = (
        (torch.arange(count)[:, None] * s - p + torch.arange(k) * d)
        for count, s, p, k, d in zip((height, width), stride, padding, kernel, dilation, strict=True)
    )
    outside = ((rows < 0) | (rows >= view.shape[-2]))[:, None, :, None] | ((columns < 0) | (columns >= view.shape[-1]))[
        None, :, None, :
    ]
    given = [None] * (len(view.dims) - 2)
    places = [
        *given,
        rows.clamp(0, view.shape[-2] - 1)[:, None, :, None],
        columns.clamp(0, view.shape[-1] - 1)[None, :, None, :],
    ]
    windows = looked_up(builder, view, places)
    if bool(outside.any()):
        windows = pointwise(builder, "add", windows, builder.keep(torch.where(outside, FAR_BELOW, 0.0)))
    lead = view.shape[:-2]
    windows = regrouped(builder, windows, [*lead, height, width, prod(kernel)])
    place = widthwise(builder, "top_places_width", [windows], -1, 1, (1,))
    place = layout.drop(place, len(place.dims) - 1)
    row = pointwise(builder, "floor", pointwise(builder, "multiply", place, numbers=((1 + 1e-9) / kernel[1],)))
    # In a window of k columns, row r and column c of place p = r k + c: p d + r (d W - d k) behind its first place.
    inner = pointwise(builder, "multiply", place, numbers=(float(dilation[1]),))
    step = dilation[0] * view.shape[-1] - dilation[1] * kernel[1]
    inside = pointwise(builder, "add", inner, pointwise(builder, "multiply", row, numbers=(float(step),)))
    first = builder.keep((rows[:, :1] * view.shape[-1] + columns[None, :, 0]).double())
    return reduced(builder, "max", windows, [-1], keep=False), pointwise(builder, "add", inside, first)


@lowers("aten.adaptive_max_pool2d.default")
def _adaptive_max_pool(builder: Builder, a: Arguments) -> tuple[View]:
    """The largest of windows of different sizes: side by side, each of its rows and then columns."""
    view = a["self"]
    for dim, new in ((len(view.dims) - 2, a["output_size"][0]), (len(view.dims) - 1, a["output_size"][1])):
        old = view.shape[dim]
        parts: list[Value] = []
        for place in range(new):
            first, last = place * old // new, ceil_div((place + 1) * old, new)
            part = seen(builder, view, partial(layout.take, position=dim, start=first, count=last - first))
            parts.append(reduced(builder, "max", part, [dim], keep=True))
        view = concatenated(builder, parts, dim)
    return (view,)


@lowers("aten.adaptive_max_pool3d.default")
def _adaptive_max_pool_of_volumes(builder: Builder, a: Arguments) -> tuple[View]:
    if prod(a["output_size"]) != 1:
        raise LayoutError("a volume's largest elements over windows of different sizes")
    return (reduced(builder, "max", a["self"], [-3, -2, -1], keep=True),)


@lowers("aten.max_pool2d.default")
def _max_pool(builder: Builder, a: Arguments) -> Any:
    kernel = pair(a["kernel_size"])
    sizes = Convolution(kernel, pair(a["stride"], kernel), pair(a["padding"]), pair(a["dilation"], (1, 1)))
    sizes = to_the_edge(sizes, a["self"].shape[-2:], bool(a["ceil_mode"]))
    return pooled(builder, "max", a["self"], sizes)


@lowers("aten.avg_pool2d.default")
def _avg_pool(builder: Builder, a: Arguments) -> View:
    kernel = pair(a["kernel_size"])
    sizes = Convolution(kernel, pair(a["stride"], kernel), pair(a["padding"]))
    if a["ceil_mode"]:
        return _uneven_pool(builder, a, sizes)
    whole = sizes.padding == (0, 0) or (a["count_include_pad"] and a["divisor_override"] is None)
    if whole and a["divisor_override"] is None:
        return pooled(builder, "mean", a["self"], sizes)
    divisor = a["divisor_override"]
    image = a["self"].shape[-2:]
    ones = torch.ones(1, 1, *image, dtype=torch.float64)
    counts = torch.nn.functional.avg_pool2d(ones, kernel, sizes.stride, sizes.padding, divisor_override=1)
    share = 1 / counts if divisor is None else torch.full_like(counts, 1 / divisor)
    return pointwise(builder, "multiply", pooled(builder, "sum", a["self"], sizes), builder.keep(share))


def _by_matrices(builder: Builder, view: View, output: Sequence[int]) -> View:
    """Windows of different sizes: each side's means by their matrix."""
    for dim, new in zip((2, 3), output, strict=True):
        old = view.shape[dim]
        if old != new:
            matrix = torch.nn.functional.adaptive_avg_pool1d(torch.eye(old, dtype=torch.float64)[:, None], new)[
                :, 0
            ].t()
            view = along(builder, view, dim, matrix)
    return view


def to_the_edge(sizes: Convolution, image: Sequence[int], ceil_mode: bool) -> Convolution:
    """The same windows with so much padding behind as the last ones reach over, if the framework rounds up."""
    if not ceil_mode:
        return sizes
    after = []
    for size, kernel, stride, padding, dilation in zip(
        image, sizes.kernel, sizes.stride, sizes.padding, sizes.dilation, strict=True
    ):
        span = dilation * (kernel - 1) + 1
        count = ceil_div(size + 2 * padding - span, stride) + 1
        if (count - 1) * stride >= size + padding:
            count -= 1  # a window has to begin inside the image or its padding
        after.append((count - 1) * stride + span - size - padding)
    return _to_the_image(replace(sizes, after=(after[0], after[1])), image)


def _to_the_image(sizes: Convolution, image: Sequence[int]) -> Convolution:
    """The same windows without the places beyond the image, along the sides where one window holds all of it: a pool
    whose kernel is larger than any image that it will see.
    """
    assert sizes.after is not None
    kernel, stride, padding, after = (list(one) for one in (sizes.kernel, sizes.stride, sizes.padding, sizes.after))
    for side, size in enumerate(image):
        if sizes.dilation[side] == 1 and padding[side] + size + after[side] == kernel[side]:
            kernel[side] = stride[side] = size
            padding[side] = after[side] = 0
    return replace(
        sizes,
        kernel=(kernel[0], kernel[1]),
        stride=(stride[0], stride[1]),
        padding=(padding[0], padding[1]),
        after=(after[0], after[1]),
    )


def _uneven_pool(builder: Builder, a: Arguments, sizes: Convolution) -> View:
    """Means whose windows hold different numbers of places: sums, times what the framework makes of ones."""
    image = a["self"].shape[-2:]
    ones = torch.ones(1, 1, *image, dtype=torch.float64)
    shape = (sizes.kernel, sizes.stride, sizes.padding, True)
    mean = torch.nn.functional.avg_pool2d(ones, *shape, bool(a["count_include_pad"]), a["divisor_override"])
    count = torch.nn.functional.avg_pool2d(ones, *shape, divisor_override=1)
    total = pooled(builder, "sum", a["self"], to_the_edge(sizes, image, True))
    return pointwise(builder, "multiply", total, builder.keep(mean / count))


@lowers("aten.max_pool1d.default")
def _max_pool_line(builder: Builder, a: Arguments) -> View:
    found = _max_pool(builder, {**_as_image(a), "dilation": (1, *a["dilation"]) if a["dilation"] else (1, 1)})
    return layout.drop(found, 2)


@lowers("aten.avg_pool1d.default")
def _avg_pool_line(builder: Builder, a: Arguments) -> View:
    return layout.drop(_avg_pool(builder, {**_as_image(a), "divisor_override": None}), 2)


def _as_image(a: Arguments) -> dict[str, Any]:
    """The arguments of a pool along one side as those of an image of one row."""
    kernel = (1, *a["kernel_size"])
    stride = (1, *a["stride"]) if a["stride"] else kernel
    return {
        **a,
        "self": layout.insert(a["self"], 2),
        "kernel_size": kernel,
        "stride": stride,
        "padding": (0, *a["padding"]),
    }


@lowers("aten.adaptive_avg_pool1d.default")
def _adaptive_avg_pool_line(builder: Builder, a: Arguments) -> View:
    image = layout.insert(a["self"], 2)
    return layout.drop(_adaptive_avg_pool(builder, {"self": image, "output_size": (1, *a["output_size"])}), 2)


@lowers("aten.adaptive_avg_pool2d.default", "aten._adaptive_avg_pool2d.default")
def _adaptive_avg_pool(builder: Builder, a: Arguments) -> View:
    image, output = a["self"].shape[-2:], pair(a["output_size"])
    if prod(output) == 1:
        return reduced(builder, "mean", builder.place(a["self"], "bwtt"), [-2, -1], keep=True)
    if any(side % out for side, out in zip(image, output, strict=True)):
        return _by_matrices(builder, a["self"], output)
    kernel = (image[0] // output[0], image[1] // output[1])
    return pooled(builder, "mean", a["self"], Convolution(kernel, kernel, (0, 0)))
