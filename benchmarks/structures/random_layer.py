"""What random intervals cost on every machine: a 768 x 768 layer of 768 blocks, mean width 0.15, 197 tokens.

python -m benchmarks.structures.random_layer
"""

from __future__ import annotations

import time

import torch

from analysis.tables.table import Column, count, energy_from_pj, format_table, percent
from gblr_hw import lower
from gblr_hw.weights.stored import DenseWeights, GBLRWeights
from simulator import Machine, preset_names, simulate

SIDE, TOKENS, MEAN_WIDTH = 768, 197, 0.15


def random_blocks(seed: int = 0) -> GBLRWeights:
    """Widths exponential, cut at 1; locations uniform."""
    torch.manual_seed(seed)
    widths = torch.distributions.Exponential(1 / MEAN_WIDTH).sample((2, SIDE)).clamp(0, 1)
    factors = (torch.randn(SIDE, 1, SIDE), torch.randn(SIDE, SIDE, 1))
    return GBLRWeights(widths, torch.rand(2, SIDE), *factors, None, 1.0, False)


def main() -> None:
    dense, blocks = DenseWeights(torch.randn(SIDE, SIDE), None), random_blocks()
    rows = []
    for name in preset_names():
        machine = Machine.load(name)
        reference = simulate(lower({"layer": dense}, machine, tokens=TOKENS), machine)
        begin = time.process_time()
        program = lower({"layer": blocks}, machine, tokens=TOKENS)
        lowered = time.process_time() - begin
        report = simulate(program, machine)
        rows.append(
            {
                "machine": name,
                "form": report.layers[0].form,
                "tiles": report.tiles,
                "dense_tiles": reference.tiles,
                "bound": f"{report.layers[0].tile_bound:.0f}",
                "cycles": report.latency_cycles,
                "share": report.latency_cycles / reference.latency_cycles,
                "energy": report.energy_pj,
                "energy_share": report.energy_pj / reference.energy_pj,
                "lowering": f"{lowered:.2f}",
            }
        )
    columns = (
        Column("machine", "machine", align="left"),
        Column("form", "form", align="left"),
        Column("tiles", "tiles", count),
        Column("dense tiles", "dense_tiles", count),
        Column("tile bound", "bound"),
        Column("cycles", "cycles", count),
        Column("of dense", "share", percent),
        Column("energy", "energy", energy_from_pj),
        Column("of dense", "energy_share", percent),
        Column("lowering (CPU s)", "lowering"),
    )
    print(format_table(columns, rows, markdown=True), end="")


if __name__ == "__main__":
    main()
