"""Depthwise convolutions on the vector unit, where that takes fewer cycles than the array.

On the array a kernel position of a channel is one cell of a tile's diagonal, so that P x Q cells do the work of P. The
vector unit multiplies and adds an element a lane (machine.md, V2), and needs no tiles.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from gblr_hw.lowering.activation_tiles import vector_schedule
from gblr_hw.lowering.emit.emit_loads import CONSTANT_BYTES
from gblr_hw.lowering.groups.image_windows import linear_cost, vector_cost
from gblr_hw.weights.stored import GroupedWeights, LayerWeights
from simulator.machine.machine import Machine
from simulator.network.network import Network, Operator
from simulator.network.vector_steps import Step
from simulator.program.schedule import LayerSchedule


def depthwise_on_vector_unit(
    network: Network, weights: Mapping[str, LayerWeights], schedules: Sequence[LayerSchedule], machine: Machine
) -> tuple[Network, list[LayerSchedule]]:
    """The network with depthwise convolutions as vector operators where these are cheaper and their weights fit the
    parameter memory, and its schedules. They keep their count of multiplications.
    """
    operators, changed = list(network.operators), list(schedules)
    for index, operator in enumerate(network.operators):
        held = weights.get(operator.name)
        if not isinstance(held, GroupedWeights) or not _is_depthwise(network, operator, held):
            continue
        moved = _as_vector(operator, held)
        size = CONSTANT_BYTES * sum(constant.size for constant in moved.constants.values())
        if size > machine.parameter_half_bytes:
            continue
        if vector_cost(network, moved, machine) >= linear_cost(network, operator, schedules[index], machine):
            continue
        operators[index] = moved
        table = vector_schedule(network, moved, machine.cols)
        changed[index] = replace(table, multiplications=schedules[index].multiplications)
    return replace(network, operators=tuple(operators)), changed


def _is_depthwise(network: Network, operator: Operator, weights: GroupedWeights) -> bool:
    """Whether each output channel is made of the windows of one channel, the one in its own place."""
    operand, written = operator.operands[0], network.tensors[operator.output]
    return (
        operator.kind == "linear"
        and operand.access == "window"
        and weights.groups == weights.out_features == operand.width == written.width
        and written.groups == 1
        and weights.kernel.shape[1] == 1
    )


def _as_vector(operator: Operator, weights: GroupedWeights) -> Operator:
    """The operator as one pass over its windows: weights by position and channel, then the bias."""
    kernel = weights.kernel.detach().numpy().reshape(weights.out_features, -1).T
    constants = {"weights": np.ascontiguousarray(kernel, dtype=np.float32)[None, None]}
    steps = [Step("weighted_sum_groups", (0,), "weights")]
    if weights.bias is not None:
        constants["bias"] = weights.bias.detach().numpy().astype(np.float32)[None, None, None]
        steps.append(Step("add", (1,), "bias"))
    return replace(operator, kind="vector", steps=tuple(steps), constants=constants)
