"""Small moves of a layer's ends and descent on its cost, timed: does the closed form's gradient point the right way?

A move takes the width of one side of one block by up to a chunk, or its start by up to half of one, and counts if the
number of tiles changes. The layer runs as ranks, as the smooth cost sees it. On a machine without scatter there are two
readings of such a move: with ranks in the groups that lowering made before it, which is what the gradient is of, and
grouped anew, where the search finds other groups after any move, a few tiles better or worse.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from gblr_hw import GBLRLinear, HardwareCost, lower
from gblr_hw.cost.target import TargetController
from gblr_hw.cost.touches import PlacedLayer, Sides, count_grouped, exact_counts, exact_sides, lowering_groups
from gblr_hw.lowering.choose_best import PlacedForm
from gblr_hw.lowering.passes.block_tokens import block_tokens
from gblr_hw.lowering.passes.build_schedule import build_schedule
from gblr_hw.lowering.passes.choose_form import as_it_is, outline
from gblr_hw.lowering.passes.colour_banks import colour_banks
from gblr_hw.lowering.passes.drop_empty import drop_empty
from gblr_hw.lowering.passes.group_ranks import group_ranks
from gblr_hw.lowering.passes.order_tiles import order_tiles
from gblr_hw.lowering.passes.pack_ranks import pack_ranks
from gblr_hw.lowering.passes.plan import LayerPlan
from gblr_hw.training.measure.hardware import Cost
from gblr_hw.training.shrink.penalties import HardwarePenalty
from gblr_hw.weights.factors import evaluate
from simulator import Machine, simulate


@dataclass(frozen=True)
class Move:
    """Of one side (0 reads, 1 writes) of a block: its width or its start, by so many channels."""

    side: int
    block: int
    width: bool
    channels: float


@dataclass(frozen=True)
class Signs:
    """Of moves that change the number of tiles: how many were timed, how many changes of the latency have the sign that
    the gradient says, and how many when ranks are grouped anew after the move.
    """

    moves: int
    right: int
    right_regrouped: int


def rank_cycles(layer: GBLRLinear, machine: Machine, tokens: int, groups: torch.Tensor | None = None) -> int:
    """Latency of the layer alone on the engine, as ranks; without scatter in these groups, in lowering's if None."""
    plan = drop_empty(LayerPlan("layer", evaluate(layer.weights()), machine, tokens))
    form = as_it_is(plan)
    plan = block_tokens(outline(plan, form))
    if machine.scatter:
        plan = pack_ranks(colour_banks(plan))
    elif groups is None:
        plan = group_ranks(plan)
    else:
        plan = group_ranks(plan, lambda _, size: _numbers(groups))
    plan = order_tiles(plan)
    return PlacedForm(form, plan, build_schedule(plan, 0)).cost[0]


def _numbers(groups: torch.Tensor) -> np.ndarray:
    """The group of each living rank, from the ranks of each group."""
    group, place = np.nonzero(groups.numpy() >= 0)
    return group[np.argsort(groups.numpy()[group, place])]


def held_groups(layer: GBLRLinear, machine: Machine) -> torch.Tensor | None:
    """The groups that lowering makes of the ranks, None where there are none."""
    if machine.scatter:
        return None
    return lowering_groups(_sides(layer, machine), machine.group_size)


def _sides(layer: GBLRLinear, machine: Machine) -> Sides:
    return exact_sides((PlacedLayer(layer, 0, layer.in_features),), machine.rows, machine.cols)


def _tiles(layer: GBLRLinear, machine: Machine, groups: torch.Tensor | None) -> tuple[float, float]:
    """Tiles of ranks, and ranks that live."""
    sides = _sides(layer, machine)
    counts = exact_counts(sides, machine) if groups is None else count_grouped(sides, groups, smooth=False)
    return float(counts.reduce_tiles.sum() + counts.expand_tiles.sum()), float(counts.ranks)


@contextmanager
def moved(layer: GBLRLinear, move: Move) -> Iterator[None]:
    """The layer after a move, as it was before at the end."""
    parameter = layer.widths if move.width else layer.locations
    old = parameter.detach().clone()
    with torch.no_grad():
        parameter[move.side, move.block] += move.channels / (layer.out_features if move.side else layer.in_features)
    try:
        yield
    finally:
        with torch.no_grad():
            parameter.copy_(old)


def signs_of_moves(
    layer: GBLRLinear, machine: Machine, tokens: int, seed: int, *, widths: bool, wanted: int = 16, tries: int = 1000
) -> Signs:
    """Draw moves of widths, or of starts, until ``wanted`` of them change the number of tiles, or so many were tried,
    and time those.
    """
    rng, groups = np.random.default_rng(seed), held_groups(layer, machine)
    layer.zero_grad()
    HardwareCost(machine, tokens)(layer).latency_cycles.backward()
    slopes = (layer.widths if widths else layer.locations).grad
    assert slopes is not None
    tiles, cycles = _tiles(layer, machine, groups), rank_cycles(layer, machine, tokens)
    moves = right = regrouped = 0
    for _ in range(tries):
        reach = float(rng.uniform(1, machine.rows / (1 if widths else 2)) * rng.choice([-1, 1]))
        move = Move(int(rng.integers(2)), int(rng.integers(layer.blocks)), widths, reach)
        size = layer.out_features if move.side else layer.in_features
        if widths and not 2 <= float(layer.widths[move.side, move.block].detach()) * size + reach <= size:
            continue
        with moved(layer, move):
            after = _tiles(layer, machine, groups)
            if after[0] == tiles[0] or after[1] != tiles[1]:
                continue
            held = rank_cycles(layer, machine, tokens, groups)
            anew = held if groups is None else rank_cycles(layer, machine, tokens)
        expected = float(slopes[move.side, move.block]) * reach
        moves += 1
        right += (held - cycles) * expected > 0
        regrouped += (anew - cycles) * expected > 0
        if moves == wanted:
            break
    return Signs(moves, int(right), int(regrouped))


@dataclass(frozen=True)
class Descent:
    """Simulated latency of the layer, lowered as it is: at first, after descent on the cost, and with all widths
    narrowed alike to the same mean.
    """

    first: int
    reached: int
    narrowed_alike: int


def descend(layer: GBLRLinear, machine: Machine, tokens: int, steps: int = 60, strength: float = 1e-3) -> Descent:
    """Steps of training's own descent on the cost, which moves widths by ``strength`` on average."""
    penalty = HardwarePenalty(TargetController(1.0), Cost(machine, tokens))
    first, widths = _simulated(layer, machine, tokens), layer.widths.detach().clone()
    for _ in range(steps):
        penalty.shrink(layer, strength)
        with torch.no_grad():
            layer.widths.clamp_(0, 1)
            layer.locations.remainder_(1)
    reached, mean = _simulated(layer, machine, tokens), layer.widths.detach().mean()
    with torch.no_grad():
        layer.widths.copy_(widths * (mean / widths.mean()))
    return Descent(first, reached, _simulated(layer, machine, tokens))


def _simulated(layer: GBLRLinear, machine: Machine, tokens: int) -> int:
    return simulate(lower(layer, machine, tokens=tokens), machine).latency_cycles
