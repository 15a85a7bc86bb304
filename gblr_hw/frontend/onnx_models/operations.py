"""ONNX operators by name, each as a torch function of what depends on the network's inputs.

An operator whose inputs are all constants never gets here: the onnx package's own reference evaluates it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor, nn

from gblr_hw.frontend.onnx_models.node import Made, Node
from simulator.base.arithmetic import ceil_div

Maker = Callable[[Node], Made]
MAKERS: dict[str, Maker] = {}


def makes(*names: str) -> Callable[[Maker], Maker]:
    """Declare how operators of these names become torch functions."""

    def add(maker: Maker) -> Maker:
        for name in names:
            if name in MAKERS:
                raise TypeError(f"ONNX operator '{name}' has two entries")
            MAKERS[name] = maker
        return maker

    return add


def _plain(function: Callable[..., Any]) -> Maker:
    return lambda node: node.with_constants(function)


_ELEMENTWISE: dict[str, Callable[..., Any]] = {
    "Add": torch.add, "Sub": torch.sub, "Mul": torch.mul, "Div": torch.div, "Pow": torch.pow, "Sqrt": torch.sqrt,
    "Exp": torch.exp, "Log": torch.log, "Neg": torch.neg, "Abs": torch.abs, "Erf": torch.erf, "Sin": torch.sin,
    "Cos": torch.cos, "Tanh": torch.tanh, "Sigmoid": torch.sigmoid, "Relu": torch.relu, "Identity": lambda x: x,
    "Dropout": lambda x, *rest: x, "Reciprocal": torch.reciprocal, "Softplus": F.softplus, "HardSwish": F.hardswish,
    "Mish": F.mish, "Where": torch.where, "Equal": torch.eq, "Less": torch.lt, "Greater": torch.gt,
    "LessOrEqual": torch.le, "GreaterOrEqual": torch.ge, "Not": torch.logical_not, "And": torch.logical_and,
    "Or": torch.logical_or, "Floor": torch.floor, "Ceil": torch.ceil, "Round": torch.round, "Sign": torch.sign,
}  # fmt: skip
for _name, _function in _ELEMENTWISE.items():
    makes(_name)(_plain(_function))


def _folded(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    def over_all(first: Tensor, *rest: Tensor) -> Tensor:
        for one in rest:
            first = function(first, one)
        return first

    return over_all


makes("Max")(_plain(_folded(torch.maximum)))
makes("Min")(_plain(_folded(torch.minimum)))
makes("Sum")(_plain(_folded(torch.add)))


@makes("Gelu")
def _gelu(node: Node) -> Made:
    how = node.attribute("approximate", "none")
    return node.with_constants(lambda x: F.gelu(x, approximate=how))


@makes("LeakyRelu")
def _leaky_relu(node: Node) -> Made:
    slope = float(node.attribute("alpha", 0.01))
    return node.with_constants(lambda x: F.leaky_relu(x, slope))


@makes("Elu")
def _elu(node: Node) -> Made:
    alpha = float(node.attribute("alpha", 1.0))
    return node.with_constants(lambda x: F.elu(x, alpha))


@makes("HardSigmoid")
def _hard_sigmoid(node: Node) -> Made:
    alpha, beta = float(node.attribute("alpha", 0.2)), float(node.attribute("beta", 0.5))
    return node.with_constants(lambda x: torch.clamp(alpha * x + beta, 0.0, 1.0))


@makes("PRelu")
def _prelu(node: Node) -> Made:
    return node.with_constants(lambda x, slope: torch.relu(x) - slope * torch.relu(-x))


@makes("Clip")
def _clip(node: Node) -> Made:
    bounds = [node.attribute("min"), node.attribute("max")]
    for place in (1, 2):
        if node.given(place):
            bounds[place - 1] = float(node.constant(place, "bound"))
    return lambda x: torch.clamp(x, *bounds)


@makes("Softmax", "LogSoftmax")
def _softmax(node: Node) -> Made:
    function = F.softmax if node.proto.op_type == "Softmax" else F.log_softmax
    if node.opset >= 13:
        axis = int(node.attribute("axis", -1))
        return lambda x: function(x, axis)
    axis = int(node.attribute("axis", 1))  # before opset 13, over all axes from this one on
    if axis not in (-1, node.rank(0) - 1):
        raise node.refused(f"axis {axis} of {node.rank(0)} in opset {node.opset}", "it is over the last axis")
    return lambda x: function(x, -1)


@makes("Cast", "CastLike")
def _cast(node: Node) -> Made:
    import onnx

    if node.proto.op_type == "CastLike":
        return node.with_constants(lambda x, like: x.to(like.dtype))
    kind = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(node.attribute("to")))
    wanted = torch.from_numpy(np.zeros(1, kind)).dtype
    return lambda x: x.to(wanted)


@makes("MatMul")
def _matmul(node: Node) -> Made:
    if node.is_constant(1) and node.constants[node.proto.input[1]].ndim == 2:
        return _linear(node.constants[node.proto.input[1]].T, None)
    return node.with_constants(torch.matmul)


def _linear(weight: np.ndarray, bias: np.ndarray | None) -> nn.Module:
    """A layer of its own, so that the network's reports and conversions know it by the node's name."""
    outputs, inputs = weight.shape
    layer = nn.Linear(inputs, outputs, bias=bias is not None, dtype=_dtype_of(weight))
    return _filled(layer, weight, bias)


def _filled(layer: Any, weight: np.ndarray, bias: np.ndarray | None) -> nn.Module:
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(np.array(weight)))
        if bias is not None:
            layer.bias.copy_(torch.from_numpy(np.array(bias)))
    return layer


def _dtype_of(array: np.ndarray) -> torch.dtype:
    return torch.from_numpy(np.zeros(1, array.dtype)).dtype


@makes("Gemm")
def _gemm(node: Node) -> Made:
    alpha, beta = float(node.attribute("alpha", 1.0)), float(node.attribute("beta", 1.0))
    turn_a, turn_b = bool(node.attribute("transA", 0)), bool(node.attribute("transB", 0))
    if node.is_constant(1) and not turn_a:
        matrix = alpha * np.asarray(node.constants[node.proto.input[1]])
        weight = matrix if turn_b else matrix.T
        if not node.given(2):
            return _linear(weight, None)
        if node.is_constant(2):
            bias = beta * np.asarray(node.constants[node.proto.input[2]]).reshape(-1)
            return _linear(weight, np.broadcast_to(bias, (len(weight),)))

    def product(a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
        found = alpha * ((a.T if turn_a else a) @ (b.T if turn_b else b))
        return found if c is None else found + beta * c

    return node.with_constants(product)


@makes("Einsum")
def _einsum(node: Node) -> Made:
    equation = node.attribute("equation")
    return node.with_constants(lambda *values: torch.einsum(equation, *values))


@makes("Conv", "ConvTranspose")
def _conv(node: Node) -> Made:
    kernel = node.constant(1, "kernel")
    spatial = kernel.ndim - 2
    strides = node.ints("strides", 99) or (1,) * spatial
    dilations = node.ints("dilations", 99) or (1,) * spatial
    groups, bias = int(node.attribute("group", 1)), node.constant(2, "bias") if node.given(2) else None
    before, after = pads_of(node, spatial, kernel.shape[2:], strides, dilations)
    if node.proto.op_type == "ConvTranspose":
        if before != after:
            raise node.refused(f"padding {before} before and {after} after", "both sides are padded alike")
        more = node.ints("output_padding", 99) or (0,) * spatial
        return _turned_convolution(kernel, bias, strides, before, more, groups, dilations)
    kind: Any = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[spatial - 1]
    sides = before if before == after else (0,) * spatial
    layer = _filled(
        kind(
            kernel.shape[1] * groups, kernel.shape[0], kernel.shape[2:], strides, sides, dilations, groups,
            bias is not None, dtype=_dtype_of(kernel),
        ),
        kernel,
        bias,
    )  # fmt: skip
    if before == after:
        return layer
    pad: Any = (nn.ConstantPad1d, nn.ConstantPad2d, nn.ConstantPad3d)[spatial - 1]
    return nn.Sequential(pad(tuple(_sides(before, after)), 0.0), layer)


def _turned_convolution(
    kernel: np.ndarray,
    bias: np.ndarray | None,
    strides: tuple[int, ...],
    padding: tuple[int, ...],
    more: tuple[int, ...],
    groups: int,
    dilations: tuple[int, ...],
) -> nn.Module:
    kind: Any = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)[kernel.ndim - 3]
    channels, outputs = kernel.shape[0], kernel.shape[1] * groups
    layer = kind(
        channels, outputs, kernel.shape[2:], strides, padding, more, groups, bias is not None, dilations,
        dtype=_dtype_of(kernel),
    )  # fmt: skip
    return _filled(layer, kernel, bias)


def pads_of(
    node: Node, spatial: int, kernel: tuple[int, ...], strides: tuple[int, ...], dilations: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Padding before and after each spatial axis, from ``pads`` or by ``auto_pad``'s rule."""
    how = node.attribute("auto_pad", "NOTSET")
    if how in ("NOTSET", "VALID"):
        pads = (node.ints("pads", 99) if how == "NOTSET" else None) or (0,) * (2 * spatial)
        return tuple(pads[:spatial]), tuple(pads[spatial:])
    sizes = node.shapes[node.proto.input[0]][2:]
    before, after = [], []
    for size, side, stride, dilation in zip(sizes, kernel, strides, dilations, strict=True):
        total = max(0, (ceil_div(size, stride) - 1) * stride + (side - 1) * dilation + 1 - size)
        small = total // 2
        before.append(small if how == "SAME_UPPER" else total - small)
        after.append(total - before[-1])
    return tuple(before), tuple(after)


