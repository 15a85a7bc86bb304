"""The least of each way that a layer needs for one error, or what it leaves at one share of the tiles.

Errors are ||(W - W') C^(1/2)|| / ||W C^(1/2)||, without the rounding to eight bits that all ways share. Families that
are searched are fitted with few sweeps, and at a few budgets between which the logarithm of the error runs straight:
each of them can be fitted better (`convert`), none worse.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from gblr_hw.advice.ways import WAYS, Way
from gblr_hw.conversion.allocate import dense_tiles
from gblr_hw.conversion.bits.around import tiles_and_ranks
from gblr_hw.conversion.fit.fit_layer import Schedule, full_tiles
from gblr_hw.conversion.fit.fit_problem import FitProblem
from gblr_hw.conversion.fit.fit_weights import Converted, lattice_weights, relative_error
from gblr_hw.conversion.fit.fit_whole import sizes_of
from gblr_hw.conversion.fit_one import fit_one, least_tiles
from gblr_hw.conversion.from_dense import FitOptions
from gblr_hw.weights.bits.grid import plain_grid, round_nearest
from gblr_hw.weights.family import FAMILIES
from gblr_hw.weights.stored import DenseWeights, LayerWeights
from simulator.base.arithmetic import ceil_div
from simulator.base.errors import InputError
from simulator.machine.machine import Machine

# Beyond it nothing is saved that would show.
_MOST = 0.95
_QUICK = FitOptions(Schedule(ranks=1.5, steps=2, sweeps=1, final_steps=1, final_sweeps=3))
_TRIES, _SWEEPS, _SIZES = 2, 4, 3
_TRIES_UNSEARCHED = 8  # where a fit is one decomposition or a sort
_UNSEARCHED = ("low_rank", "block_sparse")
_LARGEST = 1 << 22  # weights of a layer, beyond which searches take minutes
# Where whole ranks need more than so many times the dense tiles, no search of ranks is begun. A choice, not a bound,
# and the report says so.
_HOPELESS = 1.25
_CLOSE = 0.03  # a fit whose error is so near the wished one is not improved

Made = tuple[LayerWeights, float]  # weights and their error


@dataclass(frozen=True, eq=False)
class Found:
    """A layer in one way: its weights and their error; None and why where the way has nothing below the dense layer."""

    way: Way
    weights: LayerWeights | None
    error: float
    why: str = ""


def at_error(problem: FitProblem, way: Way, error: float, machine: Machine) -> Found:
    """The smallest layer of a way whose error is at most ``error``."""
    if why := way.why_not(machine):
        return Found(way, None, 0.0, why)
    if way.make == "dense":
        weights, reached = dense_layer(problem, way, machine)
        why = "" if reached <= error * (1 + 1e-9) else f"its error is {reached:.3f}"
        return Found(way, None if why else weights, reached, why)
    if way.make == "dense_and_ranks":
        return _ranks_beside(problem, way, error, machine)
    if way.name not in _UNSEARCHED and problem.matrix.size > _LARGEST:
        return Found(way, None, 0.0, f"more than {_LARGEST:,} weights are not searched")
    try:
        fit, least = _fitter(problem, way.name)
    except InputError as refused:
        return Found(way, None, 0.0, refused.rule)
    most, whole = int(_MOST * dense_tiles(problem)), _tiles_of_whole_ranks(problem, error)
    if way.name != "block_sparse" and whole > _HOPELESS * dense_tiles(problem):
        return Found(
            way, None, 0.0, f"not searched: whole ranks need {whole / dense_tiles(problem):.2f} of the dense tiles"
        )
    made = _least_that_reaches(fit, error, least, most, min(most, whole), _tries(way)) if least <= most else None
    if made is None:
        return Found(way, None, 0.0, f"more than {_MOST:.2f} of the dense tiles")
    return Found(way, *made)


def at_tiles(problem: FitProblem, way: Way, share: float, machine: Machine) -> Found:
    """A way at a share of the dense tiles; ways that are dense have all of them."""
    if why := way.why_not(machine):
        return Found(way, None, 0.0, why)
    if way.make == "dense":
        return Found(way, *dense_layer(problem, way, machine))
    if way.make == "dense_and_ranks":
        return Found(way, *_with_ranks(problem, machine.datatypes.narrow_bits, min(machine.rows, machine.cols)))
    try:
        fit, least = _fitter(problem, way.name)
    except InputError:
        return Found(way, None, 0.0, "no blocks divide it")
    tiles = int(share * dense_tiles(problem))
    if least > tiles:
        return Found(way, None, 0.0, f"it takes {least} tiles at least")
    return Found(way, *fit(tiles))


def dense_layer(problem: FitProblem, way: Way, machine: Machine) -> Made:
    """The whole matrix, and what rounding it to the way's bits leaves."""
    if way.kinds:
        held = tiles_and_ranks(problem, machine.datatypes.narrow_bits, 0).fit.matrix()
    else:
        held = round_nearest(problem.matrix, plain_grid(problem.matrix, machine.datatypes.weight_bits)).matrix()
    left = problem.squared_norm(problem.matrix - held)
    return DenseWeights(_float32(problem.matrix)), float(np.sqrt(left / max(problem.energy, 1e-300)))


