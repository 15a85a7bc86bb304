"""How long ViT-Base takes to simulate, beside PyTorch on the same core.

python -m benchmarks.speed.engine_speed [--out engine_speed.json]

One process on one core, one thread. Every round simulates each program and runs the network's 50 linears once in
PyTorch (197 rows, float32), one after the other; a figure is the median over the rounds, a ratio the median of the
rounds' ratios. "fresh": on a Program object made anew, so that nothing is remembered from an earlier simulation. The
report is included, the making of the object is not: a program is checked when it is made, whoever reads it.
About 1 minute.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before numpy and torch are loaded

from dataclasses import fields, replace
from statistics import median

import torch
from torch.nn.functional import linear

from benchmarks.shared.measurement import cpu_seconds, out_option, stay_on_one_core, write_json
from benchmarks.speed.tables import engine_table
from benchmarks.speed.vit_base import FORMS, TOKENS, vit_base
from gblr_hw import lower
from gblr_hw.weights.stored import DenseWeights
from simulator import Machine, Program, simulate
from simulator.program.operations import TILE_OPS, is_any
from simulator.program.schedule import TileTable
from simulator.timing.durations import resolve_timing
from simulator.timing.engine import run_engine

MACHINES = ("mid-32", "cloud-128")
ROUNDS = 15


def fresh(program: Program) -> Program:
    """An equal program that shares no derived columns with ``program``."""
    layers = tuple(
        replace(layer, tiles=TileTable(**{f.name: getattr(layer.tiles, f.name) for f in fields(TileTable)}))
        for layer in program.layers
    )
    return replace(program, layers=layers)


def run_linears(layers: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]]) -> None:
    with torch.no_grad():
        for rows, weight, bias in layers:
            linear(rows, weight, bias)


def measure(programs: dict[tuple[str, str], Program]) -> list[dict[str, object]]:
    """A row a program."""
    dense = [weights for weights in vit_base("dense").values() if isinstance(weights, DenseWeights)]
    linears = [(torch.randn(TOKENS, w.in_features), w.weight, w.bias) for w in dense]
    samples: dict[tuple[str, str], list[tuple[float, float, float, float]]] = {key: [] for key in programs}
    for _ in range(ROUNDS + 1):
        for key, program in programs.items():
            machine, anew = program.machine, fresh(program)
            timing = resolve_timing(program, machine)
            samples[key].append(
                (
                    cpu_seconds(lambda p=program, m=machine: simulate(p, m)),
                    cpu_seconds(lambda p=anew, m=machine: simulate(p, m)),
                    cpu_seconds(lambda t=timing: run_engine(t)),
                    cpu_seconds(lambda: run_linears(linears)),
                )
            )
    rows = []
    for (form, name), program in programs.items():
        rounds = samples[form, name][1:]  # the first one compiles and warms up
        warm, anew_s, engine, pytorch = (median(values) for values in zip(*rounds, strict=True))
        cycles = simulate(program, program.machine).latency_cycles
        rows.append(
            {
                "form": form,
                "machine": name,
                "instructions": len(program.instructions),
                "passes": int(is_any(program.instructions.op, TILE_OPS).sum()),
                "cycles": cycles,
                "warm_s": warm,
                "fresh_s": anew_s,
                "engine_s": engine,
                "cycles_per_s": cycles / warm,
                "pytorch_s": pytorch,
                "of_pytorch": median(mine / theirs for mine, _, _, theirs in rounds),
                "samples": rounds,
            }
        )
    return rows


def main() -> None:
    options = out_option(__doc__)
    stay_on_one_core()
    torch.set_num_threads(1)
    programs = {
        (form, name): lower(vit_base(form), Machine.load(name), tokens=TOKENS) for form in FORMS for name in MACHINES
    }
    data = {"speed": measure(programs)}
    print(engine_table(data), end="")
    write_json(options.out, **data)


if __name__ == "__main__":
    main()
