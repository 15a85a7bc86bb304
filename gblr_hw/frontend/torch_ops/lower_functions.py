"""Functions that the vector unit has no step for, as runs of those that it has."""

from __future__ import annotations

from math import log, pi
from typing import Any

import torch

from gblr_hw.frontend.graph.builder import Builder, Value
from gblr_hw.frontend.graph.layout import LayoutError, View, insert
from gblr_hw.frontend.graph.registry import Arguments, lowers
from gblr_hw.frontend.operators.vector_ops import pointwise, reduced
from gblr_hw.frontend.torch_ops.lower_pointwise import combined


def _times(builder: Builder, view: View, number: float) -> View:
    return pointwise(builder, "multiply", view, numbers=(number,))


def _plus(builder: Builder, view: View, number: float) -> View:
    return pointwise(builder, "add", view, numbers=(number,))


@lowers("aten.asin")
def _arcsine(builder: Builder, a: Arguments) -> View:
    """The angle whose tangent is x over the square root of 1 - x²; x over 0 is infinite, and its angle a right one."""
    square = pointwise(builder, "square", a["self"])
    other = pointwise(builder, "sqrt", _plus(builder, pointwise(builder, "negative", square), 1.0))
    return pointwise(builder, "arctangent", pointwise(builder, "divide", a["self"], other))


@lowers("aten.acos")
def _arccosine(builder: Builder, a: Arguments) -> View:
    return _plus(builder, pointwise(builder, "negative", _arcsine(builder, a)), pi / 2)


def _exponentials(builder: Builder, view: View) -> tuple[View, View]:
    return pointwise(builder, "exp", view), pointwise(builder, "exp", pointwise(builder, "negative", view))


@lowers("aten.sinh")
def _sinh(builder: Builder, a: Arguments) -> View:
    """Half of e^x - 1 plus the same over e^x, so that small magnitudes keep their digits."""
    grown = pointwise(builder, "expm1", a["self"])
    both = pointwise(builder, "add", grown, pointwise(builder, "divide", grown, _plus(builder, grown, 1.0)))
    return _times(builder, both, 0.5)


@lowers("aten.cosh")
def _cosh(builder: Builder, a: Arguments) -> View:
    return _times(builder, pointwise(builder, "add", *_exponentials(builder, a["self"])), 0.5)


@lowers("aten.asinh")
def _arsinh(builder: Builder, a: Arguments) -> View:
    """log(|x| + sqrt(x² + 1)) with the sign of x."""
    size = pointwise(builder, "absolute", a["self"])
    root = pointwise(builder, "sqrt", _plus(builder, pointwise(builder, "square", a["self"]), 1.0))
    magnitude = pointwise(builder, "log", pointwise(builder, "add", size, root))
    return pointwise(builder, "multiply", pointwise(builder, "sign", a["self"]), magnitude)


@lowers("aten.acosh")
def _arcosh(builder: Builder, a: Arguments) -> View:
    root = pointwise(builder, "sqrt", _plus(builder, pointwise(builder, "square", a["self"]), -1.0))
    return pointwise(builder, "log", pointwise(builder, "add", a["self"], root))


@lowers("aten.atanh")
def _artanh(builder: Builder, a: Arguments) -> View:
    above = pointwise(builder, "log1p", a["self"])
    below = pointwise(builder, "log1p", pointwise(builder, "negative", a["self"]))
    return _times(builder, pointwise(builder, "subtract", above, below), 0.5)


@lowers("aten.erfc")
def _erfc(builder: Builder, a: Arguments) -> View:
    return _plus(builder, pointwise(builder, "negative", pointwise(builder, "erf", a["self"])), 1.0)


@lowers("aten.log10")
def _log10(builder: Builder, a: Arguments) -> View:
    return _times(builder, pointwise(builder, "log", a["self"]), 1 / log(10.0))


@lowers("aten.signbit")
def _signbit(builder: Builder, a: Arguments) -> View:
    return pointwise(builder, "less", a["self"], numbers=(0.0,))


@lowers("aten.hypot")
def _hypot(builder: Builder, a: Arguments) -> View:
    return hypotenuse(builder, a["self"], a["other"])


def hypotenuse(builder: Builder, left: View, right: View) -> View:
    """The square root of the sum of two values' squares."""
    squares = (pointwise(builder, "square", one) for one in (left, right))
    return pointwise(builder, "sqrt", pointwise(builder, "add", *squares))


@lowers("aten.atan2")
def _atan2(builder: Builder, a: Arguments) -> View:
    return angle(builder, a["self"], a["other"])


def angle(builder: Builder, y: Value, x: Value) -> View:
    """The angle of the point (x, y): twice that whose tangent is y / (r + x), or, left of the axis, (r - x) / y."""
    y, x = (as_view(builder, one, other) for one, other in ((y, x), (x, y)))
    slope = pointwise(builder, "arctangent", pointwise(builder, "divide", y, x))
    left = pointwise(builder, "less", x, numbers=(0.0,))
    lower = pointwise(builder, "less", y, numbers=(0.0,))
    side = _plus(builder, _times(builder, lower, -2 * pi), pi)
    return pointwise(builder, "add", slope, pointwise(builder, "multiply", left, side))


def as_view(builder: Builder, one: Value, other: Value) -> View:
    """A value that is a constant where the other depends on an input, as if it did too."""
    if isinstance(one, View):
        return one
    assert isinstance(other, View)
    return combined(builder, "add", pointwise(builder, "multiply", other, numbers=(0.0,)), one)


@lowers("aten.copysign")
def _copysign(builder: Builder, a: Arguments) -> Any:
    """The magnitude of one with the sign of another, where zero counts as positive."""
    size, other = a["self"], a["other"]
    size = pointwise(builder, "absolute", size) if isinstance(size, View) else builder.keep(size.abs())
    if not isinstance(other, View):
        sign = torch.as_tensor(other, dtype=torch.float64)
        return combined(builder, "multiply", size, builder.keep(torch.copysign(torch.ones_like(sign), sign)))
    negative = pointwise(builder, "less", other, numbers=(0.0,))
    return combined(builder, "multiply", _plus(builder, _times(builder, negative, -2.0), 1.0), size)


@lowers("aten.ldexp.Tensor")
def _ldexp(builder: Builder, a: Arguments) -> View:
    other = a["other"]
    if not isinstance(other, View):
        return combined(builder, "multiply", a["self"], builder.keep(torch.exp2(other.double())))
    power = pointwise(builder, "exp", _times(builder, other, log(2.0)))
    return combined(builder, "multiply", power, a["self"])


@lowers("aten.bucketize.Tensor", "aten.searchsorted.Tensor")
def _bucketize(builder: Builder, a: Arguments) -> View:
    """How many constant edges lie below each element (or not above it, "right")."""
    edges = a.get("boundaries", a.get("sorted_sequence"))
    if not isinstance(edges, torch.Tensor) or edges.dim() != 1:
        raise LayoutError("edges that depend on an input, or differ by row")
    right = bool(a["right"]) or a.get("side") == "right"
    view = insert(a["self"], len(a["self"].dims))
    over = pointwise(builder, "greater_equal" if right else "greater", view, builder.keep(edges.float()))
    return reduced(builder, "sum", over, [len(view.dims) - 1], keep=False)
