"""The seeded corpus on which the engines must agree, and what it reaches: ``python -m tests.drawn.corpus [scale] [--out
docs/data/corpus.json]`` prints it, in a minute at scale 1.
"""

from __future__ import annotations

import argparse
from collections import Counter
from dataclasses import dataclass, field, fields
from itertools import pairwise
from pathlib import Path

import numpy as np

from benchmarks.shared.measurement import write_json
from simulator.machine.machine import Machine
from simulator.program.operations import TILE_OPS, After, Op, Unit
from simulator.program.program import Program
from simulator.timing.durations import Timing, resolve_timing
from simulator.timing.engine import STALL_NAMES, STALL_NONE, Events, run_engine
from simulator.timing.reference import run_reference
from simulator.timing.reference_durations import reference_timing
from simulator.timing.simulate import simulate
from tests.drawn.random_networks import built_network
from tests.drawn.random_programs import built_program, generator, random_timing
from tests.drawn.strategies import case
from tests.oracles.slow_counter import access_differences, differences

# Programs of each kind at scale 1: 2,000 in all.
SIZES = {"columns": 600, "soup": 330, "chain": 330, "phases": 330, "networks": 220, "lowered": 190}
_DRAM = [
    {"gb_per_s": 0.2, "latency_ns": 300.0},
    {"gb_per_s": 3.0},
    {"gb_per_s": 5000.0, "latency_ns": 0.0},
]
_CORNERS = [(2, 2), (2, 16), (16, 2), (16, 16), (3, 5), (8, 8)]


@dataclass
class Survey:
    """What became of a part of the corpus: differences found, and programs (or instructions) that have a feature."""

    programs: int = 0
    found: list[str] = field(default_factory=list)
    features: Counter[str] = field(default_factory=Counter)