def _sides(before: tuple[int, ...], after: tuple[int, ...]) -> list[int]:
    """As torch's ``pad`` wants them: the last axis first, both sides of each."""
    return [side for pair in zip(reversed(before), reversed(after), strict=True) for side in pair]


@makes("MaxPool", "AveragePool")
def _pool(node: Node) -> Made:
    kernel = node.ints("kernel_shape", 99) or ()
    spatial = len(kernel)
    strides = node.ints("strides", 99) or (1,) * spatial
    before, after = pads_of(node, spatial, kernel, strides, (1,) * spatial)
    ceil = bool(node.attribute("ceil_mode", 0))
    if node.proto.op_type == "MaxPool":
        if len([name for name in node.proto.output if name]) > 1:
            raise node.refused("indices of the largest", "only the largest values are read")
        dilations = node.ints("dilations", 99) or (1,) * spatial
        largest: Any = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[spatial - 1]
        if before == after:
            return lambda x: largest(x, kernel, strides, before, dilations, ceil)
        sides = _sides(before, after)
        return lambda x: largest(F.pad(x, sides, value=-torch.inf), kernel, strides, 0, dilations, ceil)
    mean: Any = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[spatial - 1]
    padded = bool(node.attribute("count_include_pad", 0))
    if before == after:
        return lambda x: mean(x, kernel, strides, before, ceil, padded)
    if not padded:
        raise node.refused(f"padding {before} before and {after} after", "both sides are padded alike")
    sides = _sides(before, after)
    return lambda x: mean(F.pad(x, sides), kernel, strides, 0, ceil)


