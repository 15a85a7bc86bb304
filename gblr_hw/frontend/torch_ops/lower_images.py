"""Images and volumes: up-sampling, transposed and three-dimensional convolution, norms over groups of channels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from math import prod
from typing import Any

import torch
from torch.nn import functional

from gblr_hw.frontend.graph import layout
from gblr_hw.frontend.graph.builder import Builder
from gblr_hw.frontend.graph.layout import LayoutError, View
from gblr_hw.frontend.graph.registry import Arguments, lowers
from gblr_hw.frontend.operators.join_ops import concatenated
from gblr_hw.frontend.operators.matrix_ops import Convolution, along, convolution, convolution_matrix
from gblr_hw.frontend.operators.relays import regrouped, seen
from gblr_hw.frontend.operators.vector_ops import pointwise, reduced
from gblr_hw.frontend.torch_ops.lower_rows import affine


@lowers("aten.native_group_norm.default")
def _group_norm(builder: Builder, a: Arguments) -> tuple[View]:
    """Each group's mean and variance over its channels and all places, then scale and shift by channel."""
    view, groups = a["input"], a["group"]
    shape = view.shape
    parts = regrouped(builder, view, [shape[0], groups, shape[1] // groups, prod(shape[2:])])
    mean = _over_group(builder, parts)
    spread = pointwise(builder, "subtract", parts, mean)
    variance = _over_group(builder, pointwise(builder, "square", spread))
    divided = pointwise(builder, "add", variance, numbers=(a["eps"],))
    result = pointwise(builder, "multiply", spread, pointwise(builder, "rsqrt", divided))
    result = regrouped(builder, result, shape)
    return (affine(builder, result, *(_by_channel(builder, one, len(shape)) for one in (a["weight"], a["bias"]))),)


def _by_channel(builder: Builder, value: torch.Tensor | None, rank: int) -> torch.Tensor | None:
    """A constant with a number for each channel in the shape in which it meets images."""
    if value is None:
        return None
    return builder.derived(("channels", id(value), rank), lambda: value.reshape(-1, *[1] * (rank - 2)), value)


@lowers("aten._native_batch_norm_legit.no_stats")
def _instance_norm(builder: Builder, a: Arguments) -> tuple[View]:
    """By each channel's own mean and variance over all places and sequences."""
    view = a["input"]
    dims = [dim for dim in range(len(view.dims)) if dim != 1]
    spread = pointwise(builder, "subtract", view, reduced(builder, "mean", view, dims, keep=True))
    variance = reduced(builder, "mean", pointwise(builder, "square", spread), dims, keep=True)
    divided = pointwise(builder, "add", variance, numbers=(a["eps"],))
    result = pointwise(builder, "multiply", spread, pointwise(builder, "rsqrt", divided))
    return (affine(builder, result, *(_by_channel(builder, one, len(view.dims)) for one in (a["weight"], a["bias"]))),)


def _over_group(builder: Builder, parts: View) -> View:
    mean = reduced(builder, "mean", parts, [3], keep=True)
    return reduced(builder, "mean", mean, [2], keep=True)


_MODES = {"nearest": "nearest", "nearest_exact": "nearest-exact", "linear": "linear", "bilinear": "bilinear",
          "bicubic": "bicubic", "trilinear": "trilinear"}  # fmt: skip


def _upsampled(mode: str, ranks: str) -> Callable[[Builder, Arguments], View]:
    def lower(builder: Builder, a: Arguments) -> View:
        view = a["input"] if "input" in a else a["self"]
        sides = view.shape[2:]
        given = a.get("output_size")
        scales = a.get("scale_factors") or ()
        wanted = given if given is not None else [int(size * one) for size, one in zip(sides, scales, strict=True)]
        return resized(builder, view, mode, wanted, bool(a.get("align_corners")))

    return lower


for _mode in ("nearest", "_nearest_exact"):
    for _rank in ("1d", "2d", "3d"):
        _name = f"aten.upsample_{_mode}{_rank}" if _mode == "nearest" else f"aten._upsample_nearest_exact{_rank}"
        lowers(_name)(_upsampled(_mode.removeprefix("_"), _rank))
for _mode, _rank in (("linear", "1d"), ("bilinear", "2d"), ("bicubic", "2d"), ("trilinear", "3d")):
    lowers(f"aten.upsample_{_mode}{_rank}")(_upsampled(_mode, _rank))


def resized(builder: Builder, view: View, mode: str, sizes: Sequence[int], align: bool) -> View:
    """Images or lines in other sizes: repeated where that is all, else each side by its matrix."""
    for place, (old, new) in enumerate(zip(view.shape[2:], sizes, strict=True)):
        dim = place + 2
        if old == new:
            continue
        if mode.startswith("nearest") and new % old == 0:
            view = _repeated(builder, view, dim, new // old)
        else:
            view = along(builder, view, dim, _matrix_of(mode, old, new, align))
    return view


def _repeated(builder: Builder, view: View, dim: int, times: int) -> View:
    shape = list(view.shape)
    grown = layout.expand(layout.insert(view, dim + 1), [*shape[: dim + 1], times, *shape[dim + 1 :]])
    shape[dim] *= times
    return regrouped(builder, grown, shape)


def _matrix_of(mode: str, old: int, new: int, align: bool) -> torch.Tensor:
    """(new, old): what the framework makes of each unit vector along one side."""
    unit = torch.eye(old, dtype=torch.float64)
    if mode.startswith("nearest"):
        return functional.interpolate(unit[:, None], new, mode=_MODES[mode])[:, 0].t()
    if mode in ("linear", "bilinear", "trilinear"):
        return functional.interpolate(unit[:, None], new, mode="linear", align_corners=align)[:, 0].t()
    return functional.interpolate(unit[:, None, None], (1, new), mode="bicubic", align_corners=align)[:, 0, 0].t()


@lowers("aten.conv_transpose1d.default", "aten.conv_transpose2d.input")
def _transposed_convolution(builder: Builder, a: Arguments) -> View:
    """As a convolution of the image with a kernel for each of the places between two of its own, side by side.

    A place i of the image reaches places i s + k - p of the result; so place q s + f takes the taps k = f + s j of the
    places q - j, which a window of ceil(k / s) places ending at q holds.
    """
    view, weight = a["input"], a["weight"]
    if not isinstance(weight, torch.Tensor) or not isinstance(view, View):
        raise LayoutError("a kernel that depends on an input")
    line = weight.dim() == 3
    if any(one != 1 for one in a["dilation"]):
        raise LayoutError("a transposed convolution leaves out places")
    kernel = weight.unsqueeze(2) if line else weight
    view = layout.insert(view, 2) if line else view
    lead = (1,) if line else ()
    stride = (*lead, *a["stride"]) if len(a["stride"]) > 1 or line else (*a["stride"],) * 2
    zero = (0,) if line else ()
    padding, extra = ((*zero, *a[name]) if len(a[name]) > 1 or line else (*a[name],) * 2
                      for name in ("padding", "output_padding"))  # fmt: skip
    sides = [
        (old - 1) * s - 2 * p + k + e
        for old, s, p, k, e in zip(view.shape[2:], stride, padding, kernel.shape[2:], extra, strict=True)
    ]
    # More places in a window than a kernel reaches, where the result goes on behind its last ones.
    taps = [max(-(-k // s), -(-(k + e - p) // s)) for k, s, e, p in
            zip(kernel.shape[2:], stride, extra, padding, strict=True)]  # fmt: skip
    name = builder.weight_name(weight)
    outputs = kernel.shape[1] * a["groups"]
    weights = builder.kernel(
        weight, a["bias"], lambda: _phase_matrix(kernel, stride, taps, a["groups"]), tuple(stride), tuple(taps),
        bias_times=prod(stride),
    )  # fmt: skip
    reach = (taps[0] - 1, taps[1] - 1)
    sizes = Convolution((taps[0], taps[1]), (1, 1), reach)
    found = convolution(builder, view, weights, sizes, name)
    batch, _, height, width = found.shape
    spread = regrouped(builder, found, [batch, stride[0], stride[1], outputs, height, width])
    spread = layout.permute(spread, [0, 3, 4, 1, 5, 2])
    image = regrouped(builder, spread, [batch, outputs, height * stride[0], width * stride[1]])
    for dim, first, size in ((2, padding[0], sides[0]), (3, padding[1], sides[1])):
        image = seen(builder, image, partial(layout.take, position=dim, start=first, count=size))
    return layout.drop(image, 2) if line else image


def _phase_matrix(kernel: torch.Tensor, stride: Sequence[int], taps: Sequence[int], groups: int) -> torch.Tensor:
    """(s1 s2 oc, k1 k2 ic): rows by place between two of the image's and output, columns by window place and input."""
    inputs, share = kernel.shape[0], kernel.shape[1]
    full = kernel.new_zeros(stride[0], stride[1], share * groups, taps[0], taps[1], inputs)
    for k1 in range(kernel.shape[2]):
        for k2 in range(kernel.shape[3]):
            (j1, f1), (j2, f2) = divmod(k1, stride[0]), divmod(k2, stride[1])
            for group in range(groups):
                ins = slice(group * inputs // groups, (group + 1) * inputs // groups)
                outs = slice(group * share, (group + 1) * share)
                full[f1, f2, outs, taps[0] - 1 - j1, taps[1] - 1 - j2, ins] = kernel[ins, :, k1, k2].t()
    return full.reshape(prod(stride) * share * groups, -1)


@lowers("aten.conv3d.default")
def _volume_convolution(builder: Builder, a: Arguments) -> Any:
    """As a sum of convolutions of images, one for each place of the kernel along the first side."""
    view, weight = a["input"], a["weight"]
    if not isinstance(weight, torch.Tensor) or not isinstance(view, View) or a["groups"] != 1:
        raise LayoutError("a kernel that depends on an input, or a volume's convolution by groups")
    stride, padding, dilation = (tuple(a[name]) * (3 if len(a[name]) == 1 else 1)
                                 for name in ("stride", "padding", "dilation"))  # fmt: skip
    batch, channels, depth, height, width = view.shape
    if padding[0]:
        filler = builder.keep(torch.zeros(batch, channels, padding[0], height, width))
        view = concatenated(builder, [filler, view, filler.clone()], 2)
        depth += 2 * padding[0]
    frames = (depth - dilation[0] * (weight.shape[2] - 1) - 1) // stride[0] + 1
    sizes = Convolution((weight.shape[3], weight.shape[4]), stride[1:], padding[1:], dilation[1:])
    total: View | None = None
    for place in range(weight.shape[2]):
        first = place * dilation[0]
        slices = seen(builder, view, partial(layout.take, position=2, start=first, count=frames, step=stride[0]))
        images = regrouped(builder, layout.permute(slices, [0, 2, 1, 3, 4]), [batch * frames, channels, height, width])
        part = weight[:, :, place]
        bias = a["bias"] if place == 0 else None
        name = builder.weight_name(weight)
        weights = builder.kernel(
            weight, bias, partial(convolution_matrix, part), "frame", place
        )  # fmt: skip
        one = convolution(builder, images, weights, sizes, name)
        total = one if total is None else pointwise(builder, "add", total, one)
    assert total is not None
    outputs, *sides = total.shape[1:]
    return layout.permute(regrouped(builder, total, [batch, frames, outputs, *sides]), [0, 2, 1, 3, 4])
