"""``lower``: the passes in order, every layer in its best form, and what any pass made, on request."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import ArrayLike
from torch import nn

from gblr_hw.collect import weights_of
from gblr_hw.lowering.choose_best import choose_best
from gblr_hw.lowering.choose_form import numbers
from gblr_hw.lowering.drop_empty import drop_empty
from gblr_hw.lowering.emit import emit
from gblr_hw.lowering.evaluate_masks import evaluate_masks
from gblr_hw.lowering.plan import LayerPlan, describe, filled, no_tiles
from gblr_hw.lowering.quantise_weights import quantise_weights
from gblr_hw.weights import LayerWeights
from simulator.errors import InputError
from simulator.listing import print_program, print_schedule
from simulator.machine import Machine
from simulator.program import Program
from simulator.schedule import LayerSchedule

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
MAX_TOKENS = 1 << 20

Dump = Callable[[str, str], None]  # (pass name, text)
_LazyDump = Callable[[str, Callable[[], str]], None]  # the text is made only if somebody reads it


def lower(
    source: Mapping[str, LayerWeights] | nn.Module,
    machine: Machine,
    tokens: int = 197,
    calibration: Mapping[str, ArrayLike] | None = None,
    dump: Dump | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> Program:
    """Lower a checkpoint (layer name -> weights) or the linear and convolution layers of a model to a program.

    tokens: activation rows that enter every layer (output positions for a convolution). calibration: layer name ->
    (..., n) example inputs, from which int8 ranges are taken; layers without it follow the white-input rule
    (machine.md, N1). dump(pass name, text) receives what each pass made; progress(done, of, layer name) is called per
    layer. Raises InputError for a layer that the machine cannot hold and for arguments that make no sense.
    Deterministic.
    """
    checkpoint = weights_of(source) if isinstance(source, nn.Module) else source
    if not 1 <= tokens <= MAX_TOKENS:
        raise InputError(
            "tokens",
            str(tokens),
            f"it lies between 1 and {MAX_TOKENS}",
            "Give the number of activation rows that a layer sees.",
        )
    if not checkpoint:
        raise InputError(
            "checkpoint",
            "no layers",
            "there must be at least one linear or convolution layer",
            "Check which file or model it is.",
        )
    known = set(checkpoint)
    for name in calibration or {}:
        if name not in known:
            raise InputError(
                f"calibration '{name}'",
                "no such layer",
                f"layers are {', '.join(list(known)[:8])}",
                "Use the checkpoint's names.",
            )

    def dump_lazily(stage: str, make: Callable[[], str]) -> None:
        if dump is not None:
            dump(stage, make())

    schedules = []
    for done, (name, weights) in enumerate(checkpoint.items()):
        if progress is not None:
            progress(done, len(checkpoint), name)
        rows = (
            None
            if calibration is None or name not in calibration
            else _calibration_rows(name, calibration[name], weights.in_features)
        )
        schedules.append(lower_layer(name, weights, machine, tokens, rows, dump_lazily, dump is not None))
    provenance = {
        "forms": ",".join(s.form for s in schedules),
        "calibrated": ",".join(n for n in checkpoint if n in (calibration or {})),
    }
    program = emit(schedules, machine, tokens, provenance)
    if dump is not None:
        dump("emit", print_program(program))
    return program


def lower_layer(
    name: str,
    weights: LayerWeights,
    machine: Machine,
    tokens: int,
    calibration: np.ndarray | None,
    dump: _LazyDump,
    explain: bool,
    steps: tuple[float, float] | None = None,
) -> LayerSchedule:
    """One layer in the form that runs fastest on its own; ties go to fewer DRAM bytes, then to ranks over dense. steps:
    activation steps of its input and output where they are known.
    """
    plan = evaluate_masks(name, weights, machine, tokens)
    dump("evaluate_masks", partial(describe, plan))
    paper_count = plan.factors.multiplications
    plan = drop_empty(plan)
    dump("drop_empty", partial(describe, plan))
    choice = choose_best(plan, paper_count, explain)
    best = choice.best
    chosen = filled(best.plan, factors=numbers(plan, best.form))
    dump("choose_form", lambda: choice.summary + describe(_without_places(chosen)))
    for stage in PASSES[3:7]:
        dump(stage, partial(describe, chosen if stage == "order_tiles" else _until(chosen, stage)))
    dump("build_schedule", partial(print_schedule, best.schedule))
    schedule = quantise_weights(best.schedule, chosen.factors, machine, calibration, steps)
    dump("quantise_weights", partial(_numbers, schedule))
    return schedule


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


def _calibration_rows(name: str, values: ArrayLike, features: int) -> np.ndarray:
    rows = np.asarray(values, dtype=np.float64)
    if rows.ndim < 1 or rows.shape[-1] != features or rows.size == 0:
        raise InputError(
            f"calibration '{name}'",
            f"shape {rows.shape}",
            f"the last axis holds {features} inputs and there is at least one row",
            "Give inputs of this layer.",
        )
    if not np.isfinite(rows).all():
        raise InputError(
            f"calibration '{name}'", "NaN or infinity", "calibration inputs are finite", "Look where they come from."
        )
    return rows.reshape(-1, features)
