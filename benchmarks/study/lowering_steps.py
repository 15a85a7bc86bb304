"""Lowering with some of the compiler left out, to see what each part of it is worth.

The layers keep their stored form (no rank is multiplied out), and ranks are grouped for a plain array in a fixed order.
On an array with scatter ranks are packed by chunk as always.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from gblr_hw.lowering.passes.block_tokens import block_tokens
from gblr_hw.lowering.passes.build_schedule import build_schedule
from gblr_hw.lowering.passes.choose_form import candidate_forms, outline
from gblr_hw.lowering.passes.colour_banks import colour_banks
from gblr_hw.lowering.passes.drop_empty import drop_empty
from gblr_hw.lowering.passes.evaluate_masks import evaluate_masks
from gblr_hw.lowering.passes.group_ranks import Grouping, group_ranks
from gblr_hw.lowering.passes.order_tiles import order_tiles
from gblr_hw.lowering.passes.pack_ranks import pack_ranks
from gblr_hw.weights.stored import LayerWeights
from gblr_hw.weights.structure import BoolArray, Structure
from simulator.machine.machine import Machine
from simulator.program.schedule import LayerSchedule


def in_index_order(structure: Structure, size: int) -> np.ndarray:
    """Groups of ``size`` ranks as they come."""
    return np.arange(len(structure.reads)) // size


def by_start(structure: Structure, size: int) -> np.ndarray:
    """Groups of ``size`` ranks in the order of where their runs of input chunks start, then those of output chunks."""
    order = np.lexsort((_starts(structure.writes), _starts(structure.reads)))
    group = np.empty(len(order), dtype=np.int64)
    group[order] = np.arange(len(order)) // size
    return group


def _starts(chunks: BoolArray) -> np.ndarray:
    """Where each row's cyclic run starts: the first chunk whose predecessor is not in it, 0 for full rows. (K,)"""
    return np.asarray((chunks & ~np.roll(chunks, 1, axis=1)).argmax(axis=1))


def stored_form(grouping: Grouping | None = None) -> Callable[..., LayerSchedule]:
    """A ``lower_linear`` (see ``lower_network``) that keeps the stored form; grouping: on plain arrays, the compiler's
    own search if None. Timing needs no numbers, so the schedules have none.
    """

    def lower_linear(
        name: str,
        weights: LayerWeights,
        machine: Machine,
        tokens: int,
        calibration: np.ndarray | None = None,
        steps: tuple[float, float] | None = None,
        keep_zeros: bool = False,
    ) -> LayerSchedule:
        plan = evaluate_masks(name, weights, machine, tokens)
        multiplications = plan.factors.multiplications
        plan = drop_empty(plan, keep_zeros)
        plan = block_tokens(outline(plan, candidate_forms(plan)[0]))
        plan = pack_ranks(colour_banks(plan)) if machine.scatter else group_ranks(plan, grouping)
        return build_schedule(order_tiles(plan), multiplications)

    return lower_linear


# From the least a compiler can do on a plain array to all but the choice of forms.
ORDERS: Mapping[str, Grouping | None] = {"index order": in_index_order, "sorted by start": by_start, "searched": None}


def without_scatter(machine: Machine) -> Machine:
    """The same machine without its permutation network."""
    return machine.with_(name=f"{machine.name}-plain", array={"scatter": False}, rank_memory={"network_cycles": 0})
