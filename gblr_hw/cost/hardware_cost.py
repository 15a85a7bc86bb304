"""``HardwareCost``: differentiable latency and energy of a whole model on a machine, layer by layer in closed form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gblr_hw.cost.closed_form import COSTS, LayerCost, MachineCost
from gblr_hw.cost.stored_forms import cost_of, dense_counts, may_be_dense, stored_forms
from gblr_hw.cost.touches import (
    LayerCounts,
    PlacedLayer,
    counted,
    exact_sides,
    smooth_sides,
)
from gblr_hw.layers.conv import GBLRConv2d
from gblr_hw.layers.linear import GBLRLinear
from gblr_hw.lowering.quantise.tile_bits import narrow_kinds
from gblr_hw.weights.collect import joint_projection, layer_weights
from gblr_hw.weights.stored import LayerWeights
from simulator.base.errors import InputError
from simulator.machine.machine import Machine


@dataclass(frozen=True)
class ModelCost:
    """Cost of a model: torch scalars.

    latency_cycles, energy_pj: the value follows the simulator (each layer in its cheaper form, dense or ranks); the
    gradient is that of the smoothed cost below, passed straight through. smooth_latency_cycles, smooth_energy_pj: the
    smoothed cost of the ranks themselves, whose gradient finite differences confirm; it keeps its slope where the dense
    form would be cheaper. layers: (name, latency_cycles value) pairs.
    """

    latency_cycles: Tensor
    energy_pj: Tensor
    smooth_latency_cycles: Tensor
    smooth_energy_pj: Tensor
    layers: tuple[tuple[str, float], ...]


class HardwareCost:
    """``HardwareCost(machine, tokens=197)(model)`` -> ModelCost.

    tokens: activation rows that enter every layer. softness: width of a touch's transition, in chunks (design choice:
    1/8). on_chip: activations stay on chip between the layers, as in most of a whole network's program, instead of
    passing through DRAM. weight_bits: as `lower` takes them. Layers are those that lowering finds: GBLRLinear,
    GBLRConv2d, nn.Linear, nn.Conv2d and any module with ``weights()``. Raises InputError if the model has none.
    """

    def __init__(
        self,
        machine: Machine,
        tokens: int = 197,
        softness: float = 0.125,
        *,
        on_chip: bool = False,
        weight_bits: int | Mapping[str, int] | None = None,
    ) -> None:
        if tokens < 1:
            raise InputError(
                "tokens", str(tokens), "a layer sees at least one activation row", "Give a positive number."
            )
        if not softness > 0:
            raise InputError(
                "softness", str(softness), "the transition of a touch has a positive width", "Use e.g. 0.125."
            )
        self.machine, self.tokens, self.softness = machine, tokens, softness
        self._closed_form = MachineCost(machine, tokens, on_chip, narrow_kinds(weight_bits, machine))
        self._dense: dict[tuple[int, int], LayerCost] = {}

    def __call__(self, model: nn.Module) -> ModelCost:
        hard, smooth, names = [], [], []
        skipped: tuple[str, ...] = ()
        for name, module in model.named_modules():
            if name.startswith(skipped) if skipped else False:
                continue
            pair = self._layer(module)
            if pair is not None:
                hard.append(pair[0])
                smooth.append(pair[1])
                names.append(name or "layer")
                skipped = (*skipped, f"{name}.") if name else ("",)
            elif (joint := joint_projection(module)) is not None:
                fixed = self._stored(joint)
                hard.append(fixed)
                smooth.append(fixed)
                names.append(f"{name}.in_proj" if name else "in_proj")
        if not hard:
            raise InputError(
                "model", type(model).__name__, "it must have at least one layer with a matrix", "Check the model."
            )
        latency, energy = (sum(getattr(cost, field) for cost in smooth) for field in COSTS)
        exact = [sum(float(getattr(cost, field)) for cost in hard) for field in COSTS]
        return ModelCost(
            latency_cycles=_straight_through(exact[0], torch.as_tensor(latency)),
            energy_pj=_straight_through(exact[1], torch.as_tensor(energy)),
            smooth_latency_cycles=torch.as_tensor(latency),
            smooth_energy_pj=torch.as_tensor(energy),
            layers=tuple((name, float(cost.latency_cycles)) for name, cost in zip(names, hard, strict=True)),
        )

    def _layer(self, module: nn.Module) -> tuple[LayerCost, LayerCost] | None:
        """(exact, smooth) cost of one module, or None if it is no layer. A fixed structure's smooth cost is its exact
        one.
        """
        parts = _parts(module)
        if parts is None:
            weights = layer_weights(module)
            if weights is None:
                return None
            fixed = self._stored(weights)
            return fixed, fixed
        in_features, out_features = parts[0].in_features, parts[0].layer.out_features
        exact = counted(exact_sides(parts, self.machine.rows, self.machine.cols), self.machine, smooth=False)
        soft = counted(
            smooth_sides(parts, self.machine.rows, self.machine.cols, self.softness), self.machine, smooth=True
        )
        with torch.no_grad():
            hard = self._cheaper(exact, in_features, out_features)
        return hard, self._closed_form.layer(soft, in_features, out_features)

    def _cheaper(self, counts: LayerCounts, in_features: int, out_features: int) -> LayerCost:
        """The form that lowering would choose: ranks, or every tile dense where ranks may be multiplied out."""
        ranks = self._closed_form.layer(counts, in_features, out_features)
        if not may_be_dense(counts, self._closed_form.narrow):
            return ranks
        size = (in_features, out_features)
        if size not in self._dense:
            self._dense[size] = self._closed_form.layer(dense_counts(self.machine, *size), *size)
        dense = self._dense[size]
        return min(ranks, dense, key=lambda cost: float(cost.latency_cycles))

    def _stored(self, weights: LayerWeights) -> LayerCost:
        """A layer whose structure does not move, in the parts or stages that lowering makes of it."""
        return cost_of(stored_forms(weights, self._closed_form), self._closed_form)


def _straight_through(value: float, smooth: Tensor) -> Tensor:
    return smooth + (value - smooth.detach())


def _parts(module: nn.Module) -> tuple[PlacedLayer, ...] | None:
    if isinstance(module, GBLRLinear):
        return (PlacedLayer(module, 0, module.in_features),)
    if isinstance(module, GBLRConv2d):
        total = sum(part.in_features for part in module.parts)
        offsets = [sum(p.in_features for p in module.parts[:index]) for index in range(len(module.parts))]
        return tuple(PlacedLayer(part, offset, total) for part, offset in zip(module.parts, offsets, strict=True))
    return None
