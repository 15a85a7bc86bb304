"""One run of the study: what is trained, on which data, towards which target, and what it takes on each machine."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from analysis.pictures.family_marks import REFERENCE
from benchmarks.study.choose_start import DenseStart, choose_start
from benchmarks.study.mixer import GreyMixer, GreyMixerShape
from benchmarks.study.right_ones import as_text, right_ones
from gblr_hw.cost.target import UnreachableTargetError
from gblr_hw.demo.data import digits
from gblr_hw.demo.fashion_mnist import FOLDER, fashion_mnist
from gblr_hw.files.checkpoint import save_checkpoint
from gblr_hw.frontend import export_network
from gblr_hw.lowering.pipeline import lower
from gblr_hw.lowering.whole_network import lower_network
from gblr_hw.models.vit import ViT, ViTShape
from gblr_hw.training.measure.hardware import Hardware, hardware_of
from gblr_hw.training.measure.whole_hardware import whole_hardware_of
from gblr_hw.training.networks import train_network
from gblr_hw.training.recipe import Recipe, TrainedNetwork
from gblr_hw.weights.family import FAMILIES, trained
from simulator import Machine, simulate

DENSE_LEARNING_RATE = 3e-3
FASHION_TEST_IMAGES = 1000
MEASURED_ON = ("edge-16", "mid-32", "cloud-128", "plain-32")
# The seed whose networks are kept, to be looked into.
SHOWN_SEED = 0

# What the study calls a family: by its label, but for those that had another word when its results were recorded.
_WORDS = {"width": "GBLR, width shrinkage", "hardware": "GBLR, hardware cost", "lattice": "ranks"}
# Narrower and shallower are dense networks of other sizes, trained just as long.
RIVALS = {
    "narrower": Recipe(REFERENCE),
    "shallower": Recipe(REFERENCE),
    **{
        _WORDS.get(name, family.label): Recipe(name)
        for name, family in FAMILIES.items()
        if name in trained() and family.needs_target and not family.from_scratch
    },
}
# Trained from scratch, it needs more epochs than the study gives: benchmarks/study/trained_out.py has it.
SCRATCH = {
    family.label: Recipe(name) for name, family in FAMILIES.items() if family.from_scratch and family.needs_target
}
# Penalty only: the cost alone goes to the target, and one projection takes what it leaves above. Projection only: from
# the same GBLR start, with a penalty that never acts.
ABLATION = {
    "GBLR, penalty only": Recipe("hardware", penalty_fraction=0.0, penalty_share=0.6, project_end=0.06),
    "GBLR, projection only": Recipe("hardware", penalty_fraction=10.0),
    "ranks, intervals": Recipe("lattice", intervals_only=True),
    "ranks, regrow": Recipe("lattice", regrow=0.1),
}
# Automatic choice on top of a dense network of full, three quarters' or half width, or narrower dense.
ANY_WIDTH = {"automatic choice, any width": Recipe("learned")}
NETWORKS = {REFERENCE: Recipe(REFERENCE), **RIVALS, **SCRATCH, **ANY_WIDTH, **ABLATION}
# What a permutation network changes; all else runs in the same cycles with and without one.
SCATTERED = ("GBLR, width shrinkage", "GBLR, hardware cost", "ranks", "automatic choice", *ANY_WIDTH)

# Families that are chosen whole are trained in one setting: their fits take as long as the training itself.
_CUT = tuple(name for name, recipe in RIVALS.items() if not recipe.entry.whole)
_LATTICE_ONLY = ("GBLR, hardware cost", "ranks")


@dataclass(frozen=True)
class Setting:
    """Latencies to reach on a machine, as fractions of dense, and the families that are trained for it.

    What can be reached depends on how much of the time goes into attention, norms, inputs and outputs.
    """

    budgets: tuple[float, ...]
    families: tuple[str, ...] = (*_CUT, *ANY_WIDTH)


@dataclass(frozen=True)
class Part:
    """A data set and a network: build(width, depth) makes the network; epochs before and after the dense start.

    image: pixels along a side; tokens: activation rows an image. settings: by training machine.
    """

    build: Callable[[int, int], nn.Module]
    width: int
    depth: int
    image: int
    tokens: int
    dense_epochs: int
    epochs: int
    settings: dict[str, Setting]
    fashion_images: int = 0

    def longer(self, times: int) -> Part:
        """The same with so many times the epochs, before and after the dense start."""
        return replace(self, dense_epochs=times * self.dense_epochs, epochs=times * self.epochs)

    def sets(self, folder: Path) -> Any:
        """Training and test set."""
        return _fashion(self.fashion_images, folder) if self.fashion_images else digits()

    @property
    def example(self) -> tuple[Tensor]:
        """Inputs that the network is lowered for: one image at a time."""
        return (torch.zeros(1, self.image, self.image),)


@cache
def _fashion(images: int, folder: Path) -> Any:
    return fashion_mnist(images, FASHION_TEST_IMAGES, folder)


def _digits_vit(width: int, depth: int) -> nn.Module:
    return ViT(ViTShape(width=width, depth=depth))


def _fashion_vit(width: int, depth: int) -> nn.Module:
    return ViT(ViTShape(image=28, patch=7, width=width, depth=depth, mlp_ratio=4))


def _fashion_mixer(width: int, depth: int) -> nn.Module:
    return GreyMixer(
        GreyMixerShape(pad=0, patch=7, width=width, depth=depth, token_hidden=width, channel_hidden=4 * width)
    )


_EDGE, _MID = (0.7, 0.5, 0.4, 0.32, 0.27), (0.85, 0.75, 0.65, 0.55, 0.48)
_FASHION, _MIXER = (0.65, 0.5, 0.4, 0.33, 0.29), (0.75, 0.6, 0.5, 0.44, 0.4)
PARTS = {
    "digits": Part(_digits_vit, 128, 2, 8, 16, 12, 12, {
        "edge-16": Setting(_EDGE, (*RIVALS, *ANY_WIDTH, *ABLATION)),
        "mid-32": Setting(_MID, SCATTERED),
        "plain-32": Setting(_MID, (*(one for one in _CUT if one not in _LATTICE_ONLY), *ANY_WIDTH)),
    }),
    "fashion-vit": Part(_fashion_vit, 96, 2, 28, 16, 4, 5, {"edge-16": Setting(_FASHION)}, 1500),
    "fashion-mixer": Part(_fashion_mixer, 96, 2, 28, 16, 4, 5, {"edge-16": Setting(_MIXER)}, 1500),
}  # fmt: skip


def run(
    part: str,
    machine: str,
    family: str,
    budget: float,
    seed: int,
    *,
    cache_folder: Path,
    data: Path = FOLDER,
    times: int = 1,
) -> dict[str, Any]:
    """Train one network from its dense start, with `times` the part's epochs, and measure it: a row of the study.

    right: which of the test images it has right, as `right_ones.as_text` writes it.

    Everything that takes long is kept in `cache_folder`, so that a run that is interrupted goes on, and so are the
    finished networks of one seed. A target that a family cannot reach gives a row with the reason instead of an
    accuracy.
    """
    torch.set_num_threads(1)  # sums in another order would give another network on a machine with more cores
    plan, target_machine = PARTS[part].longer(times), Machine.load(machine)
    dense = _dense_start(part, seed, cache_folder, data, times=times)
    hardware = whole_hardware_of(target_machine, dense, plan.example, plan.tokens)
    begin, dense_cycles = time.process_time(), hardware.measure(dense)
    row: dict[str, Any] = {"part": part, "machine": machine, "family": family, "budget": budget, "seed": seed}
    name = f"{part}.{machine}.{family.replace(' ', '_')}.{budget}.{seed}"
    file = cache_folder / f"{name}{_longer(times)}.pt"
    target = budget * dense_cycles
    try:
        network = _train(part, family, dense, target, seed, target_machine, hardware, file, data, times)
    except UnreachableTargetError as error:
        file.unlink(missing_ok=True)
        return {**row, "unreachable": str(error)}
    if seed == SHOWN_SEED and times == 1:
        (cache_folder / "networks").mkdir(exist_ok=True)
        save_checkpoint(network.model, cache_folder / "networks" / f"{name}.safetensors")
    file.unlink(missing_ok=True)
    return {
        **row,
        "kind": network.kind,
        "width": network.model.get_submodule("embed").out_features,
        "accuracy": network.accuracy,
        "right": as_text(right_ones(network.model, plan.sets(data)[1])),
        "loss": network.history[-1].loss,
        "share": network.reached / dense_cycles,
        **_on_machines(network.model, plan.example),
        "cpu_s": round(time.process_time() - begin, 1),
    }


def retrained(
    part: str, machine: str, family: str, budget: float, seed: int, cache_folder: Path, data: Path
) -> TrainedNetwork:
    """The network of a run, trained again as `run` trains it. Raises UnreachableTargetError as its training does."""
    torch.set_num_threads(1)
    plan, target_machine = PARTS[part], Machine.load(machine)
    dense = _dense_start(part, seed, cache_folder, data)
    hardware = whole_hardware_of(target_machine, dense, plan.example, plan.tokens)
    file = cache_folder / f"{part}.{machine}.{family.replace(' ', '_')}.{budget}.{seed}.pt"
    return _train(part, family, dense, budget * hardware.measure(dense), seed, target_machine, hardware, file, data)


def _on_machines(model: nn.Module, example: tuple[Tensor]) -> dict[str, dict[str, Any]]:
    """Cycles, energy and counted events by machine: the events are what other prices can be put on."""
    cycles, energy, events, exported = {}, {}, {}, export_network(model, example)
    for name in MEASURED_ON:
        machine = Machine.load(name)
        report = simulate(lower_network(exported.network, exported.weights, machine), machine)
        cycles[name], energy[name] = int(report.latency_cycles), round(float(report.energy_pj))
        events[name] = dict(report.accesses)
    return {"latency_cycles": cycles, "energy_pj": energy, "events": events}


def _longer(times: int) -> str:
    """What names of files say of longer training."""
    return "" if times == 1 else f".x{times}"


def _dense_start(part: str, seed: int, folder: Path, data: Path, width: int | None = None, times: int = 1) -> nn.Module:
    """The dense network of a part and seed, of full width or narrower, trained once."""
    plan, size = PARTS[part].longer(times), "" if width is None else f".{width}"
    file = folder / f"{part}.dense{size}.{seed}{_longer(times)}.pt"
    torch.manual_seed(seed)
    model = plan.build(plan.width if width is None else width, plan.depth)
    # What is measured of it does not matter: it is the start for every machine.
    hardware = hardware_of(Machine.load(MEASURED_ON[0]), plan.tokens)
    recipe = Recipe(REFERENCE, epochs=plan.dense_epochs, learning_rate=DENSE_LEARNING_RATE, seed=seed)
    # A finished run's file is read back without training.
    return train_network(recipe, model, *plan.sets(data), hardware, checkpoint=file).model


def _train(
    part: str,
    family: str,
    dense: nn.Module,
    target: float,
    seed: int,
    machine: Machine,
    hardware: Hardware,
    file: Path,
    data: Path,
    times: int = 1,
) -> TrainedNetwork:
    plan = PARTS[part].longer(times)
    sets = plan.sets(data)
    if family in ANY_WIDTH:
        return _train_any_width(part, family, target, seed, machine, file, data, times)
    epochs = plan.dense_epochs + plan.epochs
    if family in SCRATCH:
        torch.manual_seed(seed)
        model = plan.build(plan.width, plan.depth)
        recipe = replace(NETWORKS[family], epochs=epochs, learning_rate=DENSE_LEARNING_RATE, seed=seed)
        return train_network(recipe, model, *sets, hardware, target, checkpoint=file)
    if family in ("narrower", "shallower"):
        width, depth = _smaller(part, family, machine.name, target)
        torch.manual_seed(seed)
        model = plan.build(width, depth)
        own = whole_hardware_of(machine, as_trained(model), plan.example, plan.tokens)
        recipe = Recipe(REFERENCE, epochs=epochs, learning_rate=DENSE_LEARNING_RATE, seed=seed)
        return train_network(recipe, model, *sets, own, checkpoint=file)
    recipe = replace(NETWORKS[family], epochs=plan.epochs, seed=seed)
    return train_network(recipe, dense, *sets, hardware, target if recipe.entry.needs_target else None, checkpoint=file)


def _train_any_width(
    part: str, family: str, target: float, seed: int, machine: Machine, file: Path, data: Path, times: int
) -> TrainedNetwork:
    """Automatic choice from the dense network whose short trial goes best: wide and thin, or narrow and whole."""
    plan = PARTS[part].longer(times)
    quick = _widest(part, machine.name, target, plan.depth)
    wider = (plan.width, plan.width * 3 // 4, plan.width // 2)
    starts = {}
    for width in [one for one in wider if quick is None or one > quick] + ([] if quick is None else [quick]):
        model = _dense_start(part, seed, file.parent, data, width, times)
        starts[str(width)] = DenseStart(model, whole_hardware_of(machine, model, plan.example, plan.tokens))
    recipe = replace(NETWORKS[family], epochs=plan.epochs, seed=seed)
    chosen = choose_start(recipe, starts, *plan.sets(data), target)
    return starts[chosen].train(recipe, *plan.sets(data), target, checkpoint=file)


def _smaller(part: str, family: str, machine: str, target: float) -> tuple[int, int]:
    """Width and depth of the widest dense network within the target: of full depth, or with fewer blocks."""
    depth = PARTS[part].depth
    for blocks in [depth] if family == "narrower" else range(depth - 1, 0, -1):
        if (width := _widest(part, machine, target, blocks)) is not None:
            return width, blocks
    raise UnreachableTargetError(
        "target", f"{target:.0f}", f"no {family} dense network is that quick", "Raise the target."
    )


def _widest(part: str, machine: str, target: float, depth: int) -> int | None:
    widths = range(PARTS[part].width, 7, -8)
    return next((width for width in widths if _dense_cycles(part, machine, width, depth) <= target), None)


@cache
def _dense_cycles(part: str, machine: str, width: int, depth: int) -> int:
    plan, on = PARTS[part], Machine.load(machine)
    model = as_trained(plan.build(width, depth))
    return int(simulate(lower(model, on, example_inputs=plan.example), on).latency_cycles)


@torch.no_grad()
def as_trained(model: nn.Module) -> nn.Module:
    """A copy with all parameters off their start: a norm's scale that is one everywhere takes no cycles, and will."""
    model = copy.deepcopy(model).eval()
    for parameter in model.parameters():
        parameter.add_(torch.linspace(0.01, 0.02, parameter.numel()).view_as(parameter))
    return model
