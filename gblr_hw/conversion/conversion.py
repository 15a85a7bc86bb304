"""Convert a pretrained dense network to lattice weights at a budget of the whole network, met exactly."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from torch import Tensor

from gblr_hw.conversion.allocate import (
    dense_tiles,
    in_steps_of,
    share_by_error,
    share_evenly,
    total_tiles,
)
from gblr_hw.conversion.bits.around import OnGrid, rounded_ranks, rounded_tiles
from gblr_hw.conversion.bits.choose import choose_within, stored_on_grid
from gblr_hw.conversion.bits.options import Narrow, narrow_of
from gblr_hw.conversion.choose_family import choose_family
from gblr_hw.conversion.conversion_input import Array, read_layers
from gblr_hw.conversion.convert_whole import whole_to_limit
from gblr_hw.conversion.fit.fit_layer import Schedule
from gblr_hw.conversion.fit.fit_problem import FitProblem
from gblr_hw.conversion.fit.fit_weights import Converted, fit_of, relative_error, squared_error
from gblr_hw.conversion.fit_one import fit_one, least_tiles, work_folder
from gblr_hw.conversion.fit_to_limit import (
    Limit,
    Projection,
    limit_of,
    narrow_limit,
    resolve,
    start_tiles,
    trim_to_limit,
)
from gblr_hw.conversion.from_dense import FitOptions
from gblr_hw.projection.by_unit import project_by_unit
from gblr_hw.weights.family import Family, converted, converted_whole
from gblr_hw.weights.stored import DenseWeights, LatticeWeights
from simulator.base.errors import InputError
from simulator.machine.machine import Machine

Progress = Callable[[int, int, str], None]
Allocation = Literal["by-error", "even"]
Judge = Callable[[Mapping[str, Converted]], float]


@dataclass(frozen=True)
class _Request:
    """What every layer of one conversion shares."""

    family: Family
    options: FitOptions
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
    weight_bytes: str | float | None = None,
    bits: int | Literal["choose"] | None = None,
    rank_bits: int | None = None,
    tokens: int = 197,
    intervals_only: bool = False,
    family: str | None = None,
    with_dense_tiles: bool = True,
    allocation: Allocation = "even",
    judge: Judge | None = None,
    hidden: Mapping[str, str] | None = None,
    schedule: Schedule | None = None,
    progress: Progress | None = None,
    work: Path | None = None,
) -> dict[str, Converted]:
    """Turn dense layers into layers of one family at one budget: by default into ranks with chunk sets, and dense tiles
    where they serve better.

    Parameters
    ----------
    layers: name -> matrix (m, n) or DenseWeights (its bias is kept).
    machine: its array counts the tiles; for a latency or an energy it is simulated.
    tiles: budget as a fraction of all the layers' dense tiles (0.3 if no budget is given), used up to the last tile.
    latency: budget instead: "0.4x-dense", "0.05ms", "12000cycles", or a number of cycles, for `tokens` activation rows.
    energy_pj: budget instead, in picojoules.
    weight_bytes: budget instead: a number of bytes of tiles in DRAM, or "0.55x-dense" of the dense layers' in the
        machine's weight_bits.
    bits: of dense tiles, the machine's narrow_bits (machine.md, A6); ranks keep its weight_bits. Structure is chosen
        first. Then tiles are rounded so that every weight makes up for the errors of the others, in turns with ranks
        that are fitted to what the codes leave. Layers are stored as codes and steps, which lowering keeps. "choose":
        within a latency, an energy or bytes, tiles, ranks and bits are chosen together: layers may be dense in
        weight_bits, dense in narrow_bits, alone or with ranks beside them, or of a structure in either; the result is
        never worse than all layers in one of these. If None all weights have the machine's weight_bits.
    rank_bits: of ranks, the machine's narrow_bits. v is rounded like dense tiles and stored as codes, u is fitted to
        what that leaves, and rounded to nearest by lowering, which alone knows what a rank's code stands for.
    covariances: name -> input second moments C (n, n); the error is then ||(W - W') C^(1/2)||. Layers without one are
        plain.
    intervals_only: every rank's chunks stay one cyclic run, as GBLR blocks have.
    family: one of `gblr_hw.weights.family`'s converted() and converted_whole(), with hyphens or underscores.
        "lattice": any chunk set of each rank; "rank-groups": ranks share their chunk sets P at a time (P = rows =
        cols); "low-rank": whole ranks, by weighted truncated SVD, where what an even share leaves over goes to the
        layers whose errors it lowers most; "block-sparse": dense tiles only. "blast", "monarch" (a grid of low-rank
        blocks), "kronecker" and "tensor-train": the blocks and ranks, of those that the tiles buy, that leave least. If
        None the lattice, and rank groups for a machine without scatter, where single ranks with chunks of their own
        would take more tiles than were counted.
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
        matrices or covariances that are not finite or of the wrong shape, names that do not exist, a family that the
        machine cannot run or that an option cannot act on.
    """
    options = FitOptions(schedule or Schedule(), intervals_only, with_dense_tiles)
    chosen = choose_family(family, machine, options, (*converted(), *converted_whole()))
    limit = limit_of(machine, tokens, tiles, latency, energy_pj, weight_bytes)
    narrow = narrow_of(machine, bits, rank_bits, chosen, with_dense_tiles)
    problems, biases = read_layers(layers, machine, covariances, hidden or {})
    if chosen.whole:
        _check_acting(chosen, schedule is not None, limit, work, allocation, judge)
    if chosen.whole and limit is not None:
        return dict(whole_to_limit(problems, chosen.name, limit, biases, progress))
    request = _Request(chosen, options, work_folder(work), allocation, judge, progress, biases)
    if bits == "choose":
        families = [one for one in converted() if family is None or one == chosen.name]
        found = _choose(problems, limit, request, machine, families)
    elif limit is None:
        found = _on_grids(
            problems, _convert(problems, total_tiles(problems, 0.3 if tiles is None else tiles), request), narrow
        )
    else:
        if narrow is not None:
            limit = narrow_limit(resolve(problems, limit)[0], narrow.by_kind)
        cut = _convert_to_limit(problems, limit, request)
        found = _on_grids(problems, cut, narrow)
    return {name: replace(weights, bias=biases[name]) for name, weights in found.items()}


def _on_grids(
    problems: Mapping[str, FitProblem], found: Mapping[str, Converted], narrow: Narrow | None
) -> dict[str, Converted]:
    """The same in fewer bits, ranks fitted again beside dense tiles."""
    if narrow is None:
        return dict(found)
    return {
        name: replace(_on_grid(problems[name], one, narrow), bias=one.bias)
        for name, one in found.items()
        if isinstance(one, LatticeWeights)  # as of every family that has few bits
    }


def _on_grid(problem: FitProblem, one: LatticeWeights, narrow: Narrow) -> LatticeWeights:
    made = OnGrid(one.structure(), fit_of(one))
    if narrow.dense:
        made = rounded_tiles(problem, made.structure, made.fit, narrow.bits)
    if narrow.ranks:
        made = rounded_ranks(problem, made, narrow.bits)
    return stored_on_grid(problem, made, one.family)


def _choose(
    problems: Mapping[str, FitProblem],
    limit: Limit | None,
    request: _Request,
    machine: Array | Machine,
    families: Sequence[str],
) -> dict[str, Converted]:
    """Tiles, ranks and bits together. families: of the structures that are tried."""
    if limit is None or not isinstance(machine, Machine):
        raise InputError(
            "bits",
            "'choose' with a budget in tiles",
            "tiles count the same in any number of bits",
            "Give weight_bytes, latency or energy_pj.",
        )
    limit, _ = resolve(problems, limit)
    types = machine.datatypes
    singles: list[Mapping[str, LatticeWeights]] = []
    for name in families:
        try:
            family = choose_family(name, machine, request.options)
        except InputError:
            continue  # the machine, or an option, rules it out
        one = replace(request, family=family)
        for narrow in (None, *(Narrow(types.narrow_bits, dense, True) for dense in (False, True))):
            if narrow is not None and narrow.dense and family.unit == "rank":
                continue  # no dense tiles
            try:
                cut = _convert_to_limit(problems, limit if narrow is None else narrow_limit(limit, narrow.by_kind), one)
            except InputError:
                continue  # it takes more than the budget
            made = _on_grids(problems, cut, narrow)
            singles.append({n: w for n, w in made.items() if isinstance(w, LatticeWeights)})
    found = choose_within(
        problems, types.narrow_bits, types.weight_bits, limit.value, limit.measure, singles, limit.unit
    )
    return dict(found)


def _check_acting(
    family: Family,
    schedule: bool,
    limit: Limit | None,
    work: Path | None,
    allocation: Allocation,
    judge: Judge | None,
) -> None:
    """Raise InputError for an option that does nothing with a family whose layers are chosen whole."""
    if schedule:
        rule = "it acts with families that are cut tile by tile"
        raise InputError("schedule", f"with {family.label}", rule, "Leave it out.")
    given = {"work": work is not None, "allocation": allocation != "even", "judge": judge is not None}
    for name, one in given.items():
        if one and limit is not None:
            rule = "with families that are chosen whole it acts for a budget in tiles"
            raise InputError(name, f"with {family.label} and {limit.unit}", rule, "Leave it out, or give tiles.")


def _convert(
    problems: Mapping[str, FitProblem],
    budget: int,
    request: _Request,
) -> dict[str, Converted]:
    """All layers at `budget` tiles in all."""
    rounds = 2 if request.allocation == "by-error" and len(problems) > 1 else 1
    least = _least(problems, request)
    shares = share_evenly(problems, budget, least)
    in_steps = partial(in_steps_of, request.family, problems, dense=request.options.with_dense_tiles)
    even = _fit_all(problems, in_steps(shares), request, 0, rounds)
    if rounds == 1:
        return even
    errors = {name: squared_error(problem, even[name]) for name, problem in problems.items()}
    other = share_by_error(problems, shares, errors, least)
    moved = _fit_all(problems, in_steps(other), request, 1, rounds)
    judge = request.judge or partial(_total_error, problems)
    return min(even, moved, key=judge)


def _fit_all(
    problems: Mapping[str, FitProblem],
    shares: Mapping[str, int],
    request: _Request,
    turn: int,
    turns: int,
) -> dict[str, Converted]:
    found = {}
    for index, (name, problem) in enumerate(problems.items()):
        if request.progress is not None:
            request.progress(turn * len(problems) + index, turns * len(problems), name)
        weights = fit_one(problem, shares[name], request.family.name, request.options, request.work)
        found[name] = replace(weights, bias=request.biases[name])
    return found


def _least(problems: Mapping[str, FitProblem], request: _Request) -> dict[str, int]:
    """Tiles by layer that it cannot do without."""
    family, options = request.family.name, request.options
    return {name: least_tiles(problem, family, options, f"layer '{name}'") for name, problem in problems.items()}


def _total_error(problems: Mapping[str, FitProblem], found: Mapping[str, Converted]) -> float:
    """Sum of the layers' relative squared errors: what allocation lowers, and what the choice is made by."""
    return sum(relative_error(problem, found[name]) ** 2 for name, problem in problems.items())


def _convert_to_limit(
    problems: Mapping[str, FitProblem],
    limit: Limit,
    request: _Request,
) -> dict[str, LatticeWeights]:
    """Convert a little above the limit, then take tiles until the machine meets it."""
    limit, dense_cost = resolve(problems, limit)
    budget = start_tiles(problems, limit, dense_cost, sum(_least(problems, request).values()))
    most = sum(dense_tiles(problem) for problem in problems.values())
    within: Mapping[str, LatticeWeights] | None = None
    while True:
        made = _convert(problems, budget, request)
        found = {name: weights for name, weights in made.items() if isinstance(weights, LatticeWeights)}  # all of them
        if limit.measure(found) > limit.value or budget >= most:
            break
        within = found
        budget = min(most, max(budget + 1, round(budget * 1.1)))
    unit, options = request.family.unit, request.options
    assert unit is not None  # as of every family that is converted to
    project: Projection = partial(project_by_unit, (unit,), intervals_only=options.intervals_only)
    return trim_to_limit(problems, found, limit, project, options.schedule.final_sweeps, within)
