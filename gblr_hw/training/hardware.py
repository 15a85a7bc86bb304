"""What training knows of a machine: exact simulated latency, a quick estimate of it, and the cost it descends on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn

from gblr_hw.cost.hardware_cost import HardwareCost
from gblr_hw.lowering.pipeline import lower
from simulator import Machine, simulate


@cache
def hardware_cost(machine: Machine, tokens: int) -> HardwareCost:
    """The cost model of a machine; one for all calls, as it keeps what does not change from step to step."""
    return HardwareCost(machine, tokens=tokens)


@dataclass(frozen=True)
class Hardware:
    """A machine as training sees it. All fields must be picklable for process pools: no lambdas.

    rows, cols: P and Q of the array.
    tile_cycles: cycles that one tile costs at this number of tokens.
    measure: model -> exact latency in cycles of the model as it would be evaluated; targets are met in this measure.
    estimate: the same, quicker and not exact, for steering while training (measure itself if None).
    cost: model -> differentiable latency (torch scalar), needed by the hardware family only.
    cost_estimates: the cost's value is the estimate, so that whoever needs both asks once.
    """

    rows: int
    cols: int
    tile_cycles: float
    measure: Callable[[nn.Module], float]
    estimate: Callable[[nn.Module], float] | None = None
    cost: Callable[[nn.Module], Tensor] | None = None
    cost_estimates: bool = False

    @property
    def quick(self) -> Callable[[nn.Module], float]:
        """The estimate, or the exact measure when there is none."""
        return self.measure if self.estimate is None else self.estimate


@dataclass(frozen=True)
class SimulatedLatency:
    """Model -> cycles of all its layers, lowered and simulated: DRAM, start-up and drains included."""

    machine: Machine
    tokens: int

    def __call__(self, model: nn.Module) -> float:
        return float(simulate(lower(model, self.machine, tokens=self.tokens), self.machine).latency_cycles)


@dataclass(frozen=True)
class EstimatedLatency:
    """Model -> cycles by the cost model's closed form: some per cent from the simulator, several times quicker."""

    machine: Machine
    tokens: int

    @torch.no_grad()
    def __call__(self, model: nn.Module) -> float:
        return float(hardware_cost(self.machine, self.tokens)(model).latency_cycles)


@dataclass(frozen=True)
class LatencyCost:
    """Model -> latency as a torch scalar with gradients to widths and locations."""

    machine: Machine
    tokens: int

    def __call__(self, model: nn.Module) -> Tensor:
        return hardware_cost(self.machine, self.tokens)(model).latency_cycles


def hardware_of(machine: Machine, tokens: int) -> Hardware:
    """A machine that sees `tokens` activation rows in every layer, as training needs it.

    A tile streams the tokens, or waits for the next tile's weights when there are fewer tokens than array rows.
    """
    return Hardware(
        rows=machine.rows,
        cols=machine.cols,
        tile_cycles=float(max(tokens, machine.rows)),
        measure=SimulatedLatency(machine, tokens),
        estimate=EstimatedLatency(machine, tokens),
        cost=LatencyCost(machine, tokens),
        cost_estimates=True,
    )
