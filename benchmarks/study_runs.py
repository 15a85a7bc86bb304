"""One run of the study: what is trained, on which data, towards which target, and what it takes on each machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gblr_hw.lowering.pipeline import lower
from gblr_hw.training.data import digits
from gblr_hw.training.fashion_mnist import FOLDER, fashion_mnist
from gblr_hw.training.hardware import Hardware, hardware_of
from gblr_hw.training.mixer import Mixer, MixerShape
from gblr_hw.training.networks import Family, Recipe, TrainedNetwork, train_network
from gblr_hw.training.target import UnreachableTargetError
from gblr_hw.training.vit import ViT, ViTShape
from simulator import Machine, simulate

IMAGES_AT_A_TIME = 16
DENSE_LEARNING_RATE = 3e-3
MEASURED_ON = ("edge-16", "mid-32", "cloud-128", "plain-32")

# Families as the study calls them; narrower and shallower are dense networks of other sizes, trained just as long.
FAMILIES: dict[str, Family] = {
    "dense": "dense",
    "narrower": "dense",
    "shallower": "dense",
    "low rank": "low_rank",
    "block low rank": "block_low_rank",
    "block sparse": "block_sparse",
    "GBLR, width shrinkage": "width",
    "GBLR, hardware cost": "hardware",
    "ranks": "lattice",
    "learned lattice": "learned",
}


@dataclass(frozen=True)
class Part:
    """A data set and a network: build(width, depth) makes the network; epochs before and after the dense start.

    budgets: training machine -> latencies wanted, as fractions of dense; what can be reached depends on how much of the
    time goes into inputs and outputs.
    """

    build: Callable[[int, int], nn.Module]
    width: int
    depth: int
    tokens: int
    dense_epochs: int
    epochs: int
    budgets: dict[str, tuple[float, ...]]
    fashion_images: int = 0

    def sets(self, folder: Path) -> Any:
        """Training and test set."""
        return _fashion(self.fashion_images, folder) if self.fashion_images else digits()


@cache
def _fashion(images: int, folder: Path) -> Any:
    return fashion_mnist(images, images // 3, folder)


def _digits_vit(width: int, depth: int) -> nn.Module:
    return ViT(ViTShape(width=width, depth=depth))


def _fashion_vit(width: int, depth: int) -> nn.Module:
    return ViT(ViTShape(image=28, patch=4, width=width, depth=depth))


def _fashion_mixer(width: int, depth: int) -> nn.Module:
    return Mixer(MixerShape(width=width, depth=depth, channel_hidden=2 * width))


_EDGE, _PLAIN = (0.8, 0.65, 0.5, 0.4, 0.3), (0.9, 0.8, 0.7, 0.6, 0.5)
PARTS = {
    "digits": Part(_digits_vit, 128, 2, 16, 12, 12, {"edge-16": _EDGE, "plain-32": _PLAIN}),
    "fashion-vit": Part(_fashion_vit, 96, 2, 49, 4, 6, {"edge-16": (0.9, 0.75, 0.65, 0.55, 0.45)}, 6000),
    "fashion-mixer": Part(_fashion_mixer, 64, 3, 64, 4, 6, {"edge-16": (0.95, 0.9, 0.85, 0.8, 0.7)}, 6000),
}


def run(
    part: str, machine: str, family: str, budget: float, seed: int, *, cache_folder: Path, data: Path = FOLDER
) -> dict[str, Any]:
    """Train one network from its dense start and measure it: a row of the study.

    Everything that takes long is kept in `cache_folder`, so that a run that is interrupted goes on. A target that a
    family cannot reach gives a row with the reason instead of an accuracy.
    """
    torch.set_num_threads(1)  # sums in another order would give another network on a machine with more cores
    plan = PARTS[part]
    hardware = hardware_of(Machine.load(machine), IMAGES_AT_A_TIME * plan.tokens)
    dense = _dense_start(part, seed, hardware, cache_folder, data)
    begin, dense_cycles = time.process_time(), hardware.measure(dense)
    row: dict[str, Any] = {"part": part, "machine": machine, "family": family, "budget": budget, "seed": seed}
    file = cache_folder / f"{part}.{machine}.{family.replace(' ', '_')}.{budget}.{seed}.pt"
    try:
        network = _train(plan, family, dense, budget * dense_cycles, seed, hardware, file, data)
    except UnreachableTargetError as error:
        return {**row, "unreachable": str(error)}
    file.unlink(missing_ok=True)
    return {
        **row,
        "kind": network.kind,
        "accuracy": network.accuracy,
        "loss": network.history[-1].loss,
        "share": network.reached / dense_cycles,
        **_on_machines(network.model, IMAGES_AT_A_TIME * plan.tokens),
        "cpu_s": round(time.process_time() - begin, 1),
    }


def _on_machines(model: nn.Module, tokens: int) -> dict[str, dict[str, float]]:
    cycles, energy = {}, {}
    for name in MEASURED_ON:
        machine = Machine.load(name)
        report = simulate(lower(model, machine, tokens=tokens), machine)
        cycles[name], energy[name] = int(report.latency_cycles), round(float(report.energy_pj))
    return {"latency_cycles": cycles, "energy_pj": energy}


def _dense_start(part: str, seed: int, hardware: Hardware, folder: Path, data: Path) -> nn.Module:
    """The dense network of a part and seed, trained once."""
    plan, file = PARTS[part], folder / f"{part}.dense.{seed}.pt"
    torch.manual_seed(seed)
    model = plan.build(plan.width, plan.depth)
    recipe = Recipe("dense", epochs=plan.dense_epochs, learning_rate=DENSE_LEARNING_RATE, seed=seed)
    # A finished run's file is read back without training.
    return train_network(recipe, model, *plan.sets(data), hardware, checkpoint=file).model


def _train(
    plan: Part, family: str, dense: nn.Module, target: float, seed: int, hardware: Hardware, file: Path, data: Path
) -> TrainedNetwork:
    sets = plan.sets(data)
    if family in ("narrower", "shallower"):
        torch.manual_seed(seed)
        model = _smaller(plan, family, hardware, target)
        epochs = plan.dense_epochs + plan.epochs
        recipe = Recipe("dense", epochs=epochs, learning_rate=DENSE_LEARNING_RATE, seed=seed)
        return train_network(recipe, model, *sets, hardware, checkpoint=file)
    recipe = replace(Recipe(FAMILIES[family]), epochs=plan.epochs, seed=seed)
    return train_network(recipe, dense, *sets, hardware, None if family == "dense" else target, checkpoint=file)


def _smaller(plan: Part, family: str, hardware: Hardware, target: float) -> nn.Module:
    """The widest dense network within the target: of full depth, or with a block less (or more, if it has to be)."""
    build = partial(_widest, plan, hardware, target)
    depths = [plan.depth] if family == "narrower" else range(plan.depth - 1, 0, -1)
    for depth in depths:
        if (model := build(depth)) is not None:
            return model
    raise UnreachableTargetError(
        "target", f"{target:.0f}", f"no {family} dense network is that quick", "Raise the target."
    )


def _widest(plan: Part, hardware: Hardware, target: float, depth: int) -> nn.Module | None:
    for width in range(plan.width, 7, -8):
        model = plan.build(width, depth)
        if hardware.measure(model) <= target:
            return model
    return None
