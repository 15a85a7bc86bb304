"""Complex values as pairs of real ones: rotations, spectra and their filters; Fourier transforms by their matrices."""

from __future__ import annotations

from functools import partial
from math import pi, sqrt
from typing import Any

import torch

from gblr_hw.frontend.graph import layout
from gblr_hw.frontend.graph.builder import Builder, Value
from gblr_hw.frontend.graph.complex_value import Complex
from gblr_hw.frontend.graph.layout import LayoutError, View
from gblr_hw.frontend.graph.registry import LOWERINGS, Arguments, lowering_of, lowers_complex
from gblr_hw.frontend.operators.join_ops import concatenated
from gblr_hw.frontend.operators.matrix_ops import along
from gblr_hw.frontend.operators.relays import seen
from gblr_hw.frontend.operators.vector_ops import pointwise
from gblr_hw.frontend.torch_ops import lower_choices, lower_joins, lower_rows, lower_views
from gblr_hw.frontend.torch_ops.lower_functions import angle, as_view, hypotenuse
from gblr_hw.frontend.torch_ops.lower_matrix import matmul
from gblr_hw.frontend.torch_ops.lower_pointwise import combined

# The modules that declare what is done by part; naming them keeps the imports from looking unused.
_DECLARED = (lower_choices, lower_joins, lower_rows, lower_views)
# What does to a complex value what it does to each of its parts.
_BY_PART = (
    "aten.view", "aten.reshape", "aten._unsafe_view", "aten.flatten", "aten.unflatten", "aten.permute",
    "aten.transpose", "aten.t", "aten.movedim", "aten.unsqueeze", "aten.squeeze", "aten.expand", "aten.repeat",
    "aten.slice", "aten.select", "aten.narrow", "aten.split", "aten.split_with_sizes", "aten.chunk", "aten.unbind",
    "aten.clone", "aten.alias", "aten.contiguous", "aten.detach", "aten.cat", "aten.stack", "aten.roll", "aten.flip",
    "aten.sum", "aten.mean", "aten.neg", "aten.pad", "aten.constant_pad_nd", "aten.index_select", "aten.index",
    "aten.slice_scatter", "aten.select_scatter", "aten.index_copy", "aten.index_put", "aten.gather", "aten.embedding",
    "aten.cumsum", "aten.unfold", "aten.diagonal",
)  # fmt: skip


def _part(value: Any, name: str) -> Any:
    """The real or the imaginary part of an argument; None for one that is zero."""
    if isinstance(value, (list, tuple)):
        return type(value)(_part(one, name) for one in value)
    if isinstance(value, Complex):
        return getattr(value, name)
    if isinstance(value, torch.Tensor) and value.dtype.is_complex:
        return getattr(torch.resolve_conj(value), name).contiguous()
    if isinstance(value, complex):
        return getattr(value, name)
    return value


def _filled(builder: Builder, part: Any, whole: Any) -> Any:
    """A part with zeros where it is None, but for one that is so in all."""
    if isinstance(whole, (list, tuple)):
        return [_filled(builder, *pair) for pair in zip(part, whole, strict=True)]
    missing = isinstance(whole, Complex) and part is None
    return builder.keep(torch.zeros(whole.shape)) if missing else part


