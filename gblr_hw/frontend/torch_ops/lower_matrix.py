"""Linear layers, convolutions, products of activations and attention."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import Any

import torch

from gblr_hw.frontend.graph import layout
from gblr_hw.frontend.graph.builder import Builder, Value
from gblr_hw.frontend.graph.layout import LayoutError, View
from gblr_hw.frontend.graph.registry import Arguments, lowers
from gblr_hw.frontend.operators.attention_ops import product
from gblr_hw.frontend.operators.grouped_ops import chain_product, grouped_product, is_groupable
from gblr_hw.frontend.operators.matrix_ops import Convolution, convolution, convolution_weights, linear, windows
from gblr_hw.frontend.operators.relays import regrouped
from gblr_hw.frontend.operators.vector_ops import lifted, pointwise, reduced, rowwise
from gblr_hw.frontend.torch_ops.lower_logic import FAR_BELOW, between
from gblr_hw.frontend.torch_ops.lower_pointwise import combined
from gblr_hw.frontend.torch_ops.lower_pools import pair
from gblr_hw.layers.matrix_conv import MatrixConv2d, geometry
from gblr_hw.weights.chains import CHAIN_KINDS, BLASTWeights
from gblr_hw.weights.stored import ConvWeights, LayerWeights


@lowers("gblr_hw.layer.default")
def _own_layer(builder: Builder, a: Arguments) -> View:
    module: Any
    module, weights = builder.layers[a["path"]]
    name, given = a["path"] or "layer", a["inputs"]
    if isinstance(module, MatrixConv2d):
        return _own_convolution(builder, given, module, weights, a["zeros"], name)
    if isinstance(weights, ConvWeights):
        padding = _with_zeros(module.padding, weights.kernel, module.dilation, a["zeros"])
        sizes = _sizes(weights.kernel, module.stride, padding, pair(module.dilation, (1, 1)))
        return convolution(builder, given, weights, sizes, name)
    return _own_product(builder, given, weights, name)


def _with_zeros(padding: Any, kernel: Any, dilation: Any, zeros: Any) -> Any:
    """A convolution's padding with zeros that stood in front of it; above, on the left, below, on the right."""
    if zeros is None:
        return padding
    before, behind = paddings(padding, kernel, pair(dilation, (1, 1)))
    return tuple(own + more for own, more in zip((*before, *behind), zeros, strict=True))


def _own_product(builder: Builder, view: View, weights: LayerWeights, name: str) -> View:
    """Rows times a layer's matrix."""
    if isinstance(weights, CHAIN_KINDS) and not isinstance(weights, BLASTWeights):
        return chain_product(builder, view, weights.chain(), name)
    return linear(builder, view, weights, name)


def _own_convolution(
    builder: Builder, view: View, module: MatrixConv2d, weights: LayerWeights, zeros: Any, name: str
) -> View:
    """A convolution whose kernel is a structured matrix: over windows where its tiles read them, else over copies."""
    top, left, bottom, right = zeros or (0, 0, 0, 0)
    height, width = view.shape[-2:]
    found = geometry(name, module.shell, height + top + bottom, width + left + right)
    before, behind = (
        (found.before[0] + top, found.before[1] + left),
        (found.behind[0] + bottom, found.behind[1] + right),
    )
    sizes = Convolution(found.kernel, found.stride, before, found.dilation, None if before == behind else behind)
    is_image = len(view.dims) == 4
    images = view if is_image else layout.insert(view, 0)
    if isinstance(weights, CHAIN_KINDS) and not isinstance(weights, BLASTWeights):
        product = _own_product(builder, windows(builder, images, sizes), weights, name)
        result = layout.permute(product, [0, 3, 1, 2])
    else:
        result = convolution(builder, images, weights, sizes, name)
    return result if is_image else layout.drop(result, 0)


@lowers("aten.linear.default")
def _linear(builder: Builder, a: Arguments) -> View:
    return _by_constant(builder, a["input"], a["weight"], a["bias"])


