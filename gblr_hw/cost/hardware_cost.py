"""``HardwareCost``: differentiable latency and energy of a whole model on a machine, layer by layer in closed form."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gblr_hw.cost.closed_form import COSTS, LayerCost, MachineCost
from gblr_hw.cost.stored_forms import cost_of, dense_counts, may_be_dense, stored_forms
from gblr_hw.cost.touches import (
    LayerCounts,
    PlacedLayer,
    both_counts,
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

_TOTALS = ("latency_cycles", "energy_pj", "smooth_latency_cycles", "smooth_energy_pj")


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


class HeldCost:
    """An evaluated cost without its graph: its values, and its gradients by widths and locations."""

    def __init__(self, cost: ModelCost, parameters: list[nn.Parameter]) -> None:
        self.uses = 0
        self._parameters = [weakref.ref(one) for one in parameters]
        moving = [one for one in parameters if one.requires_grad]
        self._slopes = [self._slopes_of(total, moving) for total in (cost.smooth_latency_cycles, cost.smooth_energy_pj)]
        self._moving = [one.requires_grad for one in parameters]
        self._values = {name: getattr(cost, name).detach() for name in _TOTALS}
        self._layers = cost.layers

    @staticmethod
    def _slopes_of(total: Tensor, moving: list[nn.Parameter]) -> list[Tensor]:
        if not total.requires_grad:
            return [torch.zeros_like(one) for one in moving]
        return list(torch.autograd.grad(total, moving, retain_graph=True, materialize_grads=True))

    def is_of(self, parameters: list[nn.Parameter]) -> bool:
        """Whether these are the parameters that it was evaluated with, moving as they did."""
        known = [one() for one in self._parameters]
        return (
            len(known) == len(parameters)
            and all(one is other for one, other in zip(known, parameters, strict=True))
            and self._moving == [one.requires_grad for one in parameters]
        )

    def use(self) -> ModelCost:
        """The values with their gradients."""
        self.uses += 1
        moving = [one for one in (known() for known in self._parameters) if one is not None and one.requires_grad]
        # Zero, with the gradient of the cost.
        latency, energy = (
            sum(
                ((slope * (one - one.detach())).sum() for slope, one in zip(slopes, moving, strict=True)),
                torch.zeros(()),
            )
            for slopes in self._slopes
        )
        slopes = (latency, energy, latency, energy)
        totals = {name: self._values[name] + slope for name, slope in zip(_TOTALS, slopes, strict=True)}
        return ModelCost(**totals, layers=self._layers)


class HardwareCost:
    """``HardwareCost(machine, tokens=197)(model)`` -> ModelCost.

    tokens: activation rows that enter every layer. softness: width of a touch's transition, in chunks (design choice:
    1/8). on_chip: activations stay on chip between the layers, as in most of a whole network's program, instead of
    passing through DRAM. weight_bits: as `lower` takes them. Layers are those that lowering finds: GBLRLinear,
    GBLRConv2d, nn.Linear, nn.Conv2d and any module with ``weights()``. Raises InputError if the model has none.

    every: the cost is evaluated at the first call and at every so many; the calls between return the values of the last
    evaluation with its gradients held, whatever widths and locations are by then. Calls without gradients
    (`torch.no_grad`) always evaluate and are not counted, and a model whose GBLR layers have other parameters than at
    the last evaluation is evaluated at once. With more than 1, gradients reach widths and locations of GBLR layers
    only, and have no derivatives themselves.
    """

    def __init__(
        self,
        machine: Machine,
        tokens: int = 197,
        softness: float = 0.125,
        *,
        on_chip: bool = False,
        weight_bits: int | Mapping[str, int] | None = None,
        every: int = 1,
    ) -> None:
        if tokens < 1:
            raise InputError(
                "tokens", str(tokens), "a layer sees at least one activation row", "Give a positive number."
            )
        if not softness > 0:
            raise InputError(
                "softness", str(softness), "the transition of a touch has a positive width", "Use e.g. 0.125."
            )
        if every < 1:
            raise InputError("every", str(every), "the cost is evaluated once in so many calls", "Use 1, or e.g. 4.")
        self.machine, self.tokens, self.softness, self.every = machine, tokens, softness, every
        self._held: HeldCost | None = None
        self._closed_form = MachineCost(machine, tokens, on_chip, narrow_kinds(weight_bits, machine))
        self._dense: dict[tuple[int, int], LayerCost] = {}

    def __call__(self, model: nn.Module) -> ModelCost:
        if self.every == 1 or not torch.is_grad_enabled():
            return self._evaluate(model)
        parameters = _geometry(model)
        if self._held is None or self._held.uses >= self.every or not self._held.is_of(parameters):
            self._held = HeldCost(self._evaluate(model), parameters)
        return self._held.use()

    def _evaluate(self, model: nn.Module) -> ModelCost:
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
        rows, cols = self.machine.rows, self.machine.cols
        sides = exact_sides(parts, rows, cols), smooth_sides(parts, rows, cols, self.softness)
        exact, soft = both_counts(*sides, self.machine)
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


def _geometry(model: nn.Module) -> list[nn.Parameter]:
    """Widths and locations of the GBLR layers."""
    layers = [module for module in model.modules() if isinstance(module, GBLRLinear)]
    return [one for layer in layers for one in (layer.widths, layer.locations)]


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
