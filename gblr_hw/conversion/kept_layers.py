"""Finished layers of a conversion in a work folder, so that an interrupted one goes on where it stopped."""

from __future__ import annotations

import hashlib
from dataclasses import astuple
from pathlib import Path

import numpy as np

from gblr_hw.conversion.fit.fit_layer import Schedule
from gblr_hw.conversion.fit.fit_problem import FitProblem
from gblr_hw.conversion.fit.fit_weights import Converted, is_converted
from gblr_hw.files.checkpoint import load_checkpoint, save_checkpoint
from simulator.base.errors import InputError

# Changes whenever the same request would give another result.
_METHOD = "1"


def layer_key(problem: FitProblem, budget: int, schedule: Schedule, flags: tuple[bool, ...]) -> str:
    """A digest of all that a layer's result depends on."""
    digest = hashlib.sha256(repr((_METHOD, problem.rows, problem.cols, budget, astuple(schedule), flags)).encode())
    for array in (problem.matrix, problem.moments):
        digest.update(b"none" if array is None else repr(array.shape).encode() + np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:32]


def kept(folder: Path | None, key: str) -> Converted | None:
    """The layer kept under `key`, if there is one. Raises InputError for a file in the folder that is no such layer."""
    path = None if folder is None else folder / f"{key}.safetensors"
    if path is None or not path.is_file():
        return None
    layer = load_checkpoint(path).get("layer")
    if not is_converted(layer):
        raise InputError(str(path), "no converted layer", "a work folder holds finished layers", "Delete the file.")
    return layer


def keep(folder: Path | None, key: str, layer: Converted) -> None:
    """Keep a layer under `key`; without a folder nothing is done."""
    if folder is not None:
        save_checkpoint({"layer": layer}, folder / f"{key}.safetensors")
