"""The demo's networks: which families at which targets, trained in parallel from one dense start, then measured."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace

import torch
from torch import nn

from gblr_hw.cost.target import parse_target
from gblr_hw.demo.data import digits
from gblr_hw.demo.demo import CALIBRATION_IMAGES, MACHINES, DemoNetwork, Measurement, images_and_labels, measure
from gblr_hw.demo.single import DEMO_SHAPE, DENSE_LEARNING_RATE
from gblr_hw.models.vit import ViT
from gblr_hw.training.measure.hardware import hardware_of
from gblr_hw.training.networks import train_network
from gblr_hw.training.recipe import Recipe
from gblr_hw.weights.family import FAMILIES
from simulator.machine.machine import Machine

IMAGES_AT_A_TIME = 16
TOKENS = IMAGES_AT_A_TIME * DEMO_SHAPE.tokens
EPOCHS = 12

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Plan:
    """One network of the demo: its family, how tables call it, and its target."""

    family: str
    label: str
    target: str


# The longest to train first, so that two workers end together.
PLANS = (
    Plan("width", "GBLR, width penalty", "0.6x-dense"),
    Plan("width", "GBLR, width penalty", "0.75x-dense"),
    Plan("hardware", "GBLR, hardware cost", "0.6x-dense"),
    Plan("hardware", "GBLR, hardware cost", "0.75x-dense"),
    Plan("lattice", "lattice projection", "0.6x-dense"),
    Plan("low_rank", "low rank", "0.6x-dense"),
    Plan("block_sparse", "block sparse", "0.6x-dense"),
)
# The reference goes on from the same start for as long as the others do.
DENSE = Plan("dense", "dense", "")


def demo_measurements(seed: int, workers: int, progress: Progress) -> list[Measurement]:
    """Train the dense start, then every plan from it, ``workers`` at a time, and measure each on every machine.

    Sorted as the table shows them: machine by machine, dense first, then the plans.
    """
    machine = Machine.load(MACHINES[0])
    plans, places = (*PLANS, DENSE), (*range(len(PLANS)), -1)  # the table begins with the reference
    total = 1 + len(plans)
    progress(0, total, "training: dense")
    dense, dense_cycles = _train_dense(machine, seed)
    measured: dict[int, list[Measurement]] = {}
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        jobs: dict[Future[list[Measurement]], int] = {
            pool.submit(_train_and_measure, plan, machine, dense, dense_cycles, seed): index
            for index, plan in zip(places, plans, strict=True)
        }
        for done, job in enumerate(as_completed(jobs), start=1):
            results = job.result()
            measured[jobs[job]] = results
            network = results[0].network
            progress(done, total, f"trained and simulated: {network.name}, {network.accuracy:.1%}")
    by_network = [measured[index] for index in sorted(measured)]
    return [results[place] for place in range(len(MACHINES)) for results in by_network]


def _train_dense(machine: Machine, seed: int) -> tuple[nn.Module, float]:
    torch.set_num_threads(1)  # sums in another order would give another network on a machine with more cores
    train_set, test_set = digits()
    torch.manual_seed(seed)
    recipe = Recipe("dense", epochs=EPOCHS, learning_rate=DENSE_LEARNING_RATE, seed=seed)
    network = train_network(recipe, ViT(DEMO_SHAPE), train_set, test_set, hardware_of(machine, TOKENS))
    return network.model, network.reached


def _train_and_measure(
    plan: Plan, machine: Machine, dense: nn.Module, dense_cycles: float, seed: int
) -> list[Measurement]:
    """One worker's job. A thread each: two threads for such small products would only get in each other's way."""
    torch.set_num_threads(1)
    train_set, test_set = digits()
    cycles = parse_target(plan.target).cycles(dense_cycles, machine.clock_ghz) if plan.target else None
    recipe = replace(Recipe(plan.family), epochs=EPOCHS, seed=seed)
    network = train_network(recipe, dense, train_set, test_set, hardware_of(machine, TOKENS), cycles)
    name = f"{plan.label}, {plan.target.removesuffix('-dense')}" if plan.target else plan.label
    mark = FAMILIES[plan.family].mark
    return _measure_on_all(
        DemoNetwork(name, mark, plan.target, network.model, network.accuracy, DEMO_SHAPE.tokens, seed)
    )


def _measure_on_all(network: DemoNetwork) -> list[Measurement]:
    train_set, test_set = digits()
    images, labels = images_and_labels(test_set)
    calibration = images_and_labels(train_set)[0][:CALIBRATION_IMAGES]
    return [measure(network, Machine.load(name), TOKENS, calibration, images, labels) for name in MACHINES]


def shown_network(measurements: Sequence[Measurement]) -> Measurement:
    """The one that pictures look into: the fastest network trained with the hardware cost, on the first machine."""
    mark = FAMILIES["hardware"].mark
    candidates = [m for m in measurements if m.machine.name == MACHINES[0] and m.network.family == mark]
    return min(candidates, key=lambda m: m.report.latency_cycles)
