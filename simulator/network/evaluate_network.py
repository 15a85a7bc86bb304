"""``evaluate_network``: what a network computes, operator by operator on whole tensors in float64. The plain second
answer that programs are held against, and where calibration looks on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from simulator.base.errors import NOT_OURS, InputError
from simulator.network.network import Network, Operand, Operator
from simulator.network.operand_views import operand_view
from simulator.network.tensor_values import input_values, root_of, stored_tensors, tensor_to_port
from simulator.network.vector_steps import run_steps

Linear = Callable[[str, np.ndarray], np.ndarray]
Observe = Callable[[str, np.ndarray], None]
Keep = Callable[[str, np.ndarray], np.ndarray]
Visit = Callable[[Operator, Sequence[np.ndarray], np.ndarray], None]


def evaluate_network(
    network: Network,
    linear: Linear,
    inputs: Mapping[str, ArrayLike],
    observe: Observe | None = None,
    keep: Keep | None = None,
    visit: Visit | None = None,
) -> dict[str, np.ndarray]:
    """Outputs by port name, in the model's shapes, from inputs by port name.

    linear(operator name, rows (N, n)) -> (N, m) is y = W x + b of a linear operator. observe(tensor name, values) is
    called with each input, constant and result, (batch, tokens, groups, width), in the order in which they come to be;
    the values are a copy. keep(tensor name, values) -> what memory keeps of them, such as their int8 codes' values.
    visit(operator, views of its operands, result) is called for each operator, all (batch, tokens, groups, width).
    Raises InputError for inputs that are not the ports', and for operators that do not fit their tensors.
    """
    arrays = stored_tensors(network)

    def write(name: str, values: np.ndarray) -> None:
        values = values if keep is None else keep(name, values)
        arrays[name][:] = values.reshape(*values.shape[:2], -1)
        if observe is not None:
            observe(name, np.array(values))

    given = input_values(network, inputs)
    for name, tensor in network.tensors.items():
        if tensor.kind == "input":
            write(name, given[name])
        elif tensor.kind == "constant":
            write(name, constant_values(network, name))
    last = _last_uses(network)
    for index, operator in enumerate(network.operators):
        views = _views(operator, arrays)
        result = operator_result(network, operator, linear, views)
        if visit is not None:
            visit(operator, views, result)
        write(operator.output, result)
        for name in last.get(index, ()):
            del arrays[name]
    return {port.name: tensor_to_port(port, arrays[port.tensor]) for port in network.outputs}


def constant_values(network: Network, name: str) -> np.ndarray:
    """(batch, tokens, groups, width) float64 of a constant tensor. Raises InputError if its values have other sizes."""
    tensor = network.tensors[name]
    values = np.asarray(network.values[name], dtype=np.float64)
    shape = (tensor.batch, tensor.tokens, tensor.groups, tensor.width)
    if values.shape != shape:
        raise InputError(
            f"constant '{name}'",
            f"shape {values.shape}",
            f"the tensor is {shape}",
            NOT_OURS,
        )
    return values


def _last_uses(network: Network) -> dict[int, list[str]]:
    """Operator index -> arrays that nothing reads after it: those of tensors in whose whole nothing is read."""
    last: dict[str, int] = {}
    for index, operator in enumerate(network.operators):
        read = [operand.tensor for operand in operator.operands]
        read += [operand.indices for operand in operator.operands if operand.indices is not None]
        for name in (*read, operator.output):
            last[root_of(network, name)] = index
    kept = {root_of(network, port.tensor) for port in network.outputs}
    uses: dict[int, list[str]] = {}
    for name in network.tensors:
        root = root_of(network, name)
        if root in last and root not in kept:
            uses.setdefault(last[root], []).append(name)
    return uses


def _views(operator: Operator, arrays: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    def read(operand: Operand) -> np.ndarray:
        indices = None if operand.indices is None else arrays[operand.indices].reshape(-1, operand.tokens)
        return operand_view(operand, arrays[operand.tensor], indices)

    return [read(operand) for operand in operator.operands]


def operator_result(network: Network, operator: Operator, linear: Linear, views: Sequence[np.ndarray]) -> np.ndarray:
    """(batch, tokens, groups, width) that an operator computes from its operands' views. Raises InputError if it does
    not fit its output.
    """
    tensor = network.tensors[operator.output]
    shape = (operator.batch, operator.tokens, tensor.groups, tensor.width)
    if operator.kind == "linear":
        view = views[0]
        rows = np.broadcast_to(view, (operator.batch, *view.shape[1:])).reshape(-1, view.shape[2] * view.shape[3])
        values = np.asarray(linear(operator.name, rows), dtype=np.float64)
        if values.shape == (operator.rows, tensor.groups * tensor.width):
            values = values.reshape(shape)
    elif operator.kind == "vector":
        # Rows that a mask empties, and what is computed from the edge of an image, are infinite or NaN in frameworks.
        with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
            values = run_steps(operator.steps, views, operator.constants)
    else:
        values = _attend(operator.kind == "scores", views[0], views[1])
    return fitted(operator, values, shape)


def fitted(operator: Operator, values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """``values`` broadcast to ``shape``; InputError naming the operator if they do not fit."""
    try:
        return np.broadcast_to(values, shape)
    except ValueError:
        raise InputError(
            f"operator '{operator.name}'",
            f"values of shape {values.shape}",
            f"its output '{operator.output}' takes {shape} (batch, tokens, groups, width)",
            NOT_OURS,
        ) from None


def _attend(scores: bool, x: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Products of every group's rows with its weights; groups of ``x`` share the weights' groups (grouped queries)."""
    group = np.arange(x.shape[2]) * weights.shape[2] // x.shape[2]
    stationary = weights[:, :, group].transpose((0, 2, 3, 1) if scores else (0, 2, 1, 3))
    return (x.transpose(0, 2, 1, 3) @ stationary).transpose(0, 2, 1, 3)
