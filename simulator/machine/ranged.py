"""A figure with its interval. Intervals of different entries are added and multiplied end by end, so they hold whatever
the entries are inside theirs.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Ranged:
    """0 <= low <= value <= high."""

    value: float
    low: float
    high: float

    def __add__(self, other: Ranged) -> Ranged:
        return Ranged(self.value + other.value, self.low + other.low, self.high + other.high)

    def __mul__(self, other: Ranged | float) -> Ranged:
        """By another figure, or by a number that is 0 or more."""
        if isinstance(other, Ranged):
            return Ranged(self.value * other.value, self.low * other.low, self.high * other.high)
        return Ranged(self.value * other, self.low * other, self.high * other)
