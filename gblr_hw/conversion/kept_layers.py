"""Finished layers of a conversion in a work folder, so that an interrupted one goes on where it stopped."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
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


def kept_or_made(folder: Path | None, key: str, make: Callable[[], Converted]) -> Converted:
    """The layer kept under `key`, or else a new one, which is kept. Without a folder it is made.

    Raises InputError for a file in the folder that is no such layer.
    """
    if folder is None:
        return make()
    path = folder / f"{key}.safetensors"
    if path.is_file():
        layer = load_checkpoint(path).get("layer")
        if not is_converted(layer):
            raise InputError(str(path), "no converted layer", "a work folder holds finished layers", "Delete the file.")
        return layer
    layer = make()
    save_checkpoint({"layer": layer}, path)
    return layer
