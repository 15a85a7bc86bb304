"""What the vector unit computes: straight-line programs of steps over rows, each a function of ``vector_functions``.

A value is an array (batch, tokens, groups, width), or one that is broadcast to it. A step reads values by number:
operands first, then the results of earlier steps; the last step's result is the operator's output. Steps are exact
float arithmetic on dequantised codes; only the output is quantised (machine.md, V3).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from simulator.base.errors import NOT_OURS, InputError
from simulator.network.vector_functions import VectorFunction, function_named


@dataclass(frozen=True)
class Step:
    """``function`` of the values ``args``, then of the operator's array ``constant`` if it names one, then of
    ``numbers`` (an epsilon, an exponent, a permutation of the width).
    """

    function: str
    args: tuple[int, ...]
    constant: str | None = None
    numbers: tuple[float, ...] = ()

    def __str__(self) -> str:
        parts = [f"%{arg}" for arg in self.args]
        parts += [f"'{self.constant}'"] if self.constant is not None else []
        parts += [f"{number:.9g}" for number in self.numbers[:4]] + (["..."] if len(self.numbers) > 4 else [])
        return f"{self.function}({', '.join(parts)})"


def passes_of(steps: Sequence[Step]) -> int:
    """Passes of a whole program; adding a constant to what a step before has just multiplied by one, or summed with
    weights, takes none, since lanes multiply and add. Raises InputError for a function that the vector unit does not
    have, or takes otherwise.
    """
    passes = 0
    for before, step in zip((None, *steps), steps, strict=False):
        rides_along = (
            before is not None
            and before.function in ("multiply", "weighted_sum_groups")
            and step.function == "add"
            and before.constant is not None
            and step.constant is not None
        )
        passes += 0 if rides_along else _function(step).passes_of(step.numbers)
    return passes


def run_steps(steps: Sequence[Step], values: Sequence[np.ndarray], constants: Mapping[str, np.ndarray]) -> np.ndarray:
    """The last step's result on operands ``values``, float64."""
    known = [np.asarray(value, dtype=np.float64) for value in values]
    for step in steps:
        arguments = [known[arg] for arg in step.args]
        if step.constant is not None:
            arguments.append(np.asarray(constants[step.constant], dtype=np.float64))
        known.append(_function(step).meaning(*arguments, *step.numbers))
    return known[-1]


def _function(step: Step) -> VectorFunction:
    function = function_named(step.function)
    given = len(step.args) + (step.constant is not None) + len(step.numbers)
    if given == 0 or function.takes not in (None, given):
        raise InputError(
            f"vector step '{step}'",
            f"{given} values, constants and numbers",
            f"'{function.name}' takes {function.takes or 'one or more'}",
            NOT_OURS,
        )
    return function
