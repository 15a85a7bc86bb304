"""Number axes: short tick labels, ticks at 1-2-5 steps on logarithmic axes, limits that leave room around the data."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

# From this ratio of largest to smallest value on, a logarithmic axis tells more than a linear one.
LOG_FROM_RATIO = 4.0
_SI = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def short_number(value: float) -> str:
    """``12000`` -> ``"12k"``, ``0.25`` -> ``"0.25"``: four significant digits, decimal multiples above a thousand."""
    for scale, letter in _SI:
        if abs(value) >= scale * 0.99995:
            return f"{value / scale:.4g}{letter}"
    return f"{value:.4g}"


def limits(smallest: float, largest: float) -> tuple[float, float, bool]:
    """(low, high, logarithmic) for an axis of values >= 0, with a margin, also when all values are equal or zero."""
    if largest <= 0:
        return 0.0, 1.0, False
    if smallest > 0 and largest / smallest >= LOG_FROM_RATIO:
        margin = (largest / smallest) ** 0.07
        return smallest / margin, largest * margin, True
    margin = 0.08 * (largest - smallest) or 0.25 * largest
    return max(0.0, smallest - margin), largest + margin, False


def set_x(axes: Axes, low: float, high: float, logarithmic: bool) -> None:
    """Scale, limits and ticks of an x axis; a few ticks that cannot touch each other."""
    axes.set_xscale("log" if logarithmic else "linear")
    axes.set_xlim(low, high)
    axes.xaxis.set_major_locator(FixedLocator(log_ticks(low, high)) if logarithmic else MaxNLocator(5))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short_number(value)))


def log_ticks(low: float, high: float) -> list[float]:
    """Up to eight ticks between ``low`` > 0 and ``high``: 1-2-5 steps, finer ones where these are fewer than three,
    whole decades where they are many, or every few of them.
    """
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))

    def between(digits: Sequence[float]) -> list[float]:
        return [d * 10.0**e for e in range(first, last + 1) for d in digits if low <= d * 10.0**e <= high]

    inside = between((1, 2, 5))
    if len(inside) < 3:
        inside = between((1, 1.5, 2, 3, 4, 5, 7))
    if len(inside) <= 8:
        return inside
    decades = [10.0**e for e in range(first, last + 1) if low <= 10.0**e <= high]
    return decades[:: math.ceil(len(decades) / 8)]
