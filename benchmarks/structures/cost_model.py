"""How closely the closed-form cost follows the simulator, on random structures that nothing was fitted to; and whether
its gradient does: small moves of ends, and descent (``cost_moves.py``).

python -m benchmarks.structures.cost_model [--layers 60] [--gradients] [--out docs/data/cost_model.json]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import kendalltau

from benchmarks.shared.measurement import write_json
from benchmarks.structures.cost_moves import descend, signs_of_moves
from benchmarks.structures.tables import cost_gradient_table, cost_model_table
from gblr_hw import GBLRLinear, HardwareCost, lower
from simulator import Machine, preset_names, simulate

SIZES = (64, 96, 128, 192, 256, 384, 768)
TOKENS = (1, 16, 64, 197, 512)
# Layers whose gradients are looked at: inputs, outputs, blocks, mean width; cheaper as ranks than dense.
GRADIENTS = ((384, 256, 96, 0.05), (300, 500, 96, 0.15), (211, 173, 50, 0.1), (768, 768, 128, 0.08))
GRADIENT_MACHINES = ("plain-32", "mid-32", "edge-16")


def random_layer(seed: int) -> tuple[GBLRLinear, int]:
    """A layer of random size, widths with a long tail, some blocks dead, with or without the Gaussian; and a token
    count.
    """
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    outputs, inputs = (int(side) for side in rng.choice(SIZES, 2))
    layer = GBLRLinear(inputs, outputs, gaussian=bool(seed % 3 == 0)).eval()
    mean_width, dead = float(rng.uniform(0.01, 0.5)), float(rng.uniform(0, 0.9))
    with torch.no_grad():
        widths = torch.distributions.Exponential(1 / mean_width).sample(layer.widths.shape).clamp(0, 1)
        layer.widths.copy_(torch.where(torch.rand(widths.shape[1]) < dead, 0.0, widths))
    return layer, int(rng.choice(TOKENS))


def compare(machine: Machine, layers: int) -> dict[str, object]:
    """Mean absolute percentage error, its 90th percentile and Kendall's tau, of latency and energy."""
    rows = []
    for seed in range(layers):
        layer, tokens = random_layer(seed)
        report = simulate(lower(layer, machine, tokens=tokens), machine)
        with torch.no_grad():
            cost = HardwareCost(machine, tokens=tokens)(layer)
        rows.append((float(cost.latency_cycles), report.latency_cycles, float(cost.energy_pj), report.energy_pj))
    predicted, cycles, energy, picojoules = np.array(rows).T
    latency_error, energy_error = np.abs(predicted / cycles - 1), np.abs(energy / picojoules - 1)
    return {
        "machine": machine.name,
        "latency_error": float(latency_error.mean()),
        "latency_p90": float(np.quantile(latency_error, 0.9)),
        "latency_tau": float(kendalltau(predicted, cycles)[0]),
        "energy_error": float(energy_error.mean()),
        "energy_tau": float(kendalltau(energy, picojoules)[0]),
    }


def layer_with_tail(inputs: int, outputs: int, blocks: int, mean_width: float, seed: int = 1) -> GBLRLinear:
    """A layer of intervals at random places, widths with a long tail."""
    torch.manual_seed(seed)
    layer = GBLRLinear(inputs, outputs, blocks, gaussian=False).eval()
    with torch.no_grad():
        layer.widths.copy_(torch.distributions.Exponential(1 / mean_width).sample(layer.widths.shape).clamp(0, 1))
    return layer


def gradients(machine: Machine) -> dict[str, object]:
    """Of the layers of ``GRADIENTS``, 197 tokens: how far the smooth latency is from the simulated one, signs of moves,
    and what descent reaches.
    """
    off, widths, starts, descents = [], [], [], []
    for seed, shape in enumerate(GRADIENTS):
        layer = layer_with_tail(*shape)
        smooth = float(HardwareCost(machine, 197)(layer).smooth_latency_cycles.detach())
        widths.append(signs_of_moves(layer, machine, 197, seed, widths=True))
        starts.append(signs_of_moves(layer, machine, 197, seed, widths=False))
        descents.append(descend(layer, machine, 197))
        off.append(abs(smooth / descents[-1].first - 1))
    return {
        "machine": machine.name,
        "smooth_error": float(np.mean(off)),
        "smooth_worst": float(np.max(off)),
        **{
            f"{name}_{key}": sum(getattr(one, key) for one in found)
            for name, found in (("widths", widths), ("starts", starts))
            for key in ("moves", "right", "right_regrouped")
        },
        "descent": float(np.mean([one.reached / one.first for one in descents])),
        "narrowed_alike": float(np.mean([one.narrowed_alike / one.first for one in descents])),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=60)
    parser.add_argument("--gradients", action="store_true", help="only those; the other figures of --out are kept")
    parser.add_argument("--out", type=Path, help="write all figures as JSON")
    options = parser.parse_args()
    kept: dict[str, Any] = {}
    if options.gradients and options.out is not None and options.out.exists():
        kept = {key: json.loads(options.out.read_text(encoding="utf-8"))[key] for key in ("layers", "rows")}
    if not options.gradients:
        kept = {
            "layers": options.layers,
            "rows": [compare(Machine.load(name), options.layers) for name in preset_names()],
        }
        print(cost_model_table(kept["rows"]), flush=True)
    found = [gradients(Machine.load(name)) for name in GRADIENT_MACHINES]
    print(cost_gradient_table(found), end="")
    write_json(options.out, **kept, gradients=found)


if __name__ == "__main__":
    main()
