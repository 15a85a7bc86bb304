"""Convert dense matrices to lattice weights at an exact tile budget: truncated SVD, projections, refits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gblr_hw.lattice import Structure, channel_mask, dense_tile_count
from gblr_hw.projection import Importance, project
from gblr_hw.refit import refit_expand, refit_reduce
from gblr_hw.weights import DenseWeights, LatticeWeights
from simulator.errors import InputError

FloatArray = npt.NDArray[np.float64]
Progress = Callable[[int, int, str], None]


class Array(Protocol):
    """What conversion needs of a machine: its array of `rows` (P) x `cols` (Q)."""

    @property
    def rows(self) -> int: ...

    @property
    def cols(self) -> int: ...


@dataclass(frozen=True)
class Schedule:
    """How conversion goes from the start to the budget.

    ranks: ranks at the start, as a multiple of those that low rank would have at the budget (1.3-2: fewer give the
    structure no choice, far more bury it in ranks that are worth little). steps: projections on the way. sweeps: refits
    after each of them.
    final_sweeps: refits at the end.
    """

    ranks: float = 1.4
    steps: int = 16
    sweeps: int = 3
    final_sweeps: int = 12


def convert(
    layers: Mapping[str, npt.NDArray[np.floating] | DenseWeights],
    machine: Array,
    tiles: float = 0.3,
    covariances: Mapping[str, npt.NDArray[np.floating]] | None = None,
    *,
    intervals_only: bool = False,
    schedule: Schedule | None = None,
    progress: Progress | None = None,
) -> dict[str, LatticeWeights]:
    """Turn dense layers into lattice layers that take `tiles` of their tiles each.

    Parameters
    ----------
    layers: name -> matrix (m, n) or DenseWeights (its bias is kept).
    machine: anything with `rows` and `cols`.
    tiles: fraction of each dense layer's tiles, rounded down to whole tiles; met exactly, never exceeded.
    covariances: name -> input second moments C (n, n); the error is then ||(W - W') C^(1/2)||. Layers without one are
        plain.
    intervals_only: every rank's chunks stay one cyclic run, as GBLR blocks have.
    progress: called with (layers done, layers in all, name of the next).

    Raises
    ------
    InputError: tiles outside (0, 1], a budget too small for a layer, a matrix that is not two-dimensional or not
        finite,
        or a covariance of the wrong shape, for an unknown layer or not finite.
    """
    if not 0 < tiles <= 1:
        raise InputError("tiles", f"{tiles:g}", "the budget is a fraction of the dense tiles, in (0, 1]", "Try 0.3.")
    unknown = sorted(set(covariances or {}) - set(layers))
    if unknown:
        raise InputError(
            "covariances", repr(unknown[0]), "each belongs to a layer that is converted", "Drop it or rename it."
        )
    result: dict[str, LatticeWeights] = {}
    for index, (name, layer) in enumerate(layers.items()):
        if progress is not None:
            progress(index, len(layers), name)
        matrix, bias = _matrix(name, layer)
        covariance = _covariance(name, covariances, matrix.shape[1])
        result[name] = _convert_layer(
            name, matrix, bias, machine, tiles, covariance, intervals_only, schedule or Schedule()
        )
    return result


def _convert_layer(
    name: str,
    matrix: FloatArray,
    bias: Tensor | None,
    machine: Array,
    tiles: float,
    covariance: FloatArray | None,
    intervals_only: bool,
    schedule: Schedule,
) -> LatticeWeights:
    (outputs, inputs), rows, cols = matrix.shape, machine.rows, machine.cols
    budget = int(np.floor(tiles * dense_tile_count(outputs, inputs, rows, cols) + 1e-9))
    _check_budget(name, budget, tiles)
    structure = Structure.full(outputs, inputs, _start_ranks(matrix.shape, budget, rows, cols, schedule), rows, cols)
    u, v = _truncated_svd(matrix, len(structure.reads), covariance)
    first = structure.tile_count(rows, cols)
    for step in range(1, schedule.steps + 1):
        share = step / schedule.steps
        wanted = max(budget, round(first ** (1 - share) * budget**share))
        worth = _importance(structure, u, v, rows, cols, covariance)
        structure = project(structure, worth, wanted, rows, cols, intervals_only=intervals_only)
        u, v = u * channel_mask(structure.writes, cols, outputs).T, v * channel_mask(structure.reads, rows, inputs)
        sweeps = schedule.sweeps if step < schedule.steps else schedule.final_sweeps
        for _ in range(sweeps):
            u = refit_expand(matrix, v, structure.writes, cols, covariance)
            v = refit_reduce(matrix, u, v, structure.reads, rows, covariance)
    u = refit_expand(matrix, v, structure.writes, cols, covariance)
    return _weights(structure, u, v, bias, rows, cols)


def _check_budget(name: str, budget: int, tiles: float) -> None:
    if budget < 2:
        raise InputError(
            f"layer '{name}'",
            f"a budget of {budget} tiles at tiles = {tiles:g}",
            "one rank takes at least 2 tiles (one to reduce, one to expand)",
            "Raise tiles, or leave this layer dense (`--exclude`).",
        )


def _start_ranks(shape: tuple[int, int], budget: int, rows: int, cols: int, schedule: Schedule) -> int:
    """A multiple of the ranks that low rank would have at this budget, between one and the full rank."""
    chunks = -(-shape[1] // rows) / cols + -(-shape[0] // cols) / rows
    return int(min(max(round(schedule.ranks * budget / chunks), 1), *shape))


def _truncated_svd(matrix: FloatArray, ranks: int, covariance: FloatArray | None) -> tuple[FloatArray, FloatArray]:
    """The best u (m, K), v (K, n) of full ranks, in the covariance's norm when there is one."""
    if covariance is None:
        left, values, right = np.linalg.svd(matrix, full_matrices=False)
    else:
        spread, axes = np.linalg.eigh(covariance)
        root = np.sqrt(np.maximum(spread, spread[-1] * 1e-8))
        left, values, right = np.linalg.svd((matrix @ axes) * root, full_matrices=False)
        right = (right / root) @ axes.T
    scale = np.sqrt(values[:ranks])
    return left[:, :ranks] * scale, right[:ranks] * scale[:, None]


def _importance(
    structure: Structure, u: FloatArray, v: FloatArray, rows: int, cols: int, covariance: FloatArray | None
) -> Importance:
    """Squared error of dropping a rank's read or write of a chunk, the other factors as they are."""
    out_energy = np.square(u).sum(axis=0)[:, None]
    reads = np.zeros_like(structure.reads, dtype=np.float64)
    for chunk in range(structure.reads.shape[1]):
        span = slice(chunk * rows, (chunk + 1) * rows)
        part = v[:, span]
        block = part if covariance is None else part @ covariance[span, span]
        reads[:, chunk] = (part * block).sum(axis=1)
    in_energy = (v * (v if covariance is None else v @ covariance)).sum(axis=1)[:, None]
    starts = np.arange(0, len(u), cols)
    writes = np.add.reduceat(np.square(u), starts, axis=0).T
    zero = np.zeros(structure.tiles.shape)
    return Importance(zero, np.maximum(reads, 0) * out_energy, writes * np.maximum(in_energy, 0))


def _weights(
    structure: Structure, u: FloatArray, v: FloatArray, bias: Tensor | None, rows: int, cols: int
) -> LatticeWeights:
    """Living ranks only, each rank's scale shared evenly by its factors so that both quantise alike."""
    alive = structure.reads.any(axis=1)
    u, v = u[:, alive], v[alive]
    tiny = np.finfo(np.float32).tiny
    balance = np.sqrt(np.maximum(np.linalg.norm(v, axis=1), tiny) / np.maximum(np.linalg.norm(u, axis=0), tiny))
    return LatticeWeights(
        u=torch.from_numpy((u * balance).astype(np.float32)),
        v=torch.from_numpy((v / balance[:, None]).astype(np.float32)),
        reads=torch.from_numpy(structure.reads[alive]),
        writes=torch.from_numpy(structure.writes[alive]),
        tiles=torch.from_numpy(structure.tiles.copy()),
        dense=torch.zeros(len(u), v.shape[1]),
        bias=bias,
        chunk_in=rows,
        chunk_out=cols,
    )


def _matrix(name: str, layer: npt.NDArray[np.floating] | DenseWeights) -> tuple[FloatArray, Tensor | None]:
    if isinstance(layer, DenseWeights):
        bias = None if layer.bias is None else layer.bias.detach().clone()
        return layer.weight.detach().cpu().double().numpy(), bias
    matrix = np.asarray(layer, np.float64)
    if matrix.ndim != 2 or 0 in matrix.shape:
        raise InputError(
            f"layer '{name}'", f"shape {matrix.shape}", "a layer is a matrix (outputs, inputs)", "Reshape it."
        )
    if not np.isfinite(matrix).all():
        raise InputError(
            f"layer '{name}'", "NaN or infinite weights", "weights are finite", "Use an earlier checkpoint."
        )
    return matrix, None


def _covariance(
    name: str, covariances: Mapping[str, npt.NDArray[np.floating]] | None, inputs: int
) -> FloatArray | None:
    if covariances is None or name not in covariances:
        return None
    covariance = np.asarray(covariances[name], np.float64)
    if covariance.shape != (inputs, inputs) or not np.isfinite(covariance).all():
        raise InputError(
            f"covariance of layer '{name}'",
            f"shape {covariance.shape}",
            f"it must be finite and of shape {(inputs, inputs)}",
            "Collect it from this layer's inputs.",
        )
    # Refits divide by the diagonal blocks: a channel that was never active would make them singular.
    floor = 1e-6 * float(np.trace(covariance)) / inputs
    return (covariance + covariance.T) / 2 + floor * np.eye(inputs)
