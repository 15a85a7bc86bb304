"""Convert a pretrained dense network to lattice weights at a budget of the whole network, met exactly."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from torch import Tensor

from gblr_hw.allocate import dense_tiles, share_by_error, share_evenly, total_tiles
from gblr_hw.conversion_input import Array, read_layers
from gblr_hw.fit_groups import fit_groups
from gblr_hw.fit_layer import Schedule, fit_layer
from gblr_hw.fit_problem import FitProblem
from gblr_hw.fit_to_limit import Limit, limit_of, resolve, start_tiles, trim_to_limit
from gblr_hw.fit_weights import fit_of, lattice_weights, relative_error
from gblr_hw.kept_layers import kept_or_made, layer_key
from gblr_hw.lattice import check_square
from gblr_hw.project_groups import project_groups
from gblr_hw.projection import project_jointly
from gblr_hw.weights import DenseWeights, LatticeWeights
from simulator.errors import InputError
from simulator.machine import Machine

Progress = Callable[[int, int, str], None]
Allocation = Literal["by-error", "even"]
Judge = Callable[[Mapping[str, LatticeWeights]], float]


@dataclass(frozen=True)
class _Request:
    """What every layer of one conversion shares."""

    schedule: Schedule
    intervals_only: bool
    groups: bool
    dense_tiles: bool
    work: Path | None
    allocation: Allocation
    judge: Judge | None
    progress: Progress | None
    biases: Mapping[str, Tensor | None]


def convert(
    layers: Mapping[str, npt.NDArray[np.floating] | DenseWeights],
    machine: Array | Machine,
    tiles: float | None = None,
    covariances: Mapping[str, npt.NDArray[np.floating]] | None = None,
    *,
    latency: str | float | None = None,
    energy_pj: float | None = None,
    tokens: int = 197,
    intervals_only: bool = False,
    groups: bool = False,
    with_dense_tiles: bool = True,
    allocation: Allocation = "even",
    judge: Judge | None = None,
    hidden: Mapping[str, str] | None = None,
    schedule: Schedule | None = None,
    progress: Progress | None = None,
    work: Path | None = None,
) -> dict[str, LatticeWeights]:
    """Turn dense layers into ranks with chunk sets, and dense tiles where they serve better, at one budget.

    For a machine without scatter the ranks come in groups that share their chunk sets: single ranks with chunks of
    their own would take more tiles there than were counted.

    Parameters
    ----------
    layers: name -> matrix (m, n) or DenseWeights (its bias is kept).
    machine: its array counts the tiles; for a latency or an energy it is simulated.
    tiles: budget as a fraction of all the layers' dense tiles (0.3 if no budget is given), used up to the last tile.
    latency: budget instead: "0.4x-dense", "0.05ms", "12000cycles", or a number of cycles, for `tokens` activation rows.
    energy_pj: budget instead, in picojoules.
    covariances: name -> input second moments C (n, n); the error is then ||(W - W') C^(1/2)||. Layers without one are
        plain.
    intervals_only: every rank's chunks stay one cyclic run, as GBLR blocks have.
    groups: ranks share their chunk sets P at a time (P = rows = cols), also where the machine has scatter.
    with_dense_tiles: whether tiles may be kept dense beside the ranks.
    allocation: "even" gives each layer the same fraction. "by-error" also tries to move tiles between layers so that
        the sum of their relative squared errors falls, and returns what `judge` finds better: never worse than even.
    judge: network -> loss, lower is better (say, the output's error on calibration inputs); if None, that sum itself.
    hidden: producer -> consumer of hidden channels that nothing else sees (`reorder.order_hidden`): they are reordered
        in both, so the two results belong together, in the new order.
    progress: called with (layers done, layers in all, name of the next).
    work: a folder in which finished layers are kept; the same call later goes on from there, with the same result.

    Returns name -> weights; `weights.matrix()` is the reconstructed matrix.

    Raises
    ------
    InputError: a budget outside (0, 1] or below what every layer needs (the message names the least), several budgets,
        matrices or covariances that are not finite or of the wrong shape, names that do not exist, rank groups on an
        array that is not square or together with intervals_only.
    """
    groups = groups or (isinstance(machine, Machine) and not machine.scatter)
    if groups:
        _check_groups(machine, intervals_only)
    limit = limit_of(machine, tokens, tiles, latency, energy_pj)
    problems, biases = read_layers(layers, machine, covariances, hidden or {})
    request = _Request(
        schedule or Schedule(), intervals_only, groups, with_dense_tiles, _folder(work), allocation, judge, progress,
        biases,
    )  # fmt: skip
    if limit is None:
        budget = total_tiles(problems, 0.3 if tiles is None else tiles)
        converted = _convert(problems, budget, request)
    else:
        converted = _convert_to_limit(problems, limit, request)
    return {name: replace(weights, bias=biases[name]) for name, weights in converted.items()}


def _convert(
    problems: Mapping[str, FitProblem],
    budget: int,
    request: _Request,
) -> dict[str, LatticeWeights]:
    """All layers at `budget` tiles in all."""
    rounds = 2 if request.allocation == "by-error" and len(problems) > 1 else 1
    shares = share_evenly(problems, budget, 1 if request.dense_tiles else 2)
    even = _fit_all(problems, shares, request, 0, rounds)
    if rounds == 1:
        return even
    errors = {name: problem.squared_error(fit_of(even[name])) for name, problem in problems.items()}
    moved = _fit_all(problems, share_by_error(problems, shares, errors), request, 1, rounds)
    judge = request.judge or partial(_total_error, problems)
    return min(even, moved, key=judge)


def _fit_all(
    problems: Mapping[str, FitProblem],
    shares: Mapping[str, int],
    request: _Request,
    turn: int,
    turns: int,
) -> dict[str, LatticeWeights]:
    found = {}
    for index, (name, problem) in enumerate(problems.items()):
        if request.progress is not None:
            request.progress(turn * len(problems) + index, turns * len(problems), name)
        found[name] = replace(_fit_one(problem, shares[name], request), bias=request.biases[name])
    return found


def _fit_one(problem: FitProblem, budget: int, request: _Request) -> LatticeWeights:
    def make() -> LatticeWeights:
        # A layer of one tile has no cheaper form than that tile.
        with_tiles = request.dense_tiles or budget < 2
        if request.groups:
            found = fit_groups(problem, budget, request.schedule, dense_tiles=with_tiles)
        else:
            found = fit_layer(
                problem, budget, request.schedule, intervals_only=request.intervals_only, dense_tiles=with_tiles
            )
        return lattice_weights(*found, problem.rows, problem.cols)

    flags = (request.intervals_only, request.dense_tiles, *([True] if request.groups else []))
    return kept_or_made(request.work, layer_key(problem, budget, request.schedule, flags), make)


def _total_error(problems: Mapping[str, FitProblem], found: Mapping[str, LatticeWeights]) -> float:
    """Sum of the layers' relative squared errors: what allocation lowers, and what the choice is made by."""
    return sum(relative_error(problem, found[name]) ** 2 for name, problem in problems.items())


def _convert_to_limit(
    problems: Mapping[str, FitProblem],
    limit: Limit,
    request: _Request,
) -> dict[str, LatticeWeights]:
    """Convert a little above the limit, then take tiles until the machine meets it."""
    limit, dense_cost = resolve(problems, limit)
    budget, most = start_tiles(problems, limit, dense_cost), sum(dense_tiles(problem) for problem in problems.values())
    while True:
        found = _convert(problems, budget, request)
        if limit.measure(found) > limit.value or budget >= most:
            break
        budget = min(most, max(budget + 1, round(budget * 1.1)))
    project = project_groups if request.groups else partial(project_jointly, intervals_only=request.intervals_only)
    return trim_to_limit(problems, found, limit, project, request.schedule.final_sweeps)


def _check_groups(machine: Array | Machine, intervals_only: bool) -> None:
    check_square(machine.rows, machine.cols)
    if intervals_only:
        raise InputError(
            "intervals_only",
            "with rank groups",
            "groups have any chunk sets (a machine without scatter runs groups only)",
            "Leave it out, or convert for a machine with scatter.",
        )


def _folder(work: Path | None) -> Path | None:
    if work is None:
        return None
    if work.exists() and not work.is_dir():
        raise InputError(f"work folder '{work}'", "a file", "finished layers are kept in a folder", "Name another.")
    work.mkdir(parents=True, exist_ok=True)
    return work
