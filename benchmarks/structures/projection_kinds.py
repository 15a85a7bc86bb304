"""Which structures a projection in training should choose from, how it should value them, and whether they may regrow.

``python -m benchmarks.structures.projection_kinds [--tiles 0.05 0.1] [--seed 0 1] [--kind ...]``: the digits ViT of
width 64 and depth 3, P = Q = 8, tile counts alone as the measure; a dense start of 20 epochs, then 24 epochs towards a
share of the dense tiles. Results are lines of JSON in docs/data/projection_kinds.jsonl; what is there is not run again.

tiles, ranks: dense tiles or single ranks, as `block_sparse` and `lattice` train them. union: both, each starting with
half of the dense matrix. "by entries": importance as the sum of squares over entries, not the square of the sum.
"regrow": a tenth of the tiles is exchanged at each projection. "trial": in 6 epochs, as the learned family chooses.
"""

from __future__ import annotations

import argparse
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.shared.result_lines import ResultLines
from benchmarks.structures.tables import KINDS, kinds_table
from gblr_hw.conversion.from_dense import layer_start
from gblr_hw.demo.data import digits
from gblr_hw.layers.lattice_linear import LatticeLinear
from gblr_hw.layers.replace import set_module
from gblr_hw.models.vit import ViT, ViTShape
from gblr_hw.training.loop.loop import LoopSettings, train
from gblr_hw.training.shrink.importance import GroupScores, part_sums
from gblr_hw.training.shrink.project_training import ProjectionSchedule, lattice_layers
from gblr_hw.training.swap import matching_linears
from gblr_hw.weights.structure import Structure, dense_tile_count

P = 8
KEY = ("kind", "tiles", "seed")


class EntryScores(GroupScores):
    """The importance that the first measurements used: (gradient times weight) squared, entry by entry."""

    @torch.no_grad()
    def add(self, name: str, layer: LatticeLinear) -> None:
        for part in ("u", "v", "dense"):
            parameter = getattr(layer, part)
            if parameter is not None and parameter.grad is not None:
                key = f"{name}:{part}"
                score = part_sums(layer, part, (parameter.grad * parameter).square())
                self.sums[key] = self.sums[key] + score if key in self.sums else score


def both(linear: nn.Linear) -> LatticeLinear:
    """A layer whose ranks and dense tiles hold half of the matrix each."""
    m, n = linear.weight.shape
    ranks = layer_start(linear, "lattice", P, P)
    layer = LatticeLinear(n, m, Structure.full(m, n, min(m, n), P, P, dense=True), P, P)
    with torch.no_grad():
        layer.u.copy_(ranks.u / 2)
        layer.v.copy_(ranks.v)
        assert layer.dense is not None
        assert layer.bias is not None
        layer.dense.copy_(linear.weight / 2)
        layer.bias.copy_(linear.bias)
    return layer


def tiles_of(model: nn.Module) -> float:
    """Tiles of all lattice layers."""
    return float(sum(layer.structure.tile_count(P, P) for layer in lattice_layers(model).values()))


@cache
def dense_start(seed: int) -> ViT:
    """The dense network of a seed."""
    torch.manual_seed(seed)
    model = ViT(ViTShape(width=64, depth=3))
    train(model, *digits(), LoopSettings(20, learning_rate=3e-3, seed=seed))
    return model


def run(kind: str, share: float, seed: int) -> dict[str, Any]:
    """Train one network; a row of the results."""
    model = ViT(ViTShape(width=64, depth=3))
    model.load_state_dict(dense_start(seed).state_dict())
    dense_tiles = 0
    for name in matching_linears(model, r"blocks\..*"):
        linear = model.get_submodule(name)
        assert isinstance(linear, nn.Linear)
        dense_tiles += dense_tile_count(linear.out_features, linear.in_features, P, P)
        if kind.startswith("union"):
            layer = both(linear)
        else:
            layer = layer_start(linear, "block_sparse" if kind.startswith("tiles") else "lattice", P, P)
        set_module(model, name, layer)
    hook = ProjectionSchedule(share * dense_tiles, tiles_of, 1.0, P, P, regrow=0.1 * kind.endswith("regrow"))
    if kind.endswith("entries"):
        hook.scores = EntryScores()
    history = train(model, *digits(), LoopSettings(6 if kind.endswith("trial") else 24, seed=seed), [hook])
    kept = sum(int(layer.structure.tiles.sum()) for layer in lattice_layers(model).values())
    last = history.epochs[-1]
    return {
        "kind": kind, "tiles": share, "seed": seed, "accuracy": last.accuracy, "loss": round(last.loss, 5),
        "used": int(tiles_of(model)), "of": dense_tiles, "dense_tiles": kept,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiles", type=float, nargs="+", default=[0.3, 0.15, 0.1, 0.05])
    parser.add_argument("--seed", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--kind", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--out", type=Path, default=Path("docs/data/projection_kinds.jsonl"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    results = ResultLines(options.out, KEY)
    for share in options.tiles:
        for kind in options.kind:
            for seed in options.seed:
                if not results.has(kind=kind, tiles=share, seed=seed):
                    results.add(run(kind, share, seed))
    print(kinds_table(results.rows), end="")


if __name__ == "__main__":
    main()
