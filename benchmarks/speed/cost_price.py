"""What the hardware cost adds to a training step at ViT-Base's size.

``python -m benchmarks.speed.cost_price [--batch 8] [--rounds 3] [--out docs/data/cost_price.json]``: one encoder block
of ViT-Base with GBLR layers (qkv, proj, fc1, fc2; widths with a long tail around 0.15), 196 tokens an image; whole
steps (forward, backward, AdamW) and ``HardwareCost(machine, tokens, every=...)`` with its backward. CPU seconds of one
thread; medians of what a call of the cost takes, over the rest of the step. A network of more blocks takes as many
times both. Gaussian, annealed: sigma moves at every step, so that nothing of the last step's masks can be kept.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import torch
from torch import Tensor

from analysis.tables.table import format_table
from benchmarks.shared.measurement import write_json
from benchmarks.speed.tables import COST_PRICE
from gblr_hw import GBLRLinear, HardwareCost
from gblr_hw.layers.replace import replace_linear
from gblr_hw.models.vit import ViT, ViTShape
from simulator import Machine

SHAPE = ViTShape(image=28, patch=2, width=768, depth=1, heads=12, mlp_ratio=4)
MASKS = ("none", "fixed", "annealed")
EVERY = (1, 4, 16)


def block(gaussian: bool) -> tuple[ViT, list[GBLRLinear]]:
    """The network, and its GBLR layers."""
    torch.manual_seed(0)
    model = ViT(SHAPE)
    replace_linear(model, "blocks.*", init="random", gaussian=gaussian)
    layers = [module for module in model.modules() if isinstance(module, GBLRLinear)]
    tail = torch.distributions.Exponential(1 / 0.15)
    with torch.no_grad():
        for layer in layers:
            layer.widths.copy_(tail.sample(layer.widths.shape).clamp(0, 1))
    return model, layers


class Stepper:
    """Training steps of one network, with a cost or without."""

    def __init__(self, gaussian: bool, annealed: bool, batch: int) -> None:
        self.model, self.layers = block(gaussian)
        self.annealed = annealed
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4)
        self.images, self.wanted = torch.randn(batch, SHAPE.image, SHAPE.image), torch.randint(10, (batch,))
        self.sigma = 50.0

    def step(self, cost: HardwareCost | None) -> tuple[float, float]:
        """Seconds of a step, and those of them that the cost took."""
        if self.annealed:
            self.sigma += 0.1
            for layer in self.layers:
                layer.sigma.fill_(self.sigma)
        begin = time.process_time()
        loss: Tensor = torch.nn.functional.cross_entropy(self.model(self.images), self.wanted)
        self.optimizer.zero_grad()
        loss.backward()
        spent = time.process_time()
        if cost is not None:
            (1e-9 * cost(self.model).latency_cycles).backward()
        price = time.process_time() - spent
        self.optimizer.step()
        return time.process_time() - begin, price


def prices(stepper: Stepper, machine: Machine, batch: int, rounds: int) -> dict[int, float]:
    """Price of the cost over the rest of the step, by how often it is evaluated."""
    costs = {every: HardwareCost(machine, batch * SHAPE.tokens, every=every) for every in EVERY}
    rest = []
    calls: dict[int, list[float]] = {every: [] for every in EVERY}
    for number in range(rounds + 1):
        for every, cost in costs.items():
            seconds, price = stepper.step(cost)
            if number:  # the first round fills caches
                rest.append(seconds - price)
            spent = [price]
            # The other calls of an evaluation, without a step around each.
            for _ in range(every - 1):
                begin = time.process_time()
                (1e-9 * cost(stepper.model).latency_cycles).backward()
                spent.append(time.process_time() - begin)
            if number:
                calls[every].append(sum(spent) / every)
    return {every: statistics.median(spent) / statistics.median(rest) for every, spent in calls.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=8, help="images a step")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for masks in MASKS:
        stepper = Stepper(masks != "none", masks == "annealed", options.batch)
        for name in ("mid-32", "plain-32"):
            found = prices(stepper, Machine.load(name), options.batch, options.rounds)
            rows.append({"machine": name, "gaussian": masks} | {f"every_{key}": value for key, value in found.items()})
    print(format_table(COST_PRICE, rows, markdown=True), end="")
    write_json(options.out, batch=options.batch, rows=rows)


if __name__ == "__main__":
    main()
