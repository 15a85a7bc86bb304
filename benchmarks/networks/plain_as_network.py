"""What it would cost to lower a checkpoint's layers as a network of operators that have nothing to do with each other.

``python -m benchmarks.networks.plain_as_network [--out docs/data/plain_as_network.json]``: two minutes, on one
thread.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before numpy and torch are loaded

from collections.abc import Mapping

import torch

from benchmarks.networks.tables import plain_as_network_table
from benchmarks.shared.measurement import cpu_seconds, out_option, write_json
from benchmarks.speed.vit_base import TOKENS, random_blocks, random_dense, vit_base
from gblr_hw.lowering.pipeline import lower
from gblr_hw.lowering.whole_network import lower_network
from gblr_hw.weights.stored import GBLRWeights, LayerWeights
from simulator.machine.machine import Machine
from simulator.network.network import Network, Operand, Operator, Port, Tensor
from simulator.program.program import Program
from simulator.timing.simulate import simulate

MACHINES = ("edge-16", "mid-32", "cloud-128", "plain-32")
SHARE = 0.3  # of a dense layer's multiplications
SHAPES = ((768, 768), (64, 96), (128, 512), (768, 3072))  # outputs, inputs


def as_network(weights: Mapping[str, LayerWeights], tokens: int) -> Network:
    """A linear operator for each layer, with an input and an output of its own ("NAME.x", "NAME.y")."""
    tensors: dict[str, Tensor] = {}
    ports: dict[str, list[Port]] = {"x": [], "y": []}
    operators = []
    for name, layer in weights.items():
        for end, width in (("x", layer.in_features), ("y", layer.out_features)):
            tensor, shape = f"{name}.{end}", (1, tokens, 1, width)
            tensors[tensor] = Tensor(tensor, *shape, kind="input" if end == "x" else "result")
            ports[end].append(Port(tensor, tensor, shape, shape, (0, 1, 2, 3)))
        view = Operand(f"{name}.x", tokens, 1, layer.in_features)
        operators.append(Operator(name, "linear", (view,), f"{name}.y", 1, tokens))
    return Network(tensors, tuple(operators), tuple(ports["x"]), tuple(ports["y"]), {})


def checkpoints() -> dict[str, dict[str, LayerWeights]]:
    """Layers of several shapes in three forms, and ViT-Base whole."""
    generator = torch.Generator().manual_seed(1)
    found: dict[str, dict[str, LayerWeights]] = {}
    for outputs, inputs in SHAPES:
        name = f"{outputs} x {inputs}"
        found[f"{name}, GBLR"] = {"layer": random_blocks(outputs, inputs, SHARE, generator)}
        found[f"{name}, dense"] = {"layer": random_dense(outputs, inputs, generator)}
    found["768 x 768, rank 96"] = {"layer": _low_rank(768, 768, 96, generator)}
    return found | {"ViT-Base, GBLR": vit_base("gblr"), "ViT-Base, dense": vit_base("dense")}


def _low_rank(outputs: int, inputs: int, rank: int, generator: torch.Generator) -> GBLRWeights:
    return GBLRWeights(
        widths=torch.ones(2, rank),
        locations=torch.zeros(2, rank),
        lr_weight1=torch.randn(rank, 1, inputs, generator=generator) / inputs**0.5,
        lr_weight2=torch.randn(rank, outputs, 1, generator=generator),
        bias=torch.randn(outputs, generator=generator),
        sigma=1.0,
        gaussian=False,
    )


def _row(title: str, weights: Mapping[str, LayerWeights], machine: Machine) -> dict[str, object]:
    network = as_network(weights, TOKENS)
    made: dict[str, Program] = {}

    def plain() -> None:
        made["plain"] = lower(weights, machine, tokens=TOKENS)

    def whole() -> None:
        made["network"] = lower_network(network, weights, machine)

    row: dict[str, object] = {"checkpoint": title, "machine": machine.name, "tokens": TOKENS}
    for name, lowering in (("plain", plain), ("network", whole)):
        seconds = cpu_seconds(lowering)
        report = simulate(made[name], machine)
        row[name] = {
            "latency_cycles": report.latency_cycles,
            "instructions": len(made[name].instructions),
            "dram_bytes": report.dram_bytes,
            "lowering_cpu_s": seconds,
        }
    return row


def main() -> None:
    options = out_option(__doc__)
    torch.set_num_threads(1)
    machines = [Machine.load(name) for name in MACHINES]
    for machine in machines:
        lower({"layer": random_blocks(64, 96, SHARE, torch.Generator())}, machine, tokens=TOKENS)  # compiles kernels
    rows = [_row(title, weights, machine) for title, weights in checkpoints().items() for machine in machines]
    print(plain_as_network_table(rows), end="")
    write_json(options.out, rows=rows)


if __name__ == "__main__":
    main()
