"""What ranks count in: the step of each rank's sum, and what makes an activation code of it (machine.md, N1, N3).

A rank's sum is made of weights at one step, whether it reads inputs or is mixed from other ranks; then the weights
carry what a code of the source stands for. Ranges go along chains: with examples they are those of the sums that the
examples give in codes, without them those of white inputs, of which any rank's sum is a weighted one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba as nb
import numpy as np

from gblr_hw.weights.factors import Factors
from gblr_hw.weights.mixes import Mixes, carried, mix_levels
from simulator.base.columns import kernel_input
from simulator.machine.machine import Machine
from simulator.numbers.execute import input_step
from simulator.numbers.numerics import code_limit, quantise

_WHITE_RMS_CODE = 32.0  # root mean square code of uncalibrated inputs (rule N1)
_SIGMAS = 4.0  # range of a rank's sum, in standard deviations, when inputs are white
_CHANNELS = 512  # input channels that are carried along chains at a time


@dataclass(frozen=True, eq=False)
class RankScales:
    """input_step: of the layer's inputs, 0 if it is taken from the data. sum_step (K,): what a rank's sum counts in, in
    units of the input step. divisor (K,): of the sum, to fill an activation code.
    """

    input_step: float
    sum_step: np.ndarray
    divisor: np.ndarray

    @property
    def value_step(self) -> np.ndarray:
        """What a rank's activation code stands for, (K,)."""
        return self.sum_step * self.divisor


def rank_scales(
    factors: Factors, machine: Machine, calibration: np.ndarray | None, known_step: float = 0.0
) -> RankScales:
    """The scales of all ranks. calibration: (N, n) example inputs, or None for white ones. known_step: the input step
    where there is one; else it is the examples', or 0.
    """
    types = machine.datatypes
    v_step = step_of(np.abs(factors.v).max(axis=1, initial=0.0), code_limit(types.weight_bits))
    if calibration is None:
        rms = min(_WHITE_RMS_CODE, code_limit(types.activation_bits))
        squares = _sums_of_squares(
            kernel_input(factors.v, np.float32), kernel_input(v_step, np.float64), code_limit(types.weight_bits)
        )
        largest = _SIGMAS * (np.sqrt(squares.astype(np.float64)) * rms)
        scales = RankScales(known_step, v_step, _divisor(largest, machine))
        return _white_mixes(scales, factors, machine, _SIGMAS * rms) if len(factors.mix_source) else scales
    step = known_step or input_step(calibration, types.activation_bits)
    v_codes = quantise(factors.v, v_step[:, None], types.weight_bits)
    codes = quantise(calibration, step, types.activation_bits).astype(np.float64)
    sums = codes @ v_codes.T.astype(np.float64)
    scales = RankScales(step, v_step, _divisor(np.abs(sums).max(axis=0, initial=0.0), machine))
    return _example_mixes(scales, factors, machine, codes, sums) if len(factors.mix_source) else scales


def step_of(largest: np.ndarray, limit: int) -> np.ndarray:
    """The step at which ``largest`` is the code ``limit``; 1 where there is nothing."""
    return np.where(largest > 0, largest / limit, 1.0).astype(np.float64)


def _divisor(largest_sum: np.ndarray, machine: Machine) -> np.ndarray:
    return np.maximum(largest_sum / code_limit(machine.datatypes.activation_bits), 1.0)


def _levels(factors: Factors) -> list[tuple[np.ndarray, Mixes]]:
    """For each level but the first: its ranks, and the mixes into them."""
    level, mixes = mix_levels(factors.ranks, factors.mix_source, factors.mix_target), factors.mixes
    return [
        (np.flatnonzero(level == one), Mixes(*(column[level[mixes.target] == one] for column in mixes)))
        for one in range(1, int(level.max(initial=0)) + 1)
    ]


def _weight_steps(factors: Factors, scales: RankScales, ranks: np.ndarray, edges: Mixes, limit: int) -> np.ndarray:
    """Steps of the weights in sums, (K,): those of ``ranks``, whose sources' scales are known, and the others kept."""
    largest = np.zeros(factors.ranks)
    np.maximum.at(largest, edges.target, np.abs(edges.value * scales.value_step[edges.source]))
    largest[ranks] = np.maximum(largest[ranks], np.abs(factors.v[ranks]).max(axis=1, initial=0.0))
    step = scales.sum_step.copy()
    step[ranks] = step_of(largest[ranks], limit)
    return step


def _white_mixes(scales: RankScales, factors: Factors, machine: Machine, largest_code: float) -> RankScales:
    squares = np.zeros(factors.ranks)
    for first in range(0, factors.in_features, _CHANNELS):
        squares += np.square(carried(factors.v[:, first : first + _CHANNELS], factors.mixes)).sum(axis=1)
    for ranks, edges in _levels(factors):
        step = _weight_steps(factors, scales, ranks, edges, code_limit(machine.datatypes.weight_bits))
        divisor = scales.divisor.copy()
        divisor[ranks] = _divisor(largest_code * np.sqrt(squares[ranks]) / step[ranks], machine)
        scales = RankScales(scales.input_step, step, divisor)
    return scales


def _example_mixes(
    scales: RankScales, factors: Factors, machine: Machine, codes: np.ndarray, sums: np.ndarray
) -> RankScales:
    types = machine.datatypes
    for ranks, edges in _levels(factors):
        step = _weight_steps(factors, scales, ranks, edges, code_limit(types.weight_bits))
        sources, which = np.unique(edges.source, return_inverse=True)
        entering = quantise(sums[:, sources] / scales.divisor[sources], 1.0, types.activation_bits).astype(np.float64)
        weights = quantise(edges.value * scales.value_step[edges.source] / step[edges.target], 1.0, types.weight_bits)
        sums[:, ranks] = codes @ quantise(factors.v[ranks], step[ranks, None], types.weight_bits).T.astype(np.float64)
        columns = np.ascontiguousarray(sums.T)
        _add_mixed(columns, np.ascontiguousarray(entering.T), which.ravel(), edges.target, weights.astype(np.float64))
        sums = columns.T
        divisor = scales.divisor.copy()
        divisor[ranks] = _divisor(np.abs(sums[:, ranks]).max(axis=0, initial=0.0), machine)
        scales = RankScales(scales.input_step, step, divisor)
    return scales


@nb.njit(cache=True, nogil=True)
def _add_mixed(sums, entering, source, target, weight):
    """Add weight x the source's codes to the target's sums, (K, N), edge by edge."""
    for e in range(source.shape[0]):
        for row in range(sums.shape[1]):
            sums[target[e], row] += weight[e] * entering[source[e], row]


@nb.njit(cache=True, nogil=True)
def code(value, step, limit):
    """numerics.quantise of one number."""
    return np.int64(max(-limit, min(limit, np.rint(value / step))))


@nb.njit(cache=True, nogil=True)
def _sums_of_squares(v, v_step, limit):
    """Sum of squares of each rank's codes, (K,)."""
    sums = np.zeros(v.shape[0], dtype=np.int64)
    for k in range(v.shape[0]):
        for j in range(v.shape[1]):
            if v[k, j] != 0:
                sums[k] += code(np.float64(v[k, j]), v_step[k], limit) ** 2
    return sums
