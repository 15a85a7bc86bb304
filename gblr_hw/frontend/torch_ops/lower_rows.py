"""Softmax, norms and reductions."""

from __future__ import annotations

from math import prod
from typing import Any

import torch

from gblr_hw.frontend.graph.builder import Builder, Value
from gblr_hw.frontend.graph.layout import LayoutError, View
from gblr_hw.frontend.graph.registry import Arguments, lowers
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


@lowers("aten.amin")
def _amin(builder: Builder, a: Arguments) -> View:
    inverted = pointwise(builder, "negative", a["self"])
    return pointwise(builder, "negative", _reduce(builder, "max", {**a, "self": inverted}))


@lowers("aten.max.default")
def _max_of_all(builder: Builder, a: Arguments) -> View:
    return _reduce(builder, "max", a)


@lowers("aten.min.default")
def _min_of_all(builder: Builder, a: Arguments) -> View:
    return _amin(builder, a)


@lowers("aten.prod.dim_int", "aten.prod.default")
def _prod(builder: Builder, a: Arguments) -> View:
    return _reduce(builder, "prod", a)


@lowers("aten.linalg_vector_norm.default", "aten.norm.ScalarOpt_dim")
def vector_norm(builder: Builder, a: Arguments) -> View:
    """The norm of each vector along some dimensions: the largest magnitude, a sum of magnitudes, or of powers."""
    order = a.get("ord", a.get("p"))
    order = 2.0 if order is None else float(order)
    size = pointwise(builder, "absolute", a["self"])
    if order == float("inf"):
        return _reduce(builder, "max", {**a, "self": size})
    if order == 1:
        return _reduce(builder, "sum", {**a, "self": size})
    if order == 2:
        total = _reduce(builder, "sum", {**a, "self": pointwise(builder, "square", a["self"])})
        return pointwise(builder, "sqrt", total)
    total = _reduce(builder, "sum", {**a, "self": pointwise(builder, "power", size, numbers=(order,))})
    return pointwise(builder, "power", total, numbers=(1 / order,))


@lowers("aten.var.correction", "aten.var.dim", "aten.var.default")
def _var(builder: Builder, a: Arguments) -> View:
    return _variance(builder, a)[0]


@lowers("aten.std.correction", "aten.std.dim", "aten.std.default")
def _std(builder: Builder, a: Arguments) -> View:
    return pointwise(builder, "sqrt", _variance(builder, a)[0])


@lowers("aten.var_mean.correction")
def _var_mean(builder: Builder, a: Arguments) -> tuple[View, View]:
    return _variance(builder, a)


def _variance(builder: Builder, a: Arguments) -> tuple[View, View]:
    """Variance and mean; of n elements the squares' sum is divided by n less the correction."""
    view, dims = a["self"], a.get("dim")
    dims = list(range(len(view.dims))) if not dims and dims != 0 else [dims] if isinstance(dims, int) else list(dims)
    correction = a.get("correction", a.get("unbiased", True))
    correction = 1.0 if correction is None else float(correction)
    mean = reduced(builder, "mean", view, dims, keep=True)
    squares = pointwise(builder, "square", pointwise(builder, "subtract", view, mean))
    variance = reduced(builder, "mean", squares, dims, keep=bool(a.get("keepdim")))
    count = prod(view.shape[dim] for dim in dims)
    if correction:
        variance = pointwise(builder, "multiply", variance, numbers=(count / (count - correction),))
    return variance, mean if a.get("keepdim") else reduced(builder, "mean", view, dims, keep=False)


def _reduce(builder: Builder, function: str, a: Arguments) -> View:
    dims = a.get("dim")
    if not dims and dims != 0:
        dims = range(len(a["self"].dims))
    dims = [dims] if isinstance(dims, int) else list(dims)
    return reduced(builder, function, a["self"], dims, keep=bool(a.get("keepdim")))
