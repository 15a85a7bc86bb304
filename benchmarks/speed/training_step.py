"""What a training step costs: dense, GBLR with masks and with the hardware cost, lattice layers masked and packed.

``python -m benchmarks.speed.training_step [--compile] [--width 256] [--tiles 0.3] [--device cpu]``: a digits ViT of
depth 2 in batches of 64 images, P = Q = 16, one thread. CPU seconds of whole steps (forward, backward, clipping, AdamW,
hooks), the kinds taking turns so that a loaded machine slows all alike; medians, as ratios. The hardware cost is
evaluated as training does, every fourth step. With CUDA, seconds are wall time between synchronisations.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from analysis.tables.table import Column, format_table
from benchmarks.shared.measurement import write_json
from benchmarks.speed.tables import TRAINING_STEPS, hundredths, number
from gblr_hw.conversion.from_dense import layer_start
from gblr_hw.cost.target import TargetController
from gblr_hw.layers.replace import set_module
from gblr_hw.models.vit import ViT, ViTShape
from gblr_hw.projection.projection import Importance, project_jointly
from gblr_hw.training.gblr_start import gblr_from_linear
from gblr_hw.training.loop.loop import Hook
from gblr_hw.training.measure.hardware import hardware_of
from gblr_hw.training.shrink.penalties import HardwarePenalty
from gblr_hw.training.shrink.project_training import lattice_layers
from gblr_hw.training.swap import matching_linears
from gblr_hw.weights.structure import dense_tile_count
from simulator.machine.machine import Machine

P = 16
BATCH = 64
LAYERS = r"blocks\..*"


def gblr(model: ViT) -> ViT:
    """The network with GBLR layers."""
    for index, name in enumerate(matching_linears(model, LAYERS)):
        set_module(model, name, gblr_from_linear(model.get_submodule(name), seed=index))
    return model


def lattice(model: ViT, share: float, *, dense: bool, packed: bool) -> ViT:
    """The network with lattice layers of ranks, or of dense tiles, at `share` of the dense tiles."""
    rng, budget = np.random.default_rng(0), 0.0
    for name in matching_linears(model, LAYERS):
        linear = model.get_submodule(name)
        budget += share * dense_tile_count(linear.out_features, linear.in_features, P, P)
        set_module(model, name, layer_start(linear, "block_sparse" if dense else "lattice", P, P))
    problem = {}
    for name, layer in lattice_layers(model).items():
        structure = layer.structure
        worth = rng.exponential(size=(len(structure.reads), 1)) ** 2  # ranks differ, as singular values do
        sides = (worth * rng.exponential(size=side.shape) for side in (structure.reads, structure.writes))
        problem[name] = structure, Importance(rng.exponential(size=structure.tiles.shape), *sides)
    for name, structure in project_jointly(problem, budget, P, P).items():
        lattice_layers(model)[name].set_structure(structure)
        lattice_layers(model)[name].pack(packed)
    return model


def stepper(model: nn.Module, hooks: list[Hook], device: str, compiled: bool) -> Callable[[], float]:
    """A function that makes one training step and returns its seconds."""
    model = model.to(device)
    run = torch.compile(model) if compiled else model
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4)
    images, labels = torch.randn(BATCH, 8, 8, device=device), torch.randint(10, (BATCH,), device=device)

    def step() -> float:
        begin = _now(device)
        loss = functional.cross_entropy(run(images), labels)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        for hook in hooks:
            hook.after_step(model, 0.5, 1e-4)
        return _now(device) - begin

    return step


def _now(device: str) -> float:
    if device.startswith("cuda"):
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--compile", action="store_true", help="the same under torch.compile")
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--tiles", type=float, default=0.3, help="tiles of the lattice networks, of dense")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=12, help="four steps of each kind a round")
    parser.add_argument("--out", type=Path, help="write the figures into this JSON file, beside those of the other way")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    start = ViT(ViTShape(width=options.width))
    machine = Machine.load("edge-16")
    hardware = hardware_of(machine, BATCH * start.shape.tokens)
    assert hardware.cost is not None
    penalty = HardwarePenalty(TargetController(1.0), hardware.cost)
    kinds: dict[str, tuple[nn.Module, list[Hook]]] = {
        "dense": (copy.deepcopy(start), []),
        "GBLR, masks": (gblr(copy.deepcopy(start)), []),
        "GBLR, masks and hardware cost": (gblr(copy.deepcopy(start)), [penalty]),
        "ranks, masked": (lattice(copy.deepcopy(start), options.tiles, dense=False, packed=False), []),
        "ranks, packed": (lattice(copy.deepcopy(start), options.tiles, dense=False, packed=True), []),
        "dense tiles, masked": (lattice(copy.deepcopy(start), options.tiles, dense=True, packed=False), []),
        "dense tiles, packed": (lattice(copy.deepcopy(start), options.tiles, dense=True, packed=True), []),
    }
    steps = {name: stepper(*kind, options.device, options.compile) for name, kind in kinds.items()}
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(options.rounds):
        for name, step in steps.items():
            seconds[name].append(sum(step() for _ in range(4)) / 4)
    # The first rounds compile and fill caches.
    medians = {name: statistics.median(times[2:]) for name, times in seconds.items()}
    dense, masked = medians["dense"], medians["GBLR, masks"]
    found = {
        name: {"ms": 1e3 * value, "of_dense": value / dense, "of_gblr": value / masked}
        for name, value in medians.items()
    }
    columns = (
        Column("step", "step", align="left"), Column("ms", "ms", lambda value: f"{number(value):.1f}"),
        Column("of dense", "of_dense", hundredths), Column("of GBLR with masks", "of_gblr", hundredths),
    )  # fmt: skip
    print(format_table(columns, [{"step": name, **one} for name, one in found.items()], markdown=True))
    if options.out is not None:
        # The other way of running stays in the file: the table shows both side by side.
        kept = json.loads(options.out.read_text(encoding="utf-8")) if options.out.exists() else {}
        kept = {way: kept[way] for way in TRAINING_STEPS if way in kept}
        write_json(options.out, **kept | {TRAINING_STEPS[options.compile]: found})


if __name__ == "__main__":
    main()
