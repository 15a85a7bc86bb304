"""Latency and energy targets as a user says them, and the controller that reaches one by a penalty's strength."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any, Literal

from simulator.base.errors import InputError

_FORMS = "'0.4x-dense', '12000', '12000cycles' or '0.05ms'"
_NUMBER = r"(?P<number>[0-9]+(?:\.[0-9]*)?(?:e[+-]?[0-9]+)?|\.[0-9]+(?:e[+-]?[0-9]+)?)"
_LATENCY = re.compile(_NUMBER + r"\s*(?P<unit>x-?dense|cycles|ms|)", re.IGNORECASE)
_ENERGY = re.compile(_NUMBER + r"\s*(?P<unit>x-?dense|[pnum]?J)", re.IGNORECASE)
_JOULES = {"pj": 1e-12, "nj": 1e-9, "uj": 1e-6, "mj": 1e-3, "j": 1.0}


class UnreachableTargetError(InputError):
    """A target below what is left when a network has given up all that it can."""


# The strength is a mean width change per update; a tenth of the channels at once would tear blocks out unseen.
_STRENGTH_RANGE = (1e-5, 0.03)


@dataclass(frozen=True)
class Target:
    """A latency or an energy to reach: a fraction of the dense network's, cycles, milliseconds, or joules."""

    value: float
    unit: Literal["x-dense", "cycles", "ms", "J"]

    def cycles(self, dense_cycles: float, clock_ghz: float) -> float:
        """A latency target in cycles of a machine. InputError when it is not below the dense network's latency."""
        scale = {"x-dense": dense_cycles, "cycles": 1.0, "ms": clock_ghz * 1e6}[self.unit]
        return self._below(self.value * scale, dense_cycles, "latency", "cycles")

    def picojoules(self, dense_pj: float) -> float:
        """An energy target in pJ. InputError when it is not below the dense network's energy."""
        scale = {"x-dense": dense_pj, "J": 1e12}[self.unit]
        return self._below(self.value * scale, dense_pj, "energy", "pJ")

    def _below(self, wanted: float, dense: float, what: str, unit: str) -> float:
        if wanted >= dense:
            raise InputError(
                f"target {what}",
                f"{self} ({wanted:.0f} {unit})",
                f"it must be below the dense network's {dense:.0f} {unit}",
                "Ask for less, or train the dense network.",
            )
        return wanted

    def __str__(self) -> str:
        return f"{self.value:g}{self.unit}"


def parse_target(text: str) -> Target:
    """Read '0.4x-dense', '12000', '12000cycles' or '0.05ms'. InputError on anything else, and on zero."""
    value, unit = _parse(text, _LATENCY, "latency", _FORMS, "0.4x-dense")
    if unit in ("", "cycles") and value < 1:
        raise InputError(
            "target latency",
            f"'{text}'",
            "a number without a unit is of cycles, and no network runs in less than one",
            f"Write {value:g}x-dense for that fraction of the dense network's latency.",
        )
    if unit == "ms":
        return Target(value, "ms")
    return Target(value, "x-dense" if unit.startswith("x") else "cycles")


def parse_energy_target(text: str) -> Target:
    """Read '0.4x-dense', '80uJ', '0.08mJ' or '8e-5J' (pJ and nJ too). InputError on anything else, and on zero."""
    value, unit = _parse(text, _ENERGY, "energy", "'0.4x-dense', '80uJ', '0.08mJ' or '8e-5J'", "0.4x-dense")
    if unit.startswith("x"):
        return Target(value, "x-dense")
    return Target(value * _JOULES[unit], "J")


def _parse(text: str, pattern: re.Pattern[str], what: str, forms: str, example: str) -> tuple[float, str]:
    match = pattern.fullmatch(text.strip())
    value = float(match["number"]) if match else math.nan
    if match is None or not math.isfinite(value) or value <= 0:
        raise InputError(
            f"target {what}", repr(text), f"it must be a positive number in one of the forms {forms}", f"Try {example}."
        )
    return value, match["unit"].lower()


@dataclass
class TargetController:
    """Finds, while training, the penalty strength that brings a latency or an energy to its target, untuned.

    The measure has to follow a path that falls geometrically from its first value to `target` between the parts
    `start` and `end` of the run. While it is above the path the penalty acts, and its strength grows by `gain` (in
    e-folds) per update; below the path it rests and its strength falls. That is dual ascent on the logarithm of the
    multiplier: how much shrinking the loss pushes back is unknown and differs by orders of magnitude between networks,
    so the search is multiplicative.
    """

    target: float
    start: float = 0.0
    end: float = 0.7
    gain: float = 0.15
    strength: float = 6e-3
    start_value: float | None = None

    def path(self, progress: float) -> float:
        """The value wanted at this part of the run."""
        first = self.target if self.start_value is None else max(self.start_value, self.target)
        share = min(max((progress - self.start) / max(self.end - self.start, 1e-9), 0.0), 1.0)
        return float(first ** (1 - share) * self.target**share)

    def update(self, value: float, progress: float) -> float:
        """Strength to apply now (0: rest), given the value measured."""
        if self.start_value is None:
            self.start_value = value
        above = value > self.path(progress)
        low, high = _STRENGTH_RANGE
        self.strength = min(max(self.strength * math.exp(self.gain if above else -self.gain), low), high)
        return self.strength if above else 0.0

    def state_dict(self) -> dict[str, Any]:
        return {"strength": self.strength, "start_value": self.start_value}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.strength, self.start_value = state["strength"], state["start_value"]
