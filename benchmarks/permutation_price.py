"""What other permutation networks would ask of the machine: fewer banks, or settings in the tiles' records.

For the layer of random intervals of ``benchmarks/random_layer.py``: cycles and bank conflicts with 1, 2 and 4 banks a lane,
and what the settings of a Benes network would add to the DRAM traffic.

python -m benchmarks.permutation_price
"""

from __future__ import annotations

import numpy as np

from analysis.table import Column, count, format_table, percent
from benchmarks.random_layer import TOKENS, random_blocks
from benchmarks.switch_networks import benes_switches
from gblr_hw import lower
from simulator import Machine, simulate
from simulator.isa import Op

SIDES = (8, 16, 32)


def machine_of(side: int, banks: int) -> Machine:
    """mid-32 with ``side`` x ``side`` cells and ``banks`` banks."""
    array = {"rows": side, "cols": side}
    return Machine.load("mid-32").with_(name=f"{side}-{banks}", array=array, rank_memory={"banks": banks})


def measure(side: int, banks: int) -> dict[str, object]:
    """Cycles, and bytes of settings over bytes of all transfers."""
    machine = machine_of(side, banks)
    program = lower({"layer": random_blocks()}, machine, tokens=TOKENS)
    report = simulate(program, machine)
    instructions, tiles = program.instructions, program.layers[0].tiles
    loaded = instructions.tile[instructions.op == Op.LOAD_WEIGHTS]
    ranked = loaded[np.isin(tiles.kind[loaded], (Op.REDUCE, Op.EXPAND))]
    settings = int(tiles.row_cycles[ranked].sum()) * -(-benes_switches(banks) // 8)
    return {
        "side": side,
        "banks": banks,
        "tiles": report.tiles,
        "cycles": report.latency_cycles,
        "conflicts": report.layers[0].cycles_by_cause["bank_conflict"] / report.latency_cycles,
        "setting": -(-benes_switches(banks) // 8),
        "traffic": settings / report.dram_bytes,
    }


def main() -> None:
    columns = (
        Column("P = Q", "side"),
        Column("banks", "banks"),
        Column("tiles", "tiles", count),
        Column("cycles", "cycles", count),
        Column("bank conflicts", "conflicts", percent),
        Column("Benes setting (bytes a tile)", "setting"),
        Column("more DRAM traffic", "traffic", percent),
    )
    rows = [measure(side, ratio * side) for side in SIDES for ratio in (1, 2, 4)]
    print(format_table(columns, rows, markdown=True), end="")


if __name__ == "__main__":
    main()
