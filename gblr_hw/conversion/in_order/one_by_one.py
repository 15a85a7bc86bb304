"""Layers of a model converted each by itself, tiles shared and rows weighted by what its output makes of errors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gblr_hw.conversion.allocate import total_tiles
from gblr_hw.conversion.choose_family import choose_family
from gblr_hw.conversion.conversion_input import Array, read_layers
from gblr_hw.conversion.fit.fit_layer import Schedule
from gblr_hw.conversion.fit.fit_problem import FitProblem
from gblr_hw.conversion.fit.fit_weights import Converted
from gblr_hw.conversion.fit_one import fit_one, least_tiles, work_folder
from gblr_hw.conversion.from_dense import FitOptions
from gblr_hw.conversion.in_order.minding import minding
from gblr_hw.conversion.in_order.share_by_loss import Sensitivity, share_by_loss
from gblr_hw.weights.family import FAMILIES, converted, converted_whole
from gblr_hw.weights.stored import DenseWeights
from simulator.machine.machine import Machine


def convert_by_loss(
    layers: Mapping[str, npt.NDArray[np.floating] | DenseWeights],
    machine: Array | Machine,
    sensitivity: Sensitivity,
    tiles: float = 0.3,
    *,
    family: str | None = None,
    schedule: Schedule | None = None,
    progress: Callable[[int, int, str], None] | None = None,
    work: Path | None = None,
) -> dict[str, Converted]:
    """Dense layers as layers of one family, on the dense model's inputs: nothing is run, so that it is quick.

    layers, machine, tiles, family, schedule, progress, work: as for `conversion.convert`. sensitivity: of the model
    that the layers are of (`conversion_in_order.measured`). Raises InputError as `convert` does.
    """
    options = FitOptions(schedule or Schedule())
    kind, folder = choose_family(family, machine, options, (*converted(), *converted_whole())).name, work_folder(work)
    problems, biases = read_layers(layers, machine, None, {})
    least = {name: least_tiles(problem, kind, options, f"layer '{name}'") for name, problem in problems.items()}
    budget, whole_ranks = total_tiles(problems, tiles), FAMILIES[kind].unit == "rank"
    shares = share_by_loss(problems, sensitivity, budget, least, whole_ranks=whole_ranks)

    def approximate(name: str, problem: FitProblem) -> Converted:
        return fit_one(problem, shares[name], kind, options, folder)

    found = {}
    for index, (name, problem) in enumerate(problems.items()):
        if progress is not None:
            progress(index, len(problems), name)
        fit = minding(sensitivity.outputs[name], kind, partial(approximate, name))
        found[name] = replace(fit(replace(problem, moments=sensitivity.inputs[name])), bias=biases[name])
    return found
