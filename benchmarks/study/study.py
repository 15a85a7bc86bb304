"""Structures compared fairly: accuracy at equal simulated latency, with means and spreads over seeds.

``python -m benchmarks.study.study [--part digits] [--machine edge-16] [--family "block sparse"] [--budget 0.5] [--seed
0]``

Every family starts from the same dense network of a seed and sees the same data for as many epochs; narrower and
shallower dense networks are trained from scratch for all epochs. The three trials of automatic choice, a quarter of the
epochs each, come on top. Learning rate, batches and schedule are the same for all. Latency is that of the whole
network, every operator of it, for one image at a time. Each option may be given several times and selects; without
options everything runs. Results are lines of JSON in docs/data/study.jsonl, and what is there is not run again;
networks under way are kept in build/study, so that an interrupted study goes on. What a worker was at that died is
given to another.
The parts fashion-vit and fashion-mixer need Debian's dataset-fashion-mnist (--data names another folder).
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from analysis.pictures.family_marks import REFERENCE
from analysis.tables.table import Column, format_table
from benchmarks.shared.result_lines import ResultLines
from benchmarks.study.runs import NETWORKS, PARTS, run
from gblr_hw.demo.fashion_mnist import FOLDER
from gblr_hw.jobs.executors import results_of
from simulator.base.errors import InputError

KEY = ("part", "machine", "family", "budget", "seed")
SEEDS = (0, 1, 2)

Job = tuple[str, str, str, float, int]


def jobs(options: argparse.Namespace) -> list[Job]:
    """All runs that are asked for, in the order of the table; dense has one budget, 1."""
    found: list[Job] = []
    for part in options.part or PARTS:
        for machine, setting in PARTS[part].settings.items():
            if options.machine and machine not in options.machine:
                continue
            for seed in options.seed if options.seed is not None else SEEDS:
                for family in (REFERENCE, *setting.families):
                    if options.family and family not in options.family:
                        continue
                    wanted = (1.0,) if family == REFERENCE else setting.budgets
                    found += [
                        (part, machine, family, budget, seed)
                        for budget in wanted
                        if not options.budget or budget in options.budget
                    ]
    return found


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Mean accuracy and range over seeds: a row for each part, machine and family, a column for each budget."""
    parts = []
    for part, machine in dict.fromkeys((row["part"], row["machine"]) for row in rows):
        here = [row for row in rows if (row["part"], row["machine"]) == (part, machine)]
        budgets = sorted({row["budget"] for row in here}, reverse=True)
        lines: list[dict[str, object]] = []
        for family in (family for family in NETWORKS if any(row["family"] == family for row in here)):
            own = [row for row in here if row["family"] == family]
            cells = {str(b): _cell([row for row in own if row["budget"] == b]) for b in budgets}
            lines.append({"family": family, **cells})
        columns = [Column("family", "family", align="left"), *(Column(f"{b:g}x", str(b)) for b in budgets)]
        parts.append(f"{part}, trained for {machine}\n\n{format_table(columns, lines, markdown=True)}")
    return "\n".join(parts)


def _cell(rows: Sequence[dict[str, Any]]) -> str:
    accuracies = [100 * row["accuracy"] for row in rows if "accuracy" in row]
    if not accuracies:
        return "not reached" if rows else "-"
    return f"{statistics.mean(accuracies):.1f} ({min(accuracies):.1f}-{max(accuracies):.1f})"


def _check_data(part: str, folder: Path) -> None:
    """Hours of other runs should not come before the news that data is missing."""
    try:
        PARTS[part].sets(folder)
    except InputError as error:
        raise SystemExit(f"error: {error} Or choose other parts (--part).") from None


def _run_in(folders: tuple[Path, Path], *job: Any) -> dict[str, Any]:
    """A run whose networks under way and data lie in these folders."""
    cache, data = folders
    return run(*job, cache_folder=cache, data=data)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", action="append", choices=list(PARTS))
    parser.add_argument("--machine", action="append", choices=sorted({m for p in PARTS.values() for m in p.settings}))
    parser.add_argument("--family", action="append", choices=list(NETWORKS))
    parser.add_argument("--budget", action="append", type=float)
    parser.add_argument("--seed", action="append", type=int)
    parser.add_argument("--jobs", type=int, default=2, help="processes, of one thread each")
    parser.add_argument("--scheduler", help="Dask scheduler in their place, tcp://HOST:PORT, which sees the same files")
    parser.add_argument("--data", type=Path, default=FOLDER, help="folder with Fashion-MNIST's IDX files")
    parser.add_argument("--out", type=Path, default=Path("docs/data/study.jsonl"))
    parser.add_argument("--cache", type=Path, default=Path("build/study"), help="networks under way")
    options = parser.parse_args()
    results = ResultLines(options.out, KEY)
    options.cache.mkdir(parents=True, exist_ok=True)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    todo = [job for job in jobs(options) if not results.has(**dict(zip(KEY, job, strict=True)))]
    for part in {job[0] for job in todo}:
        _check_data(part, options.data)
    folders = options.cache.resolve(), options.data.resolve()
    made = results_of(_run_in, folders, todo, options.jobs, options.scheduler)
    for done, (_, row) in enumerate(made, start=1):
        results.add(row)
        found = f"{100 * row['accuracy']:.1f} %" if "accuracy" in row else "not reached"
        name = ", ".join(str(row[field]) for field in KEY)
        print(f"[{done}/{len(todo)}] {name}: {found}", flush=True)
    print(table(results.rows))


if __name__ == "__main__":
    main()
