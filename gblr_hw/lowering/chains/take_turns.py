"""Ranks that do not fit rank memory together, for as many token rows as the other memories hold, take turns there.

Ranks that feed each other, or that write the same output chunk, belong together: once an output chunk is complete its
ranks are of no more use, and others take their places. Where there is but one such part, or all fit, there is one turn.
With room for two turns at a time, what one writes can leave while the next reads.
"""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from gblr_hw.lowering.passes.block_tokens import tokens_beside_ranks
from gblr_hw.lowering.passes.plan import LayerPlan, filled
from gblr_hw.weights.mixes import mix_levels
from simulator.base.arithmetic import ceil_div


def take_turns(plan: LayerPlan) -> LayerPlan:
    """Fill in turn: parts in the order of their ranks, as many a turn as there is room for."""
    machine, factors = plan.machine, plan.factors
    once = filled(plan, turn=np.zeros(0, np.int64), ring=1)
    most = tokens_beside_ranks(plan)
    banks = machine.rank_memory.banks
    if not machine.scatter or most < 1 or factors.ranks * most <= banks * machine.rank_rows_per_bank:
        return once
    part = _parts(plan)
    need = _places(plan, part)
    if len(need) == 1:
        return once
    least = ceil_div(int(need.max()), banks)
    slots = max(machine.rank_rows_per_bank // most, least)
    ring = 2 if slots // 2 >= least else 1
    turn = _packed(need, slots // ring * banks)
    return filled(plan, turn=turn[part], ring=ring) if turn[-1] else once


def _packed(need: np.ndarray, most: int) -> np.ndarray:
    """Turns of parts in order, as many parts a turn as ``most`` places hold, (N,)."""
    turn, room = np.zeros(len(need), dtype=np.int64), most
    for number, places in enumerate(need.tolist()):
        begins = number > 0 and room < places
        turn[number] = turn[number - 1] + begins if number else 0
        room = (most if begins else room) - places
    return turn


def _parts(plan: LayerPlan) -> np.ndarray:
    """The part that each rank belongs to, numbered in the order of their first ranks, (K,)."""
    factors, ranks = plan.factors, plan.factors.ranks
    rank, chunk = np.nonzero(plan.structure.writes)
    begin = np.concatenate([factors.mix_source, rank])
    end = np.concatenate([factors.mix_target, ranks + chunk])
    size = ranks + plan.output_chunks
    graph = coo_array((np.ones(len(begin), np.int8), (begin, end)), shape=(size, size))
    part = connected_components(graph, directed=False)[1][:ranks]
    _, first, number = np.unique(part, return_index=True, return_inverse=True)
    return np.asarray(np.argsort(np.argsort(first))[number])


def _places(plan: LayerPlan, part: np.ndarray) -> np.ndarray:
    """Places that each part needs: those of its fullest level, whose ranks the others follow or make room for."""
    factors = plan.factors
    level = mix_levels(factors.ranks, factors.mix_source, factors.mix_target)
    counts = np.zeros((int(part.max()) + 1, int(level.max()) + 1), dtype=np.int64)
    np.add.at(counts, (part, level), 1)
    return np.asarray(counts.max(axis=1))