def _by_constant(builder: Builder, view: Value, weight: Value, bias: Value | None) -> View:
    """``view`` times ``weight`` (m, n) plus ``bias``; as a product of activations if these are no constants."""
    if not isinstance(view, View) or not isinstance(weight, torch.Tensor) or isinstance(bias, View):
        across = _flipped(weight) if isinstance(weight, View) else builder.keep(weight.t())
        result = matmul(builder, view, across)
        return result if bias is None else combined(builder, "add", result, bias)
    if weight.dim() != 2:
        raise LayoutError(f"weights of shape {tuple(weight.shape)} instead of a matrix")
    return linear(builder, view, builder.dense(weight, bias), builder.weight_name(weight))


@lowers("aten.addmm.default")
def _addmm(builder: Builder, a: Arguments) -> View:
    bias, left, right = a["self"], a["mat1"], a["mat2"]
    plain = isinstance(bias, torch.Tensor) and bias.dim() == 1 and (a["beta"], a["alpha"]) == (1, 1)
    if plain and isinstance(left, View) and isinstance(right, torch.Tensor) and bias.shape[0] == right.shape[1]:
        return linear(builder, left, builder.dense(right, bias, across=True), builder.weight_name(right))
    return _sum(builder, a, matmul(builder, left, right))


@lowers("aten.addmv.default")
def _addmv(builder: Builder, a: Arguments) -> View:
    return _sum(builder, a, matmul(builder, a["mat"], a["vec"]))


@lowers("aten.addbmm.default")
def _addbmm(builder: Builder, a: Arguments) -> View:
    product_of_all = matmul(builder, a["batch1"], a["batch2"])
    return _sum(builder, a, reduced(builder, "sum", product_of_all, [0], keep=False))


@lowers("aten._trilinear.default")
def _trilinear(builder: Builder, a: Arguments) -> View:
    """A bilinear layer: rows times the weights, each result times the other's rows and summed."""
    pattern = [list(a[name]) for name in ("expand1", "expand2", "expand3", "sumdim")]
    weight = a["i2"]
    if pattern != [[1, 3], [0], [1, 2], [2, 3]] or not isinstance(weight, torch.Tensor):
        raise LayoutError("a product of three values that is no bilinear layer")
    outputs, width, other = weight.shape
    matrix = builder.derived(("bilinear", id(weight)), lambda: weight.permute(0, 2, 1).reshape(-1, width), weight)
    left = linear(builder, a["i1"], builder.dense(matrix, None), builder.weight_name(weight))
    left = regrouped(builder, left, [left.shape[0], outputs, other])
    right = layout.insert(a["i3"], 1) if isinstance(a["i3"], View) else builder.keep(a["i3"].unsqueeze(1))
    return reduced(builder, "sum", pointwise(builder, "multiply", left, right), [2], keep=False)


@lowers("aten.baddbmm.default")
def _baddbmm(builder: Builder, a: Arguments) -> View:
    return _sum(builder, a, matmul(builder, a["batch1"], a["batch2"]))


def _sum(builder: Builder, a: Arguments, result: View) -> View:
    if a["alpha"] != 1:
        result = pointwise(builder, "multiply", result, numbers=(a["alpha"],))
    if a["beta"] == 0:
        return result
    added = a["self"]
    if a["beta"] != 1:
        added = combined(builder, "multiply", added, a["beta"]) if isinstance(added, View) else added * a["beta"]
    return combined(builder, "add", result, added)


@lowers("aten.matmul.default", "aten.bmm.default", "aten.mm.default")
def _matmul(builder: Builder, a: Arguments) -> View:
    return matmul(builder, a["self"], a["other"] if "other" in a else a["mat2"])


def matmul(builder: Builder, left: Value, right: Value) -> View:
    """A product of two values, of which a constant one holds weights."""
    if len(left.shape) == 1 or len(right.shape) == 1:
        return _with_vector(builder, left, right)
    if isinstance(left, View) and isinstance(right, View):
        return product(builder, left, right)
    if any(isinstance(one, torch.Tensor) and not _is_one_matrix(one) for one in (left, right)):
        return _of_groups(builder, left, right)
    if isinstance(right, torch.Tensor) and isinstance(left, View):
        right = _one_matrix(right)
        return linear(builder, left, builder.dense(right, None, across=True), builder.weight_name(right))
    if isinstance(left, torch.Tensor) and isinstance(right, View):
        left = _one_matrix(left)
        result = linear(builder, _flipped(right), builder.dense(left, None), builder.weight_name(left))
        return _flipped(result)
    raise LayoutError("a product of two constants")


