"""Powers of two by which the channels of stored tensors are divided, so that a few large channels do not take the codes
of all others. The network computes the same numbers: whoever reads such a tensor multiplies again.

A linear operator does either in its weights, which costs nothing. A norm divides in its gain and offset, for nothing
too. Any other vector operator multiplies in a step of its own, one more pass over its rows (machine.md, N7).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from simulator.network.evaluate_network import Linear
from simulator.network.network import Network, Operand, Operator
from simulator.network.vector_steps import Step

Scales = Mapping[str, np.ndarray]  # tensor -> (channels,): what a stored 1 stands for, in steps

_LINEAR_ACCESSES = ("rows", "window")


def scales_for(largest: np.ndarray, reach: float) -> np.ndarray:
    """(channels,) smallest powers of two, 1 or more, that bring channels of magnitudes ``largest`` within ``reach``."""
    return np.maximum(1.0, 2.0 ** np.ceil(np.log2(np.maximum(largest, reach) / reach)))


def carries_scales(network: Network, name: str) -> bool:
    """Whether channels of a tensor may be scaled: a result of a linear or vector operator, whole by itself, no output
    of the model, read as rows or, by a linear operator, as windows with zeros outside.
    """
    tensor = network.tensors[name]
    if tensor.kind != "result" or tensor.within is not None or network.parts(name) != (name,):
        return False
    if any(port.tensor == name for port in network.outputs) or name not in network.readers:
        return False
    if network.operators[network.writer[name]].kind not in ("linear", "vector"):
        return False
    return all(
        _multiplies_again(operator, operand)
        for operator in (network.operators[index] for index in network.readers[name])
        for operand in operator.operands
        if name in (operand.tensor, operand.indices)
    )


def _multiplies_again(operator: Operator, operand: Operand) -> bool:
    if operand.indices is not None or operand.access not in _LINEAR_ACCESSES:
        return False
    if operand.access == "window":
        return operator.kind == "linear" and operand.window is not None and operand.window.fill == 0
    return operator.kind in ("linear", "vector")


def added_constants(network: Network, name: str) -> dict[int, int]:
    """Operator index -> numbers that it has to hold besides its own if a tensor's channels are scaled. Empty if that
    costs no operator a pass.
    """
    added = {}
    writer, tensor = network.writer[name], network.tensors[name]
    if network.operators[writer].kind == "vector" and _affine_end(network.operators[writer]) is None:
        added[writer] = tensor.groups * tensor.width
    for index in network.readers[name]:
        operator = network.operators[index]
        if operator.kind == "vector":
            views = [operand for operand in operator.operands if operand.tensor == name]
            added[index] = added.get(index, 0) + sum(view.groups * view.width for view in views)
    return added


def operand_scale(operand: Operand, scale: np.ndarray) -> np.ndarray:
    """(groups, width) scales of the channels of a view."""
    if operand.access == "window":
        part = scale[operand.channel0 : operand.channel0 + operand.width]
        return np.broadcast_to(part, (operand.groups, operand.width))
    count = operand.groups * operand.width
    return scale[operand.channel0 : operand.channel0 + count].reshape(operand.groups, operand.width)


def linear_scales(operator: Operator, scales: Scales) -> tuple[np.ndarray | None, np.ndarray | None]:
    """What the columns and rows of a linear operator's matrix are multiplied by, (n,) and (m,); None for nothing."""
    operand = operator.operands[0]
    columns = scales.get(operand.tensor)
    rows = scales.get(operator.output)
    return (
        None if columns is None else operand_scale(operand, columns).reshape(-1),
        None if rows is None else 1.0 / rows,
    )


def scaled_linear(network: Network, linear: Linear, scales: Scales) -> Linear:
    """``linear`` with its matrices' columns and rows, and its biases, multiplied."""
    operators = {operator.name: operator for operator in network.operators}

    def scaled(name: str, inputs: np.ndarray) -> np.ndarray:
        columns, rows = linear_scales(operators[name], scales)
        outputs = linear(name, inputs if columns is None else inputs * columns)
        return outputs if rows is None else outputs * rows

    return scaled


def scaled_network(network: Network, scales: Scales) -> Network:
    """The network that stores the tensors of ``scales`` divided by them; its linear operators are those of
    ``scaled_linear``. Every tensor named has to carry scales.
    """
    operators = tuple(
        _scaled_vector(network, operator, scales) if operator.kind == "vector" else operator
        for operator in network.operators
    )
    return replace(network, operators=operators)


def _scaled_vector(network: Network, operator: Operator, scales: Scales) -> Operator:
    constants = dict(operator.constants)
    count = len(operator.operands)
    first: list[Step] = []
    values = list(range(count))  # the value that stands for each operand
    for which, operand in enumerate(operator.operands):
        if operand.tensor in scales:
            name = _unused(constants, f"{operand.tensor}.scale")
            constants[name] = operand_scale(operand, scales[operand.tensor])
            values[which] = count + len(first)
            first.append(Step("multiply", (which,), name))
    values += [value + len(first) for value in range(count, count + len(operator.steps))]
    steps = [*first, *(replace(step, args=tuple(values[arg] for arg in step.args)) for step in operator.steps)]
    if operator.output in scales:
        tensor = network.tensors[operator.output]
        inverse = 1.0 / scales[operator.output].reshape(tensor.groups, tensor.width)
        steps = _divided_end(steps, _affine_end(operator), constants, inverse, count)
    return replace(operator, steps=tuple(steps), constants=constants)


def _affine_end(operator: Operator) -> int | None:
    """How many of the last steps have constants that a factor of the result can be put into: 1 (multiply by one), 2
    (multiply by one, then add one), or None.
    """
    steps = operator.steps

    def by_constant(step: Step, function: str) -> bool:
        return step.function == function and step.constant is not None and len(step.args) == 1

    if steps and by_constant(steps[-1], "multiply"):
        return 1
    before_last = len(operator.operands) + len(steps) - 2
    shifted = len(steps) > 1 and by_constant(steps[-1], "add") and steps[-1].args == (before_last,)
    return 2 if shifted and by_constant(steps[-2], "multiply") else None


def _divided_end(
    steps: list[Step], affine: int | None, constants: dict[str, np.ndarray], inverse: np.ndarray, operands: int
) -> list[Step]:
    """``steps`` with their result multiplied by ``inverse``, in the constants of the ``affine`` last ones if it is set;
    new arrays are put into ``constants``, and those that no step names any more taken out.
    """
    if affine is None:
        name = _unused(constants, "inverse scale")
        constants[name] = inverse
        return [*steps, Step("multiply", (operands + len(steps) - 1,), name)]
    changed = list(steps)
    for back in range(1, affine + 1):
        step = changed[-back]
        assert step.constant is not None
        name = _unused(constants, f"{step.constant} scaled")
        constants[name] = np.asarray(constants[step.constant]) * inverse
        changed[-back] = replace(step, constant=name)
    named = {step.constant for step in changed}
    for name in [name for name in constants if name not in named]:
        del constants[name]
    return changed


def _unused(constants: Mapping[str, np.ndarray], name: str) -> str:
    return name if name not in constants else _unused(constants, f"{name}'")
