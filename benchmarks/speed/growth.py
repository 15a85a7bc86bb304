"""Time and memory of a program as it grows, from a thousand tiles to ten million.

python -m benchmarks.speed.growth [--most 1e7] [--out growth.json]

The layer of benchmarks/structures/random_layer.py (768 x 768, 768 blocks on random cyclic intervals, about 29 lanes a
tile), for 64 tokens on mid-32, as many times as it takes. Every copy has a tile table of its own; they share one set of
weights, which are 5 bytes each at any size (about 3.6 kB a tile). Each size has a process of its own, and its memory is
that process's peak less what it had before (- where no more than that was ever needed). Times are CPU times of one
thread in the program; what the system adds, mostly to hand out memory, is a column of its own.
About 2 minutes and 10 GB at ten million tiles.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from benchmarks.shared.measurement import write_json
from benchmarks.speed.tables import growth_table

TOKENS = 64
LEAST_TILES = 500_000  # small programs are repeated up to so many
SIZES = (1e3, 1e4, 1e5, 1e6, 1e7)


def measure(size: float) -> dict[str, object]:
    """One size, in this process."""
    from benchmarks.structures.random_layer import random_blocks
    from gblr_hw import lower
    from gblr_hw.lowering.emit.emit import emit_instructions
    from simulator import Machine, Program, simulate
    from simulator.program.schedule import TileTable

    machine = Machine.load("mid-32")
    seed = lower({"layer": random_blocks()}, machine, tokens=TOKENS)
    simulate(seed, machine)  # compiles
    one, kept = seed.layers[0], {}

    def make_tables() -> None:
        names = [field.name for field in fields(TileTable)]
        kept["layers"] = tuple(
            replace(one, name=f"layer{i}", tiles=TileTable(**{name: getattr(one.tiles, name).copy() for name in names}))
            for i in range(max(1, round(size / len(one.tiles))))
        )

    def make_instructions() -> None:
        kept["instructions"] = emit_instructions(kept["layers"], machine, TOKENS)

    def make_program() -> None:
        kept["program"] = Program(machine, TOKENS, kept["layers"], kept["instructions"], {})

    def simulated() -> None:
        kept["cycles"] = simulate(kept["program"], machine).latency_cycles

    before = peak_bytes()
    steps = {"tables": make_tables, "emit": make_instructions, "check": make_program, "simulate": simulated}
    times, system = {}, 0.0
    repeats = max(1, round(LEAST_TILES / size))  # the system counts in ticks
    for name, step in steps.items():
        begin = resource.getrusage(resource.RUSAGE_SELF)
        for _ in range(repeats):
            step()
        end = resource.getrusage(resource.RUSAGE_SELF)
        times[name] = (end.ru_utime - begin.ru_utime) / repeats
        system += (end.ru_stime - begin.ru_stime) / repeats
    grown = peak_bytes() - before
    tiles, program = kept["program"].tile_count, kept["program"]
    held = sum(getattr(program.instructions, f.name).nbytes for f in fields(program.instructions))
    return {
        "tiles": tiles,
        "instructions": len(program.instructions),
        "cycles": kept["cycles"],
        **{f"{name}_ns": 1e9 * seconds / tiles for name, seconds in times.items()},
        "instruction_bytes": held / tiles,
        "table_bytes": sum(getattr(one.tiles, f.name).nbytes for f in fields(TileTable)) / len(one.tiles),
        "system_ns": 1e9 * system / tiles,
        "peak_bytes": grown / tiles if grown > 0 else None,
        "peak_gib": (before + grown) / 2**30,
    }


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def in_a_process(size: float) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.speed.growth", "--one", str(size)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--most", type=float, default=SIZES[-1], help="largest number of tiles [default: 1e7]")
    parser.add_argument("--out", type=Path, help="write all figures as JSON")
    parser.add_argument("--one", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one)))
        return
    rows = [in_a_process(size) for size in SIZES if size <= options.most]
    print(growth_table({"growth": rows}), end="")
    write_json(options.out, growth=rows)


if __name__ == "__main__":
    main()
