"""Softmax, norms, means and pooling."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch

from gblr_hw.frontend.graph.builder import Builder, Value
from gblr_hw.frontend.graph.layout import LayoutError, View
from gblr_hw.frontend.graph.registry import Arguments, lowers
from gblr_hw.frontend.operators.matrix_ops import Convolution, pooled
from gblr_hw.frontend.operators.vector_ops import pointwise, reduced, rowwise


@lowers("aten.softmax.int", "aten._softmax", "aten._safe_softmax")
def _softmax(builder: Builder, a: Arguments) -> View:
    return rowwise(builder, "softmax", a["self"], [a["dim"]])


@lowers("aten.log_softmax.int", "aten._log_softmax")
def _log_softmax(builder: Builder, a: Arguments) -> View:
    return pointwise(builder, "log", rowwise(builder, "softmax", a["self"], [a["dim"]]))


@lowers("aten.layer_norm.default")
def _layer_norm(builder: Builder, a: Arguments) -> View:
    dims = [-1 - place for place in range(len(a["normalized_shape"]))]
    view = rowwise(builder, "layer_norm", a["input"], dims, (a["eps"],))
    return affine(builder, view, a["weight"], a["bias"])


@lowers("aten.native_layer_norm.default")
def _native_layer_norm(builder: Builder, a: Arguments) -> tuple[View]:
    return (_layer_norm(builder, a),)


@lowers("aten.rms_norm.default")
def _rms_norm(builder: Builder, a: Arguments) -> View:
    dims = [-1 - place for place in range(len(a["normalized_shape"]))]
    epsilon = torch.finfo(builder.dtype_of("input") or torch.float32).eps if a["eps"] is None else a["eps"]
    return affine(builder, rowwise(builder, "rms_norm", a["input"], dims, (epsilon,)), a["weight"], None)


def affine(builder: Builder, view: View, scale: Value | None, shift: Value | None) -> View:
    """``view`` times ``scale`` plus ``shift``, where there are such."""
    if scale is not None:
        view = pointwise(builder, "multiply", view, scale)
    return view if shift is None else pointwise(builder, "add", view, shift)


def _per_channel(rank: int, value: torch.Tensor) -> torch.Tensor:
    return value.reshape(-1, *(1,) * (rank - 2)) if rank > 2 else value


@lowers("aten.batch_norm.default", "aten._native_batch_norm_legit_no_training.default")
def _batch_norm(builder: Builder, a: Arguments) -> Any:
    """By channel: multiply, add. Where a matrix product stands before it, `fold_norm` puts both into its weights."""
    view, single = a["input"], "cudnn_enabled" in a
    if a.get("training"):
        raise LayoutError("batch norm uses the batch's own statistics")
    scale = torch.rsqrt(a["running_var"].double() + a["eps"])
    if a["weight"] is not None:
        scale = scale * a["weight"].double()
    shift = -a["running_mean"].double() * scale
    if a["bias"] is not None:
        shift = shift + a["bias"].double()
    constants = [_per_channel(len(view.dims), value) for value in (scale, shift)]
    for value, name in zip(constants, ("scale", "shift"), strict=True):
        builder.name_constant(value, f"{builder.site.path}.{name}" if builder.site.path else name)
    result = affine(builder, view, constants[0], constants[1])
    return result if single else (result,)


@lowers("aten.mean.dim", "aten.mean.default")
def _mean(builder: Builder, a: Arguments) -> View:
    return _reduce(builder, "mean", a)


@lowers("aten.sum.dim_IntList", "aten.sum.default")
def _sum(builder: Builder, a: Arguments) -> View:
    return _reduce(builder, "sum", a)


@lowers("aten.amax")
def _amax(builder: Builder, a: Arguments) -> View:
    return _reduce(builder, "max", a)


def _reduce(builder: Builder, function: str, a: Arguments) -> View:
    dims = a.get("dim")
    if not dims:
        dims = range(len(a["self"].dims))
    dims = [dims] if isinstance(dims, int) else list(dims)
    return reduced(builder, function, a["self"], dims, keep=bool(a.get("keepdim")))


def pair(value: Sequence[int] | int | None, otherwise: tuple[int, int] = (0, 0)) -> tuple[int, int]:
    """One or two numbers, or none, as two."""
    if value is None or (not isinstance(value, int) and len(value) == 0):
        return otherwise
    if isinstance(value, int):
        return value, value
    return (value[0], value[0]) if len(value) == 1 else (value[0], value[1])


@lowers("aten.max_pool2d.default", "aten.max_pool2d_with_indices.default")
def _max_pool(builder: Builder, a: Arguments) -> Any:
    kernel = pair(a["kernel_size"])
    sizes = Convolution(kernel, pair(a["stride"], kernel), pair(a["padding"]), pair(a["dilation"], (1, 1)))
    _no_ceil(a)
    return pooled(builder, "max", a["self"], sizes)


@lowers("aten.avg_pool2d.default")
def _avg_pool(builder: Builder, a: Arguments) -> View:
    kernel = pair(a["kernel_size"])
    sizes = Convolution(kernel, pair(a["stride"], kernel), pair(a["padding"]))
    _no_ceil(a)
    whole = sizes.padding == (0, 0) or (a["count_include_pad"] and a["divisor_override"] is None)
    if whole and a["divisor_override"] is None:
        return pooled(builder, "mean", a["self"], sizes)
    divisor = a["divisor_override"]
    image = a["self"].shape[-2:]
    ones = torch.ones(1, 1, *image, dtype=torch.float64)
    counts = torch.nn.functional.avg_pool2d(ones, kernel, sizes.stride, sizes.padding, divisor_override=1)
    share = 1 / counts if divisor is None else torch.full_like(counts, 1 / divisor)
    return pointwise(builder, "multiply", pooled(builder, "sum", a["self"], sizes), builder.keep(share))


def _no_ceil(a: Arguments) -> None:
    if a["ceil_mode"]:
        raise LayoutError("pooling with ceil_mode reads beyond the padded image")


@lowers("aten.adaptive_avg_pool2d.default", "aten._adaptive_avg_pool2d.default")
def _adaptive_avg_pool(builder: Builder, a: Arguments) -> View:
    image, output = a["self"].shape[-2:], pair(a["output_size"])
    if prod(output) == 1:
        return reduced(builder, "mean", builder.place(a["self"], "bwtt"), [-2, -1], keep=True)
    if any(side % out for side, out in zip(image, output, strict=True)):
        raise LayoutError(f"adaptive pooling of {image} to {output} has windows of different sizes")
    kernel = (image[0] // output[0], image[1] // output[1])
    return pooled(builder, "mean", a["self"], Convolution(kernel, kernel, (0, 0)))
