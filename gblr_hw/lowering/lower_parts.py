"""A layer of a checkpoint as the layers of a program: itself, its parts, or two stages of parts, by cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from gblr_hw.lowering.chains.stage_blast import UNEVEN, Stages, parts_of, stages_of
from gblr_hw.lowering.emit.emit import emit_instructions
from gblr_hw.lowering.lower_layer import LazyDump, lower_layer
from gblr_hw.lowering.split_wide import narrow_parts
from gblr_hw.weights.stored import LayerWeights
from simulator.base.errors import InputError
from simulator.machine.machine import Machine
from simulator.numbers.execute import input_step
from simulator.numbers.numerics import code_limit
from simulator.program.operations import Op
from simulator.program.schedule import LayerSchedule
from simulator.timing.durations import time_instructions
from simulator.timing.engine import run_engine


def lower_parts(
    name: str,
    weights: LayerWeights,
    machine: Machine,
    tokens: int,
    calibration: np.ndarray | None = None,
    dump: LazyDump = lambda stage, make: None,
    explain: bool = False,
    narrow: tuple[Op, ...] = (),
) -> list[LayerSchedule]:
    """The schedules of one layer, as `lower_layer` makes each. calibration: (N, n) example inputs, or None. narrow:
    kinds of tiles that are narrow.

    Where its ranks do not fit, stages are tried beside the layer as it is, and what runs faster is taken.
    """
    stages = stages_of(name, weights, machine, tokens)
    if stages is None:
        return _whole(name, weights, machine, tokens, calibration, narrow, dump, explain)
    try:
        staged = _staged(stages, machine, tokens, calibration, narrow)
    except InputError:
        stages = stages_of(name, weights, machine, tokens, UNEVEN)
        if stages is None:
            return _whole(name, weights, machine, tokens, calibration, narrow, dump, explain)
        staged = _staged(stages, machine, tokens, calibration, narrow)
    cycles, least = _cycles(staged, machine, tokens), stages.least_whole
    chosen = False
    told = [f"in stages: {len(staged)} parts, {cycles} cycles", f"whole: at least {least} cycles"]
    if least < cycles:
        try:
            whole = _whole(name, weights, machine, tokens, calibration, narrow)
        except InputError as error:
            told[1] = f"whole: {error.value}"
        else:
            least = _cycles(whole, machine, tokens)
            told[1] = f"whole: {least} cycles"
            chosen = least < cycles
    dump(
        "stages",
        lambda: f'layer "{name}"\n' + "".join(f"{' *'[at == chosen]} {line}\n" for at, line in enumerate(told)),
    )
    if chosen:
        return _whole(name, weights, machine, tokens, calibration, narrow, dump, explain)
    return staged


def _whole(
    name: str,
    weights: LayerWeights,
    machine: Machine,
    tokens: int,
    calibration: np.ndarray | None,
    narrow: tuple[Op, ...],
    dump: LazyDump = lambda stage, make: None,
    explain: bool = False,
) -> list[LayerSchedule]:
    return [
        lower_layer(part, held, machine, tokens, calibration, dump, explain, narrow=narrow)
        for part, held in narrow_parts(name, weights, machine, narrow)
    ]


def _staged(
    stages: Stages, machine: Machine, tokens: int, calibration: np.ndarray | None, narrow: tuple[Op, ...]
) -> list[LayerSchedule]:
    """Schedules of all parts. All codes between the stages have one step."""
    limit = code_limit(machine.datatypes.activation_bits)
    rows, steps = {}, {}
    if calibration is not None:
        values = {part: calibration @ chain.matrix().numpy().T for part, chain in stages.codes.items()}
        between = max(float(np.abs(one).max(initial=0.0)) for one in values.values()) / limit or 1.0
        for part in stages.codes:
            rows[part], steps[part] = calibration, (input_step(calibration, machine.datatypes.activation_bits), between)
        for part, (held, runs) in stages.products.items():
            rows[part] = np.concatenate([values[run.layer][:, run.first : run.last] for run in runs], axis=1)
            outputs = rows[part] @ held.weight.double().numpy().T
            outputs += 0.0 if held.bias is None else held.bias.double().numpy()
            steps[part] = between, float(np.abs(outputs).max(initial=0.0)) / limit
    return [
        replace(
            lower_layer(part, held, machine, tokens, rows.get(part), steps=steps.get(part), stage=True, narrow=narrow),
            sources=runs,
        )
        for part, held, runs in parts_of(stages)
    ]


def _cycles(schedules: Sequence[LayerSchedule], machine: Machine, tokens: int) -> int:
    """Latency of these layers by themselves."""
    tables, instructions = [one.tiles for one in schedules], emit_instructions(schedules, machine, tokens)
    return int(run_engine(time_instructions(instructions, tables, machine)).done.max())
