"""Families trained for longer: 1, 2 and 4 times the study's epochs, so that none is judged by a short schedule.

``python -m benchmarks.study.trained_out [--part digits] [--family "block sparse"] [--budget 0.4] [--times 4]``

The ViTs of digits and of Fashion-MNIST for edge-16, as `benchmarks.study.study` trains them: so many times the epochs
for the dense start and so many times after it; GBLR by the published recipe and narrower dense networks from scratch
for all of them. A line of results also says which test images are right, for intervals over images. Each option (and
`--seed`) may be given several times and selects. What is in docs/data/trained_out.jsonl is not run again; networks
under way are kept in build/study.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from analysis.pictures.family_marks import REFERENCE
from benchmarks.shared.result_lines import ResultLines
from benchmarks.study.runs import SCRATCH, run

KEY = ("part", "machine", "family", "budget", "times", "seed")
TIMES, SEEDS = (1, 2, 4), (0, 1, 2)
# Whole ranks do not come lower however long they are trained: the study's rows say so.
_ANYWHERE = ("GBLR, width shrinkage", "narrower", "block sparse", "automatic choice", *SCRATCH)
FAMILIES = (*_ANYWHERE, "low rank")
# By part and training machine: budgets, and the families that can reach each.
SETTINGS: Mapping[tuple[str, str], Mapping[float, tuple[str, ...]]] = {
    ("digits", "edge-16"): {0.4: FAMILIES, 0.32: _ANYWHERE},
    ("fashion-vit", "edge-16"): {0.65: FAMILIES, 0.4: _ANYWHERE},
}

Job = tuple[str, str, str, float, int, int]


def jobs(options: argparse.Namespace) -> list[Job]:
    """All runs that are asked for, those most worth knowing first: the longest training of each seed."""
    order = sorted(TIMES, key=lambda times: (times != max(TIMES), times))
    found = [
        (part, machine, family, budget, times, seed)
        for seed, times in product(options.seed or SEEDS, options.times or order)
        for (part, machine), budgets in SETTINGS.items()
        for budget, families in ({1.0: (REFERENCE,)} | dict(budgets)).items()
        for family in families
    ]
    return [
        job
        for job in found
        if (not options.part or job[0] in options.part)
        and (not options.family or job[2] in options.family)
        and (not options.budget or job[3] in options.budget)
    ]


def trained(job: Job, cache_folder: Path) -> dict[str, Any]:
    """One line of results."""
    part, machine, family, budget, times, seed = job
    return {"times": times, **run(part, machine, family, budget, seed, cache_folder=cache_folder, times=times)}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", action="append", choices=sorted({part for part, _ in SETTINGS}))
    parser.add_argument("--family", action="append", choices=[REFERENCE, *FAMILIES])
    budgets = {1.0, *(budget for setting in SETTINGS.values() for budget in setting)}
    parser.add_argument("--budget", action="append", type=float, choices=sorted(budgets))
    parser.add_argument("--times", action="append", type=int, choices=TIMES)
    parser.add_argument("--seed", action="append", type=int)
    parser.add_argument("--out", type=Path, default=Path("docs/data/trained_out.jsonl"))
    parser.add_argument("--cache", type=Path, default=Path("build/study"), help="networks under way")
    options = parser.parse_args(arguments)
    results = ResultLines(options.out, KEY)
    for folder in (options.cache, options.out.parent):
        folder.mkdir(parents=True, exist_ok=True)
    todo = [job for job in jobs(options) if not results.has(**dict(zip(KEY, job, strict=True)))]
    for done, job in enumerate(todo, start=1):
        row = trained(job, options.cache)
        results.add(row)
        found = f"{100 * row['accuracy']:.1f} %" if "accuracy" in row else "not reached"
        print(f"[{done}/{len(todo)}] {', '.join(map(str, job))}: {found}", flush=True)


if __name__ == "__main__":
    main()
