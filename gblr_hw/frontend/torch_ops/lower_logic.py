"""Truth values that depend on an input (attention masks) as the numbers 0 and 1; comparisons of whole numbers alone."""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite
from typing import Any

import numpy as np
import torch

from gblr_hw.frontend.graph import layout
from gblr_hw.frontend.graph.builder import Builder, Value
from gblr_hw.frontend.graph.layout import LayoutError, View
from gblr_hw.frontend.graph.registry import Arguments, lowers
from gblr_hw.frontend.operators.vector_ops import pointwise, reduced
from gblr_hw.frontend.torch_ops.lower_pointwise import combined
from simulator.network.vector_functions import Reach, function_named

# What stands for minus infinity beside finite numbers: its exponential is zero, and it times zero is not NaN.
FAR_BELOW = -1e30
# The same where it is chosen, not added: below every number of the model's, -3.4e38 among them.
BELOW_ALL = -1e300
# Numbers below this one mask: what stands there is to vanish in a softmax.
MASKS_BELOW = -1e4


def _whole(builder: Builder, argument: str) -> bool:
    """Whether an argument of the node at hand holds whole numbers."""
    kind = builder.dtype_of(argument)
    return kind is not None and not kind.is_floating_point


@lowers("aten.to", "aten._to_copy")
def _convert(builder: Builder, a: Arguments) -> View:
    source, target = builder.dtype_of("self"), a.get("dtype")
    if target is None or source is None or source == target:
        return a["self"]
    if target == torch.bool and not _whole(builder, "self"):
        return pointwise(builder, "not_equal", a["self"], numbers=(0.0,))
    if target == torch.bool:
        return pointwise(builder, "minimum", pointwise(builder, "absolute", a["self"]), numbers=(1.0,))
    if source.is_floating_point and not target.is_floating_point:
        return pointwise(builder, "truncate", a["self"])
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


# Comparison -> the function of floats, and that of the same comparison seen from the other side.
_COMPARED = {
    "ne": ("not_equal", "not_equal"), "eq": ("equal", "equal"), "gt": ("greater", "less"),
    "le": ("less_equal", "greater_equal"), "ge": ("greater_equal", "less_equal"), "lt": ("less", "greater"),
}  # fmt: skip


def _comparison(name: str, of_whole: Callable[[Builder, View], View]) -> Callable[[Builder, Arguments], View]:
    """How a comparison is lowered: whole numbers by their difference, others by the vector unit's own function."""

    def lower(builder: Builder, a: Arguments) -> View:
        left, right = a["self"], a["other"]
        here, there = _COMPARED[name]
        if not isinstance(left, View):
            return combined(builder, there, right, left)
        whole = _whole(builder, "self") and (not isinstance(right, View) or _whole(builder, "other"))
        finite = not isinstance(right, float) or isfinite(right)
        if whole and finite and not (isinstance(right, torch.Tensor) and right.is_floating_point()):
            return of_whole(builder, combined(builder, "subtract", left, right))
        return combined(builder, here, left, right)

    return lower


def _differs(builder: Builder, difference: View) -> View:
    return pointwise(builder, "minimum", pointwise(builder, "absolute", difference), numbers=(1.0,))


def _above(builder: Builder, difference: View) -> View:
    return pointwise(builder, "clip", difference, numbers=(0.0, 1.0))


def _not_below(builder: Builder, difference: View) -> View:
    return _above(builder, pointwise(builder, "add", difference, numbers=(1.0,)))


def _inverse(of_whole: Callable[[Builder, View], View]) -> Callable[[Builder, View], View]:
    return lambda builder, difference: combined(builder, "subtract", 1.0, of_whole(builder, difference))


for _name, _of_whole in {
    "ne": _differs, "eq": _inverse(_differs), "gt": _above, "le": _inverse(_above), "ge": _not_below,
    "lt": _inverse(_not_below),
}.items():  # fmt: skip
    lowers(f"aten.{_name}")(_comparison(_name, _of_whole))


@lowers("aten.isnan")
def _is_nan(builder: Builder, a: Arguments) -> View:
    return pointwise(builder, "not_equal", a["self"], a["self"])


@lowers("aten.isinf")
def _is_infinite(builder: Builder, a: Arguments) -> View:
    return pointwise(builder, "equal", pointwise(builder, "absolute", a["self"]), numbers=(float("inf"),))


@lowers("aten.any.dim", "aten.any.dims", "aten.any.default")
def _any(builder: Builder, a: Arguments) -> View:
    return _over(builder, a, pointwise(builder, "not_equal", a["self"], numbers=(0.0,)))


@lowers("aten.all.dim", "aten.all.dims", "aten.all.default")
def _all(builder: Builder, a: Arguments) -> View:
    return combined(builder, "subtract", 1.0, _over(builder, a, pointwise(builder, "equal", a["self"], numbers=(0.0,))))


def _over(builder: Builder, a: Arguments, view: View) -> View:
    dims = a.get("dim")
    dims = list(range(len(view.dims))) if dims is None else [dims] if isinstance(dims, int) else list(dims)
    return reduced(builder, "max", view, dims, keep=bool(a.get("keepdim")))


