"""The comparison with the RTL can fail: an engine that is a cycle off is noticed, and so is hardware that is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from amaranth.hdl import Module, Mux, Signal, Value

from simulator.machine.machine import Machine
from simulator.program.operations import TILE_OPS, TRANSFER_OPS, Op
from simulator.program.program import Program
from simulator.rtl.bench import agreement
from simulator.rtl.bench.cosimulation import CompiledRtl, _compile
from simulator.rtl.units import dma, rank_memory, vector_unit
from simulator.timing.durations import Timing, resolve_timing
from tests.drawn.rtl_corpus import compiled, rtl_case, rtl_machine

NAME = "4x3"
SEEDS = range(12)


def off(column: str, ops: tuple[Op, ...], by: int) -> Callable[[Program, Machine], Timing]:
    """Timing with ``column`` off by a cycle for some operations."""

    def changed(program: Program, machine: Machine) -> Timing:
        timing = resolve_timing(program, machine)
        values = getattr(timing, column).astype(np.int64)
        return replace(timing, **{column: np.where(np.isin(timing.op, ops), values + by, values)})

    return changed


ENGINE_MUTANTS = {
    f"{rule} {by:+d}": mutant
    for by in (-1, 1)
    for rule, mutant in {
        "D2": off("busy", TRANSFER_OPS, by),
        "D4": off("tail", TRANSFER_OPS, by),
        "A1": off("busy", TILE_OPS, by),
        "A2": off("preload", TILE_OPS, by),
        "A4": off("lead", (Op.EXPAND,), by),
        "A4 mix": off("lead", (Op.MIX,), by),
        "A5": off("tail", TILE_OPS, by),
        "A5 network": off("tail", (Op.REDUCE,), by),
        "A5 mix": off("tail", (Op.MIX,), by),
        "V1": off("busy", (Op.DRAIN,), by),
        "V1 latency": off("tail", (Op.DRAIN,), by),
    }.items()
}


@pytest.mark.parametrize("mutant", ENGINE_MUTANTS.values(), ids=ENGINE_MUTANTS)
def test_an_engine_a_cycle_off_is_noticed(mutant, rtl_folder, monkeypatch):
    rtl = compiled(NAME, rtl_folder)
    monkeypatch.setattr(agreement, "resolve_timing", mutant)
    assert any(rtl_case(NAME, seed).compare(rtl).timing for seed in SEEDS)


def late(original: Callable[[Module, Signal, int, str], Signal]) -> Callable[[Module, Signal, int, str], Signal]:
    """``delayed`` that takes a cycle longer, for what ends a tile or a drain."""

    def changed(m: Module, value: Signal, cycles: int, name: str) -> Signal:
        return original(m, value, cycles + (name in ("ending", "enable")), name)

    return changed


def last_request_first(mux: Callable[..., Value]) -> Callable[..., Value]:
    """A channel that forgets who asked first (rule D3)."""

    def changed(condition: Value, one: Value, other: Value) -> Value:
        return other if getattr(condition, "name", "").endswith("_asked") else mux(condition, one, other)

    return changed


HARDWARE_MUTANTS = {
    "a REDUCE tile completes late": ((rank_memory, "delayed", late(rank_memory.delayed)),),
    "a DRAIN completes and writes late": ((vector_unit, "delayed", late(vector_unit.delayed)),),
    "the channel forgets who asked first": ((dma, "Mux", last_request_first(Mux)),),
}


@pytest.mark.parametrize("edits", HARDWARE_MUTANTS.values(), ids=HARDWARE_MUTANTS)
def test_hardware_that_is_broken_is_noticed(edits, corpus_scale, tmp_path, monkeypatch):
    if corpus_scale == 1:
        pytest.skip("compiles RTL for each mutant: part of `make verify`")
    for module, name, replacement in edits:
        monkeypatch.setattr(module, name, replacement)
    machine = rtl_machine(NAME)
    rtl = CompiledRtl(machine, Path(_compile(tmp_path, machine)))
    results = [rtl_case(NAME, seed).compare(rtl) for seed in SEEDS]
    assert any(result.timing or result.numbers for result in results)
