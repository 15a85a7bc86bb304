"""Published formats at published sizes on every machine: cycles and energy over dense, and what the machine takes.

python -m benchmarks.structures.formats [--out docs/data/formats.jsonl]

Weights are random: cycles do not depend on them. Results that are there already are kept. A machine without a
permutation network runs each format in the best way that it has: MIX tiles are not there, so that BLAST becomes ranks
of its grid of blocks or the dense layer. The lattice is low rank whose ranks read and write half of the chunks, twice
as many of them.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.shared.result_lines import ResultLines
from benchmarks.structures.tables import formats_table
from gblr_hw import lower
from gblr_hw.weights.chains import BLASTWeights, MonarchWeights
from gblr_hw.weights.stored import DenseWeights, LatticeWeights, LayerWeights
from gblr_hw.weights.structure import channel_mask
from simulator import Machine, simulate
from simulator.base.arithmetic import ceil_div
from simulator.machine.area import area_mm2

KEY = ("machine", "layer", "format")
MACHINES = ("edge-16", "mid-32", "cloud-128", "plain-32")


@dataclass(frozen=True)
class Case:
    """A layer: n inputs, m outputs, activation rows, and the published blocks and rank of BLAST and Monarch."""

    name: str
    inputs: int
    outputs: int
    tokens: int
    blocks: int
    rank: int


CASES = (
    Case("ViT-B fc1", 768, 3072, 197, 3, 128),
    Case("GPT-2 c_fc", 768, 3072, 384, 6, 192),
    Case("Llama-7B q", 4096, 4096, 197, 16, 1024),
)


def formats(case: Case, machine: Machine) -> Mapping[str, Callable[[], LayerWeights]]:
    """What makes the layer in every format: dense, then others with low rank's multiplications or just fewer."""
    m, n, r, b = case.outputs, case.inputs, case.rank, case.blocks
    values = r // b * b
    tiles = np.zeros((ceil_div(m, machine.cols), ceil_div(n, machine.rows)), bool)
    kept = round(r * (m + n) / (m * n) * tiles.size)
    tiles.flat[np.random.default_rng(0).permutation(tiles.size)[:kept]] = True
    draw = torch.randn
    return {
        "dense": lambda: DenseWeights(draw(m, n), None),
        "low rank": lambda: _lattice("low_rank", machine, draw(m, r), draw(r, n), 1),
        "block sparse": lambda: _tiles(machine, tiles, m, n),
        "lattice": lambda: _lattice("lattice", machine, draw(m, 2 * r), draw(2 * r, n), 2),
        "Monarch": lambda: MonarchWeights(
            draw(b, values, n // b), draw(b, m // b, values), in_features=n, out_features=m
        ),
        "BLAST": lambda: BLASTWeights(draw(b, m // b, r), draw(b, r, n // b), draw(b, b, r)),
    }


def _lattice(family: str, machine: Machine, u: torch.Tensor, v: torch.Tensor, part: int) -> LatticeWeights:
    """Ranks that each read and write every part-th of a random order of the chunks."""
    (m, ranks), n, rng = u.shape, v.shape[1], np.random.default_rng(0)
    chunks = ceil_div(n, machine.rows), ceil_div(m, machine.cols)
    reads, writes = (np.zeros((ranks, count), bool) for count in chunks)
    for touched, count in ((reads, chunks[0]), (writes, chunks[1])):
        for rank in range(ranks):
            touched[rank, rng.permutation(count)[: ceil_div(count, part)]] = True
    u = u * torch.from_numpy(channel_mask(writes, machine.cols, m).T)
    v = v * torch.from_numpy(channel_mask(reads, machine.rows, n))
    return LatticeWeights(
        u=u, v=v, reads=torch.from_numpy(reads), writes=torch.from_numpy(writes),
        tiles=torch.zeros(chunks[1], chunks[0], dtype=torch.bool), dense=torch.zeros(1, 1).expand(m, n), bias=None,
        chunk_in=machine.rows, chunk_out=machine.cols, family=family,
    )  # fmt: skip


def _tiles(machine: Machine, tiles: np.ndarray, m: int, n: int) -> LatticeWeights:
    chunks_out, chunks_in = tiles.shape
    kept = np.repeat(np.repeat(tiles, machine.cols, axis=0), machine.rows, axis=1)[:m, :n]
    none = torch.zeros(0, chunks_in, dtype=torch.bool), torch.zeros(0, chunks_out, dtype=torch.bool)
    return LatticeWeights(
        u=torch.zeros(m, 0), v=torch.zeros(0, n), reads=none[0], writes=none[1], tiles=torch.from_numpy(tiles),
        dense=torch.randn(m, n) * torch.from_numpy(kept), bias=None, chunk_in=machine.rows, chunk_out=machine.cols,
        family="block_sparse",
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--machine", nargs="+", choices=MACHINES, default=MACHINES)
    parser.add_argument("--layer", nargs="+", choices=[case.name for case in CASES])
    parser.add_argument("--out", type=Path, default=Path("docs/data/formats.jsonl"))
    options = parser.parse_args()
    results = ResultLines(options.out, KEY)
    for case in CASES:
        for name in options.machine:
            machine = Machine.load(name)
            for format_name, make in formats(case, machine).items():
                what = {"machine": name, "layer": case.name, "format": format_name}
                if results.has(**what) or case.name not in (options.layer or [case.name]):
                    continue
                torch.manual_seed(0)
                report = simulate(lower({"layer": make()}, machine, tokens=case.tokens), machine)
                row = {**what, "cycles": report.latency_cycles, "energy_pj": round(report.energy_pj)}
                results.add({**row, "mm2": round(area_mm2(machine).total.mm2, 3)})
                print(row, flush=True)
    print(formats_table(results.rows), end="")


if __name__ == "__main__":
    main()
