"""The study's claims: tables and pictures from docs/data/study.jsonl.

``python -m benchmarks.study.claims`` prints all tables and draws docs/images/study-*.png; `make docs` writes the tables
into docs/claims.md and docs/claims-tables.md. Nothing is trained: `make study` does that. Where the study is incomplete
the tables say so, and mark what rests on fewer runs.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from matplotlib.figure import Figure

from analysis.pictures import style
from benchmarks.study import study
from benchmarks.study.picture import draw_study
from benchmarks.study.runs import MEASURED_ON
from benchmarks.study.settings import Study, read_study
from benchmarks.study.summary import chosen, claims
from benchmarks.study.tables import (
    ANY_WIDTH,
    LEARNED,
    SHOWN,
    WIDER_MARGIN,
    ablations,
    against_singles,
    completeness,
    everything,
    groups_against_lattice,
    hypervolumes,
    iso_accuracy,
    iso_shares,
    ratios_to_blind,
    scatter_worth,
)
from simulator.base.errors import InputError

PLAIN, SCATTERED = "plain-32", "mid-32"


def all_runs() -> list[study.Job]:
    """Every run that the study asks for."""
    return study.jobs(argparse.Namespace(part=None, machine=None, family=None, budget=None, seed=None))


# Block of docs/claims.md and docs/claims-tables.md -> what makes its text from the results alone.
BLOCKS: Mapping[str, Callable[[Study], str]] = {
    "completeness": completeness,
    "claims": partial(claims, machines=MEASURED_ON, plain=PLAIN, scattered=SCATTERED),
    "chosen": chosen,
    "accuracies": everything,
    "iso latency": partial(iso_accuracy, machines=MEASURED_ON, quantity="latency_cycles"),
    "iso energy": partial(iso_accuracy, machines=MEASURED_ON, quantity="energy_pj"),
    "iso latency, wider": partial(iso_shares, machines=MEASURED_ON, quantity="latency_cycles", margin=WIDER_MARGIN),
    "iso energy, wider": partial(iso_shares, machines=MEASURED_ON, quantity="energy_pj", margin=WIDER_MARGIN),
    "hypervolume latency": partial(hypervolumes, machines=MEASURED_ON, quantity="latency_cycles"),
    "hypervolume energy": partial(hypervolumes, machines=MEASURED_ON, quantity="energy_pj"),
    "against singles": partial(against_singles, learned=LEARNED),
    "against singles, any width": partial(against_singles, learned=ANY_WIDTH),
    "ablations": ablations,
    "ratios to width shrinkage": partial(ratios_to_blind, machines=MEASURED_ON, family=LEARNED),
    "ratios to width shrinkage, any width": partial(ratios_to_blind, machines=MEASURED_ON, family=ANY_WIDTH),
    "scatter": partial(scatter_worth, plain=PLAIN, scattered=SCATTERED),
    "groups": partial(groups_against_lattice, plain=PLAIN, scattered=SCATTERED),
}


def study_picture(results: Study, part: str) -> Figure:
    """The fronts of a part. Raises InputError where its dense network is missing."""
    return draw_study(results, part, MEASURED_ON, SHOWN)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("docs/data/study.jsonl"))
    parser.add_argument("--images", type=Path, default=Path("docs/images"))
    options = parser.parse_args()
    try:
        results = read_study(options.results, all_runs(), MEASURED_ON)
        print("\n".join(f"{name}\n\n{table(results)}" for name, table in BLOCKS.items()), end="")
        for part in results.parts:
            if results.dense(part) is not None:
                style.save_figure(study_picture(results, part), options.images / f"study-{part}.png")
    except InputError as error:
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    main()
