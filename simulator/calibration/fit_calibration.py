"""Activation ranges that lose least where tensors are read, and channel scales where no range will do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import ArrayLike

from simulator.calibration.calibrate_network import Calibration, Magnitudes, measure_magnitudes, with_steps
from simulator.calibration.channel_scales import (
    Scales,
    added_constants,
    carries_scales,
    linear_scales,
    scaled_network,
    scales_for,
)
from simulator.calibration.reading_errors import Ladder, RangeErrors, reading_errors
from simulator.network.evaluate_network import Linear
from simulator.network.network import Network, Operator
from simulator.numbers.activation_codes import index_tensors

FRACTIONS = 2.0 ** (-np.arange(17) / 2)  # of the largest magnitude: 1 down to 1/256
# Scaling channels pays if it halves the error, and is worth passes of the vector unit only where a thousandth of what
# readers compute is lost without.
_GAIN = 0.5
_WORTH_A_PASS = 1e-3
_SEARCHED_ROWS = 1024


def fit_calibration(
    network: Network,
    linear: Linear,
    batches: Iterable[Mapping[str, ArrayLike]],
    bits: int = 8,
    weight_bits: int = 8,
    most_constants: int | None = None,
    rows_per_operator: int = 1024,
) -> Calibration:
    """Like ``calibrate_network``, with each tensor's range chosen among fractions of its largest magnitude by the error
    behind its readers (``reading_errors``), on the first batches that make up some 1024 rows.

    Where channels of different magnitudes share a tensor, they are scaled: the network of the result then computes the
    same as the given one, with the linear operators of ``channel_scales.scaled_linear``. most_constants: numbers that a
    vector operator can hold. Tensors with masked values keep their largest magnitude. Raises what ``calibrate_network``
    raises. Deterministic.
    """
    examples = list(batches)
    measured = measure_magnitudes(network, linear, examples, rows_per_operator=rows_per_operator)
    most_rows = max((operator.rows for operator in network.operators), default=1)
    ladder = _ladder(network, measured, bits, weight_bits)
    errors = reading_errors(network, linear, examples[: max(1, _SEARCHED_ROWS // most_rows)], ladder)
    reach = {
        **measured.reach,
        **{name: ladder.ranges(name)[int(np.argmin(found.clipped))] for name, found in errors.items()},
    }
    scales = {}
    for name in _worth_scaling(network, errors, most_constants):
        reach[name] = ladder.ranges(name)[int(np.argmin(errors[name].scaled))]
        scales[name] = scales_for(ladder.largest[name], reach[name])
    steps = with_steps(network, reach, bits)
    rows = {
        operator.name: _as_read(operator, measured.rows[operator.name], scales)
        for operator in network.operators
        if operator.kind == "linear"
    }
    return Calibration(scaled_network(steps, scales), rows, scales)


def _ladder(network: Network, measured: Magnitudes, bits: int, weight_bits: int) -> Ladder:
    left_alone = measured.masked | index_tensors(network)
    largest = {
        name: channels
        for name, channels in measured.channels.items()
        if name not in left_alone and measured.reach[name] > 0
    }
    carriers = frozenset(name for name in largest if carries_scales(network, name))
    return Ladder(largest, FRACTIONS, carriers, bits, weight_bits)


def _worth_scaling(network: Network, errors: Mapping[str, RangeErrors], most_constants: int | None) -> list[str]:
    """Tensors whose channels are to be scaled, those that gain most first to be held by operators."""
    lost = {name: (float(found.clipped.min()), float(found.scaled.min())) for name, found in errors.items()}
    wanted = [name for name, (clipped, scaled) in lost.items() if scaled < _GAIN * clipped]
    held = [sum(map(_held, operator.constants.values())) for operator in network.operators]
    chosen = []
    for name in sorted(wanted, key=lambda name: lost[name][1] - lost[name][0]):
        added = added_constants(network, name)
        if added and lost[name][0] < _WORTH_A_PASS:
            continue
        if most_constants is not None and any(held[at] + count > most_constants for at, count in added.items()):
            continue
        for at, count in added.items():
            held[at] += count
        chosen.append(name)
    return chosen


def _held(constant: np.ndarray) -> int:
    """Numbers of a constant that stay; those with a row for each token stream through."""
    return 0 if constant.ndim == 4 and constant.shape[1] > 1 else constant.size


def _as_read(operator: Operator, rows: np.ndarray, scales: Scales) -> np.ndarray:
    columns, _ = linear_scales(operator, scales)
    return rows if columns is None else rows / columns
