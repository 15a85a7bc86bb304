"""What the vector unit computes: straight-line programs of steps over rows, what each step costs and what it means.

A value is an array (batch, tokens, groups, width), or one that is broadcast to it. A step reads values by number:
operands first, then the results of earlier steps; the last step's result is the operator's output. Steps are exact
float arithmetic on dequantised codes; only the output is quantised (machine.md, V3).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from simulator.base.errors import InputError


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


def _erf(x: np.ndarray) -> np.ndarray:
    from scipy.special import erf  # half of the package's import time, and only execution needs it

    return erf(x)


def _softmax(x: np.ndarray) -> np.ndarray:
    # A row that a mask empties altogether is all -inf; frameworks give NaN there, and so does this.
    shifted = np.exp(x - x.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


def _layer_norm(x: np.ndarray, epsilon: float) -> np.ndarray:
    return (x - x.mean(axis=-1, keepdims=True)) / np.sqrt(x.var(axis=-1, keepdims=True) + epsilon)


def _rms_norm(x: np.ndarray, epsilon: float) -> np.ndarray:
    return x / np.sqrt(np.square(x).mean(axis=-1, keepdims=True) + epsilon)


def _gelu(x: np.ndarray) -> np.ndarray:
    return 0.5 * x * (1.0 + _erf(x / np.sqrt(2.0)))


def _gelu_tanh(x: np.ndarray) -> np.ndarray:
    return 0.5 * x * (1.0 + np.tanh(np.sqrt(2.0 / np.pi) * (x + 0.044715 * x**3)))


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 0.5 * (1.0 + np.tanh(0.5 * x))


def _permute(x: np.ndarray, *order: float) -> np.ndarray:
    return x[..., np.asarray(order, dtype=np.int64)]


# Passes over the row's elements, and the meaning. A pass reads every element once at ``vector.lanes`` a cycle; an
# elementwise function of any kind is one (tables serve the curved ones). Softmax: largest; exponentials and their sum;
# scaling. Norms: moments; scaling.
FUNCTIONS: Mapping[str, tuple[int, Callable[..., np.ndarray]]] = {
    "copy": (1, lambda x: x),
    "add": (1, np.add),
    "subtract": (1, np.subtract),
    "multiply": (1, np.multiply),
    "divide": (1, np.divide),
    "maximum": (1, np.maximum),
    "minimum": (1, np.minimum),
    "negative": (1, np.negative),
    "absolute": (1, np.abs),
    "square": (1, np.square),
    "power": (1, np.power),
    "sqrt": (1, np.sqrt),
    "rsqrt": (1, lambda x: 1.0 / np.sqrt(x)),
    "exp": (1, np.exp),
    "log": (1, np.log),
    "sine": (1, np.sin),
    "cosine": (1, np.cos),
    "tanh": (1, np.tanh),
    "erf": (1, _erf),
    "sigmoid": (1, _sigmoid),
    "relu": (1, lambda x: np.maximum(x, 0.0)),
    "clip": (1, np.clip),
    "gelu": (1, _gelu),
    "gelu_tanh": (1, _gelu_tanh),
    "silu": (1, lambda x: x * _sigmoid(x)),
    "permute": (1, _permute),  # out[..., i] = x[..., numbers[i]]; may pick fewer or more than there are
    "concat": (1, lambda *parts: np.concatenate(parts, axis=-1)),  # along the width
    "softmax": (3, _softmax),
    "layer_norm": (2, _layer_norm),
    "rms_norm": (2, _rms_norm),
    "sum_width": (1, lambda x: x.sum(axis=-1, keepdims=True)),
    "mean_width": (1, lambda x: x.mean(axis=-1, keepdims=True)),
    "max_width": (1, lambda x: x.max(axis=-1, keepdims=True)),
    "sum_groups": (1, lambda x: x.sum(axis=-2, keepdims=True)),
    "mean_groups": (1, lambda x: x.mean(axis=-2, keepdims=True)),
    "max_groups": (1, lambda x: x.max(axis=-2, keepdims=True)),
}


def passes_of(steps: Sequence[Step]) -> int:
    """Passes of a whole program; adding a constant to what a step before has just multiplied by one takes none, since
    lanes multiply and add. Raises InputError for a function that the vector unit does not have.
    """
    passes = 0
    for before, step in zip((None, *steps), steps, strict=False):
        rides_along = (
            before is not None
            and (before.function, step.function) == ("multiply", "add")
            and before.constant is not None
            and step.constant is not None
        )
        passes += 0 if rides_along else _function(step)[0]
    return passes


def run_steps(steps: Sequence[Step], values: Sequence[np.ndarray], constants: Mapping[str, np.ndarray]) -> np.ndarray:
    """The last step's result on operands ``values``, float64."""
    known = [np.asarray(value, dtype=np.float64) for value in values]
    for step in steps:
        arguments = [known[arg] for arg in step.args]
        if step.constant is not None:
            arguments.append(np.asarray(constants[step.constant], dtype=np.float64))
        known.append(_function(step)[1](*arguments, *step.numbers))
    return known[-1]


def _function(step: Step) -> tuple[int, Callable[..., np.ndarray]]:
    if step.function not in FUNCTIONS:
        raise InputError(
            f"vector step '{step.function}'",
            "no such function",
            f"the vector unit has {', '.join(FUNCTIONS)}",
            "The program is damaged or not ours: lower the model again.",
        )
    return FUNCTIONS[step.function]
