"""Elementwise operations, as vector operators of one step; `fuse` joins them."""

from __future__ import annotations

from math import log
from typing import Any

import torch

from gblr_hw.frontend.graph.builder import Builder, Value
from gblr_hw.frontend.graph.layout import LayoutError, View
from gblr_hw.frontend.graph.registry import Arguments, lowers
from gblr_hw.frontend.operators.vector_ops import pointwise
from simulator.network.vector_functions import function_named

_UNARY = {
    "neg": "negative", "abs": "absolute", "square": "square", "sqrt": "sqrt", "rsqrt": "rsqrt", "exp": "exp",
    "log": "log", "sin": "sine", "cos": "cosine", "tanh": "tanh", "erf": "erf", "sigmoid": "sigmoid",
    "relu": "relu", "silu": "silu", "expm1": "expm1", "log1p": "log1p", "floor": "floor", "ceil": "ceil",
    "round": "round", "trunc": "truncate", "sign": "sign", "tan": "tangent", "atan": "arctangent",
}  # fmt: skip


def _unary(function: str) -> Any:
    def lower(builder: Builder, a: Arguments) -> View:
        return pointwise(builder, function, a["self"])

    return lower


for _name, _function in _UNARY.items():
    lowers(f"aten.{_name}")(_unary(_function))


def _constant(value: Any) -> torch.Tensor | None:
    return value if isinstance(value, torch.Tensor) else None


def _scaled(builder: Builder, value: Any, factor: float) -> Any:
    if factor == 1:
        return value
    if isinstance(value, View):
        return pointwise(builder, "multiply", value, numbers=(factor,))
    return value * factor


def combined(builder: Builder, function: str, left: Any, right: Any) -> View:
    """A function of two values of which at least one depends on an input; the other may be a constant or a number."""
    if not isinstance(left, View):
        return _reversed(builder, function, left, right)
    if isinstance(right, View):
        return pointwise(builder, function, left, right)
    tensor = _constant(right)
    if tensor is None or tensor.numel() == 1:
        number = float(right) if tensor is None else float(tensor.detach())
        view = left if tensor is None or tensor.dim() <= len(left.dims) else _grown(left, tensor)
        return pointwise(builder, function, view, numbers=(number,))
    return pointwise(builder, function, left, tensor)


def _grown(view: View, tensor: torch.Tensor) -> View:
    return View(view.tensor, ((),) * (tensor.dim() - len(view.dims)) + view.dims, view.origin)


def _reversed(builder: Builder, function: str, left: Any, right: View) -> View:
    """A constant on the left: the vector unit takes its constants on the right."""
    if function_named(function).commutes:
        return combined(builder, function, right, left)
    if function == "subtract":
        return combined(builder, "add", pointwise(builder, "negative", right), left)
    if function == "divide":
        return combined(builder, "multiply", pointwise(builder, "power", right, numbers=(-1.0,)), left)
    raise LayoutError(f"the constant stands on the left of '{function}'")


@lowers("aten.add.Tensor", "aten.add.Scalar")
def _add(builder: Builder, a: Arguments) -> View:
    return combined(builder, "add", a["self"], _scaled(builder, a["other"], a["alpha"]))


@lowers("aten.sub.Tensor", "aten.sub.Scalar")
def _sub(builder: Builder, a: Arguments) -> View:
    return combined(builder, "subtract", a["self"], _scaled(builder, a["other"], a["alpha"]))


@lowers("aten.rsub.Tensor", "aten.rsub.Scalar")
def _rsub(builder: Builder, a: Arguments) -> View:
    return combined(builder, "subtract", a["other"], _scaled(builder, a["self"], a["alpha"]))


@lowers("aten.mul.Tensor", "aten.mul.Scalar")
def _mul(builder: Builder, a: Arguments) -> View:
    return combined(builder, "multiply", a["self"], a["other"])


@lowers("aten.div.Tensor", "aten.div.Scalar", "aten.true_divide.Tensor")
def _div(builder: Builder, a: Arguments) -> View:
    return combined(builder, "divide", a["self"], a["other"])


@lowers("aten.maximum", "aten.fmax")
def _maximum(builder: Builder, a: Arguments) -> View:
    return combined(builder, "maximum", a["self"], a["other"])


@lowers("aten.minimum", "aten.fmin")
def _minimum(builder: Builder, a: Arguments) -> View:
    return combined(builder, "minimum", a["self"], a["other"])