@makes("GlobalAveragePool", "GlobalMaxPool")
def _global_pool(node: Node) -> Made:
    axes = tuple(range(2, node.rank(0)))
    if node.proto.op_type == "GlobalMaxPool":
        return lambda x: torch.amax(x, axes, keepdim=True)
    return lambda x: torch.mean(x, axes, keepdim=True)


@makes("BatchNormalization")
def _batch_norm(node: Node) -> Made:
    epsilon = float(node.attribute("epsilon", 1e-5))
    names = ("scale", "shift", "mean", "variance")
    scale, shift, mean, variance = (
        torch.from_numpy(np.array(node.constant(place, name))) for place, name in enumerate(names, 1)
    )
    return lambda x: F.batch_norm(x, mean, variance, scale, shift, False, 0.0, epsilon)


@makes("LayerNormalization", "RMSNormalization")
def _layer_norm(node: Node) -> Made:
    axis, epsilon = int(node.attribute("axis", -1)) % node.rank(0), float(node.attribute("epsilon", 1e-5))
    shape = node.shapes[node.proto.input[0]][axis:]
    if node.proto.op_type == "LayerNormalization":
        return node.with_constants(lambda x, scale, shift=None: F.layer_norm(x, shape, scale, shift, epsilon))
    return node.with_constants(lambda x, scale: F.rms_norm(x, shape, scale, epsilon))


