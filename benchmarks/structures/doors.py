"""One BLAST or Monarch layer by three doors: cycles of a checkpoint, our module, and somebody's own batched products.

python -m benchmarks.structures.doors [--out docs/data/doors.jsonl]

Layers are drawn: sides of 40 to 512, mostly no multiples of a tile, other blocks of inputs than of outputs, half of the
Monarch layers padded, with and without a bias; two numbers of activation rows for each machine. Results that are there
already are kept.
"""

from __future__ import annotations

import argparse
import math
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.shared.result_lines import ResultLines
from benchmarks.structures.tables import doors_table
from gblr_hw import BLASTLinear, MonarchLinear, lower
from simulator import Machine, Program, execute, execute_network, simulate
from simulator.base.arithmetic import ceil_div

KEY = ("layer", "machine", "tokens")
MACHINES = ("edge-16", "mid-32", "cloud-128", "plain-32")
TOKENS = (1, 16, 64, 197, 384)
_BLOCKS = (2, 3, 4, 5, 6, 8)
_TOP = 512


@dataclass(frozen=True)
class Drawn:
    """A layer: m outputs, n inputs, blocks of outputs and of inputs, rank of BLAST or values of a Monarch block."""

    family: str
    outputs: int
    inputs: int
    blocks: tuple[int, int]
    rank: int
    bias: bool

    def module(self) -> BLASTLinear | MonarchLinear:
        """Our module, with numbers of its own."""
        if self.family == "Monarch":
            return MonarchLinear(self.inputs, self.outputs, self.blocks, values=self.rank, bias=self.bias)
        layer = BLASTLinear(self.inputs, self.outputs, self.blocks, self.rank, bias=self.bias)
        with torch.no_grad():
            layer.D.normal_()
        return layer


def drawn(rng: random.Random) -> Drawn:
    """A random layer."""
    family, bias = rng.choice(("BLAST", "Monarch")), rng.random() < 0.5
    b_in, b_out = rng.choice(_BLOCKS), rng.choice(_BLOCKS)
    n, m = rng.randint(40, _TOP), rng.randint(40, _TOP)
    if family == "BLAST" or rng.random() < 0.5:
        n, m = ceil_div(n, b_in) * b_in, ceil_div(m, b_out) * b_out
    least = min(n, m)
    rank = rng.randint(max(4, least // 10), max(8, least // 2))
    if family == "Monarch":  # values of all input blocks are shared by the output blocks
        unit = b_out // math.gcd(b_in, b_out)
        rank = max(1, rank // b_in // unit) * unit
    return Drawn(family, m, n, (b_out, b_in), rank, bias)


class OwnBLAST(nn.Module):
    """BLAST by ``bmm`` or ``einsum``."""

    def __init__(self, layer: BLASTLinear, batched: bool) -> None:
        super().__init__()
        self.B, self.C, self.D, self.bias, self.batched = layer.B, layer.C, layer.D, layer.bias, batched

    def forward(self, x: Tensor) -> Tensor:
        blocks = x.reshape(len(x), len(self.C), -1)
        if self.batched:
            inner = torch.bmm(blocks.transpose(0, 1), self.C.transpose(1, 2))
            mixed = torch.bmm(inner.permute(2, 1, 0), self.D.permute(2, 1, 0))
            outer = torch.bmm(mixed.permute(2, 1, 0), self.B.transpose(1, 2)).transpose(0, 1)
        else:
            inner = torch.einsum("tjp,jrp->tjr", blocks, self.C)
            outer = torch.einsum("tir,iqr->tiq", torch.einsum("tjr,ijr->tir", inner, self.D), self.B)
        y = outer.reshape(len(x), -1)
        return y if self.bias is None else y + self.bias


class OwnMonarch(nn.Module):
    """Monarch by ``bmm`` or ``einsum``."""

    def __init__(self, layer: MonarchLinear, batched: bool) -> None:
        super().__init__()
        self.first, self.second, self.bias = layer.blkdiag1, layer.blkdiag2, layer.bias
        self.outputs, self.batched = layer.out_features, batched

    def forward(self, x: Tensor) -> Tensor:
        (k, _, p), (l, _, r) = self.first.shape, self.second.shape  # noqa: E741
        blocks = functional.pad(x, (0, k * p - x.shape[1])).reshape(len(x), k, p)
        if self.batched:
            values = torch.bmm(blocks.transpose(0, 1), self.first.transpose(1, 2)).transpose(0, 1)
            turned = values.reshape(len(x), r, l).permute(2, 0, 1)
            outer = torch.bmm(turned, self.second.transpose(1, 2)).permute(1, 2, 0)
        else:
            values = torch.einsum("tkp,kqp->tkq", blocks, self.first)
            turned = values.reshape(len(x), r, l).transpose(1, 2)
            outer = torch.einsum("tlr,lsr->tls", turned, self.second).transpose(1, 2)
        y = outer.reshape(len(x), -1)[:, : self.outputs]
        return y if self.bias is None else y + self.bias


def programs(layer: BLASTLinear | MonarchLinear, machine: Machine, tokens: int, batched: bool) -> list[Program]:
    """Of the checkpoint's layer, the module, and a module of one's own."""
    own = OwnBLAST(layer, batched) if isinstance(layer, BLASTLinear) else OwnMonarch(layer, batched)
    x = torch.zeros(tokens, layer.in_features)
    made = [lower(module.eval(), machine, example_inputs=(x,)) for module in (layer, own)]
    return [lower({"q": layer.weights()}, machine, tokens=tokens), *made]


def worst_error(layer: BLASTLinear | MonarchLinear, found: list[Program]) -> float:
    """Of what each program computes in floating point, over the largest output."""
    x = torch.randn(found[0].tokens, layer.in_features)
    with torch.no_grad():
        wanted = layer(x).numpy()
    outputs = [execute(found[0], {"q": x.numpy()})["q"]]
    for program in found[1:]:
        assert program.network is not None
        outputs += execute_network(program, {program.network.inputs[0].name: x.numpy()}).values()
    return float(max(np.abs(one.reshape(wanted.shape) - wanted).max() for one in outputs) / np.abs(wanted).max())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=14)
    parser.add_argument("--out", type=Path, default=Path("docs/data/doors.jsonl"))
    options = parser.parse_args()
    results = ResultLines(options.out, KEY)
    for number in range(options.layers):
        rng = random.Random(number)
        one = drawn(rng)
        for place, name in enumerate(MACHINES):
            for tokens in sorted(rng.sample(TOKENS, 2)):
                batched = rng.random() < 0.5
                if results.has(layer=number, machine=name, tokens=tokens):
                    continue
                torch.manual_seed(number)
                layer = one.module()
                found = programs(layer, Machine.load(name), tokens, batched)
                cycles = [int(simulate(program, program.machine).latency_cycles) for program in found]
                row = {"layer": number, "machine": name, "tokens": tokens, "family": one.family, "cycles": cycles}
                error = {"error": worst_error(layer, found)} if number % len(MACHINES) == place else {}
                results.add(row | error)
    print(doors_table(results.rows), end="")


if __name__ == "__main__":
    main()
