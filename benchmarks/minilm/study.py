"""all-MiniLM-L6-v2 on fewer tiles, family by family: converted, converted in order, and briefly distilled.

``python -m benchmarks.minilm.study --work minilm-work [--method distilled] [--family lattice] [--tiles 0.2]``

Needs the packages of the extra "minilm". Every family has the same tiles in every layer and the same texts: 150 BBC
News texts (64 tokens) for the input moments, which also train the linear probe on each network's own embeddings;
1,000 others measure; the 1,075 left are used without labels by distillation, together with the 150. Families: low
rank (SVD weighted by activations), block sparse (weighted, refitted by least squares), rank groups and the lattice; P
= 32. Latency and energy: the 36 encoder matrices with 64 tokens, on mid-32 and plain-32. Results are lines of JSON in
docs/data/minilm_study.jsonl, and what is there is not run again. One thread.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from benchmarks.minilm.conversion import CALIBRATION, HIDDEN, TEST, Task, texts
from benchmarks.minilm.distil import Lessons, Steps, distil, lessons, with_layers
from benchmarks.minilm.tables import MEASURED_ON, study_table
from benchmarks.shared.result_lines import ResultLines
from gblr_hw import convert, convert_in_order, lower
from gblr_hw.weights.family import FAMILIES, converted
from gblr_hw.weights.stored import LatticeWeights
from simulator import Machine, simulate

KEY = ("method", "family", "tiles", "seed")
FAMILY_LABELS = tuple(FAMILIES[name].label for name in converted())
METHODS = ("converted", "in order", "distilled")
TOKENS = 64
IN_ORDER, DISTILLED = (0.3, 0.2), (0.2, 0.1)
SEEDS = {("lattice", 0.2): (0, 1, 2), ("rank groups", 0.2): (0, 1, 2)}
SUMS = {
    f"encoder.layer.{i}.{part}.dense": f"encoder.layer.{i}.{part}.LayerNorm"
    for i in range(6)
    for part in ("attention.output", "output")
}

Job = tuple[str, str, float, int]
Network = Mapping[str, LatticeWeights]


def jobs(options: argparse.Namespace) -> list[Job]:
    """All networks asked for, the ones most worth knowing first: seed 0, then 0.2 and 0.3 before the rest."""
    found: list[Job] = [("dense", "dense", 1.0, 0)]
    for tiles in (0.3, 0.2, 0.5, 0.1, 0.15):
        found += [("converted", family, tiles, 0) for family in reversed(FAMILY_LABELS)]
        if tiles in DISTILLED:
            for family in reversed(FAMILY_LABELS):
                found += [("distilled", family, tiles, seed) for seed in SEEDS.get((family, tiles), (0,))]
        if tiles in IN_ORDER:
            found += [("in order", family, tiles, 0) for family in reversed(FAMILY_LABELS)]
    asked = zip(KEY, (options.method, options.family, options.tiles, options.seed), strict=True)
    for place, (_, wanted) in enumerate(asked):
        found = [job for job in found if not wanted or job[place] in wanted]
    return sorted(found, key=lambda job: job[3])


class Study:
    """The task, what its networks are made from, and the results so far."""

    def __init__(self, work: Path, results: ResultLines) -> None:
        self.work, self.results, self.task = work, results, Task()
        self.machine = Machine.load("mid-32")
        self.moments = self.task.covariances(work / "covariances.safetensors")

    def run(self, job: Job, steps: Steps) -> dict[str, Any]:
        """One line of results."""
        method, family, tiles, seed = job
        begin = time.process_time()
        row: dict[str, Any] = dict(zip(KEY, job, strict=True))
        if method == "dense":
            model, cost = self.task.model, self._costs(self.task.dense)
        else:
            network = self.in_order(family, tiles) if method == "in order" else self.converted(family, tiles)
            model = with_layers(self.task.model, network)
            row["tiles_used"] = sum(weights.structure().tile_count(32, 32) for weights in network.values())
            cost = self._known_costs(family, tiles) if method == "distilled" else self._costs(network)
        if method == "distilled":
            losses = distil(model, self.lessons, steps, seed)
            row |= {"steps": steps.steps, "first_loss": round(losses[0], 4), "last_loss": round(losses[-1], 4)}
        row |= {key: round(value, 4) for key, value in self.task.measure_model(model.eval()).items()} | cost
        return {**row, "cpu_s": round(time.process_time() - begin, 1)}

    def converted(self, family: str, tiles: float) -> Network:
        """A family's network, each layer fitted by itself in the norm of its inputs."""
        return convert(self.task.dense, self.machine, tiles, self.moments, hidden=HIDDEN, family=family, work=self.work)

    def in_order(self, family: str, tiles: float) -> Network:
        """The same structures, later layers making up for earlier ones; the 150 texts give the moments."""
        return convert_in_order(
            self.task.model, self.machine, self.task.calibration, self.task.dense, sums=SUMS,
            rows=lambda batch: batch["attention_mask"], hidden=HIDDEN, start=self.converted(family, tiles),
        )  # fmt: skip

    @cached_property
    def lessons(self) -> Lessons:
        """The dense model's states for every text that does not measure."""
        chosen, _ = texts()
        unlabelled = chosen[:CALIBRATION] + chosen[CALIBRATION + TEST :]
        encoded = self.task.tokenizer(
            unlabelled, padding="max_length", truncation=True, max_length=TOKENS, return_tensors="pt"
        )
        return lessons(self.task.model, dict(encoded))

    def _known_costs(self, family: str, tiles: float) -> dict[str, dict[str, float]]:
        """Distillation keeps the structure: what the converted network costs."""
        for row in self.results.rows:
            if (row["method"], row["family"], row["tiles"]) == ("converted", family, tiles):
                return {key: row[key] for key in ("latency_cycles", "energy_pj")}
        return self._costs(self.converted(family, tiles))

    def _costs(self, network: Mapping[str, Any]) -> dict[str, dict[str, float]]:
        cycles, energy = {}, {}
        for name in MEASURED_ON:
            machine = Machine.load(name)
            report = simulate(lower(network, machine, tokens=TOKENS), machine)
            cycles[name], energy[name] = int(report.latency_cycles), round(float(report.energy_pj))
        return {"latency_cycles": cycles, "energy_pj": energy}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", action="append", choices=["dense", *METHODS])
    parser.add_argument("--family", action="append", choices=["dense", *FAMILY_LABELS])
    parser.add_argument("--tiles", action="append", type=float)
    parser.add_argument("--seed", action="append", type=int)
    parser.add_argument("--steps", type=int, default=Steps.steps, help="of distillation")
    parser.add_argument("--work", type=Path, default=Path("minilm-work"), help="folder for moments and fitted layers")
    parser.add_argument("--out", type=Path, default=Path("docs/data/minilm_study.jsonl"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.work.mkdir(parents=True, exist_ok=True)
    results = ResultLines(options.out, KEY)
    todo = [job for job in jobs(options) if not results.has(**dict(zip(KEY, job, strict=True)))]
    study = Study(options.work, results) if todo else None
    for job in todo:
        row = study.run(job, Steps(steps=options.steps))
        results.add(row)
        print(row, flush=True)
    print(study_table(results.rows), end="")


if __name__ == "__main__":
    main()
