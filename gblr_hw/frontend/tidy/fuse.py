"""Chains of vector operators as one: what only the next one reads need not go through memory."""

from __future__ import annotations

from dataclasses import replace

from gblr_hw.frontend.graph.draft import Draft, covers, pruned
from gblr_hw.frontend.tidy.idioms import add_constant
from simulator.network.network import Operator
from simulator.network.vector_steps import Step

# A vector instruction has two source addresses.
MAX_OPERANDS = 2


def fused(draft: Draft) -> Draft:
    """Each vector operator together with those before it that it alone reads, on the same rows, as long as they read
    at most two tensors in all (one, if it is read transposed).
    """
    readers = {name: set(indices) for name, indices in draft.readers().items()}
    fixed = draft.fixed()
    writer = {operator.output: index for index, operator in enumerate(draft.operators)}
    operators = list(draft.operators)
    for index in range(len(operators)):
        while (source := _absorbable(draft, operators, index, writer, readers, fixed)) is not None:
            for operand in operators[source].operands:
                readers[operand.tensor] = readers[operand.tensor] - {source} | {index}
            operators[index] = _joined(operators[source], operators[index])
    return pruned(replace(draft, operators=tuple(operators)))


def _absorbable(
    draft: Draft,
    operators: list[Operator],
    index: int,
    writer: dict[str, int],
    readers: dict[str, set[int]],
    fixed: set[str],
) -> int | None:
    """An operator before ``index`` that may become part of it."""
    operator = operators[index]
    if operator.kind != "vector":
        return None
    for operand in operator.operands:
        name = operand.tensor
        source = writer.get(name)
        if source is None or name in fixed or readers[name] != {index}:
            continue
        first = operators[source]
        same = all(covers(one, draft.tensors[name]) for one in operator.operands if one.tensor == name)
        rows = (first.batch, first.tokens) == (operator.batch, operator.tokens)
        if first.kind != "vector" or not same or not rows:
            continue
        together = {one for one in operator.operands if one.tensor != name} | set(first.operands)
        # A transposed operand comes by columns, others by rows: side by side they would have to wait for each other.
        if len(together) <= (1 if any(one.access == "transposed" for one in together) else MAX_OPERANDS):
            return source
    return None


def _joined(first: Operator, second: Operator) -> Operator:
    operands = list(dict.fromkeys(first.operands))
    operands += [one for one in second.operands if one.tensor != first.output and one not in operands]
    before = [operands.index(one) for one in first.operands]
    shift = len(operands)
    constants = dict(first.constants)
    steps = [_moved(step, before, shift) for step in first.steps]
    result = shift + len(steps) - 1
    after = [result if one.tensor == first.output else operands.index(one) for one in second.operands]
    for step in second.steps:
        name = step.constant
        if name is not None:
            name = add_constant(constants, name, second.constants[name])
        steps.append(replace(_moved(step, after, shift + len(first.steps)), constant=name))
    return replace(second, operands=tuple(operands), steps=tuple(steps), constants=constants)


def _moved(step: Step, operands: list[int], shift: int) -> Step:
    args = tuple(operands[arg] if arg < len(operands) else arg - len(operands) + shift for arg in step.args)
    return replace(step, args=args)
