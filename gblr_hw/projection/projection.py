"""Project lattice structures onto a tile budget, which is met exactly: drop what loses least per tile saved."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gblr_hw.projection.projection_kernels import best_return, fill_seats, refresh, returnable, run_costs, take_until
from gblr_hw.weights.structure import BoolArray, Structure, is_interval
from simulator.base.arithmetic import ceil_div
from simulator.base.errors import InputError

FloatArray = npt.NDArray[np.float64]

# Budgets are sums of per-tile costs; this much rounding must not cost a tile.
_SLACK = 1e-9


class InfeasibleBudgetError(InputError):
    """A budget below what is reachable without emptying a layer."""


@dataclass(frozen=True, eq=False)
class Importance:
    """What each part of a structure is worth, in any one unit (squared error, squared gradient times weight), never
    negative.

    tiles (R, C), reads (K, C), writes (K, R), float64: the loss of dropping that dense tile, that rank's reading of
    that input chunk, that rank's writing of that output chunk. Values outside the structure are ignored.
    """

    tiles: FloatArray
    reads: FloatArray
    writes: FloatArray


def project(
    structure: Structure, importance: Importance, budget: float, rows: int, cols: int, *, intervals_only: bool = False
) -> Structure:
    """Project one layer onto `budget` tiles of a `rows` x `cols` array. See `project_jointly`."""
    layers = {"layer": (structure, importance)}
    return project_jointly(layers, budget, rows, cols, intervals_only=intervals_only)["layer"]


def project_jointly(
    layers: Mapping[str, tuple[Structure, Importance]],
    budget: float,
    rows: int,
    cols: int,
    *,
    tile_costs: Mapping[str, float] | None = None,
    intervals_only: bool = False,
) -> dict[str, Structure]:
    """Project several layers onto one total budget.

    Parameters
    ----------
    layers: name -> (structure, importance); the result is a part of each structure, with the same K.
    budget: tiles in total, or cycles (or joules) when `tile_costs` says what a tile of each layer costs.
    rows, cols: P and Q of the array.
    intervals_only: keep every rank's chunk sets single cyclic runs (they must be runs to begin with).

    The unit of dropping is what empties one tile: the remainder of a chunk's ranks, or a dense tile. A rank left
    without reads or without writes goes on both sides. At the end, what still fits is put back: seats in tiles that are
    paid for anyway, then whole tiles while the budget allows, so the result is within the budget and no single tile (a
    chunk's seats for living ranks, or a dense tile) could be returned. No layer is emptied. Greedy, so not always the
    best: against exhaustive search on small cases it loses 0.3 % of all there is to lose on average, 9 % at worst
    (tests/gblr_hw/projection/test_projection.py).

    Raises
    ------
    InputError: a budget below what is reachable without emptying a layer (the message names it), importances of the
        wrong shape, negative or not finite, or `intervals_only` with a structure that is not made of intervals.
    """
    costs = {name: 1.0 if tile_costs is None else float(tile_costs[name]) for name in layers}
    states = {
        name: _Layer(name, structure, importance, rows, cols, intervals_only)
        for name, (structure, importance) in layers.items()
    }
    total = sum(costs[name] * state.tile_count() for name, state in states.items())
    allowed = budget + _SLACK * abs(budget)
    # The layer whose next tile loses least per cost goes on until another one's would lose less.
    queue = [(state.next_loss() / costs[name], index, name) for index, (name, state) in enumerate(states.items())]
    heapq.heapify(queue)
    while total > allowed:
        loss, index, name = heapq.heappop(queue) if queue else (np.inf, 0, "")
        if loss == np.inf:
            raise InfeasibleBudgetError(
                "tile budget",
                f"{budget:g}",
                f"no layer may be emptied, and the smallest reachable total is {total:g}",
                "Raise the budget, or leave some layers dense.",
            )
        limit = queue[0][0] if queue else np.inf
        saved, loss = states[name].take(limit * costs[name], int(np.ceil((total - allowed) / costs[name])))
        total -= costs[name] * saved
        heapq.heappush(queue, (loss / costs[name], index, name))
    _restore(states, costs, budget - total)
    return {name: state.structure() for name, state in states.items()}


# Touches, worth, cost, count, loss and dearest of one side, as the kernels take them.
_Side = tuple[BoolArray, FloatArray, FloatArray, npt.NDArray[np.int64], FloatArray, FloatArray]


class _Layer:
    """One layer while it is projected: both sides as the kernels take them, and its dense tiles by what they lose."""

    def __init__(
        self, name: str, structure: Structure, importance: Importance, rows: int, cols: int, intervals_only: bool
    ) -> None:
        _check(name, structure, importance, intervals_only)
        self.original, self.runs = structure, intervals_only
        self.seats_in, self.seats_out = cols, rows
        self.reads = _side(structure.reads, importance.reads, cols, intervals_only)
        self.writes = _side(structure.writes, importance.writes, rows, intervals_only)
        self.old_reads, self.old_writes = self.reads[0].copy(), self.writes[0].copy()
        places = np.flatnonzero(structure.tiles)
        worth = np.asarray(importance.tiles, np.float64).ravel()[places]
        order = np.argsort(worth, kind="stable")
        self.places, self.dense_loss = places[order], worth[order]
        self.dense = np.ones(len(places), np.bool_)
        self.state = np.array([structure.ranks, 0], np.int64)

    def tile_count(self) -> int:
        reduce_tiles, expand_tiles = ceil_div(self.reads[3], self.seats_in), ceil_div(self.writes[3], self.seats_out)
        return int(self.dense.sum() + reduce_tiles.sum() + expand_tiles.sum())

    def next_loss(self) -> float:
        tile = self.dense_loss[0] if len(self.dense_loss) else np.inf
        return float(min(tile, self.reads[4].min(initial=np.inf), self.writes[4].min(initial=np.inf)))

    def take(self, stop_loss: float, wanted: int) -> tuple[int, float]:
        """Save up to `wanted` tiles that lose at most `stop_loss` each: (tiles saved, what the next one loses)."""
        saved, loss = take_until(
            self.reads, self.writes, self.seats_in, self.seats_out, self.runs, self.dense, self.dense_loss, self.state,
            float(stop_loss), wanted,
        )  # fmt: skip
        return int(saved), float(loss)

    def fill_seats(self) -> None:
        alive = self.alive()
        fill_seats(self.reads, self.old_reads, alive, self.seats_in, self.runs)
        fill_seats(self.writes, self.old_writes, alive, self.seats_out, self.runs)

    def best_return(self) -> tuple[float, Callable[[], None]] | None:
        """The single tile whose return regains most: (importance regained, the move); None if none can return."""
        alive = self.alive()
        gone = np.flatnonzero(~self.dense)
        sides = ((self.reads, self.old_reads, self.seats_in), (self.writes, self.old_writes, self.seats_out))
        found = [best_return(side, old, alive, seats, self.runs) for side, old, seats in sides]
        gains = [self.dense_loss[gone[-1]] if len(gone) else -1.0, found[0][0], found[1][0]]
        best = int(np.argmax(gains))
        if gains[best] < 0:
            return None
        if best == 0:
            return gains[0], lambda: self.dense.__setitem__(gone[-1], True)
        return gains[best], lambda: self._give_back(*sides[best - 1], int(found[best - 1][1]), alive)

    def _give_back(self, side: _Side, old: BoolArray, seats: int, chunk: int, alive: BoolArray) -> None:
        ranks = returnable(side[0], old, side[1], alive, chunk, self.runs, seats)
        side[0][chunk, ranks] = True
        side[3][chunk] += len(ranks)

    def alive(self) -> BoolArray:
        return np.asarray(self.reads[0].any(axis=0))

    def structure(self) -> Structure:
        tiles = np.zeros(self.original.tiles.size, np.bool_)
        tiles[self.places[self.dense]] = True
        return Structure(tiles.reshape(self.original.tiles.shape), self.reads[0].T, self.writes[0].T)


def _side(touches: BoolArray, importance: FloatArray, seats: int, runs: bool) -> _Side:
    now, worth = np.array(touches.T, order="C"), np.array(importance.T, np.float64, order="C")
    cost = np.where(now, worth, np.inf)
    if runs:
        for rank in range(len(touches)):
            run_costs(now, worth, cost, rank)
    count = now.sum(axis=1).astype(np.int64)
    loss, dearest = np.empty(len(now)), np.full(len(now), np.inf)
    for chunk in range(len(now)):
        refresh(cost, count, loss, dearest, seats, chunk)
    return now, worth, cost, count, loss, dearest


def _restore(states: Mapping[str, _Layer], costs: Mapping[str, float], slack: float) -> None:
    """Give back what the budget still pays for: free seats first, then the tiles worth most per cost."""
    for state in states.values():
        state.fill_seats()
    found = {name: state.best_return() for name, state in states.items() if costs[name] <= _payable(slack)}
    while True:
        open_moves = {n: m for n, m in found.items() if m is not None and costs[n] <= _payable(slack)}
        if not open_moves:
            return
        name = max(open_moves, key=lambda key: open_moves[key][0] / costs[key])
        open_moves[name][1]()
        slack -= costs[name]
        states[name].fill_seats()
        found[name] = states[name].best_return()


def _payable(slack: float) -> float:
    return slack * (1 + _SLACK) + _SLACK


def _check(name: str, structure: Structure, importance: Importance, intervals_only: bool) -> None:
    for part in ("tiles", "reads", "writes"):
        held, worth = getattr(structure, part), np.asarray(getattr(importance, part))
        where = f"layer '{name}': importance of {part}"
        if worth.shape != held.shape:
            raise InputError(
                where, f"shape {worth.shape}", f"it must be that of the structure, {held.shape}", "Give one per part."
            )
        if not np.isfinite(worth[held]).all() or (worth[held] < 0).any():
            raise InputError(
                where,
                "a negative or non-finite value",
                "importances are losses, finite and never negative",
                "Check the network for NaN, and square or take the magnitude of signed scores.",
            )
    if intervals_only and not (is_interval(structure.reads).all() and is_interval(structure.writes).all()):
        raise InputError(
            f"layer '{name}'",
            "a rank whose chunks are not one cyclic run",
            "intervals_only keeps runs and cannot make them",
            "Leave intervals_only off, or start from intervals.",
        )
