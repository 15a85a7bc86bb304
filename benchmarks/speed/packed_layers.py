"""Packed layers on a CPU beside nn.Linear, family by family: ``pack`` and the modules as they are, in one run.

``python -m benchmarks.speed.packed_layers [--out docs/data/packed_layers.json]``: 768 x 768 and 768 x 3072, 197 tokens,
one thread, P = Q = 32. Every layer takes its turn with nn.Linear in each repetition; medians of CPU time, as ratios.
The share is of nn.Linear's multiplications; the bound, 1.25 times it and 0.1.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import nn

from benchmarks.shared.measurement import write_json
from benchmarks.speed.tables import packed_table
from gblr_hw.conversion.from_dense import layer_start
from gblr_hw.layers.blast_linear import BLASTLinear
from gblr_hw.layers.kronecker_linear import TensorTrainLinear
from gblr_hw.layers.lattice_linear import LatticeLinear
from gblr_hw.layers.linear import GBLRLinear
from gblr_hw.layers.monarch_linear import MonarchLinear
from gblr_hw.layers.packed_linear import pack
from gblr_hw.projection.projection import Importance, project_jointly
from gblr_hw.weights.factors import evaluate
from gblr_hw.weights.structure import dense_tile_count

P, TOKENS = 32, 197
SIZES = ((768, 768), (768, 3072))
SHARES = (0.2, 0.35, 0.5)
FAMILIES = ("low_rank", "block_sparse", "lattice")


def on_lattice(family: str, inputs: int, outputs: int, share: float) -> LatticeLinear:
    """A layer of a family that is cut tile by tile, drawn, at a share of the dense tiles."""
    rng, layer = np.random.default_rng(0), layer_start(nn.Linear(inputs, outputs), family, P, P)
    structure = layer.structure
    worth = rng.exponential(size=(len(structure.reads), 1)) ** 2  # ranks differ, as singular values do
    sides = [worth * (1 if family == "low_rank" else rng.exponential(size=side.shape)) * np.ones(side.shape)
             for side in (structure.reads, structure.writes)]  # fmt: skip
    problem = {"layer": (structure, Importance(rng.exponential(size=structure.tiles.shape), *sides))}
    budget = share * dense_tile_count(outputs, inputs, P, P)
    layer.set_structure(project_jointly(problem, budget, P, P)["layer"])
    layer.pack()
    return layer


def layers(inputs: int, outputs: int) -> Iterator[tuple[str, nn.Module]]:
    """Family and layer, several shares of each."""
    for share in SHARES:
        for family in FAMILIES:
            yield family, on_lattice(family, inputs, outputs, share)
        blocks = min(inputs, outputs)
        width = share * inputs * outputs / (blocks * (inputs + outputs))
        yield "gblr", GBLRLinear(inputs, outputs, init_width=width)
        yield "blast", BLASTLinear(inputs, outputs, blocks=6, rank=round(share * inputs * outputs / (inputs + outputs)))
    yield "monarch", MonarchLinear(inputs, outputs, blocks=4)
    yield "tensor_train", TensorTrainLinear(inputs, outputs, first=(outputs // 32, 24), rank=8)


@torch.no_grad()
def measured(inputs: int, outputs: int, repetitions: int) -> list[dict[str, object]]:
    """A row a layer."""
    x, linear, rows = torch.randn(TOKENS, inputs), nn.Linear(inputs, outputs), []
    for family, layer in layers(inputs, outputs):
        layer.eval()
        factors = evaluate(layer.weights())  # type: ignore[operator]
        share = factors.multiplications / (inputs * outputs)
        runs = {"dense": linear, "plain": layer, "packed": pack(layer)}
        seconds: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(repetitions):
            for name, run in runs.items():
                begin = time.process_time()
                run(x)
                seconds[name].append(time.process_time() - begin)
        medians = {name: statistics.median(times[2:]) for name, times in seconds.items()}
        rows.append(
            {
                "family": family, "layer": f"{inputs} x {outputs}", "share": share, "bound": 1.25 * share + 0.1,
                "packed": medians["packed"] / medians["dense"], "plain": medians["plain"] / medians["dense"],
            }
        )  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=25)
    parser.add_argument("--out", type=Path, help="write the figures into this JSON file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rows = [row for size in SIZES for row in measured(*size, options.repetitions)]
    print(packed_table({"rows": rows}))
    if options.out is not None:
        write_json(options.out, rows=rows)


if __name__ == "__main__":
    main()
