"""What the studies of several networks share: their command line, and that what is there is not run again."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch

from benchmarks.shared.result_lines import ResultLines

KEY = ("network", "method", "share")


class NetworkStudy(Protocol):
    """One network's: which methods and shares, and a line of results of each."""

    @property
    def jobs(self) -> list[tuple[str, float]]: ...

    def row(self, method: str, share: float) -> dict[str, Any]: ...


def run_studies(
    description: str | None,
    name: str,
    networks: Sequence[str],
    study_of: Callable[[str, Path], NetworkStudy],
    table: Callable[[Sequence[Mapping[str, Any]], str], str],
) -> None:
    """The command of a study. name: of its file in docs/data, and of its work folder. table: of one network's rows."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path(f"{name}-work"))
    parser.add_argument("--network", action="append", choices=list(networks))
    parser.add_argument("--method", action="append")
    parser.add_argument("--share", action="append", type=float)
    parser.add_argument("--out", type=Path, default=Path(f"docs/data/{name}.jsonl"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    results = ResultLines(options.out, KEY)
    for network in options.network or networks:
        study = study_of(network, options.work)
        for method, share in study.jobs:
            wanted = method in (options.method or (method,)) and share in (options.share or (share,))
            if wanted and not results.has(network=network, method=method, share=share):
                results.add({"network": network, **study.row(method, share)})
                print(table(results.rows, network), flush=True)