def _with_vector(builder: Builder, left: Value, right: Value) -> View:
    """A product in which a factor has one dimension: it is a row or a column."""
    grown_left, grown_right = left, right
    if len(left.shape) == 1:
        grown_left = layout.insert(left, 0) if isinstance(left, View) else builder.keep(left.unsqueeze(0))
    if len(right.shape) == 1:
        grown_right = layout.insert(right, 1) if isinstance(right, View) else builder.keep(right.unsqueeze(1))
    result = matmul(builder, grown_left, grown_right)
    if len(right.shape) == 1:
        result = layout.drop(result, len(result.dims) - 1)
    return layout.drop(result, len(result.dims) - 1 - (len(right.shape) > 1)) if len(left.shape) == 1 else result


def _of_groups(builder: Builder, left: Value, right: Value) -> View:
    """A product with a constant that differs by head or expert: as weights, or, where these are too many for one matrix
    or lie in a way that no copy helps, as activations.
    """
    if isinstance(right, torch.Tensor) and isinstance(left, View):
        value, weight, crosswise = left, right, False
    else:
        assert isinstance(right, View) and isinstance(left, torch.Tensor)
        value, weight, crosswise = _flipped(right), left.transpose(-1, -2), True
    if not is_groupable(value, weight):
        return _by_head(builder, left, right)
    before, name = builder.mark(), builder.weight_name(left if isinstance(left, torch.Tensor) else weight)
    try:
        result = grouped_product(builder, value, weight, name)
        return _flipped(result) if crosswise else result
    except LayoutError:
        if not builder.relays:
            raise
        builder.reset(before)
        return _by_head(builder, left, right)


def _by_head(builder: Builder, left: Value, right: Value) -> View:
    """A product with a constant that differs by sequence or head: it lies in DRAM, and is loaded as activations are."""
    batch = torch.broadcast_shapes(tuple(left.shape[:-2]), tuple(right.shape[:-2]))
    sides = [
        one if isinstance(one, View) else
        lifted(builder, builder.keep(one.expand(*batch, *one.shape[-2:]).contiguous()), heads_roles(len(batch)))
        for one in (left, right)
    ]  # fmt: skip
    return product(builder, sides[0], sides[1])


def heads_roles(leading: int) -> str:
    """Roles of a factor's dimensions: sequences, then heads, each of rows by channels."""
    return ("b" * (leading - 1) + "w" if leading else "") + "tw"


def _is_one_matrix(value: torch.Tensor) -> bool:
    """Whether a constant factor is the same matrix for all sequences and heads."""
    flat = value.reshape(-1, *value.shape[-2:])
    return len(flat) == 1 or bool((flat == flat[:1]).all())


def _one_matrix(value: torch.Tensor) -> torch.Tensor:
    return value.reshape(-1, *value.shape[-2:])[0] if value.dim() > 2 else value


def _flipped(view: View) -> View:
    rank = len(view.dims)
    if rank < 2:
        raise LayoutError("a product with a vector that depends on an input")
    return layout.permute(view, [*range(rank - 2), rank - 1, rank - 2])


@lowers("aten.scaled_dot_product_attention.default")
def _attention(builder: Builder, a: Arguments) -> View:
    query, key, value = a["query"], a["key"], a["value"]
    if not all(isinstance(one, View) for one in (query, key, value)):
        query, key, value = (
            one if isinstance(one, View) else lifted(builder, one, heads_roles(one.dim() - 2))
            for one in (query, key, value)
        )  # fmt: skip
    if a["enable_gqa"]:
        key, value = (_shared(one, query.shape[-3]) for one in (key, value))
    if a["dropout_p"]:
        raise LayoutError("dropout is on in a model that is in evaluation mode")
    scores = product(builder, query, _flipped(key))
    scale = a["scale"] if a["scale"] is not None else 1 / sqrt(query.shape[-1])
    if scale != 1:
        scores = builder.named("scale", lambda: pointwise(builder, "multiply", scores, numbers=(scale,)))
    mask = _causal(builder, scores) if a["is_causal"] else a["attn_mask"]
    if mask is not None:
        scores = _masked(builder, scores, mask)
    weights = builder.named("softmax", lambda: rowwise(builder, "softmax", scores, [-1]))
    return product(builder, weights, value)


