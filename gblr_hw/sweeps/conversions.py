"""A network's dense layers as a family's, at a budget of tiles of one array: made once for all points that share them,
and kept.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from gblr_hw.conversion.conversion import convert
from gblr_hw.conversion.conversion_input import read_layers
from gblr_hw.conversion.fit.fit_weights import Converted, is_converted, squared_error
from gblr_hw.files.checkpoint import load_checkpoint, save_checkpoint
from gblr_hw.sweeps.axes import DENSE, Settings
from gblr_hw.sweeps.journal import Journal
from gblr_hw.weights.stored import DenseWeights
from simulator import Machine
from simulator.base.errors import InputError
from simulator.base.files import output_folder

Dense = Mapping[str, DenseWeights]


@dataclass(frozen=True)
class Wanted:
    """A conversion that a point asks for: what it depends on beside the weights."""

    family: str
    budget: float
    rows: int
    cols: int
    scatter: bool

    @classmethod
    def of(cls, settings: Settings, machine: Machine) -> Wanted | None:
        """None where layers stay as they are."""
        family, budget = settings.get("family", DENSE), settings.get("budget")
        if family == DENSE or budget is None:
            return None
        return cls(str(family), float(budget), machine.rows, machine.cols, machine.scatter)


@dataclass(frozen=True, eq=False)
class Made:
    """What became of a conversion: layers and ||W - W'|| / ||W|| over all of them, or why there are none."""

    layers: Mapping[str, Converted]
    relative_error: float | None
    error: str | None


def made(dense: Dense, wanted: Wanted, machine: Machine) -> Made:
    """As `gblr-hw convert` makes it of a checkpoint, on one thread: in as many processes as there are, the sums are the
    same.
    """
    with threadpool_limits(1):
        try:
            found = convert(dense, machine, wanted.budget, family=wanted.family)
        except InputError as error:
            return Made({}, None, str(error))
        problems, _ = read_layers(dense, machine, None, {})
        lost = sum(max(0.0, squared_error(problem, found[name])) for name, problem in problems.items())
        whole = sum(problem.energy for problem in problems.values())
        return Made(found, float(np.sqrt(lost / whole)) if whole else 0.0, None)


def digest_of(dense: Dense) -> str:
    """What changes when a weight or a name does."""
    digest = hashlib.sha256(version("gblr-hw").encode())
    for name, layer in dense.items():
        for part, tensor in (("weight", layer.weight), ("bias", layer.bias)):
            if tensor is not None:
                array = tensor.detach().cpu().float().contiguous().numpy()
                digest.update(f"{name} {part} {array.shape} ".encode() + array.tobytes())
    return digest.hexdigest()


class KeptConversions:
    """Conversions by content in a folder, where later sweeps find them."""

    def __init__(self, folder: Path) -> None:
        self._folder = output_folder(folder)
        self._known = Journal(self._folder, "conversions.jsonl")

    def has(self, digest: str, wanted: Wanted) -> bool:
        """Whether it was made. digest: of the dense layers."""
        return _key(digest, wanted) in self._known.rows

    def add(self, digest: str, wanted: Wanted, found: Made) -> None:
        """Keep it: the layers first, so that what is known of is there."""
        key = _key(digest, wanted)
        if found.layers:
            save_checkpoint(found.layers, self._folder / f"{key}.safetensors")
        self._known.add(key, {"relative_error": found.relative_error, "error": found.error})

    def get(self, digest: str, wanted: Wanted) -> Made:
        """One that was made. InputError for a file that is no such checkpoint."""
        key = _key(digest, wanted)
        row = self._known.rows[key]
        if row["error"] is not None:
            return Made({}, None, row["error"])
        layers = load_checkpoint(self._folder / f"{key}.safetensors")
        return Made({name: one for name, one in layers.items() if is_converted(one)}, row["relative_error"], None)


def _key(digest: str, wanted: Wanted) -> str:
    told = [digest, wanted.family, wanted.budget, wanted.rows, wanted.cols, wanted.scatter]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:32]
