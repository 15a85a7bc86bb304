"""Whole networks and networks of the study where the DRAM is a standard's banks and not one bandwidth: does the order
of the families survive?

python -m benchmarks.dram.rankings [--part networks] [--part study] [--out docs/data/dram_rankings.jsonl]

Networks are those of `benchmarks.networks.models` that take a minute or two each, every linear layer in each family
with 30 % of its multiplications and random weights. Networks of the study are trained again, one setting and seed:
their weights are not kept. Resumable: what is there is not measured again. Ten minutes in all.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before numpy and torch are loaded

import argparse
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from analysis.pictures.family_marks import REFERENCE
from benchmarks.dram.ranking_tables import networks_text, study_text
from benchmarks.dram.standards import SHARE, memories
from benchmarks.networks.models import CASES
from benchmarks.shared.result_lines import ResultLines
from benchmarks.structures.formats import Case, formats
from benchmarks.study.runs import PARTS, retrained
from gblr_hw.cost.target import UnreachableTargetError
from gblr_hw.demo.fashion_mnist import FOLDER
from gblr_hw.frontend import export_network
from gblr_hw.frontend.put_weights import put_layers
from gblr_hw.frontend.random_gblr import random_blocks
from gblr_hw.frontend.sources import load_source
from gblr_hw.lowering.whole_network import lower_network
from gblr_hw.weights.stored import DenseWeights, LayerWeights
from simulator import Machine, Program, simulate

KEY = ("kind", "network", "machine", "family")
NETWORKS = {
    "DeiT-S": ("mid-32",),
    "Mixer-S/16": ("mid-32", "edge-16"),
    "BERT-base, 128 tokens": ("mid-32",),
    "MiniLM-L6, 64 tokens": ("mid-32", "edge-16"),
    "GPT-2, decode 1 after 1024": ("mid-32",),
}
STUDY = ("digits", "edge-16", 0.5, 0)  # part, machine that is trained for, budget, seed
STUDY_ON = ("edge-16", "mid-32")
BLOCKS = (4, 3, 2)  # of Monarch and BLAST: the first that divides both sides of a layer

Row = dict[str, Any]


def in_family(weights: Mapping[str, LayerWeights], family: str, machine: Machine) -> dict[str, LayerWeights]:
    """Dense layers that blocks divide, in a family; the others as they are."""
    torch.manual_seed(0)
    found = dict(weights)
    for name, held in weights.items():
        if not isinstance(held, DenseWeights) or family == REFERENCE:
            continue
        outputs, inputs = held.weight.shape
        blocks = next((count for count in BLOCKS if outputs % count == inputs % count == 0), None)
        rank = round(SHARE * outputs * inputs / (outputs + inputs))
        if blocks is None or rank < blocks:
            continue
        if family == "GBLR":
            made: LayerWeights = random_blocks(inputs, outputs, SHARE, torch.Generator().manual_seed(0))
        else:
            made = formats(Case(name, inputs, outputs, 1, blocks, rank), machine)[family]()
        found[name] = replace(made, bias=held.bias)  # type: ignore[type-var]
    return found


def networks(results: ResultLines) -> Iterator[Row]:
    """Cycles of each family of each network on each DRAM."""
    for case in (case for case in CASES if case.title in NETWORKS):
        dense: Mapping[str, LayerWeights] = {}
        for name in NETWORKS[case.title]:
            machine = Machine.load(name)
            for family in (REFERENCE, "low rank", "block sparse", "lattice", "Monarch", "BLAST", "GBLR"):
                row: Row = {"kind": "network", "network": case.title, "machine": name, "family": family}
                if results.has(**row):
                    continue
                model, inputs = load_source(case.source, tokens=case.tokens, past=case.past)
                dense = dense or export_network(model, inputs).weights
                made = {key: held for key, held in in_family(dense, family, machine).items() if held is not dense[key]}
                # Modules where there is one: the export then knows in which order its outputs are best stored.
                own = {key: held for key, held in made.items() if _is_product(model, key)}
                put_layers(model, own, family)
                exported = export_network(model, inputs)
                others = {key: held for key, held in made.items() if key not in own}
                program = lower_network(exported.network, {**exported.weights, **others}, machine)
                yield row | {"on": _cycles(program, machine)}


def _is_product(model: nn.Module, name: str) -> bool:
    """Whether a module of that name is a matrix: a patch embedding's convolution is none."""
    weight = getattr(dict(model.named_modules()).get(name), "weight", None)
    return weight is not None and weight.dim() == 2


def study(results: ResultLines, cache: Path, data: Path) -> Iterator[Row]:
    """Accuracy and cycles of the study's families on each DRAM: one setting, one seed."""
    part, trained_for, budget, seed = STUDY
    cache.mkdir(parents=True, exist_ok=True)
    for family in (REFERENCE, *PARTS[part].settings[trained_for].families):
        row: Row = {"kind": "study", "network": part, "family": family}
        if all(results.has(**row, machine=name) for name in STUDY_ON):
            continue
        try:
            network = retrained(part, trained_for, family, budget, seed, cache, data)
        except UnreachableTargetError:
            continue
        exported = export_network(network.model, PARTS[part].example)
        for name in STUDY_ON:
            program = lower_network(exported.network, exported.weights, Machine.load(name))
            on = _cycles(program, Machine.load(name))
            yield row | {"machine": name, "accuracy": network.accuracy, "on": on}


def _cycles(program: Program, machine: Machine) -> list[Row]:
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
    parser.add_argument("--part", action="append", choices=("networks", "study"))
    parser.add_argument("--data", type=Path, default=FOLDER, help="folder with Fashion-MNIST's IDX files")
    parser.add_argument("--cache", type=Path, default=Path("build/dram"), help="networks under way")
    parser.add_argument("--out", type=Path, default=Path("docs/data/dram_rankings.jsonl"))
    options = parser.parse_args()
    results = ResultLines(options.out, KEY)
    parts: dict[str, Callable[[], Iterator[Row]]] = {
        "networks": lambda: networks(results),
        "study": lambda: study(results, options.cache, options.data),
    }
    for part in options.part or parts:
        for row in parts[part]():
            results.add(row)
            print(row["network"], row["machine"], row["family"], [on["cycles"] for on in row["on"]], flush=True)
    print(networks_text(results.rows), study_text(results.rows), sep="\n", end="")


if __name__ == "__main__":
    main()
