"""The integer arithmetic of the machine: quantisation, saturation and fixed-point requantisation (machine.md, section
9).
"""

from __future__ import annotations

import numpy as np

from simulator.base.errors import InputError

MULTIPLIER_BITS = 26  # with a 6-bit shift: the four bytes of a multiplier in parameter memory (machine.md, E5)
MAX_SHIFT = 62


def code_limit(bits: int) -> int:
    """Largest code of a signed symmetric type: 127 for 8 bits. -128 is not used."""
    return 2 ** (bits - 1) - 1


def quantise(values: np.ndarray, step: float | np.ndarray, bits: int) -> np.ndarray:
    """Codes of ``values`` at ``step``: round half to even, saturate; int64."""
    limit = code_limit(bits)
    return np.clip(np.rint(np.asarray(values, dtype=np.float64) / step), -limit, limit).astype(np.int64)


def saturate(sums: np.ndarray, bits: int) -> np.ndarray:
    """Clip sums to a signed two's-complement accumulator of ``bits`` bits (rule N2)."""
    return np.clip(sums, -(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def fixed_point(ratio: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A ratio as (multiplier, right shift): multiplier in [2^25, 2^26), ratio ~ multiplier / 2^shift; int64 arrays
    (rule N4).

    A ratio of 0 becomes (0, 1). The shift is limited to 62: ratios below 2^-36 round to less. Raises InputError for a
    ratio of 2^25 or more, which no shift to the right can express.
    """
    ratio = np.asarray(ratio, dtype=np.float64)
    mantissa, exponent = np.frexp(ratio)
    multiplier = np.rint(mantissa * 2.0**MULTIPLIER_BITS).astype(np.int64)
    shift = MULTIPLIER_BITS - exponent.astype(np.int64)
    carry = multiplier == 2**MULTIPLIER_BITS
    multiplier, shift = np.where(carry, multiplier >> 1, multiplier), shift - carry
    multiplier, shift = np.where(ratio == 0, 0, multiplier), np.where(ratio == 0, 1, shift)
    if (shift < 1).any():
        raise InputError(
            "requantisation",
            f"a ratio of {float(ratio.max()):.6g}",
            f"multipliers lie below 2^{MULTIPLIER_BITS - 1}",
            "A scale of this layer is out of all proportion: check its weights and its calibration.",
        )
    excess = np.maximum(shift - MAX_SHIFT, 0)
    return multiplier >> np.minimum(excess, MAX_SHIFT), shift - excess


def requantise(sums: np.ndarray, multiplier: np.ndarray, shift: np.ndarray, bits: int) -> np.ndarray:
    """Scale int sums by multiplier / 2^shift, round half up, saturate to ``bits`` (rule N4)."""
    limit = code_limit(bits)
    scaled = (sums * multiplier + (np.int64(1) << (shift - 1))) >> shift
    return np.clip(scaled, -limit, limit)