@makes("InstanceNormalization", "GroupNormalization")
def _group_norm(node: Node) -> Made:
    epsilon = float(node.attribute("epsilon", 1e-5))
    channels = node.shapes[node.proto.input[0]][1]
    groups = int(node.attribute("num_groups", channels))
    return node.with_constants(lambda x, scale, shift: F.group_norm(x, groups, scale, shift, epsilon))


@makes("Reshape")
def _reshape(node: Node) -> Made:
    shape = [int(one) for one in node.constant(1, "shape")]
    if not node.attribute("allowzero", 0):
        old = node.shapes[node.proto.input[0]]
        shape = [old[place] if one == 0 else one for place, one in enumerate(shape)]
    return lambda x: x.reshape(shape)


@makes("Flatten")
def _flatten(node: Node) -> Made:
    axis = int(node.attribute("axis", 1)) % (node.rank(0) + 1)
    shape = node.shapes[node.proto.input[0]]
    sizes = int(np.prod(shape[:axis], dtype=np.int64)), int(np.prod(shape[axis:], dtype=np.int64))
    return lambda x: x.reshape(sizes)


@makes("Transpose")
def _transpose(node: Node) -> Made:
    order = node.ints("perm", 99) or tuple(reversed(range(node.rank(0))))
    return lambda x: x.permute(order)


@makes("Squeeze")
def _squeeze(node: Node) -> Made:
    axes = node.ints("axes", 1)
    shape = node.shapes[node.proto.input[0]]
    gone = {a % len(shape) for a in axes} if axes is not None else {i for i, side in enumerate(shape) if side == 1}
    kept = [side for place, side in enumerate(shape) if place not in gone]
    return lambda x: x.reshape(kept)


@makes("Unsqueeze")
def _unsqueeze(node: Node) -> Made:
    axes = node.ints("axes", 1) or ()
    rank = node.rank(0) + len(axes)
    new = sorted(axis % rank for axis in axes)
    rest = iter(node.shapes[node.proto.input[0]])
    shape = [1 if place in new else next(rest) for place in range(rank)]
    return lambda x: x.reshape(shape)


@makes("Concat")
def _concat(node: Node) -> Made:
    axis = int(node.attribute("axis"))
    return node.with_constants(lambda *values: torch.cat(values, axis))


@makes("Split")
def _split(node: Node) -> Made:
    axis = int(node.attribute("axis", 0))
    size = node.shapes[node.proto.input[0]][axis]
    parts, given = len(node.proto.output), node.ints("split", 1)
    each = ceil_div(size, parts)
    sizes = list(given) if given is not None else [min(each, size - each * i) for i in range(parts)]
    return lambda x: torch.split(x, sizes, axis)


@makes("Slice")
def _slice(node: Node) -> Made:
    starts, ends = node.ints("starts", 1), node.ints("ends", 2)
    assert starts is not None and ends is not None, "the checker demands both"
    axes = node.ints("axes", 3) or tuple(range(len(starts)))
    steps = node.ints("steps", 4) or (1,) * len(starts)
    shape = node.shapes[node.proto.input[0]]
    turned = [axis % len(shape) for axis, step in zip(axes, steps, strict=True) if step < 0]
    cuts: list[slice] = [slice(None)] * len(shape)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        size = shape[axis % len(shape)]
        picked = range(size)[slice(start, end if step > 0 or end >= -size else None, step)]
        if step > 0:
            cuts[axis % len(shape)] = slice(picked.start, picked.stop, step)
        else:  # torch has no negative steps: turned round first
            cuts[axis % len(shape)] = slice(size - 1 - picked.start, size - 1 - picked.stop, -step)
    place = tuple(cuts)
    return lambda x: (torch.flip(x, turned) if turned else x)[place]


@makes("Gather")
def _gather(node: Node) -> Made:
    axis = int(node.attribute("axis", 0))
    if node.is_constant(0):  # a table that the network's inputs look up
        if axis:
            raise node.refused(f"axis {axis} of a table", "rows of a table are looked up")
        table = torch.from_numpy(np.array(node.constants[node.proto.input[0]]))
        rows = table.reshape(len(table), -1)
        if table.dim() == 2:
            return lambda ids: F.embedding(ids, rows)
        return lambda ids: F.embedding(ids, rows).reshape(*ids.shape, *table.shape[1:])
    index = node.constant(1, "index")
    size = node.shapes[node.proto.input[0]][axis]
    chosen = torch.from_numpy(np.asarray(index.astype(np.int64) % size))
    if chosen.dim() == 0:
        return lambda x: x.select(axis, int(chosen))
    if chosen.dim() == 1:
        return lambda x: x.index_select(axis, chosen)
    raise node.refused(f"an index of {chosen.dim()} axes", "activations are gathered by a list of indices")


