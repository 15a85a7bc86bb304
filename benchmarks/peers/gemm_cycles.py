"""How SCALE-Sim's count of a dense product divides, and what our machine takes for the same product.

``python -m benchmarks.peers.gemm_cycles [--out docs/data/gemm_cycles.json]``: 32 x 32 cells, weight stationary. Every
fold of SCALE-Sim loads R rows, streams M, fills and drains R + C - 2; the count is a cycle less, since its clock begins
at 0. "Flooded" is mid-32 before a memory without latency or bandwidth limit. Seconds.
"""

from __future__ import annotations

import torch

from benchmarks.peers.flooded import flooded
from benchmarks.peers.tables import gemm_cycles_table
from benchmarks.shared.measurement import out_option, write_json
from gblr_hw import lower
from gblr_hw.weights.stored import DenseWeights
from simulator import Machine, simulate
from simulator.base.arithmetic import ceil_div
from simulator.scalesim.systolic_gemm import Gemm, SystolicArray, gemm_cycles

SIDE = 32
SIZES = (
    (64, 64, 64),
    (256, 256, 256),
    (197, 768, 768),
    (197, 768, 3072),
    (197, 3072, 768),
    (1024, 768, 768),
    (1, 768, 768),
)


def cycles_of(gemm: Gemm, machine: Machine) -> int:
    program = lower({gemm.name: DenseWeights(torch.ones(gemm.n, gemm.k))}, machine, tokens=gemm.m)
    return int(simulate(program, machine).latency_cycles)


def measure(m: int, k: int, n: int, machine: Machine) -> dict[str, object]:
    """One product's row."""
    gemm = Gemm(f"{m}x{k}x{n}", m, k, n)
    folds = ceil_div(k, SIDE) * ceil_div(n, SIDE)
    parts = {"load": folds * SIDE, "stream": folds * m, "fill_and_drain": folds * (2 * SIDE - 2)}
    counted = gemm_cycles(gemm, SystolicArray("ws", SIDE, SIDE)).compute_cycles
    if counted != sum(parts.values()) - 1:
        raise ArithmeticError(f"{gemm.name}: SCALE-Sim counts {counted}, its parts {parts}")
    return {
        "gemm": gemm.name,
        "scalesim_ws": counted,
        **parts,
        "flooded": cycles_of(gemm, flooded(machine)),
        "cycles": cycles_of(gemm, machine),
    }


def main() -> None:
    options = out_option(__doc__)
    machine = Machine.load("mid-32")
    rows = [measure(*sizes, machine) for sizes in SIZES]
    print(gemm_cycles_table(rows), end="")
    write_json(options.out, machine=machine.name, rows=rows)


if __name__ == "__main__":
    main()
