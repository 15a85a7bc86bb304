"""One layer through the passes, in the form that runs fastest, and what any pass made, on request."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from gblr_hw.lowering.choose_best import choose_best
from gblr_hw.lowering.passes.choose_form import Form, as_it_is, numbers
from gblr_hw.lowering.passes.drop_empty import drop_empty
from gblr_hw.lowering.passes.evaluate_masks import evaluate_masks
from gblr_hw.lowering.passes.plan import LayerPlan, describe, filled, no_tiles
from gblr_hw.lowering.passes.quantise_weights import quantise_weights
from gblr_hw.lowering.quantise.tile_bits import with_own_bits
from gblr_hw.weights.stored import LayerWeights
from simulator.machine.machine import Machine
from simulator.program.listing import print_schedule
from simulator.program.operations import Op
from simulator.program.schedule import LayerSchedule

PASSES = (
    "evaluate_masks",
    "drop_empty",
    "choose_form",
    "block_tokens",
    "colour_banks",
    "pack_ranks",
    "order_tiles",
    "build_schedule",
    "quantise_weights",
    "emit",
)

_SMALL = 1 << 20  # entries of a part of a stage whose other forms are tried

LazyDump = Callable[[str, Callable[[], str]], None]  # the text is made only if somebody reads it


def lower_layer(
    name: str,
    weights: LayerWeights,
    machine: Machine,
    tokens: int,
    calibration: np.ndarray | None = None,
    dump: LazyDump = lambda stage, make: None,
    explain: bool = False,
    steps: tuple[float, float] | None = None,
    keep_zeros: bool = False,
    stage: bool = False,
    narrow: tuple[Op, ...] = (),
) -> LayerSchedule:
    """One layer in the form that runs fastest on its own; ties go to fewer DRAM bytes, then to ranks over dense. steps:
    activation steps of its input and output where they are known. keep_zeros: whether dense tiles that hold nothing but
    zeros run like any other. stage: it is part of a stage, which has its own form (a small chain any), and a block's
    inputs may take both input buffers, as they always may where ranks feed ranks. narrow: kinds of its tiles that are
    narrow.
    """
    plan = replace(evaluate_masks(name, weights, machine, tokens), one_input=stage, narrow=narrow)
    return lower_plan(plan, calibration, dump, explain, steps, keep_zeros, stage, finer=not stage)


def lower_operator(
    name: str,
    weights: LayerWeights,
    machine: Machine,
    tokens: int,
    *options: Any,
    narrow: tuple[Op, ...] = (),
    unread: bool = False,
    **more: Any,
) -> LayerSchedule:
    """``lower_layer`` of an operator of a network: its outputs stay in their own order, in which the next operator
    reads them, unless they are ``unread`` by any (machine.md, E1).
    """
    plan = evaluate_masks(name, weights, machine, tokens)
    factors = plan.factors if unread else plan.factors.in_natural_order()
    return lower_plan(replace(plan, factors=factors, narrow=narrow), *options, **more)


def lower_plan(
    plan: LayerPlan,
    calibration: np.ndarray | None = None,
    dump: LazyDump = lambda stage, make: None,
    explain: bool = False,
    steps: tuple[float, float] | None = None,
    keep_zeros: bool = False,
    stage: bool = False,
    finer: bool = False,
) -> LayerSchedule:
    """``lower_layer`` of a plan that has its factors and nothing else yet. finer: whether blocks of tokens may be
    smaller than they must, which an operator of a network is cut into with its group.
    """
    machine = plan.machine
    plan = replace(plan, narrow=with_own_bits(plan.narrow, plan.factors, machine))
    dump("evaluate_masks", partial(describe, plan))
    paper_count = plan.factors.multiplications
    plan = drop_empty(plan, keep_zeros)
    dump("drop_empty", partial(describe, plan))
    choice = choose_best(plan, paper_count, explain, _forms_of_stage(plan) if stage else None, finer)
    best = choice.best
    chosen = filled(best.plan, factors=numbers(plan, best.form))
    dump("choose_form", lambda: choice.summary + describe(_without_places(chosen)))
    for name in PASSES[3:7]:
        dump(name, partial(describe, chosen if name == "order_tiles" else _until(chosen, name)))
    dump("build_schedule", partial(print_schedule, best.schedule))
    schedule = quantise_weights(best.schedule, chosen.factors, machine, calibration, steps)
    dump("quantise_weights", partial(_numbers, schedule))
    return schedule


def _forms_of_stage(plan: LayerPlan) -> tuple[Form, ...] | None:
    """Those of a part of a stage: its own; of a small chain all (None), which take long to outline for others."""
    size = plan.factors.out_features * plan.factors.in_features
    return None if len(plan.factors.mix_source) and size <= _SMALL else (as_it_is(plan),)


def _until(plan: LayerPlan, stage: str) -> LayerPlan:
    """The plan as it stood after ``stage``: later passes' fields taken out again."""
    empty = np.zeros(0, np.int64)
    plan = replace(plan, order=None)
    if stage in ("block_tokens", "colour_banks"):
        plan = replace(plan, rank_tiles=no_tiles())
    return replace(plan, rank_bank=empty, rank_slot=empty) if stage == "block_tokens" else plan


def _without_places(plan: LayerPlan) -> LayerPlan:
    return replace(_until(plan, "block_tokens"), block_tokens=0)


def _numbers(schedule: LayerSchedule) -> str:
    payload = schedule.payload
    return (
        f'layer "{schedule.name}" {len(payload.codes)} weights, '
        f"input step {payload.input_step:.6g}, output step {payload.output_step:.6g}\n"
        f"  row steps {payload.row_step.min():.6g} to {payload.row_step.max():.6g}, "
        f"rank divisors {payload.rank_divisor.min(initial=np.inf):.6g} to {payload.rank_divisor.max(initial=0):.6g}\n"
    )
