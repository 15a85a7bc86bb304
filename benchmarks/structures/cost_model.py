"""How closely the closed-form cost follows the simulator, on random structures that nothing was fitted to.

python -m benchmarks.structures.cost_model [--layers 60] [--out docs/data/cost_model.json]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from scipy.stats import kendalltau

from benchmarks.shared.measurement import write_json
from benchmarks.structures.tables import cost_model_table
from gblr_hw import GBLRLinear, HardwareCost, lower
from simulator import Machine, preset_names, simulate

SIZES = (64, 96, 128, 192, 256, 384, 768)
TOKENS = (1, 16, 64, 197, 512)


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=60)
    parser.add_argument("--out", type=Path, help="write all figures as JSON")
    options = parser.parse_args()
    rows = [compare(Machine.load(name), options.layers) for name in preset_names()]
    print(cost_model_table(rows), end="")
    write_json(options.out, layers=options.layers, rows=rows)


if __name__ == "__main__":
    main()
