"""A machine as training sees it when the whole network counts: attention, norms and what stays on chip included."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from gblr_hw.frontend import export_network
from gblr_hw.lowering.whole_network import lower_network
from gblr_hw.training.measure.hardware import Cost, CostUnit, Hardware, hardware_of
from gblr_hw.weights.collect import weights_of
from gblr_hw.weights.stored import DenseWeights, LayerWeights
from simulator import Machine, simulate
from simulator.base.errors import InputError
from simulator.network.network import Network


@dataclass(frozen=True, eq=False)
class WholeNetwork:
    """Model -> cycles, or pJ, of its whole program. The model is exported once; later ones may differ in their layers.

    network, dense: the operator graph, and the weights of its linear operators when it was exported.
    uncalled: layers that the model had then and did not call.
    """

    machine: Machine
    network: Network
    dense: Mapping[str, LayerWeights]
    uncalled: frozenset[str] = frozenset()
    unit: CostUnit = "cycles"

    def __call__(self, model: nn.Module) -> float:
        """The same as lowering `model` itself. InputError for a layer that the exported network does not have."""
        found = weights_of(model)
        for name, one in found.items():
            own = self.dense.get(name)
            if name in self.uncalled:
                continue
            if own is None or (own.out_features, own.in_features) != (one.out_features, one.in_features):
                raise InputError(
                    f"layer '{name}'",
                    f"{one.out_features} x {one.in_features}",
                    "the exported network has no such layer",
                    "Export the network that is trained.",
                )
        # What is dense may have been merged with its neighbours in the export, and its size is all that counts.
        learned = {name: one for name, one in found.items() if not isinstance(one, DenseWeights)}
        report = simulate(lower_network(self.network, {**self.dense, **learned}, self.machine), self.machine)
        return float(report.latency_cycles if self.unit == "cycles" else report.energy_pj)


@dataclass(frozen=True)
class ShiftedEstimate:
    """The closed-form cost of the linear layers, plus what all else takes in the network that `rest` was taken of."""

    cost: Cost
    rest: float

    @torch.no_grad()
    def __call__(self, model: nn.Module) -> float:
        return float(self.cost(model)) + self.rest


def whole_hardware_of(
    machine: Machine,
    model: nn.Module,
    example_inputs: Any,
    tokens: int,
    unit: CostUnit = "cycles",
    *,
    kwargs: Mapping[str, Any] | None = None,
) -> Hardware:
    """A machine that runs all of `model`, a dense network, for inputs shaped like `example_inputs` and `kwargs`.

    tokens: activation rows of its linear layers, for the closed-form cost, which steers on the way to a target; the
    target itself is met in cycles (or pJ) of the whole program. Raises InputError for what cannot be exported.
    """
    measure = exported_measure(machine, model, example_inputs, unit, kwargs=kwargs)
    cost = Cost(machine, tokens, unit, on_chip=True)
    with torch.no_grad():
        rest = measure(model) - float(cost(model))
    linears, estimate = hardware_of(machine, tokens, unit), ShiftedEstimate(cost, rest)
    return replace(linears, measure=measure, estimate=estimate, cost=cost, cost_estimates=False)


def exported_measure(
    machine: Machine,
    model: nn.Module,
    example_inputs: Any,
    unit: CostUnit = "cycles",
    *,
    kwargs: Mapping[str, Any] | None = None,
) -> WholeNetwork:
    """The exact measure of a model's whole program, exported now. Raises InputError for what cannot be exported."""
    exported = export_network(model.eval(), example_inputs, kwargs=kwargs)
    uncalled = frozenset(weights_of(model)) - frozenset(exported.weights)
    return WholeNetwork(machine, exported.network, exported.weights, uncalled, unit)
