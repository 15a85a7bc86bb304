"""Linear operators with more outputs than the parameter memory has room for (a language model's head) are cut into
several that write side by side.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from gblr_hw.weights import DenseWeights, LayerWeights
from simulator.machine import Machine
from simulator.network import Network, Operator, Tensor
from simulator.schedule import PARAMETER_BYTES


def split_wide(
    network: Network, weights: Mapping[str, LayerWeights], machine: Machine
) -> tuple[Network, dict[str, LayerWeights]]:
    """The same network with every dense linear operator narrow enough; parts are named ``name[first:last]``."""
    most = machine.parameter_half_bytes // PARAMETER_BYTES // machine.cols * machine.cols
    tensors, operators, numbers = dict(network.tensors), [], dict(weights)
    for operator in network.operators:
        held = weights.get(operator.name)
        if operator.kind != "linear" or not isinstance(held, DenseWeights) or held.out_features <= most or most == 0:
            operators.append(operator)
            continue
        del numbers[operator.name]
        for first in range(0, held.out_features, most):
            last = min(held.out_features, first + most)
            part, tensor = _part(operator, tensors[operator.output], first, last)
            operators.append(part)
            tensors[tensor.name] = tensor
            bias = None if held.bias is None else held.bias[first:last]
            numbers[part.name] = DenseWeights(held.weight[first:last], bias)
    if len(operators) == len(network.operators):
        return network, numbers
    return replace(network, tensors=tensors, operators=tuple(operators)), numbers


def _part(operator: Operator, written: Tensor, first: int, last: int) -> tuple[Operator, Tensor]:
    root, token0, channel0 = written.within or (written.name, 0, 0)
    name = f"{operator.name}[{first}:{last}]"
    tensor = replace(
        written,
        name=f"{written.name}[{first}:{last}]",
        groups=1,
        width=last - first,
        within=(root, token0, channel0 + first),
    )
    return replace(operator, name=name, output=tensor.name), tensor