@lowers("aten.where.self", "aten.where.ScalarOther", "aten.where.ScalarSelf", "aten.where.Scalar")
def _where(builder: Builder, a: Arguments) -> View:
    keep, kept, other = a["condition"], a["self"], a["other"]
    first, second = _number(kept), _number(other)
    if isinstance(keep, View):
        if first is not None and second is not None:
            return between(builder, keep, first, second)
        if second is not None and isinstance(kept, View):
            return _selected(builder, keep, kept, second)
        if first is not None and isinstance(other, View):
            return _selected(builder, pointwise(builder, "equal", keep, numbers=(0.0,)), other, first)
        return chosen(builder, keep, kept, other)
    if isinstance(kept, View) and second is not None:
        return _masked(builder, kept, keep, second)
    if isinstance(other, View) and first is not None:
        return _masked(builder, other, ~keep, first)
    return chosen(builder, keep, kept, other)


def chosen(builder: Builder, keep: Value, kept: Any, other: Any) -> View:
    """Each element from the one or the other of two values."""
    if not isinstance(keep, View):
        keep = builder.keep(keep.float())
    rejected = keep == 0 if isinstance(keep, torch.Tensor) else pointwise(builder, "equal", keep, numbers=(0.0,))
    parts = [_part(builder, truth, value) for truth, value in ((keep, kept), (rejected, other))]
    left, right = (part for part in parts)
    return combined(builder, "add", left, right) if isinstance(left, View) else combined(builder, "add", right, left)


def _part(builder: Builder, truth: Value, value: Any) -> Any:
    """A value where a truth value holds, 0 elsewhere."""
    number = _number(value)
    if isinstance(truth, torch.Tensor):
        if not isinstance(value, View):
            return builder.keep(torch.where(truth != 0, torch.as_tensor(value).clamp(min=FAR_BELOW), 0.0))
        return pointwise(builder, "multiply", value, builder.keep(truth.float()))
    if number is not None:
        return pointwise(builder, "multiply", truth, numbers=(max(number, FAR_BELOW),))
    if isinstance(value, View):
        return pointwise(builder, "select", truth, value, numbers=(0.0,))
    return pointwise(builder, "multiply", truth, builder.keep(value.double().clamp(min=FAR_BELOW)))


@lowers("aten.masked_fill")
def _masked_fill(builder: Builder, a: Arguments) -> View:
    view, mask, value = a["self"], a["mask"], _number(a["value"])
    if value is None:
        return chosen(builder, mask, a["value"], view)
    if not isinstance(mask, View):
        return _masked(builder, view, ~mask, value)
    if not isinstance(view, View):
        return chosen(builder, mask, value, view)
    return _selected(builder, pointwise(builder, "equal", mask, numbers=(0.0,)), view, value)


def _number(value: Any) -> float | None:
    if isinstance(value, torch.Tensor) and value.numel() == 1:
        return float(value)
    return float(value) if isinstance(value, (int, float)) else None


def between(builder: Builder, keep: View, true: float, false: float) -> View:
    """One of two numbers, by a truth value that depends on an input."""
    true, false = max(true, FAR_BELOW), max(false, FAR_BELOW)
    scaled = pointwise(builder, "multiply", keep, numbers=(true - false,))
    return scaled if false == 0 else pointwise(builder, "add", scaled, numbers=(false,))


def _selected(builder: Builder, keep: View, view: View, value: float) -> View:
    """``view`` where a mask that depends on an input keeps it, ``value`` elsewhere."""
    return pointwise(builder, "select", keep, view, numbers=(max(value, BELOW_ALL),))


def _masked(builder: Builder, view: View, keep: torch.Tensor, value: float) -> View:
    """``view`` where a constant mask keeps it, ``value`` elsewhere."""
    if value < MASKS_BELOW:
        # What it meets lies above it, so that the smaller one is the one to choose, in one pass.
        highest = builder.derived(("mask", id(keep), value), lambda: torch.where(keep, float("inf"), value), keep)
        masked = pointwise(builder, "minimum", view, highest)
        if value == float("-inf") or not _masks_before(builder, view):
            return masked
        lowest = builder.derived(("floor", id(keep), value), lambda: torch.where(keep, float("-inf"), value), keep)
        return pointwise(builder, "maximum", masked, lowest)
    kept = pointwise(builder, "multiply", view, keep.float())
    return kept if value == 0 else pointwise(builder, "add", kept, torch.where(keep, 0.0, value))


def _masks_before(builder: Builder, view: View) -> bool:
    """Whether a value may hold what another mask left there: one of the elementwise operators before it masks."""
    makers = {operator.output: operator for operator in builder.operators}
    names, seen = [view.tensor], {view.tensor}
    for name in names:
        maker = makers.get(name)
        if maker is None or maker.kind != "vector":
            continue
        numbers = [number for step in maker.steps for number in step.numbers]
        if any(number < MASKS_BELOW for number in numbers):
            return True
        if any((array < MASKS_BELOW).any() for array in maker.constants.values()):
            return True
        if all(function_named(step.function).reach is Reach.ELEMENT for step in maker.steps):
            fresh = [operand.tensor for operand in maker.operands if operand.tensor not in seen]
            seen.update(fresh)
            names += fresh
    return False