@lowers("aten.reciprocal")
def _reciprocal(builder: Builder, a: Arguments) -> View:
    return pointwise(builder, "power", a["self"], numbers=(-1.0,))


@lowers("aten.pow.Tensor_Scalar")
def _pow(builder: Builder, a: Arguments) -> View:
    exponent = float(a["exponent"])
    if exponent == 2.0:
        return pointwise(builder, "square", a["self"])
    return pointwise(builder, "power", a["self"], numbers=(exponent,))


@lowers("aten.gelu")
def _gelu(builder: Builder, a: Arguments) -> View:
    return pointwise(builder, "gelu_tanh" if a["approximate"] == "tanh" else "gelu", a["self"])


@lowers("aten.relu6")
def _relu6(builder: Builder, a: Arguments) -> View:
    return pointwise(builder, "clip", a["self"], numbers=(0.0, 6.0))


@lowers("aten.clamp.default", "aten.hardtanh.default", "aten.clamp_min.default", "aten.clamp_max.default")
def _clamp(builder: Builder, a: Arguments) -> View:
    low, high = a.get("min", a.get("min_val")), a.get("max", a.get("max_val"))
    low = float("-inf") if low is None else float(low)
    high = float("inf") if high is None else float(high)
    return pointwise(builder, "clip", a["self"], numbers=(low, high))


@lowers("aten.hardsigmoid")
def _hardsigmoid(builder: Builder, a: Arguments) -> View:
    shifted = pointwise(builder, "add", a["self"], numbers=(3.0,))
    return pointwise(builder, "multiply", pointwise(builder, "clip", shifted, numbers=(0.0, 6.0)), numbers=(1 / 6,))


@lowers("aten.hardswish")
def _hardswish(builder: Builder, a: Arguments) -> View:
    return pointwise(builder, "multiply", a["self"], _hardsigmoid(builder, a))


@lowers("aten.leaky_relu")
def _leaky_relu(builder: Builder, a: Arguments) -> View:
    slope = float(a["negative_slope"])
    scaled = pointwise(builder, "multiply", a["self"], numbers=(slope,))
    return pointwise(builder, "maximum" if slope <= 1 else "minimum", a["self"], scaled)


@lowers("aten.addcmul")
def _addcmul(builder: Builder, a: Arguments) -> View:
    scaled = _scaled(builder, _product(builder, a["tensor1"], a["tensor2"]), a["value"])
    return combined(builder, "add", a["self"], scaled)


def _product(builder: Builder, left: Value, right: Value) -> Value:
    if isinstance(left, torch.Tensor) and isinstance(right, torch.Tensor):
        return left * right
    return combined(builder, "multiply", left, right)


@lowers("aten.elu", "aten.celu")
def _elu(builder: Builder, a: Arguments) -> View:
    alpha, scale, inner = (float(a.get(name, 1) or 1) for name in ("alpha", "scale", "input_scale"))
    view = a["self"]
    below = pointwise(builder, "minimum", view, numbers=(0.0,))
    rising = pointwise(builder, "multiply", below, numbers=(inner / (alpha if "scale" not in a else 1.0),))
    curved = pointwise(builder, "multiply", pointwise(builder, "expm1", rising), numbers=(alpha,))
    both = pointwise(builder, "add", pointwise(builder, "relu", view), curved)
    return both if scale == 1 else pointwise(builder, "multiply", both, numbers=(scale,))


@lowers("aten.prelu", "aten._prelu_kernel")
def _prelu(builder: Builder, a: Arguments) -> View:
    view, slope = a["self"], a["weight"]
    if isinstance(slope, torch.Tensor) and slope.dim() == 1 and slope.numel() > 1 and len(view.dims) > 1:
        given = slope
        along = (-1, *[1] * (len(view.dims) - 2))
        slope = builder.derived(("slope", id(given)), lambda: given.reshape(along), given)
    below = combined(builder, "multiply", pointwise(builder, "minimum", view, numbers=(0.0,)), slope)
    return pointwise(builder, "add", pointwise(builder, "relu", view), below)


@lowers("aten.fmod")
def _fmod(builder: Builder, a: Arguments) -> View:
    """What is left of a division that is cut towards zero."""
    whole = pointwise(builder, "truncate", combined(builder, "divide", a["self"], a["other"]))
    return combined(builder, "subtract", a["self"], combined(builder, "multiply", whole, a["other"]))


