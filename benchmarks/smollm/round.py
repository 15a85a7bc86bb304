"""SmolLM2's layers in four bits, each weight making up for the errors of the others."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch

from gblr_hw.conversion.bits.around import as_lowered, rounded_ranks, rounded_tiles, tiles_and_ranks
from gblr_hw.conversion.bits.choose import stored_on_grid
from gblr_hw.conversion.fit.fit_problem import FitProblem
from gblr_hw.conversion.fit.fit_weights import fit_of
from gblr_hw.weights.stored import LatticeWeights, LayerWeights
from gblr_hw.weights.structure import Structure

FloatArray = npt.NDArray[np.float64]
Progress = Callable[[int, int, str], None]
_BITS, _SIZE = 4, 32


def rounded_dense(
    dense: Mapping[str, npt.NDArray[np.float32]], inputs: Mapping[str, FloatArray], progress: Progress
) -> dict[str, LayerWeights]:
    """Matrices on grids of a step an output and a shift for each tile's column."""
    found: dict[str, LayerWeights] = {}
    for index, (name, matrix) in enumerate(dense.items()):
        progress(index, len(dense), name)
        problem = FitProblem(matrix.astype(np.float64), inputs[name], _SIZE, _SIZE)
        found[name] = stored_on_grid(problem, tiles_and_ranks(problem, _BITS, 0), "block_sparse")
    return found


def rounded_lattice(
    layers: Mapping[str, LayerWeights], inputs: Mapping[str, FloatArray], progress: Progress
) -> dict[str, LayerWeights]:
    """Dense tiles and ranks on such grids, around what the layers are; expand weights as lowering rounds them."""
    found: dict[str, LayerWeights] = {}
    for index, (name, weights) in enumerate(layers.items()):
        progress(index, len(layers), name)
        assert isinstance(weights, LatticeWeights)
        fit = fit_of(weights)
        matrix = fit.u @ fit.v if fit.dense is None else fit.u @ fit.v + fit.dense
        problem = FitProblem(matrix, inputs[name], _SIZE, _SIZE)
        structure = Structure(*(getattr(weights, part).numpy() for part in ("tiles", "reads", "writes")))
        made = rounded_ranks(problem, rounded_tiles(problem, structure, fit, _BITS), _BITS)
        stored = stored_on_grid(problem, made, weights.family)
        u = as_lowered(problem, stored).u.astype(np.float32)
        found[name] = replace(stored, u=torch.from_numpy(u))
    return found
