"""What rounding a tensor to codes costs those who read it, for a ladder of ranges: the error of every reader's result.

A result's error counts row by row, as a share of the row: a token with huge activations, which the next norm shrinks,
says no more than any other.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import ArrayLike

from simulator.calibration.calibrate_network import sampled
from simulator.calibration.channel_scales import operand_scale, scales_for
from simulator.network.evaluate_network import Linear, evaluate_network, operator_result
from simulator.network.network import Network, Operator
from simulator.network.operand_views import operand_view
from simulator.network.tensor_values import root_of
from simulator.numbers.numerics import code_limit

# A row far smaller than the others (a dead image position) counts against this share of the middle one's square.
_LEAST_ROW = 0.01
# Errors grow as ranges shrink: beyond both of these, no smaller range is tried.
_HOPELESS, _TIMES_THE_BEST = 0.05, 4.0
_MOST_ROWS = 512  # of a linear operator's inputs, for each batch


@dataclass(frozen=True, eq=False)
class Ladder:
    """The ranges to try. ``largest``: tensor -> (channels,) largest magnitudes; tensors without are left alone.
    ``fractions`` (R,): of a tensor's largest magnitude. carriers: tensors whose channels may be scaled. bits: of
    activations; weight_bits: of the weights that a scale changes.
    """

    largest: Mapping[str, np.ndarray]
    fractions: np.ndarray
    carriers: Collection[str]
    bits: int = 8
    weight_bits: int = 8

    def ranges(self, name: str) -> np.ndarray:
        """(R,) magnitudes that the largest code may stand for."""
        return self.fractions * float(self.largest[name].max())

    def typical(self, name: str) -> float:
        """The largest magnitude of a channel of the middle. No range that channels are scaled into is smaller: in use
        they may reach further than in a few examples.
        """
        return float(np.median(self.largest[name]))


@dataclass(frozen=True, eq=False)
class RangeErrors:
    """(R,) each: summed over readers and batches, of a tensor clipped at each range, and with its channels scaled into
    it, which counts the rounding of the weights that are scaled too (infinite where that is not to be done, or the
    range is too small).
    """

    clipped: np.ndarray
    scaled: np.ndarray


@dataclass(frozen=True, eq=False)
class _Reading:
    """A view that an operator reads, and the error of its result if it reads other values."""

    operator: Operator
    values: np.ndarray
    result: np.ndarray
    error: Callable[[np.ndarray], float]


def reading_errors(
    network: Network, linear: Linear, batches: Iterable[Mapping[str, ArrayLike]], ladder: Ladder
) -> dict[str, RangeErrors]:
    """The errors of the ladder's tensors behind the operators that read them (and behind vector operators that read
    nothing but what one of these made), and of the model's outputs themselves. Deterministic. Raises what
    ``evaluate_network`` raises.
    """
    outputs = {root_of(network, port.tensor) for port in network.outputs}
    errors = {
        name: RangeErrors(np.zeros(len(ladder.fractions)), np.full(len(ladder.fractions), _start(name, ladder)))
        for name in ladder.largest
    }

    @cache
    def matrix(name: str, inputs: int) -> np.ndarray:
        return (linear(name, np.eye(inputs)) - linear(name, np.zeros((1, inputs)))).T

    def visit(operator: Operator, views: Sequence[np.ndarray], result: np.ndarray) -> None:
        for which, operand in enumerate(operator.operands):
            root = root_of(network, operand.tensor)
            if root in errors:
                reading = _reading(network, operator, linear, views, result, which)
                errors[root].clipped[:] += _clipped(reading, root, ladder)
                if root in ladder.carriers:
                    errors[root].scaled[:] += _scaled(reading, which, ladder, matrix)
        root = root_of(network, operator.output)
        if root in outputs and root in errors:
            itself = _Reading(operator, result, result, lambda found: relative_error(result, found))
            errors[root].clipped[:] += _clipped(itself, root, ladder)

    for batch in batches:
        evaluate_network(network, linear, batch, visit=visit)
    return errors


def _start(name: str, ladder: Ladder) -> float:
    return 0.0 if name in ladder.carriers else np.inf


def _reading(
    network: Network, operator: Operator, linear: Linear, views: Sequence[np.ndarray], result: np.ndarray, which: int
) -> _Reading:
    if operator.kind != "linear":
        behind = _alone_behind(network, operator)
        wanted_behind = [_next(network, linear, after, result) for after in behind]

        def error(found: np.ndarray) -> float:
            other = operator_result(network, operator, linear, [*views[:which], found, *views[which + 1 :]])
            further = (
                relative_error(wanted, _next(network, linear, after, other))
                for after, wanted in zip(behind, wanted_behind, strict=True)
            )
            return relative_error(result, other) + sum(further)

        return _Reading(operator, views[which], result, error)
    whole = np.broadcast_to(views[0], (operator.batch, *views[0].shape[1:]))
    chosen = sampled(operator.rows, _MOST_ROWS)
    inputs = whole.reshape(operator.rows, 1, *whole.shape[2:])[chosen]
    wanted = result.reshape(operator.rows, 1, -1)[chosen]

    def error_of_rows(found: np.ndarray) -> float:
        return relative_error(wanted, linear(operator.name, found.reshape(len(chosen), -1))[:, None])

    return _Reading(operator, inputs, wanted, error_of_rows)


def _alone_behind(network: Network, operator: Operator) -> list[Operator]:
    """Vector operators that read the result of one, and nothing else: the norms behind a residual sum, which make much
    of channels that are small in the sum.
    """
    if operator.kind != "vector" or network.tensors[operator.output].within is not None:
        return []
    readers = (network.operators[index] for index in network.readers.get(operator.output, ()))
    return [r for r in readers if r.kind == "vector" and len(r.operands) == 1 and r.operands[0].access == "rows"]


def _next(network: Network, linear: Linear, operator: Operator, values: np.ndarray) -> np.ndarray:
    """The result of an operator that reads ``values`` alone."""
    view = operand_view(operator.operands[0], values.reshape(*values.shape[:2], -1))
    return operator_result(network, operator, linear, [view])


def _clipped(reading: _Reading, name: str, ladder: Ladder) -> list[float]:
    return _descending(lambda reach: reading.error(_rounded(reading.values, reach, ladder.bits)), ladder.ranges(name))


def _descending(error: Callable[[float], float], ranges: np.ndarray) -> list[float]:
    """The error at every range, largest first; once it is hopeless, the last one found stands for the others."""
    found: list[float] = []
    for reach in ranges:
        if found and found[-1] > max(_HOPELESS, _TIMES_THE_BEST * min(found)):
            found.append(found[-1])
        else:
            found.append(error(float(reach)))
    return found


def _scaled(reading: _Reading, which: int, ladder: Ladder, matrix: Callable[[str, int], np.ndarray]) -> list[float]:
    operand = reading.operator.operands[which]
    largest = ladder.largest[operand.tensor]
    found = []
    for reach in ladder.ranges(operand.tensor):
        if reach < ladder.typical(operand.tensor):
            found.append(np.inf)
            continue
        scale = operand_scale(operand, scales_for(largest, reach))
        values = _rounded(reading.values, reach * scale, ladder.bits)
        if reading.operator.kind != "linear":
            found.append(reading.error(values))
            continue
        exact = matrix(reading.operator.name, scale.size)
        columns = scale.reshape(-1)
        largest_weight = np.abs(exact * columns).max(axis=1, keepdims=True)
        rounded = _rounded(exact * columns, np.where(largest_weight > 0, largest_weight, 1.0), ladder.weight_bits)
        wrong = values.reshape(len(values), -1) @ (rounded / columns).T
        wrong -= reading.values.reshape(len(values), -1) @ exact.T
        found.append(relative_error(reading.result, reading.result + wrong[:, None]))
    return found


def _rounded(values: np.ndarray, reach: np.ndarray | float, bits: int) -> np.ndarray:
    limit = code_limit(bits)
    step = np.asarray(reach) / limit
    return np.clip(np.rint(values / step), -limit, limit) * step


def relative_error(wanted: np.ndarray, found: np.ndarray) -> float:
    """Mean over rows (batch, tokens) of the squared error over the row's square. What is infinite or NaN in either, as
    in rows that a mask empties, does not count.
    """
    rows = wanted.shape[0] * wanted.shape[1]
    good = np.isfinite(wanted) & np.isfinite(found)
    if not good.all():
        wanted, found = np.where(good, wanted, 0.0), np.where(good, found, 0.0)
    power = np.square(wanted).reshape(rows, -1).sum(axis=1)
    least = _LEAST_ROW * (np.median(power) or power.mean())
    if least == 0:
        return 0.0
    return float((np.square(found - wanted).reshape(rows, -1).sum(axis=1) / np.maximum(power, least)).mean())
