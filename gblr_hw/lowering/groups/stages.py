"""A run of operators as stages: what is worked on together, chunk by chunk or a few heads at a time.

A matrix operator takes the elementwise operators behind it along, chunk by chunk as its sums are drained. Scores, the
vector operators on them and their mix run a few heads at a time, so that the scores of all heads never exist at once.
Everything else is a stage of its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from simulator.base.arithmetic import ceil_div
from simulator.network.network import Network, Operand, Operator
from simulator.network.network_layout import head_stride
from simulator.network.vector_functions import Reach, function_named


@dataclass(frozen=True)
class Stage:
    """Operators [first, last) of the network. slices: parts (runs of heads) in which they are worked on, 1 for all at
    once. chunked: the first is a matrix operator and the others follow it chunk by chunk.
    """

    first: int
    last: int
    slices: int = 1
    chunked: bool = False


def elementwise(network: Network, operator: Operator) -> bool:
    """Whether a vector operator makes each element of its output from the same element of operands stored alike."""
    written = network.tensors[operator.output]
    return (
        operator.kind == "vector"
        and all(function_named(step.function).reach is Reach.ELEMENT for step in operator.steps)
        and all(
            operand.access == "rows"
            and (operand.tokens, operand.groups, operand.width) == (operator.tokens, written.groups, written.width)
            and network.tensors[operand.tensor].padded == written.padded
            for operand in operator.operands
        )
    )


def stages_of(network: Network, first: int, last: int, side: int) -> tuple[Stage, ...]:
    """Operators [first, last) cut into stages, in order."""
    stages, at = [], first
    while at < last:
        stage = _heads(network, at, last, side) or _chunks(network, at, last)
        stages.append(stage)
        at = stage.last
    return tuple(stages)


def _chunks(network: Network, at: int, last: int) -> Stage:
    """A linear operator with the elementwise ones that follow it, or one operator alone."""
    end = at + 1
    constants = 0  # besides the linear operator's biases: the parameter memory has two halves
    if network.operators[at].kind == "linear":
        while end < last and _follows(network, end):
            constants += bool(network.operators[end].constants)
            if constants > 1:
                break
            end += 1
    return Stage(at, end, chunked=end > at + 1)


def _follows(network: Network, index: int) -> bool:
    operator, before = network.operators[index], network.operators[index - 1].output
    written, source = network.tensors[operator.output], network.tensors[before]
    return (
        elementwise(network, operator)
        and any(operand.tensor == before and operand.channel0 == 0 for operand in operator.operands)
        and (written.groups * written.width, written.padded) == (source.groups * source.width, source.padded)
    )


def _heads(network: Network, at: int, last: int, side: int) -> Stage | None:
    """Scores, what is done to them row by row and head by head, and their mix; None if that does not begin here."""
    scores = network.operators[at]
    if scores.kind != "scores":
        return None
    heads = network.tensors[scores.output].groups
    for index in range(at + 1, last):
        operator, before = network.operators[index], network.operators[index - 1].output
        if operator.operands[0].tensor != before or readers_of(network, before) != [index]:
            return None
        if operator.kind == "mix":
            shared = heads // min(o.operands[1].groups for o in (scores, operator))
            together = math.lcm(shared, side // math.gcd(head_stride(network, operator, side), side))
            return Stage(at, index + 1, slices=max(1, heads // together if heads % together == 0 else 1))
        if operator.kind != "vector" or not _by_head(network, operator, heads, side):
            return None
    return None


def _by_head(network: Network, operator: Operator, heads: int, side: int) -> bool:
    """Whether a vector operator works on each head of padded scores by itself, in the place that they take."""
    written = network.tensors[operator.output]
    # Its result lies over its first operand, and parts of all of them begin at the same chunk: a wider result would
    # write into what lies behind.
    chunks = ceil_div(written.width, side)
    return (
        written.padded
        and written.groups == heads
        and all(
            o.access == "rows"
            and (
                o.groups == 1
                or (o.groups == heads and network.tensors[o.tensor].padded and ceil_div(o.width, side) == chunks)
            )
            for o in operator.operands
        )
        and not any(function_named(step.function).reach is Reach.GROUPS for step in operator.steps)
    )


def readers_of(network: Network, tensor: str) -> list[int]:
    """Operators that read a tensor or the one that it lies within, in order; a model's output counts as one more."""
    names = {tensor}
    within = network.tensors[tensor].within
    if within is not None:
        names.add(within[0])
    tables = (network.readers, network.index_readers)
    result = sorted({index for name in names for found in tables for index in found.get(name, ())})
    if any(port.tensor in names for port in network.outputs):
        result.append(len(network.operators))
    return result


def local(network: Network, operator: Operator, operand: Operand, side: int) -> bool:
    """Whether an operator can read an operand where its writer left it in the scratchpad: the same rows, and channels
    from a chunk's edge on.
    """
    tensor = network.tensors[operand.tensor]
    return (
        operand.access == "rows"
        and (tensor.batch, tensor.tokens) == (operator.batch, operator.tokens)
        and (operand.token0, operand.tokens) == (0, operator.tokens)
        and operand.channel0 % side == 0
        and (operand.channel0 == 0 or not tensor.padded)
    )
