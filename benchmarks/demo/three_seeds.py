"""The demo's networks with several seeds: what `gblr-hw demo` prints for one, and means over all.

``python -m benchmarks.demo.three_seeds [--seeds 0 1 2] [--out docs/data/demo.json]``: about four minutes a seed on two
cores. Figures of single networks (int8 accuracy, multiplications, cycles, energy) are those of the first seed.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.demo.tables import first_seed_table, seeds_table
from benchmarks.shared.measurement import write_json
from gblr_hw.demo.demo import Measurement
from gblr_hw.demo.demo_networks import demo_measurements


def rows_of(by_seed: Sequence[Sequence[Measurement]]) -> list[dict[str, Any]]:
    """A row a network; by_seed: each seed's measurements, of the same networks on the same machines."""
    found = [{(m.network.name, m.machine.name): m for m in measurements} for measurements in by_seed]
    names, machines = (list(dict.fromkeys(key[at] for key in found[0])) for at in range(2))

    def of_dense(name: str, machine: str, figure: str) -> float:
        """Mean over seeds of what a network takes of the dense one of its seed."""
        ratios = []
        for one in found:
            mine, dense = one[name, machine], one[names[0], machine]
            values = [getattr(m if hasattr(m, figure) else m.report, figure) for m in (mine, dense)]
            ratios.append(values[0] / values[1])
        return statistics.fmean(ratios)

    rows = []
    for name in names:
        first = found[0][name, machines[0]]
        row: dict[str, Any] = {
            "network": name,
            "accuracies": [one[name, machines[0]].network.accuracy for one in found],
            "int8_accuracy": first.int8_accuracy,
            "multiplications": first.multiplications,
            "multiplications_of_dense": of_dense(name, machines[0], "multiplications"),
            "machines": {},
        }
        for machine in machines:
            report = found[0][name, machine].report
            row["machines"][machine] = {
                "latency_cycles": int(report.latency_cycles),
                "energy_pj": float(report.energy_pj),
                "cycles_of_dense": of_dense(name, machine, "latency_cycles"),
                "energy_of_dense": of_dense(name, machine, "energy_pj"),
            }
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--workers", type=int, default=2, help="networks trained at a time")
    parser.add_argument("--out", type=Path, help="write all figures as JSON")
    options = parser.parse_args()
    measured = []
    for seed in options.seeds:
        measured.append(
            demo_measurements(seed, options.workers, lambda done, of, what: print(f"{done}/{of} {what}", flush=True))
        )
    rows = rows_of(measured)
    print(f"{first_seed_table(rows)}\n{seeds_table(rows, options.seeds)}", end="")
    write_json(options.out, seeds=options.seeds, rows=rows)


if __name__ == "__main__":
    main()
