"""What a search is about: space, base machine, networks, activation rows, bounds; and what it finds: pairs."""

from __future__ import annotations

from dataclasses import dataclass

from gblr_hw.codesign.networks import NetworkChoice, Networks
from gblr_hw.codesign.space import MachineChoice, Space
from simulator.machine.machine import Machine


@dataclass(frozen=True)
class Pair:
    """A machine with a network on it. error: mean over layers of their relative errors; tile_share: of the dense
    tiles.
    """

    choice: MachineChoice
    machine: Machine
    network: NetworkChoice
    latency_cycles: int
    latency_s: float
    energy_pj: float
    error: float
    area_mm2: float
    tile_share: float

    @property
    def scatter(self) -> bool:
        return self.choice.scatter


@dataclass(frozen=True)
class Bounds:
    """What a pair may take; what is not bounded is an objective. In mm2 and pJ."""

    max_area_mm2: float | None = None
    max_energy_pj: float | None = None

    @property
    def objectives(self) -> tuple[str, ...]:
        """Fields of `Pair` that are minimised."""
        open_ones = (("area_mm2", self.max_area_mm2), ("energy_pj", self.max_energy_pj))
        return ("latency_s", "error", *(name for name, bound in open_ones if bound is None))

    def hold(self, pair: Pair) -> bool:
        """Whether the pair is within both."""
        limits = ((pair.area_mm2, self.max_area_mm2), (pair.energy_pj, self.max_energy_pj))
        return all(most is None or value <= most for value, most in limits)


@dataclass(frozen=True, eq=False)
class Problem:
    """The space around a base machine, the networks, activation rows that enter every layer, and the bounds."""

    space: Space
    base: Machine
    networks: Networks
    tokens: int
    bounds: Bounds
