"""Run ZigZag 3.9.1 on GEMMs read from standard input; needs nothing but zigzag-dse (see `make peers-env`).

Input: a JSON list of [m, k, n]. Output: a JSON list of {"cycles", "compute_cycles", "stall_cycles", "load_cycles",
"store_cycles", "drain_cycles", "cpu_s"} in the same order, `cycles` being the sum of the five parts, for ZigZag's own
32 x 32 `tpu_like` accelerator and mapping. CPU seconds are those of this process in ZigZag's one call: the
search for a mapping, which is its purpose, and the evaluation.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import sys
import tempfile
import time
from pathlib import Path

import yaml
import zigzag
from zigzag.api import get_hardware_performance_zigzag

INPUTS = Path(zigzag.__file__).parent / "inputs"


def main() -> None:
    logging.disable(logging.WARNING)
    json.dump([run(*sizes) for sizes in json.load(sys.stdin)], sys.stdout)


def run(m: int, k: int, n: int) -> dict[str, float]:
    """One GEMM, the mapping chosen for latency."""
    layer = {
        "id": 0,
        "name": "gemm",
        "operator_type": "Gemm",
        "equation": "O[b][k]+=I[b][c]*W[c][k]",
        "dimension_relations": [],
        "loop_dims": ["B", "C", "K"],
        "loop_sizes": [m, k, n],
        "operand_precision": {"O": 16, "O_final": 8, "W": 8, "I": 8},
        "operand_source": {"I": 0, "W": 0},
    }
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        workload = Path(folder) / "workload.yaml"
        workload.write_text(yaml.safe_dump([layer]))
        begin = time.process_time()
        _, cycles, results = get_hardware_performance_zigzag(
            str(workload),
            str(INPUTS / "hardware" / "tpu_like.yaml"),
            str(INPUTS / "mapping" / "tpu_like.yaml"),
            opt="latency",
            dump_folder=str(Path(folder) / "out"),
            loma_show_progress_bar=False,
        )
        cpu_s = time.process_time() - begin
    best = results[0][1][0][0]
    parts = {
        "compute_cycles": int(best.ideal_temporal_cycle),
        "stall_cycles": int(best.stall_slack_comb),
        "load_cycles": int(best.data_onloading_cycle),
        "store_cycles": int(best.data_offloading_cycle),
        "drain_cycles": int(best.systolic_drain_cycle),
    }
    if sum(parts.values()) != cycles:
        raise RuntimeError(f"{m} x {k} x {n}: {cycles} cycles are not the sum of {parts}")
    return {"cycles": int(cycles), **parts, "cpu_s": cpu_s}


if __name__ == "__main__":
    main()
