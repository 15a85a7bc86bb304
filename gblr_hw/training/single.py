"""One network of a family, from its dense start to its target: what ``gblr-hw train`` runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from gblr_hw.training.data import digits
from gblr_hw.training.hardware import hardware_of
from gblr_hw.training.loop import EpochRecord
from gblr_hw.training.networks import Family, Recipe, TrainedNetwork, train_network
from gblr_hw.training.target import Target
from gblr_hw.training.vit import ViT, ViTShape
from simulator.machine import Machine

DEMO_SHAPE = ViTShape(width=128)
DENSE_LEARNING_RATE = 3e-3

Report = Callable[[int, int, str], None]


def train_single(
    family: Family,
    machine: Machine,
    target: Target | None,
    *,
    images: int = 16,
    epochs: int = 12,
    seed: int = 0,
    device: str = "cpu",
    progress: Report | None = None,
) -> tuple[TrainedNetwork, float]:
    """Train a digits ViT of one family; returns it and the dense network's simulated latency in cycles.

    The dense start is trained for as many epochs as the family gets after it. progress(done, of, what) is called after
    every epoch. Raises InputError for a target that is not below the dense latency or that cannot be reached.
    """
    train_set, test_set = digits()
    hardware = hardware_of(machine, images * DEMO_SHAPE.tokens)
    torch.manual_seed(seed)
    start = ViT(DEMO_SHAPE)

    def report(what: str) -> Callable[[EpochRecord], None]:
        def tell(record: EpochRecord) -> None:
            if progress is not None:
                progress(record.epoch, record.epochs, f"{what}: accuracy {record.accuracy:.1%}")

        return tell

    base = Recipe("dense", epochs=epochs, learning_rate=DENSE_LEARNING_RATE, seed=seed, device=device)
    dense = train_network(base, start, train_set, test_set, hardware, progress=report("dense start"))
    if family == "dense":
        return dense, dense.latency_cycles
    cycles = None if target is None else target.cycles(dense.latency_cycles, machine.clock_ghz)
    recipe = replace(Recipe(family), epochs=epochs, seed=seed, device=device)
    network = train_network(recipe, dense.model, train_set, test_set, hardware, cycles, report(family))
    return network, dense.latency_cycles
