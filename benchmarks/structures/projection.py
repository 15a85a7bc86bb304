"""Seconds to project a whole ViT-Base (72 matrices, 82,944 dense tiles of 32 x 32) from 1.25 of its dense tiles.

Budgets 1.0 (what a schedule takes between two projections) and 0.3, with any chunk sets and with intervals only; random
importances. One thread.
"""

from __future__ import annotations

import time

import numpy as np

from analysis.tables.table import Column, format_table
from gblr_hw.projection.projection import Importance, project_jointly
from gblr_hw.weights.structure import Structure, dense_tile_count

P = 32
SHAPES = {"q": (768, 768), "k": (768, 768), "v": (768, 768), "o": (768, 768), "fc1": (3072, 768), "fc2": (768, 3072)}


def vit_base(dense: bool) -> tuple[dict[str, tuple[Structure, Importance]], int]:
    """Layers of 12 blocks, ranks for 1.25 of the dense tiles (0.25 with dense tiles beside them), and dense tiles."""
    rng, layers, total = np.random.default_rng(0), {}, 0
    for block in range(12):
        for name, (outputs, inputs) in SHAPES.items():
            count = dense_tile_count(outputs, inputs, P, P)
            ranks = int((0.25 if dense else 1.25) * count * P * P / (outputs + inputs))
            structure = Structure.full(outputs, inputs, ranks, P, P, dense=dense)
            worth = (rng.exponential(size=getattr(structure, part).shape) for part in ("tiles", "reads", "writes"))
            layers[f"{block}.{name}"] = structure, Importance(*worth)
            total += count
    return layers, total


def main() -> None:
    rows = []
    for dense in (False, True):
        layers, total = vit_base(dense)
        one = dict(list(layers.items())[:1])
        for runs in (False, True):
            project_jointly(one, 400, P, P, intervals_only=runs)  # compiled once, kept on disk
            for share in (1.0, 0.3):
                start, cpu = time.perf_counter(), time.process_time()
                found = project_jointly(layers, int(share * total), P, P, intervals_only=runs)
                seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
                used = sum(structure.tile_count(P, P) for structure in found.values())
                rows.append(
                    {
                        "start": "tiles and ranks" if dense else "ranks",
                        "sets": "intervals" if runs else "any",
                        "budget": int(share * total),
                        "used": used,
                        "seconds": f"{seconds:.1f}",
                        "cpu": f"{cpu:.1f}",
                    }
                )
    columns = (
        Column("structure", "start", align="left"),
        Column("chunk sets", "sets", align="left"),
        Column("budget", "budget"),
        Column("tiles used", "used"),
        Column("seconds", "seconds"),
        Column("CPU seconds", "cpu"),
    )
    print(format_table(columns, rows), end="")


if __name__ == "__main__":
    main()
