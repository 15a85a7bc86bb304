"""Intervals of a mean over texts or utterances, by bootstrap: these are drawn anew, with replacement."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


def drawn_means(
    values: Sequence[float], weights: Sequence[float], draws: int = 10_000, seed: int = 0
) -> npt.NDArray[np.float64]:
    """The weighted mean of each draw of as many values as there are, with their weights (draws,)."""
    of, parts = np.asarray(values, np.float64), np.asarray(weights, np.float64)
    chosen = np.random.default_rng(seed).integers(0, len(of), (draws, len(of)))
    return np.asarray((of * parts)[chosen].sum(axis=1) / parts[chosen].sum(axis=1), np.float64)


def mean_interval(values: Sequence[float], weights: Sequence[float]) -> list[float]:
    """95 % percentile interval of the weighted mean, low and high."""
    return [float(one) for one in np.percentile(drawn_means(values, weights), [2.5, 97.5])]
