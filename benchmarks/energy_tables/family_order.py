"""Families at one layer on every machine, with counted events and latencies before other DRAM, which `gblr-hw
sensitivity` reads.

python -m benchmarks.energy_tables.family_order [--out docs/data/family_order.jsonl]

Layers and formats are those of `benchmarks.structures.formats`; weights are random, since events do not depend on them.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from analysis.tables.contenders import Contender
from analysis.tables.robustness import claim_table, claims_of, sentence
from benchmarks.shared.result_lines import ResultLines
from benchmarks.structures.formats import CASES, MACHINES, formats
from gblr_hw import lower
from simulator import Machine, simulate
from simulator.machine.dram_choice import with_dram_model

KEY = ("machine", "group", "family")
# What a sceptic of a constant latency and bandwidth would ask for: rows that miss, refresh, turnarounds.
SETTINGS = {
    "60 ns more": (60.0, 1.0),
    "85 % of the bandwidth": (0.0, 0.85),
    "70 % of the bandwidth": (0.0, 0.70),
    "60 ns more and 85 %": (60.0, 0.85),
}
STANDARDS = ("ddr4-3200", "lpddr4-3200", "lpddr5-6400", "hbm2-1600")  # banks and rows, at about the machine's bandwidth
LAYERS = ("ViT-B fc1",)


def order_table(runs: Sequence[Contender]) -> str:
    """Every claim that the order of families makes, and what becomes of it; then in words those that do not survive."""
    claims = claims_of(runs, Machine.load)
    fallen = [f"- {sentence(claim)}" for claim in claims if not claim.survives]
    held = sum(claim.survives for claim in claims)
    count = f"{held} of {len(claims)} claims survive every entry by itself and every DRAM. Those that do not:"
    return "\n".join([claim_table(claims, markdown=True), count, "", *fallen])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/data/family_order.jsonl"))
    lines = ResultLines(parser.parse_args().out, KEY)
    for name in MACHINES:
        machine = Machine.load(name)
        others = {setting: _before(machine, *change) for setting, change in SETTINGS.items()}
        others |= {standard: with_dram_model(machine, standard) for standard in STANDARDS}
        for case in (case for case in CASES if case.name in LAYERS):
            for family, make in formats(case, machine).items():
                row = {"machine": name, "group": case.name, "family": family}
                if lines.has(**row):
                    continue
                program = lower({"layer": make()}, machine, tokens=case.tokens)
                report = simulate(program, machine)
                row |= {"latency_cycles": report.latency_cycles, "events": dict(report.accesses)}
                row["cycles_by_dram"] = {s: simulate(program, other).latency_cycles for s, other in others.items()}
                lines.add(row)


def _before(machine: Machine, more_ns: float, share: float) -> Machine:
    dram = machine.dram
    return machine.with_(dram={"latency_ns": dram.latency_ns + more_ns, "gb_per_s": dram.gb_per_s * share})


if __name__ == "__main__":
    main()
