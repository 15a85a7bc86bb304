"""A second reading of `simulator.network.network`: what an operator graph computes, in numpy, as plainly as it can be said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from gblr_hw.weights.factors import evaluate
from gblr_hw.weights.stored import DenseWeights, GroupedWeights, LayerWeights
from simulator.network.network import Digit, Network, Operand, Operator, Port
from simulator.network.vector_steps import run_steps


class Memory:
    """Tensors by name as (batch, tokens, channels); a part of a larger tensor is a region of it."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.arrays: dict[str, np.ndarray] = {}
        for tensor in network.tensors.values():
            if tensor.within is None:
                shape = (tensor.batch, tensor.tokens, tensor.groups * tensor.width)
                self.arrays[tensor.name] = np.full(shape, np.nan)
        for name, value in network.values.items():
            self.write(name, value)

    def read(self, name: str) -> np.ndarray:
        tensor = self.network.tensors[name]
        if tensor.within is None:
            return self.arrays[name]
        parent, token, channel = tensor.within
        return self.read(parent)[:, token : token + tensor.tokens, channel : channel + tensor.groups * tensor.width]

    def write(self, name: str, value: np.ndarray) -> None:
        place = self.read(name)
        place[...] = np.asarray(value).reshape(place.shape)


def view(memory: Memory, operand: Operand) -> np.ndarray:
    """(batch, tokens, groups, width)."""
    array = memory.read(operand.tensor)
    batch = len(array)
    last = operand.channel0 + operand.groups * operand.width
    if operand.access in ("rows", "weights"):
        part = array[:, operand.token0 : operand.token0 + operand.tokens, operand.channel0 : last]
    elif operand.access == "transposed":
        assert not operand.token0 and not operand.channel0
        part = array.transpose(0, 2, 1)
    elif operand.access == "gather":
        index = memory.read(operand.indices or "").astype(int)[:, :, 0]
        part = array[0][index]
    elif operand.access == "strided":
        return strided_rows(array, operand)
    else:
        assert operand.access == "window", f"this oracle does not know the access '{operand.access}'"
        part = window_rows(array, operand)
    return part.reshape(
        len(part) if operand.access == "gather" else batch, operand.tokens, operand.groups, operand.width
    )


def strided_rows(array: np.ndarray, operand: Operand) -> np.ndarray:
    """Digit by digit, as an odometer turns."""
    strides = operand.strides
    assert strides is not None

    def places(digits: Sequence[Digit]) -> list[tuple[int, int, int]]:
        found = [(0, 0, 0)]
        for digit in digits:
            found = [
                (b + n * digit.batch, t + n * digit.token, c + n * digit.channel)
                for b, t, c in found
                for n in range(digit.size)
            ]
        return found

    rows, channels = places(strides.rows), places(strides.channels)
    read = [
        [
            array[strides.batch0 + rb + cb, operand.token0 + rt + ct, operand.channel0 + rc + cc]
            for cb, ct, cc in channels
        ]
        for rb, rt, rc in rows
    ]
    return np.array(read).reshape(-1, operand.tokens, operand.groups, operand.width)


def window_rows(array: np.ndarray, operand: Operand) -> np.ndarray:
    window = operand.window
    assert window is not None and not operand.token0 and not operand.channel0
    batch, _, channels = array.shape
    (height, width), (pad_y, pad_x) = window.image, window.padding
    below, right = window.after or window.padding
    # Windows may reach further than the padding goes: what they find there does not count.
    padded = np.full((batch, height + pad_y + max(below, 0), width + pad_x + max(right, 0), channels), window.fill)
    padded[:, pad_y : pad_y + height, pad_x : pad_x + width] = array.reshape(batch, height, width, channels)
    rows = []
    for y in range(window.output[0]):
        for x in range(window.output[1]):
            for k1 in range(window.kernel[0]):
                for k2 in range(window.kernel[1]):
                    at_y = y * window.stride[0] + k1 * window.dilation[0]
                    rows.append(padded[:, at_y, x * window.stride[1] + k2 * window.dilation[1]])
    return np.stack(rows, axis=1)


def matrix_of(weights: LayerWeights) -> tuple[np.ndarray, np.ndarray | float]:
    if isinstance(weights, DenseWeights):
        matrix, bias = weights.weight.double().numpy(), weights.bias
    elif isinstance(weights, GroupedWeights):
        matrix, bias = block_diagonal(weights), weights.bias
    else:
        matrix, bias = evaluate(weights).matrix(), getattr(weights, "bias", None)
    return matrix, 0.0 if bias is None else bias.double().numpy()


def block_diagonal(weights: GroupedWeights) -> np.ndarray:
    """(m, k1 k2 ic), entry by entry."""
    kernel = weights.kernel.double().numpy()
    outputs, share, k1, k2 = kernel.shape
    matrix = np.zeros((outputs, k1, k2, weights.groups * share))
    for output in range(outputs):
        first = output // (outputs // weights.groups) * share
        matrix[output, :, :, first : first + share] = kernel[output].transpose(1, 2, 0)
    return matrix.reshape(outputs, -1)


def compute(memory: Memory, operator: Operator, weights: Mapping[str, LayerWeights]) -> np.ndarray:
    values = [view(memory, operand) for operand in operator.operands]
    if operator.kind == "linear":
        matrix, bias = matrix_of(weights[operator.name])
        return values[0].reshape(operator.batch, operator.tokens, -1) @ matrix.T + bias
    if operator.kind == "vector":
        tensor = memory.network.tensors[operator.output]
        result = run_steps(operator.steps, values, operator.constants)
        return np.broadcast_to(result, (tensor.batch, tensor.tokens, tensor.groups, tensor.width))
    assert operator.kind in ("scores", "mix"), f"this oracle does not know operators of the kind '{operator.kind}'"
    rows, stationary = values
    head = np.arange(rows.shape[2]) * stationary.shape[2] // rows.shape[2]
    equation = "bthd,bshd->bths" if operator.kind == "scores" else "bths,bshd->bthd"
    return np.einsum(equation, rows, stationary[:, :, head])


def run_graph(
    network: Network, weights: Mapping[str, LayerWeights], inputs: Sequence[np.ndarray]
) -> dict[str, np.ndarray]:
    """Outputs by name of a network on its inputs, in the order of its ports, in float64."""
    memory = Memory(network)
    for port, array in zip(network.inputs, inputs, strict=True):
        assert np.shape(array) == port.shape
        memory.write(port.tensor, np.asarray(array).reshape(port.split).transpose(port.order))
    for operator in network.operators:
        memory.write(operator.output, compute(memory, operator, weights))
    return {port.name: to_framework(memory.read(port.tensor), port) for port in network.outputs}


def to_framework(array: np.ndarray, port: Port) -> np.ndarray:
    sizes = [port.split[place] for place in port.order]
    return array.reshape(sizes).transpose(np.argsort(port.order)).reshape(port.shape)