def int4_error(problem: FitProblem, machine: Machine) -> float:
    """What dense tiles of the machine's narrow bits leave."""
    return dense_layer(problem, WAYS["dense_int4"], machine)[1]


def _fitter(problem: FitProblem, family: str) -> tuple[Callable[[int], Made], int]:
    """A function from a number of tiles to a layer of the family and its error, and the least number."""
    if FAMILIES[family].whole:
        sizes = sizes_of(family, problem)[:_SIZES]  # those with the fewest blocks
        least = min(one.tiles(1) for one in sizes)

        def made(tiles: int) -> Converted:
            able = [one for one in sizes if one.rank(tiles) > 0] or sizes[:1]
            fits = [one.fit(problem, max(1, one.rank(tiles)), _SWEEPS) for one in able]
            return min(fits, key=lambda weights: relative_error(problem, weights))

    else:
        least = least_tiles(problem, family, _QUICK)

        def made(tiles: int) -> Converted:
            return fit_one(problem, tiles, family, _QUICK)

    def fit(tiles: int) -> Made:
        weights = made(tiles)
        return weights, relative_error(problem, weights)

    return fit, least


def _tries(way: Way) -> int:
    return _TRIES_UNSEARCHED if way.name in _UNSEARCHED else _TRIES


def _least_that_reaches(
    fit: Callable[[int], Made], error: float, least: int, most: int, guess: int, tries: int
) -> Made | None:
    """The layer of the fewest tiles tried whose error is small enough; None if at the most tiles it is not."""
    known = {0: 0.0}  # tiles -> logarithm of the error
    best: tuple[int, Made] | None = None
    tiles = min(max(guess, least), most)
    for _ in range(tries):
        made = fit(tiles)
        known[tiles] = float(np.log(max(made[1], 1e-12)))
        if made[1] <= error and (best is None or tiles < best[0]):
            best = tiles, made
            if made[1] > error * (1 - _CLOSE):
                break
        elif tiles == most and best is None:
            return None
        tiles = min(max(_next(known, np.log(error * (1 - _CLOSE / 2))), least), most)
        if tiles in known:
            break
    if best is None and most not in known:
        made = fit(most)
        best = (most, made) if made[1] <= error else None
    return None if best is None else best[1]


def _next(known: dict[int, float], wanted: float) -> int:
    """Where the straight line through the two points nearest to the wished value meets it, rounded up."""
    (a, at_a), (b, at_b) = sorted(known.items(), key=lambda point: abs(point[1] - wanted))[:2]
    if at_a == at_b:
        return max(a, b) + 1
    return int(np.ceil(a + (b - a) * (wanted - at_a) / (at_b - at_a)))


def _tiles_of_whole_ranks(problem: FitProblem, error: float) -> int:
    """What low rank needs for that error, and where the search of other structures of ranks begins."""
    return full_tiles(problem, _ranks_for(_singular(problem, problem.matrix), error * np.sqrt(problem.energy)))


def _singular(problem: FitProblem, matrix: np.ndarray) -> np.ndarray:
    """Singular values in the problem's norm."""
    root = np.eye(0) if problem.moments is None else np.linalg.cholesky(problem.moments)
    return np.linalg.svd(matrix if problem.moments is None else matrix @ root, compute_uv=False)


def _ranks_for(values: np.ndarray, left: float) -> int:
    """Ranks after which at most ``left`` is left of singular values."""
    tail = np.sqrt(np.append(np.cumsum(values[::-1] ** 2)[::-1], 0.0))
    return int(np.argmax(tail <= left * (1 + 1e-9)))


def _ranks_beside(problem: FitProblem, way: Way, error: float, machine: Machine) -> Found:
    """Whole tiles of ranks for what rounding leaves, as few as the error needs."""
    bits, side = machine.datatypes.narrow_bits, min(machine.rows, machine.cols)
    left = problem.matrix - tiles_and_ranks(problem, bits, 0).fit.matrix()
    needed = _ranks_for(_singular(problem, left), error * np.sqrt(problem.energy))
    if needed == 0:
        return Found(way, None, 0.0, "it needs no ranks: dense, 4 bits")
    # So many are enough for codes that were chosen without them; ranks first may do with fewer.
    tiles, best = ceil_div(needed, side), None
    for count in range(tiles, max(tiles - _TRIES, 0), -1):
        if full_tiles(problem, count * side) > dense_tiles(problem) // 2:
            continue
        made = _with_ranks(problem, bits, count * side)
        if made[1] > error * (1 + 1e-9):
            break
        best = made
    if best is None:
        return Found(way, None, 0.0, "ranks of half of the dense tiles are not enough")
    return Found(way, *best)


def _with_ranks(problem: FitProblem, bits: int, ranks: int) -> Made:
    """All tiles in so many bits and ranks in the machine's own, either first: the better."""
    fits = [tiles_and_ranks(problem, bits, ranks, 1, structure_first=first) for first in (True, False)]
    best = min(fits, key=lambda made: problem.squared_error(made.fit))
    weights = lattice_weights(best.structure, best.fit, problem.rows, problem.cols, "lattice")
    return weights, relative_error(problem, weights)


def _float32(values: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, np.float32))
