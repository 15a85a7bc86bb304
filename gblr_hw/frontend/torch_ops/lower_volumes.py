"""Volumes (B, C, D, H, W): convolutions and pools as those of their slices, which are images."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from math import prod
from typing import Any

import torch
from torch.nn import functional

from gblr_hw.frontend.graph import layout
from gblr_hw.frontend.graph.builder import Builder, Value
from gblr_hw.frontend.graph.layout import LayoutError, View
from gblr_hw.frontend.graph.registry import Arguments, lowers
from gblr_hw.frontend.operators.join_ops import concatenated
from gblr_hw.frontend.operators.matrix_ops import Convolution, along, convolution, pooled
from gblr_hw.frontend.operators.relays import regrouped, seen
from gblr_hw.frontend.operators.vector_ops import pointwise, reduced
from gblr_hw.frontend.torch_ops.lower_images import transposed_images
from gblr_hw.frontend.torch_ops.lower_matrix import paddings
from gblr_hw.frontend.torch_ops.lower_pools import to_the_edge
from gblr_hw.weights.collect import matrix_of_kernel
from gblr_hw.weights.stored import GroupedWeights, LayerWeights


def _triple(value: Sequence[int] | int | None, otherwise: Sequence[int] = (0, 0, 0)) -> tuple[int, ...]:
    """One or three numbers, or none, as three."""
    if value is None or (not isinstance(value, int) and len(value) == 0):
        return tuple(otherwise)
    return (value,) * 3 if isinstance(value, int) else tuple(value) * (3 if len(value) == 1 else 1)


def _slices(builder: Builder, view: View) -> View:
    """The images of a volume one after another, (B D, C, H, W)."""
    batch, channels, depth, height, width = view.shape
    return regrouped(builder, layout.permute(view, [0, 2, 1, 3, 4]), [batch * depth, channels, height, width])


def _stacked(builder: Builder, images: View, batch: int) -> View:
    """Images (B D, C, H, W) as volumes."""
    depth = images.shape[0] // batch
    return layout.permute(regrouped(builder, images, [batch, depth, *images.shape[1:]]), [0, 2, 1, 3, 4])


def _behind(builder: Builder, view: View, before: int, after: int) -> View:
    """A volume with empty slices before and after."""
    batch, channels, _, height, width = view.shape
    parts: list[Value] = [view]
    for count, place in ((before, 0), (after, 2)):
        if count:
            parts.insert(place, builder.keep(torch.zeros(batch, channels, count, height, width)))
    return concatenated(builder, parts, 2) if len(parts) > 1 else view


@lowers("aten.conv3d.default", "aten.conv3d.padding")
def _volume_convolution(builder: Builder, a: Arguments) -> Any:
    """As a sum of convolutions of images, one for each place of the kernel along the first side."""
    view, weight = a["input"], a["weight"]
    if not isinstance(weight, torch.Tensor) or not isinstance(view, View):
        raise LayoutError("a kernel that depends on an input")
    stride, dilation = (_triple(a[name], (1, 1, 1)) for name in ("stride", "dilation"))
    padding, after = paddings(a["padding"], weight.shape[2:], dilation)
    view = _behind(builder, view, padding[0], after[0])
    batch = view.shape[0]
    frames = (view.shape[2] - dilation[0] * (weight.shape[2] - 1) - 1) // stride[0] + 1
    sizes = Convolution(
        (weight.shape[3], weight.shape[4]), (stride[1], stride[2]), (padding[1], padding[2]),
        (dilation[1], dilation[2]), (after[1], after[2]),
    )  # fmt: skip
    total: View | None = None
    for place in range(weight.shape[2]):
        first = place * dilation[0]
        slices = seen(builder, view, partial(layout.take, position=2, start=first, count=frames, step=stride[0]))
        weights = _slice_weights(builder, weight, a["bias"] if place == 0 else None, place, a["groups"])
        one = convolution(builder, _slices(builder, slices), weights, sizes, builder.weight_name(weight))
        total = one if total is None else pointwise(builder, "add", total, one)
    assert total is not None
    return _stacked(builder, total, batch)


def _slice_weights(
    builder: Builder, weight: torch.Tensor, bias: torch.Tensor | None, place: int, groups: int
) -> LayerWeights:
    part = weight[:, :, place]
    if groups == 1:
        return builder.kernel(weight, bias, partial(matrix_of_kernel, part), "slice", place)
    return GroupedWeights(part.detach().float().contiguous(), groups, None if bias is None else bias.detach().float())


@lowers("aten.conv_transpose3d.input")
def _transposed_volume_convolution(builder: Builder, a: Arguments) -> View:
    """Slice i reaches slices i s + k d - p by the kernel's k-th image: for each place between two of the volume's own
    slices the sum of those that reach it, then these places side by side.
    """
    view, weight = a["input"], a["weight"]
    if not isinstance(weight, torch.Tensor) or not isinstance(view, View):
        raise LayoutError("a kernel that depends on an input")
    stride, padding, dilation = (
        _triple(a[name], otherwise)
        for name, otherwise in (("stride", (1, 1, 1)), ("padding", (0, 0, 0)), ("dilation", (1, 1, 1)))
    )
    extra = _triple(a["output_padding"])
    batch, depth = view.shape[0], view.shape[2]
    reach = (weight.shape[2] - 1) * dilation[0] + 1
    count = (depth - 1) * stride[0] - 2 * padding[0] + reach + extra[0]
    places = max(depth + (reach - 1) // stride[0], -(-(padding[0] + count) // stride[0]))
    images = _slices(builder, view)
    phases: list[View | None] = [None] * stride[0]
    for place in range(weight.shape[2]):
        later, phase = divmod(place * dilation[0], stride[0])
        options = {"stride": stride[1:], "padding": padding[1:], "extra": extra[1:], "dilation": dilation[1:]}
        one = transposed_images(builder, images, weight, place, None, groups=a["groups"], **options)
        volume = _behind(builder, _stacked(builder, one, batch), later, places - depth - later)
        before = phases[phase]
        phases[phase] = volume if before is None else pointwise(builder, "add", before, volume)
    shape = next(one.shape for one in phases if one is not None)
    empty = builder.keep(torch.zeros(shape))
    parts: list[Value] = [layout.insert(one, 3) if one is not None else empty.unsqueeze(3) for one in phases]
    joined = concatenated(builder, parts, 3) if len(parts) > 1 else parts[0]
    assert isinstance(joined, View)
    whole = regrouped(builder, joined, [*shape[:2], shape[2] * stride[0], *shape[3:]])
    result = seen(builder, whole, partial(layout.take, position=2, start=padding[0], count=count))
    if a["bias"] is None:
        return result
    return pointwise(builder, "add", result, builder.keep(a["bias"].reshape(-1, 1, 1, 1)))


def _pool(builder: Builder, function: str, view: View, sizes: dict[str, tuple[int, ...]], ceil_mode: bool) -> View:
    """Pools of each slice's windows, then of slices."""
    kernel, stride, padding, dilation = (sizes[name] for name in ("kernel", "stride", "padding", "dilation"))
    batch = view.shape[0]
    flat = Convolution(*((one[1], one[2]) for one in (kernel, stride, padding, dilation)))
    images = pooled(builder, function, _slices(builder, view), to_the_edge(flat, view.shape[3:], ceil_mode))
    volume = _stacked(builder, images, batch)
    _, channels, depth, height, width = volume.shape
    if kernel[0] == 1 and stride[0] == 1:
        return volume
    lines = regrouped(builder, volume, [batch, channels, depth, height * width])
    deep = Convolution((kernel[0], 1), (stride[0], 1), (padding[0], 0), (dilation[0], 1))
    result = pooled(builder, function, lines, to_the_edge(deep, (depth, height * width), ceil_mode))
    return regrouped(builder, result, [batch, channels, result.shape[2], height, width])


