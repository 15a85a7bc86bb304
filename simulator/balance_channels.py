"""Channels of very different reach made alike before they are quantised: one step a tensor then fits all of them.

Transformers have a few output channels, in MiniLM those of the second feed-forward layer, that reach a hundred times
further than the others, which one int8 step for all rounds away. Where only vector operators read the output, each of
its channels may be divided by a factor, in the linear's weights and bias, and multiplied by it as the first thing that
the reader does: the same numbers in exact arithmetic, for one pass more of the vector unit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from simulator.errors import InputError
from simulator.evaluate_network import Linear, evaluate_network
from simulator.network import Network, Operator
from simulator.vector_steps import Step

_LEAST = 2.0**-6  # of the middle channel: one that is silent on the examples may speak later


@dataclass(frozen=True, eq=False)
class Balanced:
    """``network``: with the readers' multiplications. ``factors``: linear operator -> (m,), by which its outputs, so
    the rows of its weights and its bias, are to be divided.
    """

    network: Network
    factors: Mapping[str, np.ndarray]

    def linear(self, linear: Linear) -> Linear:
        """``linear`` with its outputs divided."""
        return lambda name, rows: linear(name, rows) / self.factors.get(name, 1.0)


def balance_channels(
    network: Network, linear: Linear, batches: Iterable[Mapping[str, ArrayLike]], ratio: float = 8.0
) -> Balanced:
    """Balance the linear operators of which a channel reaches more than ``ratio`` times further than the middle one.

    linear and batches as for ``calibrate_network``, which comes after this. Left alone: outputs of the model, parts of
    other tensors, and what anything but a vector operator reads, or reads in other ways than by rows. Raises InputError
    for a ratio below 1.
    """
    if not ratio >= 1:
        raise InputError("ratio", str(ratio), "it is at least 1", "The larger, the fewer operators are balanced.")
    able = _balanceable(network)
    reach: dict[str, np.ndarray] = {}

    def observe(name: str, values: np.ndarray) -> None:
        if name in able:
            found = np.abs(values).max(axis=(0, 1)).reshape(-1)
            reach[name] = np.maximum(reach.get(name, 0.0), found)

    for batch in batches:
        evaluate_network(network, linear, batch, observe)
    factors = {}
    for name, largest in reach.items():
        middle = float(np.median(largest))
        if middle > 0 and largest.max() > ratio * middle:
            factors[name] = np.maximum(largest / middle, _LEAST)
    operators = tuple(_with_products(operator, factors) for operator in network.operators)
    writers = {network.operators[network.writer[name]].name: factor for name, factor in factors.items()}
    return Balanced(replace(network, operators=operators), writers)


def _balanceable(network: Network) -> set[str]:
    """Outputs of linear operators that only vector operators read, row by row."""
    found = {o.output for o in network.operators if o.kind == "linear" and network.tensors[o.output].within is None}
    found -= {port.tensor for port in network.outputs}
    found -= {name for name in found if network.parts(name) != (name,)}
    for operator in network.operators:
        for operand in operator.operands:
            if operator.kind != "vector" or operand.access != "rows" or not operator.steps:
                found.discard(operand.tensor)
    return found


def _with_products(operator: Operator, factors: Mapping[str, np.ndarray]) -> Operator:
    """The operator with a first step for each operand that reads a balanced tensor."""
    count = len(operator.operands)
    constants, place = dict(operator.constants), list(range(count))
    first: list[Step] = []
    for which, operand in enumerate(operator.operands):
        if operand.tensor in factors:
            name = f"balance of operand {which}"
            part = factors[operand.tensor][operand.channel0 : operand.channel0 + operand.groups * operand.width]
            constants[name] = part.reshape(1, 1, operand.groups, operand.width)
            place[which] = count + len(first)
            first.append(Step("multiply", (which,), name))
    if not first:
        return operator
    steps = [
        replace(step, args=tuple(place[arg] if arg < count else arg + len(first) for arg in step.args))
        for step in operator.steps
    ]
    return replace(operator, steps=(*first, *steps), constants=constants)
