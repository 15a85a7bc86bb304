"""Truth values that depend on an input (attention masks) as the numbers 0 and 1; comparisons of whole numbers alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from gblr_hw.frontend.graph import layout
from gblr_hw.frontend.graph.builder import Builder
from gblr_hw.frontend.graph.layout import LayoutError, View
from gblr_hw.frontend.graph.registry import Arguments, lowers
from gblr_hw.frontend.operators.vector_ops import pointwise
from gblr_hw.frontend.torch_ops.lower_pointwise import combined

# What stands for minus infinity beside finite numbers: its exponential is zero, and it times zero is not NaN.
FAR_BELOW = -1e30


def _whole(builder: Builder, argument: str) -> None:
    kind = builder.dtype_of(argument)
    if kind is None or kind.is_floating_point:
        raise LayoutError(f"{kind} values are compared or made truth values: only whole numbers are")


@lowers("aten.to", "aten._to_copy")
def _convert(builder: Builder, a: Arguments) -> View:
    source, target = builder.dtype_of("self"), a.get("dtype")
    if target is None or source is None or source == target:
        return a["self"]
    if target == torch.bool:
        _whole(builder, "self")
        return pointwise(builder, "minimum", pointwise(builder, "absolute", a["self"]), numbers=(1.0,))
    if source.is_floating_point and not target.is_floating_point:
        raise LayoutError(f"values become {target}, and the vector unit does not round")
    return a["self"]


@lowers("aten.logical_not", "aten.bitwise_not")
def _not(builder: Builder, a: Arguments) -> View:
    _truth(builder, "self")
    return combined(builder, "subtract", 1.0, a["self"])


def _truth(builder: Builder, *arguments: str) -> None:
    for argument in arguments:
        kind = builder.dtype_of(argument)
        if kind not in (None, torch.bool):
            raise LayoutError(f"a logical operation on {kind} values")


@lowers("aten.__and__", "aten.bitwise_and", "aten.logical_and")
def _and(builder: Builder, a: Arguments) -> View:
    return _joined(builder, a, "multiply", lambda constant: bool(constant.all()))


@lowers("aten.__or__", "aten.bitwise_or", "aten.logical_or")
def _or(builder: Builder, a: Arguments) -> View:
    return _joined(builder, a, "maximum", lambda constant: not constant.any())


def _joined(builder: Builder, a: Arguments, function: str, neutral: Callable[[torch.Tensor], bool]) -> View:
    """Two truth values in one; a constant that changes nothing (``neutral``) only gives its shape."""
    _truth(builder, "self", "other")
    values = a["self"], a["other"]
    views = [value for value in values if isinstance(value, View)]
    constant = next((value for value in values if isinstance(value, torch.Tensor)), None)
    if constant is None:
        return pointwise(builder, function, *views)
    view = layout.expand(views[0], np.broadcast_shapes(views[0].shape, tuple(constant.shape)))
    return view if neutral(constant) else pointwise(builder, function, view, constant)


def _difference(builder: Builder, a: Arguments) -> View:
    _whole(builder, "self")
    if isinstance(a["other"], View):
        _whole(builder, "other")
    return combined(builder, "subtract", a["self"], a["other"])


@lowers("aten.ne")
def _ne(builder: Builder, a: Arguments) -> View:
    return pointwise(builder, "minimum", pointwise(builder, "absolute", _difference(builder, a)), numbers=(1.0,))


@lowers("aten.eq")
def _eq(builder: Builder, a: Arguments) -> View:
    return combined(builder, "subtract", 1.0, _ne(builder, a))


@lowers("aten.gt")
def _gt(builder: Builder, a: Arguments) -> View:
    return pointwise(builder, "clip", _difference(builder, a), numbers=(0.0, 1.0))


@lowers("aten.le")
def _le(builder: Builder, a: Arguments) -> View:
    return combined(builder, "subtract", 1.0, _gt(builder, a))


@lowers("aten.ge")
def _ge(builder: Builder, a: Arguments) -> View:
    return pointwise(
        builder, "clip", pointwise(builder, "add", _difference(builder, a), numbers=(1.0,)), numbers=(0.0, 1.0)
    )


@lowers("aten.lt")
def _lt(builder: Builder, a: Arguments) -> View:
    return combined(builder, "subtract", 1.0, _ge(builder, a))


@lowers("aten.where.self", "aten.where.ScalarOther", "aten.where.ScalarSelf", "aten.where.Scalar")
def _where(builder: Builder, a: Arguments) -> View:
    keep, kept, other = a["condition"], a["self"], _number(a["other"])
    if other is None:
        raise LayoutError("a choice is between two values that are no numbers")
    number = _number(kept)
    if isinstance(keep, View):
        if number is not None:
            return between(builder, keep, number, other)
        if other >= -1e4:
            raise LayoutError("a choice that depends on an input is not of what vanishes in a softmax")
        return combined(builder, "add", kept, between(builder, keep, 0.0, other))
    if not isinstance(kept, View):
        raise LayoutError("a choice is between two values that are no numbers")
    return _masked(builder, kept, keep, other)


@lowers("aten.masked_fill")
def _masked_fill(builder: Builder, a: Arguments) -> View:
    mask, value = a["mask"], _number(a["value"])
    if value is None:
        raise LayoutError("a mask fills in a value that is no number")
    if not isinstance(mask, View):
        return _masked(builder, a["self"], ~mask, value)
    if value >= -1e4:
        raise LayoutError("a mask that depends on an input does not fill in what vanishes in a softmax")
    return combined(builder, "add", a["self"], between(builder, mask, value, 0.0))


def _number(value: Any) -> float | None:
    if isinstance(value, torch.Tensor) and value.numel() == 1:
        return float(value)
    return float(value) if isinstance(value, (int, float)) else None


def between(builder: Builder, keep: View, true: float, false: float) -> View:
    """One of two numbers, by a truth value that depends on an input."""
    true, false = max(true, FAR_BELOW), max(false, FAR_BELOW)
    scaled = pointwise(builder, "multiply", keep, numbers=(true - false,))
    return scaled if false == 0 else pointwise(builder, "add", scaled, numbers=(false,))


def _masked(builder: Builder, view: View, keep: torch.Tensor, value: float) -> View:
    """``view`` where a constant mask keeps it, ``value`` elsewhere."""
    if value < -1e4:
        # Where a value is to vanish in a softmax, adding does what choosing does, in one pass.
        added = builder.derived(("mask", id(keep), value), lambda: torch.where(keep, 0.0, value), keep)
        return pointwise(builder, "add", view, added)
    kept = pointwise(builder, "multiply", view, keep.float())
    return kept if value == 0 else pointwise(builder, "add", kept, torch.where(keep, 0.0, value))
