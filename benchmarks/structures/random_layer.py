"""What random intervals cost on every machine: a 768 x 768 layer of 768 blocks, mean width 0.15, 197 tokens.

python -m benchmarks.structures.random_layer [--out docs/data/random_layer.json]
"""

from __future__ import annotations

import torch

from analysis.tables.robustness import ratio_interval
from benchmarks.shared.measurement import cpu_seconds, out_option, write_json
from benchmarks.structures.tables import random_layer_table
from gblr_hw import lower
from gblr_hw.weights.stored import DenseWeights, GBLRWeights
from simulator import Machine, preset_names, simulate

SIDE, TOKENS, MEAN_WIDTH = 768, 197, 0.15
RUNS = 3  # of lowering, on one thread; the fastest is told


def random_blocks(seed: int = 0) -> GBLRWeights:
    """Widths exponential, cut at 1; locations uniform."""
    torch.manual_seed(seed)
    widths = torch.distributions.Exponential(1 / MEAN_WIDTH).sample((2, SIDE)).clamp(0, 1)
    factors = (torch.randn(SIDE, 1, SIDE), torch.randn(SIDE, SIDE, 1))
    return GBLRWeights(widths, torch.rand(2, SIDE), *factors, None, 1.0, False)


def main() -> None:
    options = out_option(__doc__)
    torch.set_num_threads(1)
    dense, blocks = DenseWeights(torch.randn(SIDE, SIDE), None), random_blocks()
    rows = []
    for name in preset_names():
        machine = Machine.load(name)
        reference = simulate(lower({"layer": dense}, machine, tokens=TOKENS), machine)
        program = lower({"layer": blocks}, machine, tokens=TOKENS)
        lowered = min(cpu_seconds(lambda m=machine: lower({"layer": blocks}, m, tokens=TOKENS)) for _ in range(RUNS))
        report = simulate(program, machine)
        rows.append(
            {
                "machine": name,
                "form": report.layers[0].form,
                "tiles": report.tiles,
                "dense_tiles": reference.tiles,
                "bound": report.layers[0].tile_bound,
                "cycles": report.latency_cycles,
                "share": report.latency_cycles / reference.latency_cycles,
                "energy": report.energy_pj,
                "energy_share": report.energy_pj / reference.energy_pj,
                "energy_interval": ratio_interval(
                    *((one.accesses, int(one.latency_cycles)) for one in (report, reference)), machine
                ),
                "lowering": lowered,
            }
        )
    print(random_layer_table(rows), end="")
    write_json(options.out, rows=rows)


if __name__ == "__main__":
    main()
