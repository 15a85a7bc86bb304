"""Batch norm in evaluation scales and shifts each channel: after a matrix product, that belongs to its weights."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from gblr_hw.frontend.draft import Draft, covers, renamed
from gblr_hw.weights import ConvWeights, DenseWeights, GBLRWeights, LayerWeights
from simulator.network import Operator


def norms_folded(draft: Draft) -> Draft:
    """Scales and shifts of batch norms that alone read a linear operator's output, put into its weights, exactly."""
    readers, fixed = draft.readers(), draft.fixed()
    writer = {operator.output: operator for operator in draft.operators}
    weights = dict(draft.weights)
    gone: dict[str, str] = {}
    for operator in draft.operators:
        if not _is_norm(draft, operator):
            continue
        name = operator.operands[0].tensor
        source = writer.get(gone.get(name, name))
        if source is None or source.kind != "linear" or name in fixed or len(readers[name]) != 1:
            continue
        if not covers(operator.operands[0], draft.tensors[name]):
            continue
        step = operator.steps[0]
        layer = weights[source.name]
        numbers = np.broadcast_to(operator.constants[step.constant or ""].reshape(-1), (layer.out_features,))
        array = torch.from_numpy(numbers.astype(np.float64))
        weights[source.name] = (scaled if step.function == "multiply" else shifted)(layer, array)
        gone[operator.output] = gone.get(name, name)
    kept = tuple(operator for operator in draft.operators if operator.output not in gone)
    tensors = {name: tensor for name, tensor in draft.tensors.items() if name not in gone}
    within = {gone[name]: draft.tensors[name].within for name in gone}
    for name, place in within.items():
        tensors[name] = replace(tensors[name], within=place)
    return renamed(replace(draft, operators=kept, tensors=tensors, weights=weights), gone)


def _is_norm(draft: Draft, operator: Operator) -> bool:
    home = draft.homes[operator.name]
    if operator.kind != "vector" or "batch_norm" not in home.operation or len(operator.steps) != 1:
        return False
    step = operator.steps[0]
    if step.function not in ("multiply", "add") or step.constant is None:
        return False
    array = operator.constants[step.constant]
    tensor = draft.tensors[operator.output]
    return array.shape[:2] == (1, 1) and array.size in (1, tensor.groups * tensor.width)


def _like(values: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    return values.to(other.dtype)


def scaled(weights: LayerWeights, scale: torch.Tensor) -> LayerWeights:
    """The layer with output i multiplied by scale[i]. Factors are scaled, not masks, so that structures stay."""
    bias = None if weights.bias is None else _like(weights.bias.double() * scale, weights.bias)
    if isinstance(weights, DenseWeights):
        return DenseWeights(_like(weights.weight.double() * scale[:, None], weights.weight), bias)
    if isinstance(weights, GBLRWeights):
        factor = _like(weights.lr_weight2.double() * scale[None, :, None], weights.lr_weight2)
        return replace(weights, lr_weight2=factor, bias=bias)
    if isinstance(weights, ConvWeights):
        parts = tuple(scaled(part, scale) for part in weights.parts)
        return replace(weights, parts=parts, bias=bias)  # type: ignore[arg-type]
    u, dense = (_like(one.double() * scale[:, None], one) for one in (weights.u, weights.dense))
    return replace(weights, u=u, dense=dense, bias=bias)


def shifted(weights: LayerWeights, shift: torch.Tensor) -> LayerWeights:
    """The layer with shift[i] added to output i."""
    bias = shift if weights.bias is None else weights.bias.double() + shift
    return replace(weights, bias=bias.to(_dtype(weights)))


def _dtype(weights: LayerWeights) -> torch.dtype:
    if isinstance(weights, ConvWeights):
        weights = weights.parts[0]
    if isinstance(weights, DenseWeights):
        return weights.weight.dtype
    return weights.lr_weight2.dtype if isinstance(weights, GBLRWeights) else weights.u.dtype
