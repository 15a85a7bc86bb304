"""What conversion is given, checked: matrices, biases, input moments, and the order of hidden channels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor

from gblr_hw.conversion.fit.fit_problem import FitProblem
from gblr_hw.conversion.reorder import check_pairs, order_hidden
from gblr_hw.weights.stored import DenseWeights
from simulator.base.errors import InputError

FloatArray = npt.NDArray[np.float64]
# Added to the moments' diagonal, relative to their mean: a channel that was never active would make them singular.
_FLOOR = 1e-6
# Of the largest entry: what sums of half-precision products may differ by on both sides of the diagonal.
_ASYMMETRY = 1e-2


class Array(Protocol):
    """What conversion needs of a machine: its array of `rows` (P) x `cols` (Q)."""

    @property
    def rows(self) -> int: ...

    @property
    def cols(self) -> int: ...


@dataclass(frozen=True, eq=False)
class _Layer:
    matrix: FloatArray
    bias: Tensor | None
    moments: FloatArray | None


def read_layers(
    layers: Mapping[str, npt.NDArray[np.floating] | DenseWeights],
    array: Array,
    covariances: Mapping[str, npt.NDArray[np.floating]] | None,
    hidden: Mapping[str, str],
) -> tuple[dict[str, FitProblem], dict[str, Tensor | None]]:
    """Problems and biases by layer, hidden channels in their new order. Raises InputError as `convert` says."""
    unknown = sorted(set(covariances or {}) - set(layers))
    if unknown:
        raise InputError(
            "covariances", repr(unknown[0]), "each belongs to a layer that is converted", "Drop it or rename it."
        )
    if not layers:
        raise InputError("layers", "none", "there must be something to convert", "Check the names.")
    read = {}
    for name, layer in layers.items():
        matrix, bias = _matrix(name, layer)
        read[name] = _Layer(matrix, bias, _moments(name, covariances, matrix.shape[1]))
    check_pairs(hidden, {name: layer.matrix.shape for name, layer in read.items()})
    for producer, consumer in hidden.items():
        order = order_hidden(read[producer].matrix, read[consumer].matrix, max(array.rows, array.cols))
        first, second = read[producer], read[consumer]
        bias = None if first.bias is None else first.bias[order.tolist()]
        read[producer] = _Layer(first.matrix[order], bias, first.moments)
        moments = None if second.moments is None else second.moments[np.ix_(order, order)]
        read[consumer] = _Layer(second.matrix[:, order], second.bias, moments)
    problems = {name: FitProblem(layer.matrix, layer.moments, array.rows, array.cols) for name, layer in read.items()}
    return problems, {name: layer.bias for name, layer in read.items()}


def _matrix(name: str, layer: npt.NDArray[np.floating] | DenseWeights) -> tuple[FloatArray, Tensor | None]:
    if isinstance(layer, DenseWeights):
        bias = None if layer.bias is None else layer.bias.detach().clone()
        return layer.weight.detach().cpu().double().numpy(), bias
    matrix = np.asarray(layer, np.float64)
    if matrix.ndim != 2 or 0 in matrix.shape:
        raise InputError(
            f"layer '{name}'", f"shape {matrix.shape}", "a layer is a matrix (outputs, inputs)", "Reshape it."
        )
    if not np.isfinite(matrix).all():
        raise InputError(
            f"layer '{name}'", "NaN or infinite weights", "weights are finite", "Use an earlier checkpoint."
        )
    return matrix, None


def _moments(name: str, covariances: Mapping[str, npt.NDArray[np.floating]] | None, inputs: int) -> FloatArray | None:
    if covariances is None or name not in covariances:
        return None
    return positive_moments(name, np.asarray(covariances[name], np.float64), inputs)


def positive_moments(name: str, moments: FloatArray, inputs: int) -> FloatArray:
    """Second moments (n, n) of a layer's inputs, symmetric and positive definite. Raises InputError if they are not."""
    if moments.shape != (inputs, inputs) or not np.isfinite(moments).all():
        raise InputError(
            f"covariance of layer '{name}'",
            f"shape {moments.shape}",
            f"it must be finite and of shape {(inputs, inputs)}",
            "Collect it from this layer's inputs.",
        )
    unlike = np.abs(moments - moments.T)
    at = np.unravel_index(int(np.argmax(unlike)), unlike.shape)
    if unlike[at] > _ASYMMETRY * np.abs(moments).max():
        raise InputError(
            f"covariance of layer '{name}'",
            f"{moments[at]:g} at {(int(at[0]), int(at[1]))} and {moments.T[at]:g} at {(int(at[1]), int(at[0]))}",
            "second moments E[x x^T] are symmetric",
            "Check that it is a covariance, and not the weights.",
        )
    mean = float(np.trace(moments)) / inputs
    symmetric = (moments + moments.T) / 2 + _FLOOR * mean * np.eye(inputs)
    if mean <= 0 or not _is_positive(symmetric):
        raise InputError(
            f"covariance of layer '{name}'",
            "not positive definite",
            "second moments E[x x^T] have no negative eigenvalue, and some input must occur",
            "Collect it in float64.",
        )
    return symmetric


def _is_positive(symmetric: FloatArray) -> bool:
    """Positive definite: a Cholesky factor exists, which is found ten times faster than eigenvalues."""
    try:
        np.linalg.cholesky(symmetric)
    except np.linalg.LinAlgError:
        return False
    return True
