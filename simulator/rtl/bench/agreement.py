"""Whether the RTL does what the fast engine and ``execute`` say: every event's cycle and every output code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from simulator.base.errors import InputError
from simulator.machine.machine import BANDWIDTH, Machine
from simulator.numbers.execute import LayerNumbers, layer_numbers
from simulator.program.encoding import EncodedProgram, encode
from simulator.program.operations import Op
from simulator.program.program import Program
from simulator.rtl.bench.cosimulation import CompiledRtl, RtlEvents
from simulator.timing.durations import resolve_timing
from simulator.timing.engine import Events, run_engine

_MORE_CYCLES = 20  # that the RTL goes on behind the engine's last event, to show that nothing comes late
_SHOWN = 3  # differences told of a column or a kind


@dataclass(frozen=True)
class Agreement:
    """What was compared, and the differences in words; empty lists where RTL and engine agree."""

    instructions: int
    latency_cycles: int
    output_codes: int
    timing: tuple[str, ...]
    numbers: tuple[str, ...]


def numbers_for(program: Program, seed: int) -> tuple[LayerNumbers, ...]:
    """The integers of every layer for one set of standard normal inputs."""
    rng = np.random.default_rng(seed)
    inputs = [rng.normal(size=(program.tokens, layer.in_features)) for layer in program.layers]
    return tuple(layer_numbers(program, index, rows) for index, rows in enumerate(inputs))


def compare(
    rtl: CompiledRtl, program: Program, machine: Machine, numbers: Sequence[LayerNumbers], memory_seed: int = 1
) -> Agreement:
    """Run ``program`` on both with the bandwidth and latency of ``machine``. ``memory_seed``: what the RTL's memories
    hold at power-up. Raises InputError for a machine whose DRAM has banks: the hardware is proved against the bandwidth
    model.
    """
    if machine.dram.standard is not None:
        raise InputError(
            f"machine '{machine.name}': field 'dram.model'",
            f"'{machine.dram.model}'",
            f"the RTL is compared with the engine under the DRAM model '{BANDWIDTH}' (machine.md, rule D5)",
            f'Say model = "{BANDWIDTH}" under [dram], or leave it out: the accelerator itself is the same.',
        )
    events = run_engine(resolve_timing(program, machine))
    encoded = encode(program, numbers)
    last = int(events.done.max(initial=0)) + _MORE_CYCLES
    found = rtl.run(program, encoded, machine, last, memory_seed)
    return Agreement(
        instructions=len(program.instructions),
        latency_cycles=int(events.done.max(initial=0)),
        output_codes=sum(program.tokens * layer.out_features for layer in program.layers),
        timing=tuple(_timing_differences(program, events, found)),
        numbers=tuple(_number_differences(program, numbers, replace(encoded, dram=found.dram))),
    )


def _timing_differences(program: Program, events: Events, found: RtlEvents) -> list[str]:
    lines = []
    for column in ("preload", "start", "done"):
        engine, rtl = getattr(events, column), getattr(found, column)
        for i in np.flatnonzero(engine != rtl)[:_SHOWN].tolist():
            name = Op(int(program.instructions.op[i])).name
            lines.append(f"{column} of instruction {i} ({name}): engine {engine[i]}, RTL {rtl[i]}")
    return lines


def _number_differences(program: Program, numbers: Sequence[LayerNumbers], encoded: EncodedProgram) -> list[str]:
    lines = []
    for index, (layer, known) in enumerate(zip(program.layers, numbers, strict=True)):
        codes = encoded.output_codes(index, layer.out_features)
        wrong = int((codes != known.output_codes).sum())
        if wrong:
            lines.append(f"layer '{layer.name}' ({layer.form}): {wrong} of {codes.size} output codes")
    return lines
