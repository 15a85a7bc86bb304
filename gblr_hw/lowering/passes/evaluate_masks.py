"""Masks become numbers. Widths and locations are rounded and thresholded as the evaluation rules say."""

from __future__ import annotations

from gblr_hw.lowering.passes.plan import LayerPlan
from gblr_hw.weights.factors import evaluate
from gblr_hw.weights.stored import LayerWeights
from simulator.machine.machine import Machine


def evaluate_masks(name: str, weights: LayerWeights, machine: Machine, tokens: int) -> LayerPlan:
    """The first plan of a layer: its factors with the supports that the hardware must run."""
    return LayerPlan(name=name, factors=evaluate(weights), machine=machine, tokens=tokens)
