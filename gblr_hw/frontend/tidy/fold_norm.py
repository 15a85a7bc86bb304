"""Batch norm in evaluation scales and shifts each channel: after a matrix product, that belongs to its weights."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from gblr_hw.frontend.graph.draft import Draft, covers, renamed
from gblr_hw.weights.scaled_weights import scaled_outputs, shifted_outputs
from simulator.network.network import Operator


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
        weights[source.name] = (scaled_outputs if step.function == "multiply" else shifted_outputs)(layer, array)
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
