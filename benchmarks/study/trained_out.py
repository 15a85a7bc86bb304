"""Families trained for longer: 1, 2 and 4 times the study's epochs, so that none is judged by a short schedule.

``python -m benchmarks.study.trained_out [--family "block sparse"] [--budget 0.4] [--times 4] [--seed 0]``

The digits ViT for edge-16, as `benchmarks.study.study` trains it: so many times the epochs for the dense start and so
many times after it; GBLR by the published recipe and narrower dense networks from scratch for all of them. A line of
results also says which test images are right, for intervals over images. Each option may be given several times and
selects. What is in docs/data/trained_out.jsonl is not run again; networks under way are kept in build/study.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

from analysis.pictures.family_marks import REFERENCE
from benchmarks.shared.result_lines import ResultLines
from benchmarks.study.runs import SCRATCH, run

PART, MACHINE = "digits", "edge-16"
KEY = ("part", "machine", "family", "budget", "times", "seed")
BUDGETS, TIMES, SEEDS = (0.4, 0.32), (1, 2, 4), (0, 1, 2)
FAMILIES = ("GBLR, width shrinkage", "narrower", "block sparse", "automatic choice", *SCRATCH, "low rank")
# Whole ranks do not come that low however long they are trained: the study's rows say so.
UNREACHABLE = (("low rank", 0.32),)

Job = tuple[str, str, str, float, int, int]


def jobs(options: argparse.Namespace) -> list[Job]:
    """All runs that are asked for, those most worth knowing first: the longest training of each seed."""
    order = sorted(TIMES, key=lambda times: (times != max(TIMES), times))
    found = [
        (PART, MACHINE, family, budget, times, seed)
        for seed, times in product(options.seed or SEEDS, options.times or order)
        for family in (REFERENCE, *FAMILIES)
        for budget in ((1.0,) if family == REFERENCE else BUDGETS)
    ]
    return [
        job
        for job in found
        if (not options.family or job[2] in options.family)
        and (not options.budget or job[3] in options.budget)
        and job[2:4] not in UNREACHABLE
    ]


def trained(job: Job, cache_folder: Path) -> dict[str, Any]:
    """One line of results."""
    part, machine, family, budget, times, seed = job
    return {"times": times, **run(part, machine, family, budget, seed, cache_folder=cache_folder, times=times)}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", action="append", choices=[REFERENCE, *FAMILIES])
    parser.add_argument("--budget", action="append", type=float, choices=[1.0, *BUDGETS])
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
