"""What training knows of a machine: exact latency or energy, a quick estimate, and the cost it descends on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Literal

import torch
from torch import Tensor, nn

from gblr_hw.cost.hardware_cost import HardwareCost
from gblr_hw.lowering.pipeline import lower
from simulator import Machine, simulate

CostUnit = Literal["cycles", "pJ"]


@cache
def hardware_cost(machine: Machine, tokens: int, on_chip: bool) -> HardwareCost:
    """The cost model of a machine; one for all calls, as it keeps what does not change from step to step."""
    return HardwareCost(machine, tokens=tokens, on_chip=on_chip)


@dataclass(frozen=True)
class Hardware:
    """A machine as training sees it. All fields must be picklable for process pools: no lambdas.

    rows, cols: P and Q of the array.
    tile_cost: cycles (or pJ) that about one tile costs at this number of tokens.
    measure: model -> exact latency in cycles (or energy in pJ) of the model as it would be evaluated; targets are met
        in this measure.
    estimate: the same, quicker and not exact, for steering while training (measure itself if None).
    cost: model -> differentiable latency or energy (torch scalar), needed by the hardware family only.
    cost_estimates: the cost's value is the estimate, so that whoever needs both asks once.
    unit: of measure, estimate, cost, tile_cost and targets.
    scatter: whether ranks with chunk sets of their own can run without being grouped.
    """

    rows: int
    cols: int
    tile_cost: float
    measure: Callable[[nn.Module], float]
    estimate: Callable[[nn.Module], float] | None = None
    cost: Callable[[nn.Module], Tensor] | None = None
    cost_estimates: bool = False
    unit: CostUnit = "cycles"
    scatter: bool = True

    @property
    def quick(self) -> Callable[[nn.Module], float]:
        """The estimate, or the exact measure when there is none."""
        return self.measure if self.estimate is None else self.estimate


@dataclass(frozen=True)
class Simulated:
    """Model -> cycles, or pJ, of all its layers, lowered and simulated: DRAM, start-up and drains included."""

    machine: Machine
    tokens: int
    unit: CostUnit = "cycles"

    def __call__(self, model: nn.Module) -> float:
        report = simulate(lower(model, self.machine, tokens=self.tokens), self.machine)
        return float(report.latency_cycles if self.unit == "cycles" else report.energy_pj)


@dataclass(frozen=True)
class Cost:
    """Model -> latency in cycles, or energy in pJ, as a torch scalar with gradients to widths and locations.

    on_chip: see HardwareCost.
    """

    machine: Machine
    tokens: int
    unit: CostUnit = "cycles"
    on_chip: bool = False

    def __call__(self, model: nn.Module) -> Tensor:
        cost = hardware_cost(self.machine, self.tokens, self.on_chip)(model)
        return cost.latency_cycles if self.unit == "cycles" else cost.energy_pj


@dataclass(frozen=True)
class Estimate:
    """The value of `Cost` by itself: some per cent from the simulator, several times quicker."""

    cost: Cost

    @torch.no_grad()
    def __call__(self, model: nn.Module) -> float:
        return float(self.cost(model))


def hardware_of(machine: Machine, tokens: int, unit: CostUnit = "cycles") -> Hardware:
    """A machine that sees `tokens` activation rows in every layer, as training needs it; targets are in `unit`."""
    cost = Cost(machine, tokens, unit)
    if unit == "cycles":
        # A tile streams the tokens, or with few of them waits for the next tile's weights, from DRAM or into the array.
        weight_bytes = machine.rows * machine.cols * machine.datatypes.weight_bits / 8
        tile_cost = max(float(tokens), float(machine.rows), 1000 * weight_bytes / machine.dram_bytes_per_kilocycle)
    else:
        # 16 tiles against 64, so that what a layer costs beside its tiles counts little.
        layers = (nn.Linear(side * machine.rows, side * machine.cols) for side in (4, 8))
        small, large = (float(cost(layer).detach()) for layer in layers)
        tile_cost = (large - small) / 48
    return Hardware(
        rows=machine.rows,
        cols=machine.cols,
        tile_cost=tile_cost,
        measure=Simulated(machine, tokens, unit),
        estimate=Estimate(cost),
        cost=cost,
        cost_estimates=True,
        unit=unit,
        scatter=machine.array.scatter,
    )