@lowers("aten.remainder")
def _remainder(builder: Builder, a: Arguments) -> View:
    if (isinstance(a["self"], View) and not isinstance(a["other"], View)) or isinstance(a["other"], View):
        return combined(builder, "remainder", a["self"], a["other"])
    raise LayoutError("a remainder of constants")


@lowers("aten.floor_divide", "aten.div.Tensor_mode", "aten.div.Scalar_mode")
def _floor_divide(builder: Builder, a: Arguments) -> View:
    quotient = combined(builder, "divide", a["self"], a["other"])
    mode = a.get("rounding_mode", "floor")
    return quotient if mode is None else pointwise(builder, "floor" if mode == "floor" else "truncate", quotient)


@lowers("aten.pow.Tensor_Tensor", "aten.pow.Scalar")
def _power(builder: Builder, a: Arguments) -> View:
    base, exponent = a["self"], a["exponent"]
    if isinstance(base, View):
        return combined(builder, "power", base, exponent)
    if isinstance(base, torch.Tensor) and base.numel() > 1:
        scaled = combined(builder, "multiply", exponent, builder.keep(torch.log(base)))
    else:
        scaled = pointwise(builder, "multiply", exponent, numbers=(log(float(base)),))
    return pointwise(builder, "exp", scaled)


@lowers("aten.exp2", "aten.special_exp2")
def _exp2(builder: Builder, a: Arguments) -> View:
    return pointwise(builder, "exp", pointwise(builder, "multiply", a["self"], numbers=(log(2.0),)))


@lowers("aten.log2")
def _log2(builder: Builder, a: Arguments) -> View:
    return pointwise(builder, "multiply", pointwise(builder, "log", a["self"]), numbers=(1 / log(2.0),))


@lowers("aten.log_sigmoid")
def _log_sigmoid(builder: Builder, a: Arguments) -> View:
    below = pointwise(builder, "minimum", a["self"], numbers=(0.0,))
    return pointwise(builder, "subtract", below, rounded_corner(builder, a["self"]))


@lowers("aten.log_sigmoid_forward")
def _log_sigmoid_forward(builder: Builder, a: Arguments) -> tuple[View]:
    return (_log_sigmoid(builder, a),)


@lowers("aten.rrelu_with_noise_functional")
def _random_leaky_relu(builder: Builder, a: Arguments) -> tuple[View]:
    """Outside training the slope is the middle of its range."""
    if a["training"]:
        raise LayoutError("slopes are drawn in a model that is in evaluation mode")
    slope = (float(a["lower"]) + float(a["upper"])) / 2
    return (_leaky_relu(builder, {"self": a["self"], "negative_slope": slope}),)


@lowers("aten.clamp.Tensor", "aten.clamp_min.Tensor", "aten.clamp_max.Tensor")
def _clamp_by_values(builder: Builder, a: Arguments) -> View:
    view = a["self"]
    for name, function in (("min", "maximum"), ("max", "minimum")):
        if a.get(name) is not None:
            view = combined(builder, function, view, a[name])
    return view


@lowers("aten.softplus")
def _softplus(builder: Builder, a: Arguments) -> View:
    """Where beta x is above the threshold the framework returns x, which is less than a rounding away."""
    beta, view = float(a["beta"]), a["self"]
    if beta != 1:
        view = pointwise(builder, "multiply", view, numbers=(beta,))
    raised = pointwise(builder, "add", pointwise(builder, "relu", view), rounded_corner(builder, view))
    if float(a["threshold"]) < 15:
        above = pointwise(builder, "greater", view, numbers=(float(a["threshold"]),))
        corner = pointwise(builder, "equal", above, numbers=(0.0,))
        raised = pointwise(builder, "add", pointwise(builder, "multiply", above, view),
                           pointwise(builder, "multiply", corner, raised))  # fmt: skip
    return raised if beta == 1 else pointwise(builder, "multiply", raised, numbers=(1 / beta,))


def rounded_corner(builder: Builder, view: View) -> View:
    """log(1 + exp(-|x|)), which no magnitude of x overflows."""
    falling = pointwise(builder, "negative", pointwise(builder, "absolute", view))
    return pointwise(builder, "log1p", pointwise(builder, "exp", falling))
