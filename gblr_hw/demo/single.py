"""One network of a family, from its dense start to its target: what ``gblr-hw train`` runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from gblr_hw.cost.target import Target
from gblr_hw.demo.data import digits
from gblr_hw.models.vit import ViT, ViTShape
from gblr_hw.training.loop.loop import EpochRecord
from gblr_hw.training.measure.hardware import Unit, hardware_of
from gblr_hw.training.measure.whole_hardware import whole_hardware_of
from gblr_hw.training.networks import Family, Recipe, TrainedNetwork, train_network
from simulator.machine.machine import Machine

DEMO_SHAPE = ViTShape(width=128)
DENSE_LEARNING_RATE = 3e-3

Report = Callable[[int, int, str], None]


def train_single(
    family: Family,
    machine: Machine,
    target: Target | None,
    *,
    energy: bool = False,
    whole_network: bool = False,
    images: int = 16,
    epochs: int = 12,
    seed: int = 0,
    device: str = "cpu",
    distil_weight: float = 0.0,
    checkpoint: Path | None = None,
    progress: Report | None = None,
) -> tuple[TrainedNetwork, float]:
    """Train a digits ViT of one family; returns it and what the dense network takes: cycles, or pJ with `energy`, the
    target then being one in joules; of its linear layers, or of the `whole_network`.

    The dense start is trained for as many epochs as the family gets after it; with a `checkpoint` file (CHECKPOINT and
    CHECKPOINT.dense) both go on where an interrupted run stopped. progress(done, of, what) is called after
    every epoch. Raises InputError for a target that is not below the dense latency or that cannot be reached.
    """
    train_set, test_set = digits()
    unit: Unit = "pJ" if energy else "cycles"
    hardware = hardware_of(machine, images * DEMO_SHAPE.tokens, unit)
    torch.manual_seed(seed)
    start = ViT(DEMO_SHAPE)

    def report(what: str) -> Callable[[EpochRecord], None]:
        def tell(record: EpochRecord) -> None:
            if progress is not None:
                progress(record.epoch, record.epochs, f"{what}: accuracy {record.accuracy:.1%}")

        return tell

    base = Recipe("dense", epochs=epochs, learning_rate=DENSE_LEARNING_RATE, seed=seed, device=device)
    dense_file = None if checkpoint is None else checkpoint.with_name(checkpoint.name + ".dense")
    dense = train_network(
        base, start, train_set, test_set, hardware, progress=report("dense start"), checkpoint=dense_file
    )
    if whole_network:
        example = (torch.zeros(images, DEMO_SHAPE.image, DEMO_SHAPE.image),)
        hardware = whole_hardware_of(machine, dense.model, example, images * DEMO_SHAPE.tokens, unit)
        dense = replace(dense, reached=hardware.measure(dense.model))
    if family == "dense":
        return dense, dense.reached
    if target is None:
        wanted = None
    else:
        wanted = target.picojoules(dense.reached) if energy else target.cycles(dense.reached, machine.clock_ghz)
    recipe = replace(Recipe(family), epochs=epochs, seed=seed, device=device, distil_weight=distil_weight)
    network = train_network(recipe, dense.model, train_set, test_set, hardware, wanted, report(family), checkpoint)
    return network, dense.reached
