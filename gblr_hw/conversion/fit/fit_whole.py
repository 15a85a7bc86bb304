"""Families whose layers are chosen whole: which blocks and ranks a number of tiles buys, and the best factors of those.

Each family says which sizes fit a number of tiles, and how they are fitted. All sizes are tried with a few sweeps; the
one that leaves least is fitted with many.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from gblr_hw.conversion.fit.fit_blast import fit_blast
from gblr_hw.conversion.fit.fit_kronecker import fit_kronecker
from gblr_hw.conversion.fit.fit_monarch import fit_monarch
from gblr_hw.conversion.fit.fit_problem import FitProblem
from gblr_hw.conversion.fit.fit_weights import Converted, Whole, squared_error
from gblr_hw.weights.chains import BLASTWeights, KroneckerWeights, MonarchWeights, TensorTrainWeights
from gblr_hw.weights.factors import evaluate, structure_of
from gblr_hw.weights.family import complete, converted_whole
from gblr_hw.weights.structure import dense_tile_count
from simulator.base.arithmetic import ceil_div
from simulator.base.errors import InputError

Make = Callable[[np.ndarray, np.ndarray], Whole]

_BLOCKS = (2, 3, 4, 6, 8, 12, 16)
_GRID = (1, 2, 3, 4, 6, 8)
_CORES = (4, 8, 16, 32)
_TRIAL_SWEEPS, FINAL_SWEEPS = 4, 100
_MONARCH_SWEEPS = 12  # a sweep solves a block's problem whole, so that few are enough


@dataclass(frozen=True)
class Sizes:
    """One way to spend tiles: blocks or cores, and how many tiles each rank number takes.

    tiles: rank -> tiles, which never falls. most: ranks beyond which nothing is gained. fit: (problem, rank, sweeps) ->
    factors. example: rank -> a layer of these sizes, of no meaning, for what depends on sizes alone.
    """

    tiles: Callable[[int], int]
    most: int
    fit: Callable[[FitProblem, int, int], Whole]
    example: Callable[[int], Whole]

    def rank(self, budget: int) -> int:
        """The largest rank within the budget; 0 for none."""
        low, high = 0, self.most
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.tiles(middle) <= budget else (low, middle - 1)
        return low


def block_tiles(channels: int, blocks: int, ranks: int, chunk: int, lanes: int) -> int:
    """Tiles between the channels of so many equal blocks, each with so many ranks of its own, in chunks of channels and
    with so many ranks to a tile.
    """
    size = channels // blocks
    starts = np.arange(0, channels, chunk)
    touching = np.minimum(starts + chunk - 1, channels - 1) // size - starts // size + 1
    return int(ceil_div(touching * ranks, lanes).sum())


def mix_tiles(blocks: int, rank: int, rows: int, cols: int) -> int:
    """Tiles of BLAST's diagonals: one holds whole blocks of ``blocks`` x ``blocks`` edges, a block for each rank."""
    return ceil_div(rank, max(1, min(rows, cols) // blocks))


def tiles_of(weights: Converted, rows: int, cols: int) -> int:
    """Tiles of a converted layer as it is stored, on an array of rows x cols."""
    tiles = structure_of(evaluate(weights), rows, cols).tile_count(rows, cols)
    if isinstance(weights, BLASTWeights) and min(len(weights.B), len(weights.C)) > 1:
        tiles += mix_tiles(max(len(weights.B), len(weights.C)), weights.rank, rows, cols)
    return tiles


def _float32(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, np.float32))


def _blast_sizes(m: int, n: int, rows: int, cols: int) -> Iterable[Sizes]:
    def tiles(b: int, rank: int) -> int:
        ends = block_tiles(n, b, rank, rows, cols) + block_tiles(m, b, rank, cols, rows)
        return ends + mix_tiles(b, rank, rows, cols)

    def fit(b: int, problem: FitProblem, rank: int, sweeps: int) -> Whole:
        found = fit_blast(problem, (b, b), rank, sweeps)
        return BLASTWeights(_float32(found.B), _float32(found.C), _float32(found.D))

    def example(b: int, rank: int) -> Whole:
        return BLASTWeights(torch.ones(b, m // b, rank), torch.ones(b, rank, n // b), torch.ones(b, b, rank))

    for b in _BLOCKS:
        if m % b == 0 and n % b == 0:
            yield Sizes(partial(tiles, b), min(m, n), partial(fit, b), partial(example, b))


def _monarch_sizes(m: int, n: int, rows: int, cols: int) -> Iterable[Sizes]:
    def tiles(l: int, k: int, rank: int) -> int:  # noqa: E741 - the paper's symbol
        return block_tiles(n, k, l * rank, rows, cols) + block_tiles(m, l, k * rank, cols, rows)

    def fit(l: int, k: int, problem: FitProblem, rank: int, sweeps: int) -> Whole:  # noqa: E741
        left, right = fit_monarch(problem, (l, k), rank, min(sweeps, _MONARCH_SWEEPS))
        # (l, k, r, p) -> (k, l r, p), and (l, k, s, r) -> (l, s, k r).
        first = right.transpose(1, 0, 2, 3).reshape(k, l * rank, -1)
        second = left.transpose(0, 2, 1, 3).reshape(l, -1, k * rank)
        return MonarchWeights(_float32(first), _float32(second), in_features=n, out_features=m, arrangement="grid")

    def example(l: int, k: int, rank: int) -> Whole:  # noqa: E741
        first, second = torch.ones(k, l * rank, n // k), torch.ones(l, m // l, k * rank)
        return MonarchWeights(first, second, in_features=n, out_features=m, arrangement="grid")

    for l in _GRID:  # noqa: E741
        for k in _GRID:
            if m % l == 0 and n % k == 0 and max(l, k) <= 2 * min(l, k):
                yield Sizes(partial(tiles, l, k), min(m // l, n // k), partial(fit, l, k), partial(example, l, k))


def _kronecker_sizes(make: Make, m: int, n: int, rows: int, cols: int) -> Iterable[Sizes]:
    def tiles(m1: int, n1: int, terms: int) -> int:
        return block_tiles(n, n1, m // m1 * terms, rows, cols) + block_tiles(m, m // m1, n1 * terms, cols, rows)

    def fit(m1: int, n1: int, problem: FitProblem, terms: int, sweeps: int) -> Whole:
        return make(*fit_kronecker(problem, (m1, n1), terms, sweeps))

    def example(m1: int, n1: int, terms: int) -> Whole:
        return make(np.ones((terms, m1, n1)), np.ones((terms, m // m1, n // n1)))

    for m1 in _CORES:
        for n1 in _CORES:
            if m % m1 == 0 and n % n1 == 0:
                most = min(m1 * n1, m * n // (m1 * n1))
                yield Sizes(partial(tiles, m1, n1), most, partial(fit, m1, n1), partial(example, m1, n1))


def _as_products(left: np.ndarray, right: np.ndarray) -> Whole:
    return KroneckerWeights(_float32(left), _float32(right))


def _as_train(left: np.ndarray, right: np.ndarray) -> Whole:
    return TensorTrainWeights(_float32(left.transpose(1, 2, 0)[None]), _float32(right[..., None]))


SIZES: Mapping[str, Callable[[int, int, int, int], Iterable[Sizes]]] = complete(
    {
        "blast": _blast_sizes,
        "monarch": _monarch_sizes,
        "kronecker": partial(_kronecker_sizes, _as_products),
        "tensor_train": partial(_kronecker_sizes, _as_train),
    },
    converted_whole(),
    "converted",
)


def sizes_of(family: str, problem: FitProblem, where: str = "layer") -> list[Sizes]:
    """The sizes that take no more tiles than the dense layer at the least. Raises InputError if there are none, and
    says so of `where`.
    """
    m, n = problem.matrix.shape
    most = dense_tile_count(m, n, problem.rows, problem.cols)
    found = [one for one in SIZES[family](m, n, problem.rows, problem.cols) if one.tiles(1) <= most]
    if not found:
        rule = f"no blocks that '{family}' is tried with divide it and take less than its {most} tiles"
        raise InputError(where, f"{m} x {n}", rule, "Leave it out (`--exclude`).")
    return found


def fit_whole(problem: FitProblem, sizes: Iterable[Sizes], budget: int, sweeps: int = FINAL_SWEEPS) -> Whole:
    """The best layer of some sizes that takes at most so many tiles, which one of them must allow."""
    tried, one = _tried(problem, sizes, budget)
    fitted = one.fit(problem, one.rank(budget), sweeps)
    return min((tried, fitted), key=lambda weights: squared_error(problem, weights))


def best_sizes(problem: FitProblem, sizes: Iterable[Sizes], budget: int) -> Sizes:
    """The sizes that leave least after a few sweeps, at most so many tiles, which one of them must allow."""
    return _tried(problem, sizes, budget)[1]


def _tried(problem: FitProblem, sizes: Iterable[Sizes], budget: int) -> tuple[Whole, Sizes]:
    trials = [(one.fit(problem, one.rank(budget), _TRIAL_SWEEPS), one) for one in sizes if one.rank(budget) > 0]
    return min(trials, key=lambda trial: squared_error(problem, trial[0]))