def member(kind: str, seed: int) -> tuple[Timing, Machine | None, Program | None]:
    """One program of the corpus, and what it was made for; bare columns have no machine."""
    if kind == "columns":
        return random_timing(generator(seed)), None, None
    if kind == "lowered":
        changes: dict[str, dict[str, object]] = {"dma": {"engines": 1 + seed % 3}, "dram": _DRAM[seed // 3 % 3]}
        if seed % 5 == 0:
            rows, cols = _CORNERS[seed // 5 % len(_CORNERS)]
            changes |= {"array": {"rows": rows, "cols": cols}, "rank_memory": {"banks": max(rows, cols)}}
        layers, tokens = (1, 1, 1, 2, 3)[seed % 5], (None, 1, 5, 23)[seed % 4]
        machine, _, program = case(400_000 + seed, layers=layers, tokens=tokens, **changes)
    elif kind == "networks":
        machine, program = built_network(generator(seed))
    else:
        machine, program = built_program(generator(seed), kind)
    return resolve_timing(program, machine), machine, program


def compare(kind: str, seed: int, features: Counter[str] | None = None) -> list[str]:
    """What differs between the engines, and for programs between report and slow counter; ``features`` are added to."""
    timing, machine, program = member(kind, seed)
    own = timing if program is None or machine is None else reference_timing(program, machine)
    fast, slow = run_engine(timing), run_reference(own)
    unlike = [f.name for f in fields(Events) if not np.array_equal(getattr(fast, f.name), getattr(slow, f.name))]
    if program is not None and machine is not None:
        unlike += differences(simulate(program, machine), program, machine, slow)
        unlike += access_differences(program, machine)
    if features is not None:
        _note_timing(features, timing, slow)
        if program is not None and machine is not None:
            _note_program(features, program, machine)
    return unlike


def survey(kind: str, scale: int) -> Survey:
    """``compare`` over one kind of the corpus."""
    result = Survey()
    for seed in range(SIZES[kind] * scale):
        result.found += [f"{kind} {seed}: {what}" for what in compare(kind, seed, result.features)]
        result.programs += 1
    return result


def _note_timing(features: Counter[str], timing: Timing, events: Events) -> None:
    """Instructions by operation and stall cause, and programs by what happens in them."""
    for op in timing.op.tolist():
        features[Op(op).name] += 1
    for unit, stall in zip(timing.unit.tolist(), events.stall.tolist(), strict=True):
        features[f"{'array' if unit == Unit.ARRAY else 'other'} stall {STALL_NAMES[stall]}"] += 1
    after, last = timing.after, np.where(timing.after >= 0, events.done[np.maximum(timing.after, 0)], -1).max(axis=0)
    behind = (after == np.arange(after.shape[1]) - 1).any(axis=0)
    busy = int(timing.busy[timing.is_transfer].sum())
    total = int(events.done.max(initial=0))
    facts = {
        "back-to-back dependence, started as it was done": (behind & (events.start == last) & (last > 0)).any(),
        "two requests in one cycle": _tied_requests(timing, events),
        "served before a later request of a lower unit": _overtaken(timing, events),
        "lead longer than the preload": (timing.lead > timing.preload)[timing.is_tile].any(),
        "starved: channel busy over 90 %": busy > 0.9 * total,
        "flooded: channel busy under 5 %": busy < 0.05 * total,
        "streaming bound: two tiles without a gap": _gapless(timing, events),
    }
    features.update(name for name, true in facts.items() if true)


def _requests(timing: Timing, events: Events) -> dict[int, list[int]]:
    """Cycle in which each transfer asks for the channel -> transfers, from the events alone (rule D3)."""
    free: dict[int, int] = {}
    asked: dict[int, list[int]] = {}
    for i in np.flatnonzero(timing.is_transfer).tolist():
        unit = int(timing.unit[i])
        done = [int(events.done[d]) for d in timing.after[:, i] if d >= 0]
        asked.setdefault(max([free.get(unit, 0), *done]), []).append(i)
        free[unit] = int(events.end[i])
    return asked


def _tied_requests(timing: Timing, events: Events) -> bool:
    return any(len(transfers) > 1 for transfers in _requests(timing, events).values())


def _overtaken(timing: Timing, events: Events) -> bool:
    """Some transfer of a higher unit is served before a waiting one of a lower unit, because it asked earlier."""
    asked = [(cycle, i) for cycle, transfers in _requests(timing, events).items() for i in transfers]
    return any(
        early < late < events.start[i] < events.start[j] and timing.unit[i] > timing.unit[j]
        for early, i in asked
        for late, j in asked
    )


def _gapless(timing: Timing, events: Events) -> bool:
    tiles = np.flatnonzero(timing.is_tile)
    return bool(
        (events.start[tiles][1:] == events.end[tiles][:-1]).any() and (events.stall[tiles][1:] == STALL_NONE).any()
    )


def _note_program(features: Counter[str], program: Program, machine: Machine) -> None:
    ins, rows, cols = program.instructions, machine.rows, machine.cols
    is_tile = np.isin(ins.op, TILE_OPS)
    loads = ins.op == Op.LOAD_WEIGHTS
    repeats = len(set(zip(ins.layer[loads].tolist(), ins.tile[loads].tolist(), strict=True))) < loads.sum()
    top = {Op.LOAD_INPUT: (ins.dst, rows), Op.DRAIN: (ins.dst, cols), Op.STORE: (ins.src, cols)}
    pad = [
        ((ins.op == op) & (place + ins.tokens * side == machine.scratchpad.size_bytes)).any()
        for op, (place, side) in top.items()
    ]
    tiles = np.flatnonzero(is_tile & (ins.after[After.WEIGHTS] >= 0))
    shared = len(set(ins.after[After.WEIGHTS, tiles].tolist())) < len(tiles)
    vector = ins.op == Op.VECTOR
    sums = (np.isin(ins.op, (Op.DENSE, Op.EXPAND))) & (ins.dst + ins.tokens == machine.accumulator_rows)
    ranks = [
        layer.ranks and (layer.held_slots + 1) * layer.block_tokens > machine.rank_rows_per_bank
        for layer in program.layers
    ]
    facts = {
        f"{machine.dma.engines} DMA engines": True,
        "scatter" if machine.scatter else "plain array": True,
        "P < Q" if rows < cols else "P > Q" if rows > cols else "P = Q": True,
        f"P = {rows}": True,
        f"Q = {cols}": True,
        "T = 1": (ins.tokens[is_tile] == 1).any(),
        "m > 1": (ins.row_cycles[is_tile] > 1).any(),
        "several layers": len(program.layers) > 1,
        "several tiles wait for one load": shared,
        "two operands": (vector & (ins.other >= 0)).any(),
        "a run of a vector operator's chunks": (vector & (ins.tile >= 0)).any(),
        "activations as weights": any(layer.form == "activations" for layer in program.layers),
        "several token blocks": any(layer.block_tokens < program.tokens for layer in program.layers),
        "weights loaded again": repeats,
        "weight buffer: its last slot": (ins.slot == machine.weight_slots - 1).any(),
        "scratchpad: its last byte": any(pad),
        "accumulator: its last row": sums.any(),
        "rank memory: no room for another slot": any(ranks),
        "output chunk without tiles": ((ins.op == Op.DRAIN) & (ins.accumulate == 0)).any(),
        "narrow tiles": any(layer.tiles.narrow.any() for layer in program.layers),
        "a narrow tile behind a wide one": _narrow_behind_wide(program),
        "tile without stored weights": any((np.diff(layer.tiles.weight_ptr) == 0).any() for layer in program.layers),
    }
    features.update(name for name, true in facts.items() if true)


def _narrow_behind_wide(program: Program) -> bool:
    ins = program.instructions
    tiles = np.flatnonzero(np.isin(ins.op, TILE_OPS))
    narrow = [bool(program.layers[ins.layer[i]].tiles.narrow[ins.tile[i]]) for i in tiles]
    return any(after and not before for before, after in pairwise(narrow))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scale", type=int, nargs="?", default=1, help="of the numbers of programs")
    parser.add_argument("--out", type=Path, help="write what it reaches as JSON")
    options = parser.parse_args()
    total: Counter[str] = Counter()
    programs, found = {}, 0
    for kind in SIZES:
        part = survey(kind, options.scale)
        print(f"{kind}: {part.programs} programs, {len(part.found)} differences")
        total.update(part.features)
        programs[kind], found = part.programs, found + len(part.found)
    for name, count in sorted(total.items()):
        print(f"  {count:8d} {name}")
    write_json(
        options.out, scale=options.scale, programs=programs, differences=found, features=dict(sorted(total.items()))
    )


if __name__ == "__main__":
    main()
