"""A value's rows counted as other sequences and tokens: the same rows, in memory too."""

from __future__ import annotations

from dataclasses import replace

from gblr_hw.frontend.graph.draft import Draft, covers
from simulator.network.network import Operator


def with_rows(draft: Draft, name: str, batch: int, tokens: int) -> Draft | None:
    """The graph with tensor ``name`` as so many sequences of so many tokens, and so everything that is computed of it
    row by row; None if something tells its rows apart in another way.
    """
    tensors = dict(draft.tensors)
    if (tensors[name].batch, tensors[name].tokens) == (batch, tokens):
        return draft
    changed = {name}
    operators = []
    for operator in draft.operators:
        seen = [operand.tensor in changed for operand in operator.operands]
        if not any(seen):
            operators.append(operator)
            continue
        if operator.kind not in ("vector", "linear") or not all(seen) or not _row_by_row(draft, operator):
            return None
        operands = tuple(replace(operand, tokens=tokens) for operand in operator.operands)
        operators.append(replace(operator, operands=operands, batch=batch, tokens=tokens))
        changed.add(operator.output)
    parents = {tensor.within[0] for tensor in tensors.values() if tensor.within is not None}
    for one in changed:
        if tensors[one].within is not None or one in parents:
            return None
        tensors[one] = replace(tensors[one], batch=batch, tokens=tokens)
    if any(operand.indices in changed for operator in operators for operand in operator.operands):
        return None
    return replace(draft, tensors=tensors, operators=tuple(operators))


def _row_by_row(draft: Draft, operator: Operator) -> bool:
    """Whether each row of the result comes of the same row alone, whichever it is."""
    if not all(_all_rows(draft, operator, place) for place in range(len(operator.operands))):
        return False
    return all(array.ndim < 3 or array.shape[:-2] in ((1, 1), (1,)) for array in operator.constants.values())


def _all_rows(draft: Draft, operator: Operator, place: int) -> bool:
    operand = operator.operands[place]
    tensor = draft.tensors[operand.tensor]
    same = (tensor.batch, tensor.tokens) == (operator.batch, operator.tokens)
    return covers(replace(operand, channel0=0, groups=tensor.groups, width=tensor.width), tensor) and same