def _has_view(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return any(_has_view(one) for one in value)
    return isinstance(value, View)


def _is_other(value: Any) -> bool:
    """Whether a value holds a constant part that is not zero throughout."""
    if isinstance(value, (list, tuple)):
        return any(_is_other(one) for one in value)
    return isinstance(value, torch.Tensor) and value.is_floating_point() and bool(value.any())


def _zeroed(builder: Builder, part: Any, whole: Any) -> Any:
    """A part with computed zeros where a complex value has none."""
    if isinstance(whole, (list, tuple)):
        return [_zeroed(builder, *pair) for pair in zip(part, whole, strict=True)]
    missing = isinstance(whole, Complex) and part is None
    return pointwise(builder, "multiply", whole.real, numbers=(0.0,)) if missing else part


def _by_part(name: str) -> Any:
    def lower(builder: Builder, a: Arguments) -> Any:
        results: list[Any] = []
        for part in ("real", "imag"):
            given = {key: _part(value, part) for key, value in a.items()}
            if not any(_has_view(value) for value in given.values()):
                if not any(_is_other(value) for value in given.values()):
                    results.append(None)
                    continue
                # A constant's part stays beside values that have none: these are zeros that the graph holds.
                given = {key: _zeroed(builder, given[key], value) for key, value in a.items()}
            given = {key: _filled(builder, value, a[key]) for key, value in given.items()}
            lowering = lowering_of(name, LOWERINGS)
            assert lowering is not None
            results.append(lowering(builder, given))
        real, imag = results
        if isinstance(real, tuple):
            return tuple(Complex(one, None if imag is None else imag[place]) for place, one in enumerate(real))
        return Complex(real, imag)

    return lower


for _name in LOWERINGS:
    if _name in _BY_PART or _name.rpartition(".")[0] in _BY_PART:
        lowers_complex(_name)(_by_part(_name))


@lowers_complex("aten.view_as_complex", "aten.complex", "aten.polar")
def _made(builder: Builder, a: Arguments) -> Complex:
    if "abs" in a:
        real, imag = (
            _times(builder, a["abs"], pointwise(builder, name, a["angle"]) if isinstance(a["angle"], View)
                   else builder.keep(function(a["angle"])))
            for name, function in (("cosine", torch.cos), ("sine", torch.sin))
        )  # fmt: skip
        return Complex(as_view(builder, real, imag), as_view(builder, imag, real))
    if "imag" in a:
        return Complex(as_view(builder, a["real"], a["imag"]), as_view(builder, a["imag"], a["real"]))
    last = len(a["self"].dims) - 1
    real, imag = (
        layout.drop(seen(builder, a["self"], partial(layout.take, position=last, start=place, count=1)), last)
        for place in range(2)
    )
    return Complex(real, imag)


@lowers_complex("aten.view_as_real")
def _as_real(builder: Builder, a: Arguments) -> View:
    value, last = a["self"], len(a["self"].shape)
    parts: list[Value] = [
        layout.insert(value.real, last),
        layout.insert(value.imag, last) if value.imag is not None else builder.keep(torch.zeros(*value.shape, 1)),
    ]
    return concatenated(builder, parts, last)


@lowers_complex("aten.real")
def _real(builder: Builder, a: Arguments) -> View:
    return a["self"].real


@lowers_complex("aten.imag")
def _imag(builder: Builder, a: Arguments) -> View:
    value = a["self"]
    return value.imag if value.imag is not None else pointwise(builder, "multiply", value.real, numbers=(0.0,))


@lowers_complex("aten.to", "aten._to_copy")
def _convert(builder: Builder, a: Arguments) -> Any:
    value, target = a["self"], a.get("dtype")
    if isinstance(value, View):
        return Complex(value, None)
    return value if target is None or target.is_complex else value.real


@lowers_complex("aten._conj", "aten.conj", "aten.conj_physical", "aten._conj_physical", "aten._conj_copy")
def _conjugate(builder: Builder, a: Arguments) -> Complex:
    value = a["self"]
    return Complex(value.real, None if value.imag is None else pointwise(builder, "negative", value.imag))


@lowers_complex("aten.resolve_conj", "aten.resolve_neg")
def _same(builder: Builder, a: Arguments) -> Any:
    return a["self"]


@lowers_complex("aten.copy.default")
def _copy(builder: Builder, a: Arguments) -> Any:
    """What is written over a whole value: broadcast to its shape, and of a real one only the real part."""
    into, source = a["self"], a["src"]
    shape = tuple(into.shape)
    kept = isinstance(into, Complex) or (isinstance(into, torch.Tensor) and into.dtype.is_complex)
    if isinstance(source, torch.Tensor):
        return source.to(torch.complex64).expand(shape) if kept else torch.real(source).expand(shape)
    value = source if isinstance(source, Complex) else Complex(source, None)
    real = layout.expand(value.real, shape)
    if not kept:
        return real
    return Complex(real, None if value.imag is None else layout.expand(value.imag, shape))


@lowers_complex("aten.abs")
def _absolute(builder: Builder, a: Arguments) -> View:
    value = a["self"]
    if value.imag is None:
        return pointwise(builder, "absolute", value.real)
    return hypotenuse(builder, value.real, value.imag)


@lowers_complex("aten.angle")
def _angle(builder: Builder, a: Arguments) -> View:
    return angle(builder, _imag(builder, a), a["self"].real)


@lowers_complex("aten.exp")
def _exponential(builder: Builder, a: Arguments) -> Complex:
    value = a["self"]
    size = pointwise(builder, "exp", value.real)
    if value.imag is None:
        return Complex(size, None)
    real, imag = (
        pointwise(builder, "multiply", size, pointwise(builder, name, value.imag)) for name in ("cosine", "sine")
    )
    return Complex(real, imag)


def _pair(value: Any) -> tuple[Any, Any]:
    """Real and imaginary part of any argument; None for a part that is zero."""
    complex_one = isinstance(value, (Complex, complex)) or (isinstance(value, torch.Tensor) and value.dtype.is_complex)
    return (_part(value, "real"), _part(value, "imag")) if complex_one else (value, None)


def _times(builder: Builder, left: Any, right: Any) -> Any:
    """A product of parts, None if one is zero; one of constants is a constant."""
    if left is None or right is None:
        return None
    if not isinstance(left, View) and not isinstance(right, View):
        return builder.keep(torch.as_tensor(left * right))
    return combined(builder, "multiply", left, _named(builder, right))


def _named(builder: Builder, value: Any) -> Any:
    return builder.keep(value) if isinstance(value, torch.Tensor) else value


def _sum(builder: Builder, function: str, left: Any, right: Any) -> Any:
    """left + right or left - right, of parts of which None is zero."""
    if right is None:
        return left
    if left is None:
        if function == "add":
            return right
        return pointwise(builder, "negative", right) if isinstance(right, View) else -right
    if not isinstance(left, View) and not isinstance(right, View):
        return builder.keep(torch.as_tensor(left + right if function == "add" else left - right))
    return combined(builder, function, _named(builder, left), _named(builder, right))


def _whole(builder: Builder, real: Any, imag: Any) -> Complex:
    """A value of two parts, one of which may be a constant or zero."""
    if not isinstance(real, View):
        assert isinstance(imag, View)
        zero = pointwise(builder, "multiply", imag, numbers=(0.0,))
        real = zero if real is None else combined(builder, "add", zero, real)
    if imag is not None and not isinstance(imag, View):
        imag = as_view(builder, torch.as_tensor(imag), real)
    if imag is not None and imag.shape != real.shape:
        real, imag = (layout.expand(one, torch.broadcast_shapes(real.shape, imag.shape)) for one in (real, imag))
    return Complex(real, imag)


@lowers_complex("aten.mul.Tensor", "aten.mul.Scalar")
def _multiply(builder: Builder, a: Arguments) -> Complex:
    return _product(builder, a["self"], a["other"])


def _product(builder: Builder, left: Any, right: Any) -> Complex:
    (a, b), (c, d) = _pair(left), _pair(right)
    real = _sum(builder, "subtract", _times(builder, a, c), _times(builder, b, d))
    imag = _sum(builder, "add", _times(builder, a, d), _times(builder, b, c))
    return _whole(builder, real, imag)


@lowers_complex("aten.div.Tensor", "aten.div.Scalar")
def _divide(builder: Builder, a: Arguments) -> Complex:
    left, (real, imag) = a["self"], _pair(a["other"])
    if imag is None:
        inverse = pointwise(builder, "power", real, numbers=(-1.0,)) if isinstance(real, View) else 1 / real
        return _product(builder, left, inverse)
    if not isinstance(a["other"], Complex):
        return _product(builder, left, 1 / a["other"])
    squares = pointwise(builder, "add", pointwise(builder, "square", real), pointwise(builder, "square", imag))
    inverse = pointwise(builder, "power", squares, numbers=(-1.0,))
    other = _conjugate(builder, {"self": a["other"]})
    return _product(builder, _product(builder, left, other), inverse)


@lowers_complex("aten.add.Tensor", "aten.add.Scalar", "aten.sub.Tensor", "aten.sub.Scalar")
def _add(builder: Builder, a: Arguments) -> Complex:
    if a["alpha"] != 1:
        raise LayoutError("a scaled complex value is added")
    function = "subtract" if builder.site.operation == "sub" else "add"
    parts = (_sum(builder, function, *pair) for pair in zip(_pair(a["self"]), _pair(a["other"]), strict=True))
    return _whole(builder, *parts)


@lowers_complex("aten.matmul.default", "aten.bmm.default", "aten.mm.default")
def _matrices(builder: Builder, a: Arguments) -> Complex:
    (left, left_imag), (right, right_imag) = _pair(a["self"]), _pair(a["other"] if "other" in a else a["mat2"])

    def product(one: Any, other: Any) -> Any:
        return None if one is None or other is None else matmul(builder, _named(builder, one), _named(builder, other))

    real = _sum(builder, "subtract", product(left, right), product(left_imag, right_imag))
    imag = _sum(builder, "add", product(left, right_imag), product(left_imag, right))
    return _whole(builder, real, imag)


@lowers_complex("aten.linear.default", "aten.addmm.default")
def _affine(builder: Builder, a: Arguments) -> Any:
    """x W' + b, and b + x W."""
    if "weight" in a:
        weight = a["weight"]
        turned = weight.mT.contiguous() if isinstance(weight, torch.Tensor) else _turned(weight)
        found, bias = _matrices(builder, {"self": a["input"], "other": turned}), a["bias"]
    elif a["beta"] == 1 and a["alpha"] == 1:
        found, bias = _matrices(builder, {"self": a["mat1"], "mat2": a["mat2"]}), a["self"]
    else:
        raise LayoutError("a scaled complex value is added")
    if bias is None:
        return found
    parts = (_sum(builder, "add", *pair) for pair in zip(_pair(found), _pair(bias), strict=True))
    return _whole(builder, *parts)


def _turned(value: View | Complex) -> View | Complex:
    if isinstance(value, View):
        return layout.permute(value, [*range(len(value.dims) - 2), len(value.dims) - 1, len(value.dims) - 2])
    return Complex(*(None if one is None else _turned(one) for one in (value.real, value.imag)))  # type: ignore[arg-type]


@lowers_complex("aten.where.self", "aten.where.ScalarOther", "aten.where.ScalarSelf")
def _where(builder: Builder, a: Arguments) -> Complex:
    """Either of two complex values, part by part; a real one has zeros beside it."""
    choose = LOWERINGS["aten.where.self"]
    parts = []
    for pair in zip(_pair(a["self"]), _pair(a["other"]), strict=True):
        if any(one is not None for one in pair):
            one, other = (builder.keep(torch.zeros(())) if part is None else _named(builder, part) for part in pair)
            parts.append(choose(builder, {"condition": a["condition"], "self": one, "other": other}))
        else:
            parts.append(None)
    return _whole(builder, *parts)


def _scale(normalization: int, size: int) -> float:
    """What a transform over ``size`` places is multiplied by: 1, or one over the root of their number, or over it."""
    return (1.0, 1 / sqrt(size), 1 / size)[normalization]


def _waves(outputs: int, inputs: int, period: int, sign: float, scale: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and sines of 2 pi k n / period, each (outputs, inputs), scaled."""
    angles = torch.outer(torch.arange(outputs), torch.arange(inputs)).remainder(period).double() * (2 * pi / period)
    return torch.cos(angles) * scale, torch.sin(angles) * (sign * scale)


def _transformed(builder: Builder, value: Complex, dim: int, sign: float, normalization: int) -> Complex:
    """A Fourier transform along one dimension: the products of both parts with cosines and sines."""
    size = value.shape[dim]
    cosine, sine = _waves(size, size, size, sign, _scale(normalization, size))
    real, imag = along(builder, value.real, dim, cosine), along(builder, value.real, dim, sine)
    if value.imag is None:
        return Complex(real, imag)
    turned = along(builder, value.imag, dim, sine), along(builder, value.imag, dim, cosine)
    return Complex(pointwise(builder, "subtract", real, turned[0]), pointwise(builder, "add", imag, turned[1]))


@lowers_complex("aten._fft_r2c.default")
def _real_transform(builder: Builder, a: Arguments) -> Complex:
    """Of a real value, of whose spectrum along the last of the dimensions one side may be enough."""
    view, (*dims, last) = a["self"], [dim % len(a["self"].dims) for dim in a["dim"]]
    size = view.shape[last]
    cosine, sine = _waves(size // 2 + 1 if a["onesided"] else size, size, size, -1.0, _scale(a["normalization"], size))
    value = Complex(along(builder, view, last, cosine), along(builder, view, last, sine))
    for dim in dims:
        value = _transformed(builder, value, dim, -1.0, a["normalization"])
    return value


@lowers_complex("aten._fft_c2c.default")
def _complex_transform(builder: Builder, a: Arguments) -> Complex:
    value = a["self"]
    for dim in a["dim"]:
        sign = -1.0 if a["forward"] else 1.0
        value = _transformed(builder, value, dim % len(value.shape), sign, a["normalization"])
    return value


@lowers_complex("aten._fft_c2r.default")
def _transform_to_real(builder: Builder, a: Arguments) -> View:
    """Back from one side of the spectrum along the last of the dimensions: what is on the other counts twice."""
    value = a["self"]
    *dims, last = (dim % len(value.shape) for dim in a["dim"])
    for dim in dims:
        value = _transformed(builder, value, dim, 1.0, a["normalization"])
    size, given = a["last_dim_size"], value.shape[last]
    cosine, sine = _waves(size, given, size, -1.0, _scale(a["normalization"], size))
    weights = torch.full((given,), 2.0, dtype=torch.float64)
    weights[0] = 1.0
    if size % 2 == 0:
        weights[size // 2 :] = 1.0
    real = along(builder, value.real, last, cosine * weights)
    if value.imag is None:
        return real
    return pointwise(builder, "add", real, along(builder, value.imag, last, sine * weights))
