"""Images: up-sampling, transposed convolution, norms over groups of channels."""

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
from gblr_hw.frontend.operators.matrix_ops import Convolution, along, convolution
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
        names = ("scales",) if ranks == "1d" else ("scales_d", "scales_h", "scales_w")[-int(ranks[0]) :]
        scales = a.get("scale_factors") or [a.get(name) for name in names]
        wanted = given if given is not None else [int(size * one) for size, one in zip(sides, scales, strict=True)]
        return resized(builder, view, mode, wanted, scales, bool(a.get("align_corners")))

    return lower


for _mode in ("nearest", "_nearest_exact"):
    for _rank in ("1d", "2d", "3d"):
        _name = f"aten.upsample_{_mode}{_rank}" if _mode == "nearest" else f"aten._upsample_nearest_exact{_rank}"
        lowers(_name)(_upsampled(_mode.removeprefix("_"), _rank))
for _mode in ("bilinear", "bicubic"):
    lowers(f"aten._upsample_{_mode}2d_aa")(_upsampled(f"{_mode}, smoothed", "2d"))
for _mode, _rank in (("linear", "1d"), ("bilinear", "2d"), ("bicubic", "2d"), ("trilinear", "3d")):
    lowers(f"aten.upsample_{_mode}{_rank}")(_upsampled(_mode, _rank))


def resized(
    builder: Builder, view: View, mode: str, sizes: Sequence[int], scales: Sequence[float | None], align: bool
) -> View:
    """Images or lines in other sizes: repeated where that is all, else each side by its matrix. scales: what places are
    taken from, where it is not the ratio of the sizes.
    """
    for place, (old, new, scale) in enumerate(zip(view.shape[2:], sizes, scales, strict=True)):
        dim = place + 2
        if old == new:
            continue
        if mode.startswith("nearest") and new % old == 0 and scale in (None, new // old):
            view = _repeated(builder, view, dim, new // old)
        else:
            view = along(builder, view, dim, _matrix_of(mode, old, new, scale, align))
    return view


def _repeated(builder: Builder, view: View, dim: int, times: int) -> View:
    shape = list(view.shape)
    grown = layout.expand(layout.insert(view, dim + 1), [*shape[: dim + 1], times, *shape[dim + 1 :]])
    shape[dim] *= times
    return regrouped(builder, grown, shape)


def _matrix_of(mode: str, old: int, new: int, scale: float | None, align: bool) -> torch.Tensor:
    """(new, old): what the framework makes of each unit vector along one side."""
    unit = torch.eye(old, dtype=torch.float64)
    name, _, smoothed = mode.partition(", ")
    size: dict[str, Any] = {"size": new} if scale is None or align else {"scale_factor": scale}
    if name.startswith("nearest"):
        return functional.interpolate(unit[:, None], mode=_MODES[name], **size)[:, 0].t()
    if name in ("linear", "bilinear", "trilinear") and not smoothed:
        return functional.interpolate(unit[:, None], mode="linear", align_corners=align, **size)[:, 0].t()
    plane: dict[str, Any] = {key: (1 if key == "size" else 1.0, value) for key, value in size.items()}
    lines = functional.interpolate(
        unit[:, None, None], mode=name, align_corners=align, antialias=bool(smoothed), **plane
    )
    return lines[:, 0, 0].t()


@lowers("aten.conv_transpose1d.default", "aten.conv_transpose2d.input")
def _transposed_convolution(builder: Builder, a: Arguments) -> View:
    view, weight = a["input"], a["weight"]
    if not isinstance(weight, torch.Tensor) or not isinstance(view, View):
        raise LayoutError("a kernel that depends on an input")
    line = weight.dim() == 3
    lone = len(view.dims) == weight.dim() - 1
    view = layout.insert(view, 0) if lone else view
    view = layout.insert(view, 2) if line else view
    sizes = {
        name: (first, *a[given]) if line else (*a[given],) * (2 if len(a[given]) == 1 else 1)
        for name, given, first in (("stride", "stride", 1), ("padding", "padding", 0), ("extra", "output_padding", 0),
                                   ("dilation", "dilation", 1))
    }  # fmt: skip
    image = transposed_images(builder, view, weight, None, a["bias"], groups=a["groups"], **sizes)
    image = layout.drop(image, 2) if line else image
    return layout.drop(image, 0) if lone else image


def transposed_images(
    builder: Builder,
    view: View,
    weight: torch.Tensor,
    place: int | None,
    bias: torch.Tensor | None,
    *,
    groups: int,
    stride: Sequence[int],
    padding: Sequence[int],
    extra: Sequence[int],
    dilation: Sequence[int],
) -> View:
    """As a convolution of the image with a kernel for each of the places between two of its own, side by side. place:
    which of a volume's kernels. extra: places more behind (output_padding).

    A place i of the image reaches places i s + k d - p of the result; so place q s + f takes the taps k d = f + s j of
    the places q - j, which a window of ceil(reach / s) places ending at q holds.
    """
    kernel = weight[:, :, place] if weight.dim() == 5 else weight.unsqueeze(2) if weight.dim() == 3 else weight
    reaches = [(k - 1) * d + 1 for k, d in zip(kernel.shape[2:], dilation, strict=True)]
    sides = [
        (old - 1) * s - 2 * p + reach + e
        for old, s, p, reach, e in zip(view.shape[2:], stride, padding, reaches, extra, strict=True)
    ]
    # More places in a window than a kernel reaches, where the result goes on behind its last ones.
    taps = [max(-(-reach // s), -(-(reach + e - p) // s)) for reach, s, e, p in
            zip(reaches, stride, extra, padding, strict=True)]  # fmt: skip
    name = builder.weight_name(weight)
    outputs = kernel.shape[1] * groups
    weights = builder.kernel(
        weight, bias, lambda: _phase_matrix(kernel, stride, taps, dilation, groups), place, tuple(stride), tuple(taps),
        bias_times=prod(stride),
    )  # fmt: skip
    sizes = Convolution((taps[0], taps[1]), (1, 1), (taps[0] - 1, taps[1] - 1))
    found = convolution(builder, view, weights, sizes, name)
    batch, _, height, width = found.shape
    spread = regrouped(builder, found, [batch, stride[0], stride[1], outputs, height, width])
    spread = layout.permute(spread, [0, 3, 4, 1, 5, 2])
    image = regrouped(builder, spread, [batch, outputs, height * stride[0], width * stride[1]])
    for dim, first, size in ((2, padding[0], sides[0]), (3, padding[1], sides[1])):
        image = seen(builder, image, partial(layout.take, position=dim, start=first, count=size))
    return image


def _phase_matrix(
    kernel: torch.Tensor, stride: Sequence[int], taps: Sequence[int], dilation: Sequence[int], groups: int
) -> torch.Tensor:
    """(s1 s2 oc, k1 k2 ic): rows by place between two of the image's and output, columns by window place and input."""
    inputs, share = kernel.shape[0], kernel.shape[1]
    full = kernel.new_zeros(stride[0], stride[1], share * groups, taps[0], taps[1], inputs)
    for k1 in range(kernel.shape[2]):
        for k2 in range(kernel.shape[3]):
            (j1, f1), (j2, f2) = divmod(k1 * dilation[0], stride[0]), divmod(k2 * dilation[1], stride[1])
            for group in range(groups):
                ins = slice(group * inputs // groups, (group + 1) * inputs // groups)
                outs = slice(group * share, (group + 1) * share)
                full[f1, f2, outs, taps[0] - 1 - j1, taps[1] - 1 - j2, ins] = kernel[ins, :, k1, k2].t()
    return full.reshape(prod(stride) * share * groups, -1)