def _sizes(a: Arguments) -> dict[str, tuple[int, ...]]:
    kernel = _triple(a["kernel_size"])
    return {
        "kernel": kernel,
        "stride": _triple(a["stride"], kernel),
        "padding": _triple(a["padding"]),
        "dilation": _triple(a.get("dilation"), (1, 1, 1)),
    }


@lowers("aten.max_pool3d.default")
def _max_pool(builder: Builder, a: Arguments) -> View:
    return _pool(builder, "max", a["self"], _sizes(a), bool(a["ceil_mode"]))


@lowers("aten.max_pool3d_with_indices.default")
def _max_pool_with_places(builder: Builder, a: Arguments) -> tuple[View]:
    return (_max_pool(builder, a),)


@lowers("aten.avg_pool3d.default")
def _avg_pool(builder: Builder, a: Arguments) -> View:
    """Sums, times what the framework makes of a volume of ones for each."""
    sizes = _sizes(a)
    ones = torch.ones(1, 1, *a["self"].shape[2:], dtype=torch.float64)
    shape = (sizes["kernel"], sizes["stride"], sizes["padding"], bool(a["ceil_mode"]))
    mean = functional.avg_pool3d(ones, *shape, bool(a["count_include_pad"]), a["divisor_override"])
    count = functional.avg_pool3d(ones, *shape, divisor_override=1)
    total = _pool(builder, "sum", a["self"], sizes, bool(a["ceil_mode"]))
    return pointwise(builder, "multiply", total, builder.keep(mean / count))


@lowers("aten._adaptive_avg_pool3d.default", "aten.adaptive_avg_pool3d.default")
def _adaptive_avg_pool(builder: Builder, a: Arguments) -> View:
    view, output = a["self"], _triple(a["output_size"])
    if prod(output) == 1:
        return reduced(builder, "mean", view, [2, 3, 4], keep=True)
    for dim, new in zip((2, 3, 4), output, strict=True):
        old = view.shape[dim]
        if old != new:
            matrix = functional.adaptive_avg_pool1d(torch.eye(old, dtype=torch.float64)[:, None], new)[:, 0].t()
            view = along(builder, view, dim, matrix)
    return view
