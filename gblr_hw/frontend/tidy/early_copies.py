"""Copies into other axes stand behind what they read: where their reader asks for them they would part operators that
are best run block by block, such as a softmax from the products before and behind it.
"""

from __future__ import annotations

from dataclasses import replace

from gblr_hw.frontend.graph.draft import Draft
from simulator.network.network import Operator

_COPIES = frozenset(("copy", "permute"))


def copies_moved_up(draft: Draft) -> Draft:
    """Each copy of what one operator makes, in the place behind it. Copies of inputs and of parts stay."""
    fixed, behind = draft.fixed(), dict[str, list[Operator]]()
    made = {operator.output for operator in draft.operators}
    left: list[Operator] = []
    for operator in draft.operators:
        if _is_copy(operator) and operator.output not in fixed:
            source = operator.operands[0].tensor
            if source in made and source not in fixed:
                behind.setdefault(source, []).append(operator)
                continue
        left.append(operator)
    ordered: list[Operator] = []
    for operator in left:
        _with_copies(operator, behind, ordered)
    return replace(draft, operators=tuple(ordered))


def _is_copy(operator: Operator) -> bool:
    reads = operator.operands
    is_move = operator.kind == "vector" and all(step.function in _COPIES for step in operator.steps)
    return is_move and len(reads) == 1 and reads[0].indices is None


def _with_copies(operator: Operator, behind: dict[str, list[Operator]], ordered: list[Operator]) -> None:
    ordered.append(operator)
    for copy in behind.get(operator.output, ()):
        _with_copies(copy, behind, ordered)
