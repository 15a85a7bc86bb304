"""``HardwareCost``: differentiable latency and energy of a whole model on a machine, layer by layer in closed form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from gblr_hw.cost.closed_form import LayerCost, MachineCost
from gblr_hw.cost.touches import (
    LayerCounts,
    PlacedLayer,
    Sides,
    count_grouped,
    count_scattered,
    exact_sides,
    smooth_sides,
)
from gblr_hw.layers.conv import GBLRConv2d
from gblr_hw.layers.linear import GBLRLinear
from gblr_hw.lowering.chains.pack_mixes import pack_mixes
from gblr_hw.lowering.chains.stage_blast import parts_of, stages_of
from gblr_hw.lowering.chains.take_turns import take_turns
from gblr_hw.lowering.passes.drop_empty import drop_empty
from gblr_hw.lowering.passes.merge_links import merged, possible_merges
from gblr_hw.lowering.passes.plan import LayerPlan
from gblr_hw.lowering.quantise.tile_bits import narrow_kinds
from gblr_hw.lowering.split_wide import narrow_parts
from gblr_hw.weights.collect import joint_projection, layer_weights
from gblr_hw.weights.factors import Factors, evaluate, structure_of
from gblr_hw.weights.stored import LayerWeights
from simulator.base.arithmetic import ceil_div
from simulator.base.errors import InputError
from simulator.machine.machine import Machine
from simulator.program.operations import Op

_COSTS = ("latency_cycles", "energy_pj")


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
        latency, energy = (sum(getattr(cost, field) for cost in smooth) for field in _COSTS)
        exact = [sum(float(getattr(cost, field)) for cost in hard) for field in _COSTS]
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
        exact = _counted(exact_sides(parts, self.machine.rows, self.machine.cols), self.machine, smooth=False)
        soft = _counted(
            smooth_sides(parts, self.machine.rows, self.machine.cols, self.softness), self.machine, smooth=True
        )
        with torch.no_grad():
            hard = self._cheaper(exact, in_features, out_features)
        return hard, self._closed_form.layer(soft, in_features, out_features)

    def _cheaper(self, counts: LayerCounts, in_features: int, out_features: int) -> LayerCost:
        """The form that lowering would choose: ranks, or every tile dense. Ranks that have more bits than dense tiles
        are not multiplied out.
        """
        ranks = self._closed_form.layer(counts, in_features, out_features)
        narrow = set(self._closed_form.narrow)
        if Op.DENSE in narrow and not {Op.REDUCE, Op.EXPAND} <= narrow and float(counts.ranks) > 0:
            return ranks
        size = (in_features, out_features)
        if size not in self._dense:
            self._dense[size] = self._closed_form.layer(_dense_counts(self.machine, *size), *size)
        dense = self._dense[size]
        return min(ranks, dense, key=lambda cost: float(cost.latency_cycles))

    def _stored(self, weights: LayerWeights) -> LayerCost:
        """A layer whose structure does not move, in the parts or stages that lowering makes of it."""
        stages = stages_of("", weights, self.machine, self.tokens)
        if stages is None:
            return self._whole(weights)
        staged = _summed([self._fixed(evaluate(held), merging=False) for _, held, _ in parts_of(stages)])
        if float(staged.latency_cycles) <= stages.least_whole:
            return staged
        return min(staged, self._whole(weights), key=lambda cost: float(cost.latency_cycles))

    def _whole(self, weights: LayerWeights) -> LayerCost:
        return _summed([self._fixed(evaluate(held)) for _, held in narrow_parts("", weights, self.machine)])

    def _fixed(self, factors: Factors, *, merging: bool = True) -> LayerCost:
        """Evaluated factors: of a chain, the cheapest way to merge its links, or the chain itself."""
        size = factors.in_features, factors.out_features
        forms = _forms(factors, self.machine) if merging else [factors]
        costs = [self._cheaper(fixed_counts(form, self.machine, self.tokens), *size) for form in forms]
        return min(costs, key=lambda cost: float(cost.latency_cycles))


def _summed(costs: Sequence[LayerCost]) -> LayerCost:
    """Of layers that run one after another."""
    latency, energy = (torch.stack([getattr(one, field) for one in costs]).sum() for field in _COSTS)
    return LayerCost(latency, energy)


def _forms(factors: Factors, machine: Machine) -> list[Factors]:
    """The ways to merge the links of chains that a machine can run; the factors themselves if there are no chains."""
    forms = [merged(factors, merge, values=False) if merge else factors for merge in possible_merges(factors)]
    return [form for form in forms if machine.scatter or len(form.mix_source) == 0]


def fixed_counts(factors: Factors, machine: Machine, tokens: int = 1) -> LayerCounts:
    """Counts of a layer whose structure does not move, from its evaluated factors. tokens: rows that enter it, by which
    ranks may take turns in memory.
    """
    structure = structure_of(factors, machine.rows, machine.cols)
    sides = Sides(
        torch.tensor(structure.reads, dtype=torch.float32),
        torch.tensor(structure.writes, dtype=torch.float32),
        torch.as_tensor(factors.reads.sum(1), dtype=torch.float32),
        torch.as_tensor(factors.writes.sum(1), dtype=torch.float32),
    )
    counts = _counted(sides, machine, smooth=False)
    support = 0 if factors.dense_support is None else int(factors.dense_support.sum())
    read = torch.as_tensor(structure.reads.any(axis=0) | structure.tiles.any(axis=0)).sum()
    counts = replace(
        counts,
        dense_tiles=torch.tensor(float(structure.tiles.sum())),
        chunks_read=read.float(),
        dense_weights=torch.tensor(float(support)),
    )
    return _with_mixes(counts, factors, machine, tokens) if len(factors.mix_source) else counts


def _with_mixes(counts: LayerCounts, factors: Factors, machine: Machine, tokens: int) -> LayerCounts:
    """The counts with those of the MIX tiles that lowering packs."""
    plan = pack_mixes(take_turns(drop_empty(LayerPlan("", factors, machine, tokens))))
    tiles = plan.rank_tiles
    return replace(
        counts,
        ranks=torch.tensor(float(plan.factors.ranks)),
        mix_weights=torch.tensor(float(len(plan.factors.mix_source))),
        mix_tiles=torch.tensor(float(len(tiles.op))),
        mix_reading=torch.tensor(float(tiles.read.sum())),
        mix_writing=torch.tensor(float(len(tiles.rank) - tiles.read.sum())),
        sharing=torch.tensor(float(plan.factors.ranks - plan.places)),
    )


def _counted(sides: Sides, machine: Machine, *, smooth: bool) -> LayerCounts:
    if machine.scatter:
        return count_scattered(sides, machine.rows, machine.cols, smooth=smooth)
    return count_grouped(sides, machine.group_size, smooth=smooth)


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


def _dense_counts(machine: Machine, in_features: int, out_features: int) -> LayerCounts:
    chunks_in, chunks_out = ceil_div(in_features, machine.rows), ceil_div(out_features, machine.cols)
    zero = torch.zeros(())
    return LayerCounts(
        reading=torch.zeros(chunks_in),
        writing=torch.zeros(chunks_out),
        reduce_tiles=torch.zeros(chunks_in),
        expand_tiles=torch.zeros(chunks_out),
        dense_tiles=torch.tensor(float(chunks_in * chunks_out)),
        chunks_read=torch.tensor(float(chunks_in)),
        ranks=zero,
        reduce_weights=zero,
        expand_weights=zero,
        dense_weights=torch.tensor(float(in_features * out_features)),
    )
