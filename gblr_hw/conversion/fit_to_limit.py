"""Meet a latency, an energy or bytes: take tiles from a converted network until the machine is within the limit."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from gblr_hw.conversion.allocate import dense_tiles
from gblr_hw.conversion.conversion_input import Array
from gblr_hw.conversion.fit.accelerate import refit
from gblr_hw.conversion.fit.fit_layer import run_importance
from gblr_hw.conversion.fit.fit_problem import Fit, FitProblem
from gblr_hw.conversion.fit.fit_weights import fit_of, lattice_weights
from gblr_hw.cost.target import parse_target
from gblr_hw.lowering.pipeline import lower
from gblr_hw.projection.projection import Importance, InfeasibleBudgetError
from gblr_hw.weights.stored import DenseWeights, LatticeWeights, LayerWeights
from gblr_hw.weights.structure import Structure, channel_mask
from simulator import simulate
from simulator.base.errors import InputError
from simulator.machine.machine import Machine

ConvertedLayers = Mapping[str, LatticeWeights]
# (layers, tiles in all, rows, cols) -> smaller structures
Projection = Callable[[Mapping[str, tuple[Structure, Importance]], float, int, int], dict[str, Structure]]


@dataclass(frozen=True)
class Limit:
    """What a converted network may cost on a machine, in cycles, picojoules or bytes.

    of_dense: value is still a fraction of the dense network's cost. measure: network, options of `lower` -> cost.
    """

    unit: str
    value: float
    of_dense: bool
    measure: Callable[..., float]


def limit_of(
    machine: Array | Machine,
    tokens: int,
    tiles: float | None,
    latency: str | float | None,
    energy_pj: float | None,
    weight_bytes: str | float | None = None,
) -> Limit | None:
    """The one budget that is given as a limit to be measured; None when it is in tiles (or none is given).

    Raises InputError for several budgets, one out of range, or a latency or energy without a machine to simulate.
    """
    budgets = {"tiles": tiles, "latency": latency, "energy_pj": energy_pj, "weight_bytes": weight_bytes}
    given = [name for name, value in budgets.items() if value is not None]
    if len(given) > 1:
        raise InputError("budget", " and ".join(given), "there is one budget", "Give one of them.")
    if tiles is not None and not 0 < tiles <= 1:
        raise InputError("tiles", f"{tiles:g}", "the budget is a fraction of the dense tiles, in (0, 1]", "Try 0.3.")
    if latency is None and energy_pj is None and weight_bytes is None:
        return None
    if not isinstance(machine, Machine):
        raise InputError("machine", type(machine).__name__, "a limit is simulated", "Use Machine.load('mid-32').")
    if energy_pj is not None:
        if not 0 < energy_pj < math.inf:
            raise InputError("energy_pj", f"{energy_pj:g}", "an energy is positive and finite", "Give picojoules.")
        return Limit("pJ", float(energy_pj), False, partial(_energy_pj, machine=machine, tokens=tokens))
    if weight_bytes is not None:
        value, of_dense = _bytes_of(weight_bytes)
        return Limit("bytes", value, of_dense, partial(_weight_bytes, machine=machine, tokens=tokens))
    target = parse_target(f"{latency!s}" if isinstance(latency, str) else f"{latency!r}cycles")
    scale = machine.clock_ghz * 1e6 if target.unit == "ms" else 1.0
    measure = partial(_latency_cycles, machine=machine, tokens=tokens)
    return Limit("cycles", target.value * scale, target.unit == "x-dense", measure)


def _bytes_of(text: str | float) -> tuple[float, bool]:
    """A number of bytes, or a fraction of the dense network's, and which of them it is."""
    number = str(text).lower().removesuffix("x-dense")
    of_dense = number != str(text).lower()
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if not (0 < value < math.inf if of_dense else 1 <= value < math.inf):
        rule = "it is a number of bytes, or a fraction of the dense layers' like '0.55x-dense'"
        raise InputError("weight_bytes", repr(text), rule, "Correct it.")
    return value, of_dense


def resolve(problems: Mapping[str, FitProblem], limit: Limit) -> tuple[Limit, float]:
    """The limit in its own unit, and what the dense network costs."""
    dense = {name: DenseWeights(torch.from_numpy(p.matrix.astype(np.float32))) for name, p in problems.items()}
    cost = limit.measure(dense)
    return (replace(limit, value=limit.value * cost, of_dense=False) if limit.of_dense else limit), cost


