"""Masks become numbers. Widths and locations are rounded and thresholded as the evaluation rules say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from gblr_hw.lowering.passes.plan import LayerPlan
from gblr_hw.weights.factors import Factors, evaluate
from gblr_hw.weights.stored import DenseWeights, LayerWeights
from simulator.machine.machine import Machine


def evaluate_masks(name: str, weights: LayerWeights, machine: Machine, tokens: int) -> LayerPlan:
    """The first plan of a layer: its factors with the supports that the hardware must run."""
    factors = evaluate(weights).in_natural_order()
    if len(factors.mix_value):
        factors = _as_dense(factors)
    return LayerPlan(name=name, factors=factors, machine=machine, tokens=tokens)


def _as_dense(factors: Factors) -> Factors:
    """The layer as its matrix: no tile feeds ranks from ranks."""
    whole = DenseWeights(torch.from_numpy(factors.matrix().astype(np.float32)))
    return replace(evaluate(whole), bias=factors.bias, family=factors.family, multiplications=factors.multiplications)
