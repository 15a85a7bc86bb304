"""Latency targets as a user says them, and the controller that finds the penalty strength which reaches one."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any, Literal

from simulator.errors import InputError

_FORMS = "'0.4x-dense', '12000', '12000cycles' or '0.05ms'"
_NUMBER = r"(?P<number>[0-9]+(?:\.[0-9]*)?(?:e[+-]?[0-9]+)?|\.[0-9]+(?:e[+-]?[0-9]+)?)"
_TARGET = re.compile(_NUMBER + r"\s*(?P<unit>x-?dense|cycles|ms|)", re.IGNORECASE)

# The strength is a mean width change per update; a tenth of the channels at once would tear blocks out unseen.
_STRENGTH_RANGE = (1e-5, 0.03)


@dataclass(frozen=True)
class Target:
    """A latency to reach: a fraction of the dense network's, cycles, or milliseconds."""

    value: float
    unit: Literal["x-dense", "cycles", "ms"]

    def cycles(self, dense_cycles: float, clock_ghz: float) -> float:
        """The target in cycles of a machine. InputError when it is not below the dense network's latency."""
        scale = {"x-dense": dense_cycles, "cycles": 1.0, "ms": clock_ghz * 1e6}[self.unit]
        cycles = self.value * scale
        if cycles >= dense_cycles:
            raise InputError(
                "target latency",
                f"{self} ({cycles:.0f} cycles)",
                f"it must be below the dense network's {dense_cycles:.0f} cycles",
                "Ask for less, or train the dense network.",
            )
        return cycles

    def __str__(self) -> str:
        return f"{self.value:g}{self.unit}"


def parse_target(text: str) -> Target:
    """Read '0.4x-dense', '12000', '12000cycles' or '0.05ms'. InputError on anything else, and on zero."""
    match = _TARGET.fullmatch(text.strip())
    value = float(match["number"]) if match else math.nan
    if match is None or not math.isfinite(value) or value <= 0:
        raise InputError(
            "target latency",
            repr(text),
            f"it must be a positive number in one of the forms {_FORMS}",
            "Try 0.4x-dense.",
        )
    unit = match["unit"].lower()
    if unit == "ms":
        return Target(value, "ms")
    return Target(value, "x-dense" if unit.startswith("x") else "cycles")


@dataclass
class TargetController:
    """Finds, while training, the penalty strength that brings a latency to its target: no weight to tune.

    The latency has to follow a path that falls geometrically from its first value to `target_cycles` between the parts
    `start` and `end` of the run. While it is above the path the penalty acts, and its strength grows by `gain` (in
    e-folds) per update; below the path it rests and its strength falls. That is dual ascent on the logarithm of the
    multiplier: how much shrinking the loss pushes back is unknown and differs by orders of magnitude between networks,
    so the search is multiplicative.
    """

    target_cycles: float
    start: float = 0.0
    end: float = 0.7
    gain: float = 0.15
    strength: float = 6e-3
    start_cycles: float | None = None

    def path_cycles(self, progress: float) -> float:
        """The latency wanted at this part of the run."""
        first = self.target_cycles if self.start_cycles is None else max(self.start_cycles, self.target_cycles)
        share = min(max((progress - self.start) / max(self.end - self.start, 1e-9), 0.0), 1.0)
        return float(first ** (1 - share) * self.target_cycles**share)

    def update(self, latency_cycles: float, progress: float) -> float:
        """Strength to apply now (0: rest), given the latency measured."""
        if self.start_cycles is None:
            self.start_cycles = latency_cycles
        above = latency_cycles > self.path_cycles(progress)
        low, high = _STRENGTH_RANGE
        self.strength = min(max(self.strength * math.exp(self.gain if above else -self.gain), low), high)
        return self.strength if above else 0.0

    def state_dict(self) -> dict[str, Any]:
        return {"strength": self.strength, "start_cycles": self.start_cycles}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.strength, self.start_cycles = state["strength"], state["start_cycles"]