def trim_to_limit(
    problems: Mapping[str, FitProblem],
    found: ConvertedLayers,
    limit: Limit,
    project: Projection,
    sweeps: int,
    within: ConvertedLayers | None = None,
) -> dict[str, LatticeWeights]:
    """Take the tiles that lose least until the limit is met, then refit: the most tiles of this order that meet it.

    project: how structures are cut to a number of tiles. within: a network of fewer tiles that meets the limit, for
    when nothing can be cut from this one.

    Raises InputError, naming the least cost reached, if no part of the network that keeps every layer alive meets it.
    """
    if limit.measure(found) <= limit.value:
        return dict(found)
    rows, cols = next((problem.rows, problem.cols) for problem in problems.values())
    parts = {
        name: (weights.structure(), run_importance(problems[name], fit_of(weights))) for name, weights in found.items()
    }

    def cut(tiles: int) -> dict[str, LatticeWeights] | None:
        try:
            structures = project(parts, tiles, rows, cols)
        except InfeasibleBudgetError:
            return None
        return {name: _restricted(problems[name], found[name], structure) for name, structure in structures.items()}

    low, high = 0, sum(structure.tile_count(rows, cols) for structure, _ in parts.values())
    best: dict[str, LatticeWeights] | None = None
    least = np.inf
    while high - low > 1:
        middle = (low + high) // 2
        candidate = cut(middle)
        cost = np.inf if candidate is None else limit.measure(candidate)
        if candidate is None:
            low = middle
        elif cost <= limit.value:
            low, best = middle, candidate
        else:
            high, least = middle, min(least, cost)
    if best is None and within is not None:
        return dict(within)
    if best is None:
        raise InputError(
            "budget",
            f"{limit.value:g} {limit.unit}",
            f"the least that leaves every layer alive takes {least:g} {limit.unit}",
            "Raise the budget, or leave layers out.",
        )
    return {name: _refitted(problems[name], weights, sweeps) for name, weights in best.items()}


def start_tiles(problems: Mapping[str, FitProblem], limit: Limit, dense_cost: float, least: int) -> int:
    """Tiles to begin with: a little more than the limit's share of the dense network's cost, and `least` at least."""
    total = sum(dense_tiles(problem) for problem in problems.values())
    return min(total, max(2 * len(problems), least, round(total * limit.value / dense_cost)))


def _restricted(problem: FitProblem, weights: LatticeWeights, structure: Structure) -> LatticeWeights:
    """The same factors inside a smaller structure."""
    (outputs, inputs), fit = problem.matrix.shape, fit_of(weights)
    u = fit.u * channel_mask(structure.writes, problem.cols, outputs).T
    v = fit.v * channel_mask(structure.reads, problem.rows, inputs)
    kept = channel_mask(channel_mask(structure.tiles, problem.rows, inputs).T, problem.cols, outputs).T
    smaller = Fit(u, v, None if fit.dense is None else fit.dense * kept)
    return lattice_weights(structure, smaller, problem.rows, problem.cols, weights.family)


def _refitted(problem: FitProblem, weights: LatticeWeights, sweeps: int) -> LatticeWeights:
    structure = weights.structure()
    fit = refit(problem, structure, fit_of(weights), sweeps)
    return lattice_weights(structure, fit, problem.rows, problem.cols, weights.family)


def narrow_limit(limit: Limit, weight_bits: Mapping[str, int]) -> Limit:
    """The same limit for networks whose tiles will have so many bits, whether they are on a grid yet or not."""
    return replace(limit, measure=partial(limit.measure, weight_bits=weight_bits))


def _latency_cycles(network: Mapping[str, LayerWeights], machine: Machine, tokens: int, **how: Any) -> float:
    return float(simulate(lower(network, machine, tokens=tokens, **how), machine).latency_cycles)


def _energy_pj(network: Mapping[str, LayerWeights], machine: Machine, tokens: int, **how: Any) -> float:
    return float(simulate(lower(network, machine, tokens=tokens, **how), machine).energy_pj)


def _weight_bytes(network: Mapping[str, LayerWeights], machine: Machine, tokens: int, **how: Any) -> float:
    """Records of all tiles (machine.md, E4)."""
    layers = lower(network, machine, tokens=tokens, **how).layers
    return float(sum(int(layer.tiles.record_bytes(machine).sum()) for layer in layers))
