"""Seconds to project a whole ViT-Base (72 matrices, 82,944 dense tiles of 32 x 32) from 1.25 of its dense tiles.

python -m benchmarks.structures.projection [--out docs/data/projection.json]

Budgets 1.0 (what a schedule takes between two projections) and 0.3, with any chunk sets and with intervals only; random
importances. One thread, the fastest of three runs.
"""

from __future__ import annotations

import itertools

import numpy as np

from benchmarks.shared.measurement import cpu_seconds, out_option, write_json
from benchmarks.structures.tables import projection_table
from gblr_hw.projection.projection import Importance, project_jointly
from gblr_hw.weights.structure import Structure, dense_tile_count

P, RUNS = 32, 3
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


def measure(dense: bool, runs: bool, share: float) -> dict[str, object]:
    """A row: what a projection to a share of the dense tiles takes, with any chunk sets or with intervals only."""
    layers, total = vit_base(dense)
    budget = int(share * total)

    def project() -> dict[str, Structure]:
        return project_jointly(layers, budget, P, P, intervals_only=runs)

    used = sum(structure.tile_count(P, P) for structure in project().values())  # compiles, too
    return {
        "start": "tiles and ranks" if dense else "ranks",
        "sets": "intervals" if runs else "any",
        "budget": budget,
        "used": used,
        "cpu_s": min(cpu_seconds(project) for _ in range(RUNS)),
    }


def main() -> None:
    options = out_option(__doc__)
    rows = [measure(*case) for case in itertools.product((False, True), (False, True), (1.0, 0.3))]
    print(projection_table(rows), end="")
    write_json(options.out, rows=rows)


if __name__ == "__main__":
    main()
