"""In which regime a structure pays: whole programs of prefill and decode, one sequence and eight, on every preset.

python -m benchmarks.networks.regimes [--out docs/data/regimes.jsonl]

An encoder and two decoders at published widths and of few layers, so that a row takes seconds: MiniLM's (2 of 6 layers,
a third of the vocabulary, 1,024 positions), GPT-2's (2 of 12 layers, a sixth of the vocabulary, so that the language
head has the whole network's share), and one block of TinyLlama-1.1B. Every linear layer, the language head too, is in
each family with 30 % of its multiplications and random weights; beside them all layers dense in four bits. Eight
sequences of 197 and 1,024 tokens are left out, to keep the whole at half an hour. Resumable: what is there is not
measured again.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before numpy and torch are loaded

import argparse
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from analysis.pictures.family_marks import REFERENCE
from benchmarks.networks.advice import NARROW
from benchmarks.networks.regime_tables import FOUR_BITS, KEY, REGIMES, WAYS, Regime, regimes_text
from benchmarks.shared.result_lines import ResultLines
from benchmarks.structures.in_networks import OF_THE_ARRAY, exported_in_family
from gblr_hw.frontend.export import ExportedNetwork, export_network
from gblr_hw.frontend.sources import GPT2_SMALL, Built, Request, bert, gpt2, llama_block
from gblr_hw.lowering.lower_layer import lower_operator
from gblr_hw.lowering.quantise.tile_bits import narrow_kinds
from gblr_hw.lowering.whole_network import lower_network
from simulator import Machine, Report, simulate
from simulator.timing.report import CAUSES

MACHINES = ("edge-16", "mid-32", "cloud-128", "plain-32")
SHARE = 0.3  # of a dense layer's multiplications

# Sizes: Wang et al., arXiv 2002.10957 (MiniLM-L6-H384); Zhang et al., arXiv 2401.02385, table 2 (TinyLlama).
MINILM = {
    "hidden_size": 384, "num_hidden_layers": 2, "num_attention_heads": 12, "intermediate_size": 1536,
    "vocab_size": 30522 // 3, "max_position_embeddings": 1024, "type_vocab_size": 2,
}  # fmt: skip
GPT2 = {**GPT2_SMALL, "n_layer": 2, "vocab_size": 8376}  # 50,257 / 6, in as many blocks as the other layers
TINY_LLAMA = {
    "hidden_size": 2048, "num_attention_heads": 32, "num_key_value_heads": 4, "intermediate_size": 5632,
}  # fmt: skip
NETWORKS: Mapping[str, Callable[[Request], Built]] = {
    "MiniLM": lambda request: bert(request, MINILM),
    "GPT-2": lambda request: gpt2(request, GPT2),
    "TinyLlama": lambda request: llama_block(request, TINY_LLAMA),
}
ENCODERS = ("MiniLM",)  # they do not decode

Row = dict[str, Any]


def cases() -> Iterator[tuple[str, Regime]]:
    """Every network in the regimes that it has."""
    return ((name, regime) for name in NETWORKS for regime in REGIMES if not (regime.past and name in ENCODERS))


def built(network: str, regime: Regime) -> Built:
    """A network in evaluation mode, with random weights, and a regime's inputs."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model, inputs = NETWORKS[network](Request(regime.batch, regime.tokens, regime.past))
    return model.eval(), inputs


def measure(network: str, regime: Regime, results: ResultLines) -> Iterator[Row]:
    """What is missing of a network in a regime: each way on each machine."""
    dense: ExportedNetwork | None = None
    exported: dict[tuple[object, ...], ExportedNetwork] = {}
    for name in MACHINES:
        machine = Machine.load(name)
        for way in (REFERENCE, *WAYS):
            row: Row = {
                "network": network, "regime": regime.title, "batch": regime.batch, "machine": name, "way": way,
            }  # fmt: skip
            if results.has(**row):
                continue
            dense = dense or export_network(*built(network, regime))
            key = (way, machine.rows, machine.cols) if way in OF_THE_ARRAY else (way,)
            if way in (REFERENCE, FOUR_BITS):
                exported[key] = dense
            elif key not in exported:
                exported[key] = exported_in_family(*built(network, regime), dense.weights, way, machine, SHARE)
            yield row | figures(simulated(exported[key], machine, way == FOUR_BITS))


def simulated(exported: ExportedNetwork, machine: Machine, in_four_bits: bool) -> Report:
    """A network's whole program, run."""
    machine = machine.with_(datatypes=NARROW) if in_four_bits else machine
    narrow = narrow_kinds(NARROW["narrow_bits"] if in_four_bits else None, machine)
    lower_linear = partial(lower_operator, narrow=narrow)
    program = lower_network(exported.network, exported.weights, machine, lower_linear=lower_linear, narrow=narrow)
    return simulate(program, machine)


def figures(report: Report) -> Row:
    """What is kept of a simulation: causes are cycles of the array's time line, by what they went to."""
    linear = report.cycles_by_group["linear"]
    return {
        "latency_cycles": report.latency_cycles,
        "energy_uj": round(report.energy_pj * 1e-6, 1),
        "dram_bytes": report.dram_bytes,
        "multiplications": report.multiplications,
        "tiles": report.tiles,
        "linear_share": round(linear / report.latency_cycles, 4),
        "bound": report.bound,
        "roofline_fraction": round(report.roofline_fraction, 4),
        "causes": {cause: sum(layer.cycles_by_cause[cause] for layer in report.layers) for cause in CAUSES},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/data/regimes.jsonl"))
    results = ResultLines(parser.parse_args().out, KEY)
    torch.set_num_threads(1)
    for network, regime in cases():
        for row in measure(network, regime, results):
            results.add(row)
            print(*(row[field] for field in KEY), row["latency_cycles"], flush=True)
    print(regimes_text(results.rows), end="")


if __name__ == "__main__":
    main()
