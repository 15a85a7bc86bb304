"""The integers of one layer on example inputs: what execution computes and the encoding for hardware places in DRAM."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class LayerNumbers:
    """Every integer that the hardware meets in one layer, for N rows of inputs (machine.md, section 9).

    input_codes (N, n) and output_codes (N, m) are activation codes at ``input_step`` and ``output_step``. bias (m,) are
    accumulator codes. requantisation and rank_requantisation are (multiplier, shift) pairs of (m,) and (K,) integers.
    """

    input_codes: np.ndarray
    input_step: float
    bias: np.ndarray
    requantisation: tuple[np.ndarray, np.ndarray]
    rank_requantisation: tuple[np.ndarray, np.ndarray]
    output_codes: np.ndarray
    output_step: float
