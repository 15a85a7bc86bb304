"""Fits as stored weights, and back; and how far weights are from what they approximate."""

from __future__ import annotations

from typing import TypeGuard, get_args

import numpy as np
import torch

from gblr_hw.conversion.fit.fit_problem import Fit, FitProblem
from gblr_hw.weights.chains import BLASTWeights, KroneckerWeights, MonarchWeights, TensorTrainWeights
from gblr_hw.weights.stored import LatticeWeights, LayerWeights
from gblr_hw.weights.structure import Structure

# What families that are chosen whole are stored as, and what any conversion gives.
Whole = BLASTWeights | MonarchWeights | KroneckerWeights | TensorTrainWeights
Converted = LatticeWeights | Whole


def is_converted(weights: LayerWeights | None) -> TypeGuard[Converted]:
    """Whether weights are of a kind that conversion makes."""
    return isinstance(weights, get_args(Converted))


def lattice_weights(structure: Structure, fit: Fit, rows: int, cols: int, family: str) -> LatticeWeights:
    """Stored weights of a fit: living ranks only, a rank's scale shared evenly so that both factors quantise alike."""
    alive = structure.reads.any(axis=1)
    u, v = fit.u[:, alive], fit.v[alive]
    tiny = np.finfo(np.float32).tiny
    balance = np.sqrt(np.maximum(np.linalg.norm(v, axis=1), tiny) / np.maximum(np.linalg.norm(u, axis=0), tiny))
    dense = np.zeros((len(u), v.shape[1])) if fit.dense is None else fit.dense
    return LatticeWeights(
        u=torch.from_numpy((u * balance).astype(np.float32)),
        v=torch.from_numpy((v / balance[:, None]).astype(np.float32)),
        reads=torch.from_numpy(structure.reads[alive]),
        writes=torch.from_numpy(structure.writes[alive]),
        tiles=torch.from_numpy(structure.tiles.copy()),
        dense=torch.from_numpy(dense.astype(np.float32)),
        bias=None,
        chunk_in=rows,
        chunk_out=cols,
        family=family,
    )


def relative_error(problem: FitProblem, weights: Converted) -> float:
    """||(W - W') C^(1/2)|| / ||W C^(1/2)||; zero for a zero matrix."""
    return float(np.sqrt(max(squared_error(problem, weights), 0.0) / max(problem.energy, 1e-300)))


def squared_error(problem: FitProblem, weights: Converted) -> float:
    """||(W - W') C^(1/2)|| squared."""
    if isinstance(weights, LatticeWeights):
        return problem.squared_error(fit_of(weights))
    return problem.squared_norm(problem.matrix - weights.matrix().double().numpy())


def fit_of(weights: LatticeWeights) -> Fit:
    """The factors of stored weights, in float64."""
    u, v, dense = (getattr(weights, part).double().numpy() for part in ("u", "v", "dense"))
    return Fit(u, v, dense if bool(weights.tiles.any()) else None)
