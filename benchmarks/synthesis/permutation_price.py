"""What other permutation networks would ask of the machine: fewer banks, or settings in the tiles' records.

Cycles and bank conflicts with 1, 9/8, 5/4 and 2 banks a lane, and what the settings of a Benes network would add to the
DRAM traffic, for two layers of 768 x 768: the random intervals of ``benchmarks/structures/random_layer.py``, and a
random lattice whose chunks are read and written by whole tiles of ranks.

python -m benchmarks.synthesis.permutation_price [--out docs/data/permutation_price.json]
"""

from __future__ import annotations

import numpy as np
import torch

from benchmarks.shared.measurement import out_option, write_json
from benchmarks.structures.random_layer import SIDE, TOKENS, random_blocks
from benchmarks.synthesis.switch_networks import benes_switches
from benchmarks.synthesis.tables import banks_table
from gblr_hw import lower
from gblr_hw.layers.lattice_linear import LatticeLinear
from gblr_hw.weights.stored import LatticeWeights
from gblr_hw.weights.structure import Structure
from simulator import Machine, simulate
from simulator.base.arithmetic import ceil_div
from simulator.program.operations import Op

SIDES = (8, 16, 32)
RATIOS = (8, 9, 10, 16)  # banks to 8 lanes


def machine_of(side: int, banks: int) -> Machine:
    """mid-32 with ``side`` x ``side`` cells and ``banks`` banks."""
    array = {"rows": side, "cols": side}
    return Machine.load("mid-32").with_(name=f"{side}-{banks}", array=array, rank_memory={"banks": banks})


def whole_tiles(touched: np.ndarray, side: int, rng: np.random.Generator) -> np.ndarray:
    """(ranks, chunks) bool: random ranks taken away from every chunk until a multiple of ``side`` is left."""
    for chunk in touched.T:
        ranks = np.flatnonzero(chunk)
        chunk[rng.choice(ranks, len(ranks) % side, replace=False)] = False
    return touched


def random_lattice(side: int) -> LatticeWeights:
    """Ranks that each read and write 0.3 of the chunks, any of them: about the tiles of the random intervals."""
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    chunks = ceil_div(SIDE, side)
    reads, writes = (whole_tiles(rng.random((SIDE, chunks)) < 0.3, side, rng) for _ in range(2))
    alive = (reads.any(axis=1) & writes.any(axis=1))[:, None]
    structure = Structure(np.zeros((chunks, chunks), dtype=bool), reads & alive, writes & alive)
    return LatticeLinear(SIDE, SIDE, structure, side, side).weights()


def measure(layer: str, side: int, banks: int) -> dict[str, object]:
    """Cycles, and bytes of settings over bytes of all transfers."""
    machine = machine_of(side, banks)
    weights = random_blocks() if layer == "intervals" else random_lattice(side)
    program = lower({"layer": weights}, machine, tokens=TOKENS)
    report = simulate(program, machine)
    instructions, tiles = program.instructions, program.layers[0].tiles
    loaded = instructions.tile[instructions.op == Op.LOAD_WEIGHTS]
    ranked = loaded[np.isin(tiles.kind[loaded], (Op.REDUCE, Op.EXPAND))]
    setting_bytes = ceil_div(benes_switches(1 << (banks - 1).bit_length()), 8)
    return {
        "layer": layer,
        "side": side,
        "banks": banks,
        "tiles": report.tiles,
        "cycles": report.latency_cycles,
        "conflicts": report.layers[0].cycles_by_cause["bank_conflict"] / report.latency_cycles,
        "setting": setting_bytes,
        "traffic": int(tiles.row_cycles[ranked].sum()) * setting_bytes / report.dram_bytes,
    }


def main() -> None:
    options = out_option(__doc__)
    kinds = ("intervals", "lattice")
    rows = [measure(kind, side, side * ratio // 8) for kind in kinds for side in SIDES for ratio in RATIOS]
    print(banks_table(rows), end="")
    write_json(options.out, rows=rows)


if __name__ == "__main__":
    main()