@makes("Expand")
def _expand(node: Node) -> Made:
    shape = tuple(int(one) for one in node.constant(1, "shape"))
    whole = torch.broadcast_shapes(shape, node.shapes[node.proto.input[0]])
    return lambda x: x.expand(whole)


@makes("Tile")
def _tile(node: Node) -> Made:
    repeats = tuple(int(one) for one in node.constant(1, "number of repeats"))
    return lambda x: x.repeat(repeats)


@makes("Pad")
def _pad(node: Node) -> Made:
    mode, pads = node.attribute("mode", "constant"), node.ints("pads", 1) or ()
    rank = node.rank(0)
    axes = node.ints("axes", 3) or tuple(range(rank))
    before, after = [0] * rank, [0] * rank
    for place, axis in enumerate(axes):
        before[axis % rank], after[axis % rank] = pads[place], pads[place + len(axes)]
    sides = _sides(tuple(before), tuple(after))
    if mode == "constant":
        value = float(node.constant(2, "value")) if node.given(2) else float(node.attribute("value", 0.0))
        return lambda x: F.pad(x, sides, value=value)
    names = {"reflect": "reflect", "edge": "replicate", "wrap": "circular"}
    used = max((2 * (place // 2 + 1) for place, side in enumerate(sides) if side), default=2)
    return lambda x: F.pad(x, sides[:used], mode=names[mode])


_REDUCTIONS: dict[str, Callable[..., Tensor]] = {
    "ReduceMean": torch.mean, "ReduceSum": torch.sum, "ReduceMax": torch.amax, "ReduceMin": torch.amin,
    "ReduceL2": lambda x, axes, keepdim: torch.linalg.vector_norm(x, 2, axes, keepdim),
    "ReduceSumSquare": lambda x, axes, keepdim: torch.sum(x * x, axes, keepdim),
}  # fmt: skip


@makes(*_REDUCTIONS)
def _reduce(node: Node) -> Made:
    function, keep = _REDUCTIONS[node.proto.op_type], bool(node.attribute("keepdims", 1))
    axes = node.ints("axes", 1)
    if axes is None and node.attribute("noop_with_empty_axes", 0):
        return lambda x: x
    over = axes if axes is not None else tuple(range(node.rank(0)))
    return lambda x: function(x, over, keep)


@makes("QuantizeLinear", "DequantizeLinear")
def _requantise(node: Node) -> Made:
    """Activations on their way through a code and back: the machine quantises them itself, at the steps that its own
    calibration finds. Weights are constants: what their codes stand for was worked out before.
    """
    node.constant(1, "scale")
    return lambda x: x


@makes("Resize", "Upsample")
def _resize(node: Node) -> Made:
    old = node.shapes[node.proto.input[0]]
    last = len(node.proto.input) - 1
    values = node.constant(last, "size")
    is_size = node.proto.op_type == "Resize" and last == 3
    sizes = [int(v) if is_size else int(np.floor(side * v)) for side, v in zip(old, values, strict=True)]
    mode = node.attribute("mode", "nearest")
    where = node.attribute("coordinate_transformation_mode", "half_pixel")
    if tuple(sizes[:2]) != tuple(old[:2]) or mode not in ("nearest", "linear"):
        raise node.refused(f"mode '{mode}' to {sizes}", "rows and columns are resized, nearest or linear")
    target = sizes[2:]
    if mode == "nearest":
        whole = all(new % side == 0 for new, side in zip(target, old[2:], strict=True))
        if not whole:
            raise node.refused(f"{old[2:]} to {target}", "nearest takes whole multiples")
        return lambda x: F.interpolate(x, target, mode="nearest")
    if where not in ("half_pixel", "pytorch_half_pixel", "align_corners"):
        raise node.refused(f"coordinates '{where}'", "they are half_pixel or align_corners")
    smooth = ("linear", "bilinear", "trilinear")[len(target) - 1]
    return lambda x: F.interpolate(x, target, mode=smooth, align_corners=where == "align_corners")
