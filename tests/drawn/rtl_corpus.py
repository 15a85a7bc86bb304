"""Machines whose RTL is compiled, and seeded programs for them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from gblr_hw.lowering.pipeline import lower
from simulator.base.errors import InputError
from simulator.machine.machine import Machine
from simulator.numbers.execute import LayerNumbers
from simulator.program.isa import Instructions
from simulator.program.operations import PRODUCERS, TILE_OPS, After, Op
from simulator.program.program import Program
from simulator.rtl.bench.agreement import Agreement, compare, numbers_for
from simulator.rtl.bench.cosimulation import CompiledRtl, compile_rtl
from tests.drawn.mixed_layers import chain_program
from tests.drawn.strategies import ENERGY_TABLE, as_stored, generator, layer_weights

# rows, cols, scatter, rank banks, network and requantise cycles, vector lanes and latency, bytes a cycle, bits of
# weights, activations, accumulators and narrow weights, KiB of scratchpad, accumulator and rank memory.
_MACHINES = {
    "2x2": (2, 2, True, 2, 0, 0, 1, 0, 8, (8, 8, 32), (1, 1, 1)),
    "4x3": (4, 3, True, 11, 3, 3, 3, 5, 16, (8, 8, 32, 4), (2, 1, 8)),
    "3x7-plain": (3, 7, False, 7, 2, 1, 16, 2, 8, (8, 8, 32, 2), (2, 2, 1)),
    "8x8": (8, 8, True, 8, 5, 2, 8, 8, 16, (8, 8, 32), (2, 1, 4)),
    "5x16-narrow": (5, 16, True, 32, 1, 4, 4, 1, 8, (5, 6, 16), (3, 1, 2)),
    "16x2": (16, 2, True, 16, 4, 3, 2, 3, 16, (8, 8, 24, 4), (2, 1, 1)),
    "16x16": (16, 16, True, 16, 2, 1, 16, 4, 32, (6, 8, 32, 3), (4, 2, 4)),
    "7x5-plain": (7, 5, False, 8, 0, 2, 5, 0, 16, (7, 8, 32), (2, 1, 1)),
}
_WIDTHS = (
    "weight_bits",
    "activation_bits",
    "accumulator_bits",
    "narrow_bits",
)  # machines of three have no narrow tiles
NAMES = tuple(_MACHINES)
# By day six; at night also two of those that take longest.
BY_DAY = [pytest.param(name, marks=[pytest.mark.night] if name in ("16x16", "16x2") else []) for name in NAMES]
_BANDWIDTHS = (0.03, 0.2, 0.6, 1.0)  # of what the RTL was built for
_LATENCIES_NS = (0.0, 1.0, 3.0, 100.0)
PROGRAMS = 64  # a machine at corpus scale 1: 384 in all


def rtl_machine(name: str) -> Machine:
    """The machine for which RTL called ``name`` is built: bandwidth is the most that it takes."""
    rows, cols, scatter, banks, network, requantise, lanes, latency, beat, bits, memories = _MACHINES[name]
    return Machine.model_validate(
        {
            "schema": 1,
            "name": name,
            "array": {"rows": rows, "cols": cols, "clock_ghz": 1.0, "scatter": scatter},
            "datatypes": dict(zip(_WIDTHS, bits, strict=False)),
            "scratchpad": {"kib": memories[0], "banks": 1, "word_bits": 32},
            "accumulator": {"kib": memories[1], "banks": 2, "word_bits": 64},
            "rank_memory": {
                "kib": memories[2],
                "banks": banks,
                "word_bits": 32,
                "network_cycles": network,
                "requantise_cycles": requantise,
            },
            "weight_buffer": {"kib": 1, "banks": 1, "word_bits": 64},
            "dma": {"engines": 3},
            "dram": {"gb_per_s": float(beat), "latency_ns": 100.0, "burst_bytes": 24, "kind": "test"},
            "vector": {"lanes": lanes, "latency_cycles": latency, "parameter_kib": 4},
            "energy": {"table": str(ENERGY_TABLE)},
        }
    )


def compiled(name: str, folder: Path, *, mix: bool = True) -> CompiledRtl:
    """The RTL called ``name``, compiled into ``folder`` if it is not there yet. ``mix``: as in ``Sizes``."""
    return compile_rtl(rtl_machine(name), folder, mix=mix)


@dataclass(frozen=True, eq=False)
class Case:
    """A program, its machine, and the integers of every layer for one set of inputs."""

    machine: Machine
    program: Program
    numbers: tuple[LayerNumbers, ...]

    def compare(self, rtl: CompiledRtl, memory_seed: int = 1) -> Agreement:
        """RTL against engine and ``execute``."""
        return compare(rtl, self.program, self.machine, self.numbers, memory_seed)


def rtl_case(name: str, seed: int) -> Case:
    """Layers of every family, or chains of ranks where there is scatter; most of them kept in their stored form and half
    of those with random bank conflicts.
    """
    rng = generator(seed)
    built = rtl_machine(name)
    while True:
        bandwidth = built.dram.gb_per_s * float(rng.choice(_BANDWIDTHS))
        machine = built.with_(
            dma={"engines": int(rng.integers(1, 4))},
            dram={"gb_per_s": bandwidth, "latency_ns": float(rng.choice(_LATENCIES_NS))},
        )
        weights = {f"layer{i}": layer_weights(rng, machine) for i in range(int(rng.integers(1, 4)))}
        tokens = int(rng.choice([1, 2, 7, 25]))
        try:
            if machine.scatter and rng.random() < 0.3:
                program = chain_program(rng, machine, len(weights), tokens, keep=bool(rng.random() < 0.75))
            elif rng.random() < 0.75:
                program = as_stored(weights, machine, tokens, rng)
            else:
                program = lower(weights, machine, tokens=tokens)
        except InputError as error:
            if "one token needs" not in str(error) and "biases and multipliers" not in str(error):
                raise
        else:
            return Case(machine, program, numbers_for(program, seed))


def with_random_waits(case: Case, rng: np.random.Generator) -> Case:
    """The same instructions waiting for other producers than they should: a test of timing, not of numbers.

    What keeps a tile's record in its slot while it is in use stays: the hardware finds its bank conflicts there.
    """
    ins = case.program.instructions
    is_tile = np.isin(ins.op, TILE_OPS)
    kept = {After.WEIGHTS: is_tile, After.ARRAY: ins.op == Op.LOAD_WEIGHTS, After.STORE: is_tile}
    after = ins.after.copy()
    for column, producers in PRODUCERS.items():
        there = np.flatnonzero(np.isin(ins.op, producers))
        free = ~kept.get(column, np.zeros(len(ins), dtype=bool))
        for i in np.flatnonzero(free & (rng.random(len(ins)) < 0.3)):
            earlier = there[: np.searchsorted(there, i)]
            after[column, i] = rng.choice(earlier) if len(earlier) and rng.random() < 0.7 else -1
    columns = {name: getattr(ins, name) for name in ins.__dataclass_fields__ if name != "after"}
    program = replace(case.program, instructions=Instructions(after=after, **columns))
    return replace(case, program=program)
