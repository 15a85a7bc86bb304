"""The phases of each training: what changes in the model at the start of each, which hooks run in it, and how long."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import nn

from gblr_hw.conversion.conversion_input import read_layers
from gblr_hw.conversion.convert_whole import whole_to_limit
from gblr_hw.conversion.fit_to_limit import Limit
from gblr_hw.conversion.from_dense import layer_start
from gblr_hw.cost.target import TargetController
from gblr_hw.frontend.put_weights import layer_of
from gblr_hw.layers.linear import GBLRLinear
from gblr_hw.layers.replace import set_module
from gblr_hw.training.annealed_widths import AnnealedWidths
from gblr_hw.training.gblr_start import gblr_from_linear
from gblr_hw.training.loop.loop import Hook
from gblr_hw.training.measure.hardware import Hardware
from gblr_hw.training.recipe import Recipe
from gblr_hw.training.shrink.penalties import HardwarePenalty, WidthPenalty
from gblr_hw.training.shrink.project_training import ProjectionSchedule
from gblr_hw.training.swap import lattice_from_factors, matching_linears
from gblr_hw.weights.collect import layer_weights
from gblr_hw.weights.factors import evaluate
from gblr_hw.weights.family import TRAININGS, complete
from gblr_hw.weights.stored import DenseWeights, LayerWeights
from simulator.base.errors import InputError

_START_SWEEPS = 20  # training does the rest


@dataclass(frozen=True)
class Phase:
    """A part of the training: what to change in the model, which hooks to run, for how many epochs; geometry_beta1 as
    the loop's settings take it.
    """

    prepare: Callable[[], list[Hook]]
    epochs: int
    geometry_beta1: float = 0.9


@dataclass(frozen=True)
class Plan:
    """What the phases of one training are made from: the recipe, the model that changes, the machine, the target in the
    machine's unit, and how many optimiser steps an epoch has.
    """

    recipe: Recipe
    model: nn.Module
    hardware: Hardware
    target: float
    steps: int


def phases_of(recipe: Recipe, model: nn.Module, hardware: Hardware, target: float | None, steps: int) -> list[Phase]:
    """The phases of a recipe's training, which change `model` when they are prepared.

    Raises InputError where no layer matches, where no target is given and one is needed, and for a family whose
    training only chooses another one.
    """
    training = str(recipe.entry.training)
    if not recipe.entry.needs_target:
        return [Phase(lambda: [], recipe.epochs)]
    if target is None:
        raise InputError(
            f"recipe '{recipe.family}'", "no target", "every family but dense needs a latency", "Give a target."
        )
    if training not in _PHASES:
        raise recipe.entry.incomplete("training", repr(training), "it has phases of its own")
    return _PHASES[training](Plan(recipe, model, hardware, target, steps))


def _projection(plan: Plan) -> list[Phase]:
    """From the dense weights, everything that the family may keep, to what it can keep within the target."""
    names, rows, cols = matching_linears(plan.model, plan.recipe.layers), plan.hardware.rows, plan.hardware.cols

    def from_dense() -> list[Hook]:
        for name in names:
            set_module(plan.model, name, layer_start(_linear(plan.model, name), plan.recipe.family, rows, cols))
        return [_schedule(plan)]

    return [Phase(from_dense, plan.recipe.epochs)]


def _sized(plan: Plan) -> list[Phase]:
    """From the layers of the family that the target allows, fitted to the dense ones; their sizes stay."""
    names, hardware = matching_linears(plan.model, plan.recipe.layers), plan.hardware

    def fitted() -> list[Hook]:
        layers = {name: layer_weights(_linear(plan.model, name)) for name in names}
        dense = {name: weights for name, weights in layers.items() if isinstance(weights, DenseWeights)}  # all of them
        trial = copy.deepcopy(plan.model)

        def with_layers(layers: Mapping[str, LayerWeights]) -> float:
            for name, weights in layers.items():
                own = isinstance(weights, DenseWeights)
                set_module(trial, name, _linear(plan.model, name) if own else layer_of(weights))
            return hardware.measure(trial)

        problems, biases = read_layers(dense, hardware, None, {})
        limit = Limit(hardware.unit, plan.target, False, with_layers)
        found = whole_to_limit(problems, plan.recipe.family, limit, biases, sweeps=_START_SWEEPS)
        for name, weights in found.items():
            set_module(plan.model, name, layer_of(weights))
        return []

    return [Phase(fitted, plan.recipe.epochs)]


def _width_penalty(plan: Plan) -> list[Phase]:
    """From random intervals, all widths shrunk alike."""
    names, recipe, hardware = matching_linears(plan.model, plan.recipe.layers), plan.recipe, plan.hardware

    def shrink() -> list[Hook]:
        _to_gblr(plan, names)
        controller = TargetController(plan.target, end=recipe.width_end)
        return [WidthPenalty(controller, hardware.measure, hardware.quick)]

    return [Phase(shrink, recipe.epochs)]


def _annealed(plan: Plan) -> list[Phase]:
    """From scratch: blurred masks that sharpen over the whole run, all widths shrunk alike while above the target."""
    names, recipe, hardware = matching_linears(plan.model, plan.recipe.layers), plan.recipe, plan.hardware

    def blurred() -> list[Hook]:
        for name in names:
            linear = _linear(plan.model, name)
            layer = GBLRLinear(
                linear.in_features, linear.out_features, bias=linear.bias is not None, init_width=recipe.gblr_width
            )
            set_module(plan.model, name, layer)
        return [
            AnnealedWidths(
                plan.model,
                TargetController(plan.target, end=recipe.width_end),
                hardware.measure,
                hardware.quick,
                recipe.epochs * plan.steps,
                peak=recipe.learning_rate,
                sigmas=(recipe.sigma_start, recipe.sigma_end),
            )
        ]

    return [Phase(blurred, recipe.epochs, geometry_beta1=0.0)]


def _hardware_penalty(plan: Plan) -> list[Phase]:
    """From random intervals down the hardware cost for a while, then what is left as ranks by chunk, projected."""
    names, recipe, hardware = matching_linears(plan.model, plan.recipe.layers), plan.recipe, plan.hardware
    aim = max(recipe.penalty_fraction * hardware.measure(plan.model), plan.target)

    def shrink() -> list[Hook]:
        _to_gblr(plan, names)
        if hardware.cost is None:
            raise InputError("hardware cost", "None", "the hardware family descends on it", "Give Hardware(cost=...).")
        estimate = None if hardware.cost_estimates else hardware.quick
        return [HardwarePenalty(TargetController(aim, end=0.9), hardware.cost, estimate)]

    def from_gblr() -> list[Hook]:
        for name in names:
            layer = plan.model.get_submodule(name)
            assert isinstance(layer, GBLRLinear)
            set_module(plan.model, name, lattice_from_factors(evaluate(layer.weights()), hardware.rows, hardware.cols))
        return [_schedule(plan)]

    first = max(1, round(recipe.epochs * recipe.penalty_share))
    return [Phase(shrink, first), Phase(from_gblr, max(1, recipe.epochs - first))]


# Trials have no phases of their own: they train the family that they choose.
_PHASES: Mapping[str, Callable[[Plan], list[Phase]]] = complete(
    {
        "projection": _projection,
        "sized": _sized,
        "width_penalty": _width_penalty,
        "annealed": _annealed,
        "hardware_penalty": _hardware_penalty,
    },
    (training for training in TRAININGS if training not in ("plain", "trials")),
    "training",
)


def _schedule(plan: Plan) -> ProjectionSchedule:
    """The projection that ends at the target."""
    recipe, hardware = plan.recipe, plan.hardware
    return ProjectionSchedule(
        plan.target,
        hardware.measure,
        hardware.tile_cost,
        hardware.rows,
        hardware.cols,
        estimate=hardware.quick,
        end=recipe.project_end,
        intervals_only=recipe.intervals_only,
        regrow=recipe.regrow,
    )


def _to_gblr(plan: Plan, names: list[str]) -> None:
    for index, name in enumerate(names):
        seed = plan.recipe.seed * 1009 + index
        layer = gblr_from_linear(_linear(plan.model, name), width=plan.recipe.gblr_width, seed=seed)
        set_module(plan.model, name, layer)


def _linear(model: nn.Module, name: str) -> nn.Linear:
    layer = model.get_submodule(name)
    assert isinstance(layer, nn.Linear)
    return layer
