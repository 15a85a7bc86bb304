"""Networks of the study where the DRAM is a standard's banks and not one bandwidth: do their families keep their order?

python -m benchmarks.dram.study_rankings [--part digits] [--family "low rank"] [--budget 0.4]
    [--out docs/data/dram_study.jsonl]

The study's weights are not kept, so its networks are trained again, as the study trains them: one seed, and of its
settings those of `SETTINGS`. Resumable: what is there is not trained again. Ten to fifteen CPU seconds a network, a
quarter of an hour in all. The parts of Fashion-MNIST need Debian's dataset-fashion-mnist (--data names another folder).
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before numpy and torch are loaded

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from analysis.pictures.family_marks import REFERENCE
from benchmarks.dram.rankings import cycles_on_memories
from benchmarks.dram.study_tables import claims_text, setting_text, settings_text
from benchmarks.shared.result_lines import ResultLines
from benchmarks.study.runs import ABLATION, NETWORKS, PARTS, retrained
from gblr_hw.cost.target import UnreachableTargetError
from gblr_hw.demo.fashion_mnist import FOLDER
from gblr_hw.frontend import export_network
from gblr_hw.lowering.whole_network import lower_network
from simulator import Machine

KEY = ("part", "trained_for", "budget", "seed", "family", "machine")
SEED = 0
ON = ("edge-16", "mid-32")  # plain-32 has the DRAM of mid-32, and cloud-128 gains nothing from these networks
# Part and machine that is trained for -> budgets.
SETTINGS = {
    ("digits", "edge-16"): (0.5, 0.4, 0.32),
    ("digits", "mid-32"): (0.65,),
    ("fashion-vit", "edge-16"): (0.5,),
    ("fashion-mixer", "edge-16"): (0.5,),
}

Row = dict[str, Any]


class Job(NamedTuple):
    """A network of the study, by the names of its rows."""

    part: str
    trained_for: str
    budget: float
    seed: int
    family: str


def jobs() -> Iterator[Job]:
    """The dense network of each part, then its families by setting: those that claims are about."""
    parts: set[str] = set()
    for (part, trained_for), budgets in SETTINGS.items():
        if part not in parts:
            yield Job(part, trained_for, 1.0, SEED, REFERENCE)
        parts.add(part)
        for budget in budgets:
            for family in PARTS[part].settings[trained_for].families:
                if family not in ABLATION:
                    yield Job(part, trained_for, budget, SEED, family)


def measured(job: Job, cache: Path, data: Path) -> Iterator[Row]:
    """Accuracy and cycles on each DRAM, a row for each machine; the reason where the target cannot be reached."""
    row: Row = job._asdict()
    try:
        network = retrained(job.part, job.trained_for, job.family, job.budget, job.seed, cache, data)
    except UnreachableTargetError as error:
        yield from (row | {"machine": name, "unreachable": str(error)} for name in ON)
        return
    exported = export_network(network.model, PARTS[job.part].example)
    for name in ON:
        machine = Machine.load(name)
        program = lower_network(exported.network, exported.weights, machine)
        found = {"kind": network.kind, "accuracy": network.accuracy, "on": cycles_on_memories(program, machine)}
        yield row | {"machine": name} | found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", action="append", choices=sorted({part for part, _ in SETTINGS}))
    parser.add_argument("--family", action="append", choices=list(NETWORKS))
    parser.add_argument("--budget", action="append", type=float)
    parser.add_argument("--data", type=Path, default=FOLDER, help="folder with Fashion-MNIST's IDX files")
    parser.add_argument("--cache", type=Path, default=Path("build/dram"), help="networks under way")
    parser.add_argument("--out", type=Path, default=Path("docs/data/dram_study.jsonl"))
    options = parser.parse_args()
    results = ResultLines(options.out, KEY)
    options.cache.mkdir(parents=True, exist_ok=True)
    for job in jobs():
        asked = ((options.part, job.part), (options.family, job.family), (options.budget, job.budget))
        wanted = all(only is None or one in only for only, one in asked)
        if not wanted or all(results.has(**job._asdict(), machine=name) for name in ON):
            continue
        for row in measured(job, options.cache, options.data):
            results.add(row)
            found = row.get("accuracy", "not reached")
            print(*job, row["machine"], found, [on["cycles"] for on in row.get("on", ())], flush=True)
    print(setting_text(results.rows), settings_text(results.rows), claims_text(results.rows), sep="\n", end="")


if __name__ == "__main__":
    main()
