"""The study's claims: tables and pictures from docs/data/study.jsonl, as they stand in docs/claims.md.

``python -m benchmarks.study.claims`` prints all tables and draws docs/images/study-*.png; with ``--write
docs/claims.md`` the tables take the place of that document's marked blocks instead. Nothing is trained: `make study`
does that. Where the study is incomplete the tables say so, and mark what rests on fewer runs.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from analysis.pictures import style
from benchmarks.shared.marked_blocks import publish
from benchmarks.shared.result_lines import ResultLines
from benchmarks.study import study
from benchmarks.study.picture import draw_study
from benchmarks.study.runs import MEASURED_ON
from benchmarks.study.settings import KEY, RunKey, Study, gather
from benchmarks.study.structures import NETWORKS, SavedNetwork, network_file, structure_picture, structure_table
from benchmarks.study.summary import claims
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


def read_study(path: Path, wanted: Sequence[RunKey] = ()) -> Study:
    """The study in a file of results. Raises InputError where there is none, or it holds what is no result."""
    if not path.exists():
        raise InputError(
            f"results '{path}'", "no such file", "the claims rest on the study's results", "Run `make study`."
        )
    rows = ResultLines(path, KEY).rows
    if not rows:
        raise InputError(f"results '{path}'", "no rows", "the claims rest on the study's results", "Run `make study`.")
    return gather(rows, wanted, MEASURED_ON, str(path))


def all_runs() -> list[study.Job]:
    """Every run that the study asks for."""
    return study.jobs(argparse.Namespace(part=None, machine=None, family=None, budget=None, seed=None))


def blocks_of(results: Study) -> dict[str, str]:
    """Text of every block that rests on the results alone, by name."""
    machines = MEASURED_ON
    return {
        "completeness": completeness(results),
        "claims": claims(results, machines, PLAIN, SCATTERED),
        "accuracies": everything(results),
        "iso latency": iso_accuracy(results, machines, "latency_cycles"),
        "iso energy": iso_accuracy(results, machines, "energy_pj"),
        "iso latency, wider": iso_shares(results, machines, "latency_cycles", WIDER_MARGIN),
        "iso energy, wider": iso_shares(results, machines, "energy_pj", WIDER_MARGIN),
        "hypervolume latency": hypervolumes(results, machines, "latency_cycles"),
        "hypervolume energy": hypervolumes(results, machines, "energy_pj"),
        "against singles": against_singles(results, LEARNED),
        "against singles, any width": against_singles(results, ANY_WIDTH),
        "ablations": ablations(results),
        "ratios to width shrinkage": ratios_to_blind(results, machines, LEARNED),
        "ratios to width shrinkage, any width": ratios_to_blind(results, machines, ANY_WIDTH),
        "scatter": scatter_worth(results, PLAIN, SCATTERED),
        "groups": groups_against_lattice(results, PLAIN, SCATTERED),
    }


def shown_networks(results: Study, folder: Path) -> list[SavedNetwork]:
    """One kept network of each part: a learned lattice trained for the part's first machine, seed 0.

    It is that of the budget nearest the middle which is no plain low rank, or else that of the middle.
    """
    found = []
    for part in results.parts:
        machine = results.training_machines(part)[0]
        settings = [s for s in results.of(part, LEARNED, machine) if 0 in s.runs]
        settings.sort(key=lambda s: -s.budget)
        middle = len(settings) // 2
        nearest = sorted(range(len(settings)), key=lambda at: abs(at - middle))
        for at in sorted(nearest, key=lambda at: settings[at].runs[0].kind == "low_rank"):
            network = network_file(folder, part, machine, LEARNED, settings[at].budget, seed=0)
            if network.path.exists():
                found.append(network)
                break
    return found


def draw(results: Study, folder: Path) -> None:
    """The fronts of every part that has its dense network."""
    for part in results.parts:
        if results.dense(part) is not None:
            style.save_figure(draw_study(results, part, MEASURED_ON, SHOWN), folder / f"study-{part}.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("docs/data/study.jsonl"))
    parser.add_argument("--images", type=Path, default=Path("docs/images"))
    parser.add_argument("--networks", type=Path, default=NETWORKS, help="folder of the networks that the study kept")
    parser.add_argument("--write", type=Path, help="the document whose marked blocks are written")
    options = parser.parse_args()
    try:
        results = read_study(options.results, all_runs())
        blocks = blocks_of(results)
        networks = shown_networks(results, options.networks)
        if networks:
            blocks["structures"] = "\n".join(structure_table(network) for network in networks)
            style.save_figure(structure_picture(networks), options.images / "study-structures.png")
        draw(results, options.images)
        publish(blocks, options.write)
    except InputError as error:
        raise SystemExit(str(error)) from None
    if not networks:
        print(f"no networks in {options.networks}: the table and picture of structures stay as they are")


if __name__ == "__main__":
    main()
