"""What the speed benchmarks share: CPU time of a call, and how results are printed and kept."""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

from simulator.base.files import replacing


def cpu_seconds(call: Callable[[], object]) -> float:
    """CPU time of one call: on a shared machine it is what wall time would be on an idle core."""
    begin = time.process_time()
    call()
    return time.process_time() - begin


def told_each(count: int) -> Callable[[int, int, str], None]:
    """A ``progress`` that prints each so-many-th step and the CPU time until then."""

    def tell(done: int, of: int, what: str) -> None:
        if done % count == 0:
            print(f"{done}/{of} {what} {time.process_time():.0f} s", flush=True)

    return tell


def stay_on_one_core() -> None:
    """Pin this process to one of its cores, where the system can."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def out_option(description: str | None) -> argparse.Namespace:
    """The command line of a benchmark without options of its own: ``--out FILE``."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="write all figures as JSON")
    return parser.parse_args()


def write_json(out: Path | None, **results: object) -> None:
    """All figures and the host that they were taken on, if a file is asked for."""
    if out is not None:
        host = {"python": platform.python_version(), "machine": platform.machine(), "cpus": os.cpu_count()}
        with replacing(out) as file:
            file.write((json.dumps({"host": host, **results}, indent=2) + "\n").encode())