def _shared(view: View, heads: int) -> View:
    """Keys or values of fewer heads, each for several query heads in turn."""
    *outer, groups, tokens, width = view.shape
    spread = layout.expand(layout.insert(view, len(outer) + 1), [*outer, groups, heads // groups, tokens, width])
    return layout.reshape(spread, [*outer, heads, tokens, width])


def _causal(builder: Builder, scores: View) -> torch.Tensor:
    rows, columns = scores.shape[-2:]
    return builder.derived(("causal", rows, columns), lambda: torch.ones(rows, columns, dtype=torch.bool).tril())


def _masked(builder: Builder, scores: View, mask: Value) -> View:
    if isinstance(mask, View):
        mask = builder.place_like(mask, scores)
        if builder.dtype_of("attn_mask") == torch.bool:
            seen = mask
            mask = builder.once(("mask", seen), lambda: between(builder, seen, 0.0, FAR_BELOW))
        return builder.named("mask", lambda: pointwise(builder, "add", scores, mask))
    if bool(mask.all() if mask.dtype == torch.bool else (mask == 0).all()):
        return scores
    if mask.dtype == torch.bool:
        kept = mask
        mask = builder.derived(("mask", id(kept)), lambda: torch.where(kept, 0.0, float("-inf")), kept)
    return builder.named("mask", lambda: pointwise(builder, "add", scores, mask))


def paddings(value: Any, kernel: Sequence[int], dilation: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Padding before and behind, side by side. There is more behind for "same" with an even kernel; twice as many
    numbers as sides are those before, then those behind (zeros that stood in front of a convolution).
    """
    if value == "valid":
        return ((0,) * len(kernel),) * 2
    if value == "same":
        total = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        return tuple(one // 2 for one in total), tuple(one - one // 2 for one in total)
    if not isinstance(value, int) and len(value) == 2 * len(kernel):
        return tuple(value[: len(kernel)]), tuple(value[len(kernel) :])
    sides = (value,) * len(kernel) if isinstance(value, int) else tuple(value) * (len(kernel) if len(value) == 1 else 1)
    return sides, sides


def _sizes(kernel: Any, stride: Any, padding: Any, dilation: tuple[int, int]) -> Convolution:
    before, behind = paddings(padding, kernel, dilation)
    return Convolution(kernel, pair(stride, (1, 1)), pair(before), dilation, None if before == behind else pair(behind))


@lowers("aten.conv2d.default", "aten.conv2d.padding", "aten.conv1d.default", "aten.conv1d.padding")
def _convolution(builder: Builder, a: Arguments) -> View:
    view, weight = a["input"], a["weight"]
    if not isinstance(weight, torch.Tensor) or not isinstance(view, View):
        raise LayoutError("a kernel that depends on an input")
    name = builder.weight_name(weight)
    line = weight.dim() == 3
    stride, dilation = pair(a["stride"], (1, 1)), pair(a["dilation"], (1, 1))
    if len(view.dims) == weight.dim() - 1:
        view = layout.insert(view, 0)
    kernel = weight.unsqueeze(2) if line else weight
    sides = (kernel.shape[2], kernel.shape[3])
    padding = a["padding"]
    if not isinstance(padding, str) and len(padding) != 4:
        padding = pair(padding)
    if line:
        view = layout.insert(view, 2)
        stride, dilation = (1, stride[1]), (1, dilation[1])
        padding = padding if isinstance(padding, str) else (0, padding[1])
    sizes = _sizes(sides, stride, padding, dilation)
    weights = convolution_weights(builder, weight, kernel, a["bias"], a["groups"], name)
    result = convolution(builder, view, weights, sizes, name)
    result = layout.drop(result, 2) if line else result
    return layout.drop(result, 0) if len(a["input"].dims) == weight.dim() - 1 else result
