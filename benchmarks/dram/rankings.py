"""Whole networks where the DRAM is a standard's banks and not one bandwidth: does the order of the families survive?

python -m benchmarks.dram.rankings [--out docs/data/dram_rankings.jsonl]

Networks are those of `benchmarks.networks.models`, every linear layer in each family with 30 % of its multiplications
and random weights. Resumable: what is there is not measured again. Twenty minutes in all.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before numpy and torch are loaded

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from analysis.pictures.family_marks import REFERENCE
from benchmarks.dram.ranking_tables import networks_text
from benchmarks.dram.standards import SHARE, memories
from benchmarks.networks.models import CASES
from benchmarks.shared.result_lines import ResultLines
from benchmarks.structures.in_networks import exported_in_family
from gblr_hw.frontend import export_network
from gblr_hw.frontend.sources import load_source
from gblr_hw.lowering.whole_network import lower_network
from gblr_hw.weights.stored import LayerWeights
from simulator import Machine, Program, simulate

KEY = ("network", "machine", "family")
NETWORKS = {
    "ViT-B/16": ("mid-32",),
    "DeiT-S": ("mid-32",),
    "Mixer-S/16": ("mid-32", "edge-16"),
    "BERT-base, 128 tokens": ("mid-32",),
    "MiniLM-L6, 64 tokens": ("mid-32", "edge-16"),
    "GPT-2, prefill 1024": ("mid-32",),
    "GPT-2, decode 1 after 1024": ("mid-32",),
    "Llama block 4096, decode 1 after 1024": ("mid-32",),
}

Row = dict[str, Any]


def networks(results: ResultLines) -> Iterator[Row]:
    """Cycles of each family of each network on each DRAM."""
    for case in (case for case in CASES if case.title in NETWORKS):
        dense: Mapping[str, LayerWeights] = {}
        for name in NETWORKS[case.title]:
            machine = Machine.load(name)
            for family in (REFERENCE, "low rank", "block sparse", "lattice", "Monarch", "BLAST", "GBLR"):
                row: Row = {"network": case.title, "machine": name, "family": family}
                if results.has(**row):
                    continue
                model, inputs = load_source(case.source, tokens=case.tokens, past=case.past)
                dense = dense or export_network(model, inputs).weights
                exported = exported_in_family(model, inputs, dense, family, machine, SHARE)
                program = lower_network(exported.network, exported.weights, machine)
                yield row | {"on": cycles_on_memories(program, machine)}


def cycles_on_memories(program: Program, machine: Machine) -> list[Row]:
    """Of a program, on the machine's own DRAM, on each standard's, and on one bandwidth of as many bytes."""
    return [
        {
            "model": on.dram.model,
            "channels": on.dram.channels,
            "gb_per_s": on.dram.gb_per_s,
            "cycles": simulate(program, on).latency_cycles,
        }
        for on in memories(machine)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/data/dram_rankings.jsonl"))
    results = ResultLines(parser.parse_args().out, KEY)
    for row in networks(results):
        results.add(row)
        print(row["network"], row["machine"], row["family"], [on["cycles"] for on in row["on"]], flush=True)
    print(networks_text(results.rows), end="")


if __name__ == "__main__":
    main()
