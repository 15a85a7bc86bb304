"""What people use today against our engine: the same GEMMs on a 32 x 32 array, side by side in one run.

python -m benchmarks.peers.peers [--repeats 3] [--gemm 197x768x768 ...] [--out peers.json]     (first: make peers-env)

SCALE-Sim 3.0 and ZigZag 3.9.1 run live, in an environment of their own, on one thread; so does our engine, warm. CPU
seconds are process times, of the simulation alone: importing a tool is not counted, nor is lowering, which has a row
of its own. Every tool runs once a repeat; a figure is the median over the repeats, a ratio the median of the repeats'
ratios. ONNXim has no package and is not run: its rows hold figures taken before on another, loaded 2-core machine, so
their ratios are not side by side. Ends with exit code 1 if SCALE-Sim's cycles are not those of `gblr-hw simulate --as`.
About 2 minutes.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

import torch

from benchmarks.peers.flooded import flooded
from benchmarks.peers.peer_process import PEERS_PYTHON, ask
from benchmarks.peers.tables import peer_cycles_table, speed_table
from benchmarks.shared.measurement import write_json
from gblr_hw import lower
from gblr_hw.weights.stored import DenseWeights
from simulator import Machine, Program, simulate
from simulator.scalesim.systolic_gemm import Gemm, SystolicArray, gemm_cycles

DEFAULT_GEMMS = ("64x64x64", "256x256x256", "197x768x768", "197x768x3072")
SIDE = 32
SCALESIM_SRAM_KIB = 64  # as in the configs/scale.cfg that SCALE-Sim is run with by default
WARM_RUNS, CLOSED_FORM_RUNS = 9, 1000
# ONNXim without cycle-level DRAM: cycles, and the faster end of 1.3 to 1.7 M simulated cycles per CPU second.
ONNXIM_CYCLES = {"64x64x64": 642, "256x256x256": 19_257, "197x768x768": 133_037, "197x768x3072": 520_107}
ONNXIM_CYCLES_PER_S = 1.7e6

OURS = "gblr-hw simulate"
PEERS = ("SCALE-Sim 3.0 ws", "SCALE-Sim 3.0 os", "ZigZag 3.9.1", "ONNXim, not run here")
TOOLS = (*PEERS, OURS, "gblr-hw lower + simulate")
CLOSED_FORM = "gblr-hw simulate --as scalesim-ws"

Result = TypeVar("Result")
Sample = dict[str, tuple[int, float]]  # tool -> (cycles, CPU seconds) of one GEMM in one repeat


def sample_peers(gemms: Sequence[Gemm], python: Path) -> list[Sample]:
    """One live run of SCALE-Sim, in two dataflows, and of ZigZag, a sample a GEMM."""
    samples: list[Sample] = [{} for _ in gemms]
    for dataflow in ("ws", "os"):
        wanted = [
            {
                "line": f"{gemm.m},{gemm.n},{gemm.k},",
                "dataflow": dataflow,
                "rows": SIDE,
                "cols": SIDE,
                "sram_kib": SCALESIM_SRAM_KIB,
            }
            for gemm in gemms
        ]
        for gemm, sample, answer in zip(gemms, samples, ask("peer_scalesim.py", wanted, python), strict=True):
            expected = gemm_cycles(gemm, SystolicArray(dataflow, SIDE, SIDE)).compute_cycles
            if answer["compute_cycles"] != expected:
                sys.exit(f"error: {gemm.name}, {dataflow}: SCALE-Sim {answer['compute_cycles']}, --as {expected}")
            sample[f"SCALE-Sim 3.0 {dataflow}"] = (answer["compute_cycles"], answer["cpu_s"])
    answers = ask("peer_zigzag.py", [[gemm.m, gemm.k, gemm.n] for gemm in gemms], python)
    for sample, answer in zip(samples, answers, strict=True):
        sample["ZigZag 3.9.1"] = (answer["cycles"], answer["cpu_s"])
    return samples


def sample_ours(gemm: Gemm, machine: Machine) -> Sample:
    """Lowering once and the warm engine, and the closed form."""
    weights = {gemm.name: DenseWeights(torch.ones(gemm.n, gemm.k))}
    program, lowering_s = timed(lambda: lower(weights, machine, tokens=gemm.m))
    report = simulate(program, machine)
    engine_s = median(timed(lambda: simulate(program, machine))[1] for _ in range(WARM_RUNS))
    array = SystolicArray("ws", SIDE, SIDE)
    counted, counting_s = timed(lambda: [gemm_cycles(gemm, array) for _ in range(CLOSED_FORM_RUNS)])
    return {
        OURS: (report.latency_cycles, engine_s),
        "gblr-hw lower + simulate": (report.latency_cycles, lowering_s + engine_s),
        CLOSED_FORM: (counted[0].compute_cycles, counting_s / CLOSED_FORM_RUNS),
    }


def timed(work: Callable[[], Result]) -> tuple[Result, float]:
    """A result and the CPU seconds that it took."""
    begin = time.process_time()
    result = work()
    return result, time.process_time() - begin


def speed_rows(gemm: Gemm, samples: Sequence[Sample]) -> list[dict[str, Any]]:
    """A row a tool, of medians."""
    rows = []
    for tool in (*TOOLS, CLOSED_FORM):
        if tool == "ONNXim, not run here":
            cycles = ONNXIM_CYCLES.get(gemm.name)
            rates = [sample[OURS][0] / sample[OURS][1] / ONNXIM_CYCLES_PER_S for sample in samples]
            row: dict[str, Any] = {"cycles": cycles, "cycles_per_cpu_s": ONNXIM_CYCLES_PER_S, "rate": median(rates)}
        else:
            cycles = samples[0][tool][0]
            times = [sample[tool][1] for sample in samples]
            ours = [sample[OURS][1] for sample in samples]
            per_s = [cycles / cpu_s for cpu_s in times]
            our_per_s = [sample[OURS][0] / sample[OURS][1] for sample in samples]
            row = {
                "cycles": cycles,
                "cpu_s": median(times),
                "cycles_per_cpu_s": median(per_s),
                "time": median(a / b for a, b in zip(times, ours, strict=True)),
                "rate": median(a / b for a, b in zip(our_per_s, per_s, strict=True)),
            }
        rows.append({"gemm": gemm.name, "tool": tool, **row})
    return rows


def cycle_row(gemm: Gemm, sample: Sample, machine: Machine) -> dict[str, Any]:
    """Cycles of one GEMM on every machine, ours as they are and flooded."""
    free = flooded(machine)
    program: Program = lower({gemm.name: DenseWeights(torch.ones(gemm.n, gemm.k))}, free, tokens=gemm.m)
    cycles = {tool: sample[tool][0] for tool in TOOLS if tool in sample}
    reference = sample["SCALE-Sim 3.0 ws"][0]
    flooded_cycles = simulate(program, free).latency_cycles
    return {
        "gemm": gemm.name,
        **cycles,
        "ONNXim, not run here": ONNXIM_CYCLES.get(gemm.name),
        "flooded": flooded_cycles,
        "ratio": cycles[OURS] / reference,
        "flooded_ratio": flooded_cycles / reference,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gemm", action="append", metavar="MxKxN", help="other GEMMs; repeatable")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, help="write all figures and samples as JSON")
    parser.add_argument("--peers-python", type=Path, default=PEERS_PYTHON)
    options = parser.parse_args()
    gemms = [Gemm(text, *(int(size) for size in text.split("x"))) for text in options.gemm or DEFAULT_GEMMS]
    torch.set_num_threads(1)
    machine = Machine.load("mid-32")
    for gemm in gemms:
        sample_ours(gemm, machine)
    samples: list[list[Sample]] = []
    for repeat in range(options.repeats):
        print(f"repeat {repeat + 1} of {options.repeats}", file=sys.stderr, flush=True)
        peers = sample_peers(gemms, options.peers_python)
        samples.append([{**peer, **sample_ours(gemm, machine)} for gemm, peer in zip(gemms, peers, strict=True)])
    by_gemm = list(zip(*samples, strict=True))
    speeds = [row for gemm, mine in zip(gemms, by_gemm, strict=True) for row in speed_rows(gemm, mine)]
    cycles = [cycle_row(gemm, mine[0], machine) for gemm, mine in zip(gemms, by_gemm, strict=True)]
    data = {"repeats": options.repeats, "speed": speeds, "cycles": cycles, "samples": samples}
    print(f"{speed_table(data)}\n{peer_cycles_table(data)}", end="")
    write_json(options.out, **data)


if __name__ == "__main__":
    main()
