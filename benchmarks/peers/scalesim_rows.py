"""Our closed forms against SCALE-Sim 3.0, live, and the rows that the tests compare with.

python -m benchmarks.peers.scalesim_rows            run every row again; exit code 1 if SCALE-Sim, the rows and we
disagree
python -m benchmarks.peers.scalesim_rows --write    write tests/data/scalesim-3.0.0.csv from SCALE-Sim's answers

Layers are those of SCALE-Sim's own topologies (github.com/scalesim-project/scale-sim-v2, `topologies/`), equal ones
once, without those that take it more than half a minute; and awkward ones: sides of 1, primes, arrays larger than the
layer. About 4 minutes on one core.
"""

from __future__ import annotations

import argparse
import csv
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.peers.peer_process import HERE, PEERS_PYTHON, ask
from simulator.scalesim.scalesim_topology import read_topology
from simulator.scalesim.systolic_gemm import SystolicArray, gemm_cycles

ROWS_FILE = HERE.parent / "tests" / "data" / "scalesim-3.0.0.csv"
KEYS = ("topology", "layer", "line", "dataflow", "rows", "cols")
DATAFLOWS = ("ws", "os", "is")
SRAM_KIB = 1024  # cycles do not depend on it, SCALE-Sim's own time does
BATCH = 12

# (topology, arrays, {layer: line after the name}); three numbers are M, N, K, seven a convolution.
TOPOLOGIES: tuple[tuple[str, tuple[tuple[int, int], ...], dict[str, str]], ...] = (
    (
        "GEMM_mnk/vit_s",
        ((64, 64),),
        {
            "L0": "196,192,384,",
            "L1": "196,1176,64,",
            "L2": "196,64,1176,",
        },
    ),
    (
        "GEMM_mnk/transformer_partial",
        ((128, 128),),
        {
            "MH_FC_DimReduce_VKQ_0": "128,512,1536,",
            "MH_FC_DimRecast_0": "128,512,512,",
        },
    ),
    (
        "GEMM_mnk/NCF",
        ((64, 128),),
        {"1": "256,128,2048,", "8": "2048,128,64,", "10": "128,1,2048,", "12": "2048,128,1,"},
    ),
    ("GEMM_mnk/gpt2", ((128, 128),), {"QKT": "1024,1024,64,"}),
    ("GEMM_mnk/test_mnk_input", ((32, 32), (12, 14)), {"Test 1": "256,128,256,"}),
    (
        "conv_nets/alexnet",
        ((128, 128),),
        {
            "Conv1": "224,224,11,11,3,96,4,",
            "Conv3": "13,13,3,3,256,384,1,",
        },
    ),
    (
        "conv_nets/yolo_tiny",
        ((256, 256),),
        {"Conv9": "7,7,1,1,1024,125,1,"},
    ),
    ("conv_nets/test", ((32, 32),), {"Inc5b_3x3": "7,7,3,3,192,384,1,"}),
    (
        "conv_nets/mobilnet_paper",
        ((64, 32),),
        {
            "Conv9": "28,28,1,1,128,256,1,",
            "Conv12_dw": "28,28,3,3,1,1,2,",
            "Conv17": "7,7,1,1,512,1024,1,",
            "FC": "1,1,1,1,1024,1000,1,",
        },
    ),
    (
        "sparsity/Resnet18",
        ((128, 64),),
        {
            "Conv3_s": "56,56,1,1,64,128,2,",
            "Conv4_s": "28,28,1,1,128,256,2,",
            "Conv5_1a": "14,14,3,3,256,512,2,",
            "Conv5_1b": "7,7,3,3,512,512,1,",
            "FC": "1,1,1,1,512,1000,1,",
        },
    ),
    ("mlperf/Sentimental_seqCNN", ((32, 128),), {"FC": "1,1,1,1,2048,2,1,"}),
    ("dlrm/DLRM", ((16, 64),), {"Emb0": "1024,16,1,16,1,4,1,", "Top_MLP2": "1024,256,1,256,1,1,1,"}),
    (
        "awkward",
        ((1, 7), (5, 1), (7, 13), (64, 5)),
        {
            "one": "1,1,2,",
            "row": "1,23,11,",
            "column": "19,1,13,",
            "primes": "37,41,29,",
            "just over": "33,65,17,",
            "stride over the edge": "10,9,3,2,5,7,4,",
        },
    ),
)


def jobs() -> Iterator[dict[str, Any]]:
    """The rows without answers, in the file's order."""
    for topology, arrays, layers in TOPOLOGIES:
        for rows, cols in arrays:
            for layer, line in layers.items():
                for dataflow in DATAFLOWS:
                    yield dict(zip(KEYS, (topology, layer, line, dataflow, rows, cols), strict=True))


def run_scalesim(wanted: list[dict[str, Any]], python: Path) -> list[dict[str, Any]]:
    """Each row with SCALE-Sim's compute cycles."""
    answered = []
    for first in range(0, len(wanted), BATCH):
        batch = wanted[first : first + BATCH]
        questions = [
            {**{key: job[key] for key in ("line", "dataflow", "rows", "cols")}, "sram_kib": SRAM_KIB} for job in batch
        ]
        answers = ask("peer_scalesim.py", questions, python)
        answered += [
            {**job, "compute_cycles": answer["compute_cycles"]} for job, answer in zip(batch, answers, strict=True)
        ]
        print(f"{len(answered)} of {len(wanted)} rows", file=sys.stderr, flush=True)
    return answered


def closed_form(job: dict[str, Any]) -> int:
    """Our cycles, by way of a topology file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "topology.csv"
        path.write_text(f"Layer,\n{job['layer']},{job['line']}\n", encoding="utf-8")
        (gemm,) = read_topology(path)
    return gemm_cycles(gemm, SystolicArray(job["dataflow"], int(job["rows"]), int(job["cols"]))).compute_cycles


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write the rows anew")
    parser.add_argument("--peers-python", type=Path, default=PEERS_PYTHON)
    options = parser.parse_args()
    answered = run_scalesim(list(jobs()), options.peers_python)
    if options.write:
        with ROWS_FILE.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, (*KEYS, "compute_cycles"), lineterminator="\n")
            writer.writeheader()
            writer.writerows(answered)
    with ROWS_FILE.open(encoding="utf-8", newline="") as file:
        stored = list(csv.DictReader(file))
    as_text = [{key: str(value) for key, value in row.items()} for row in answered]
    wrong = [f"{row} was stored as {old}" for row, old in zip(as_text, stored, strict=True) if row != old]
    wrong += [f"{row}: we count {closed_form(row)}" for row in answered if row["compute_cycles"] != closed_form(row)]
    print("\n".join(wrong) or f"{len(answered)} rows: SCALE-Sim, {ROWS_FILE.name} and the closed forms agree")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
