"""Project lattice structures onto a tile budget, which is met exactly: drop what loses least per tile saved."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gblr_hw.lattice import BoolArray, Structure, is_interval
from simulator.errors import InputError

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
    chunk's seats for living ranks, or a dense tile) could be returned. No layer is emptied.

    Raises
    ------
    InputError: a budget below what is reachable without emptying a layer (the message names it), importances of the
        wrong
        shape, negative or not finite, or `intervals_only` with a structure that is not made of intervals.
    """
    costs = {name: 1.0 if tile_costs is None else float(tile_costs[name]) for name in layers}
    states = {
        name: _Layer(name, structure, importance, rows, cols, intervals_only)
        for name, (structure, importance) in layers.items()
    }
    total = sum(costs[name] * state.tile_count() for name, state in states.items())
    while total > budget + _SLACK * abs(budget):
        name = min(states, key=lambda key: states[key].cheapest_loss() / costs[key], default=None)
        if name is None or not np.isfinite(states[name].cheapest_loss()):
            raise InfeasibleBudgetError(
                "tile budget",
                f"{budget:g}",
                f"no layer may be emptied, and the smallest reachable total is {total:g}",
                "Raise the budget, or leave some layers dense.",
            )
        before = states[name].tile_count()
        states[name].drop_cheapest()
        total += costs[name] * (states[name].tile_count() - before)
    _restore(states, costs, budget - total)
    return {name: state.structure() for name, state in states.items()}


class _Side:
    """One side (reads or writes) of a layer while it is projected: touches (K, C), importance, seats per tile."""

    def __init__(self, touches: BoolArray, importance: FloatArray, seats: int, intervals_only: bool) -> None:
        self.original = touches
        self.now = touches.copy()
        self.importance = importance
        self.seats = seats
        self.intervals_only = intervals_only
        self.chunks = touches.shape[1]
        self.counts = touches.sum(axis=0)
        self.costs = self._removal_costs(touches, importance)
        self.loss = np.empty(self.chunks)
        self.refresh(range(self.chunks))

    def tile_count(self) -> int:
        return int((-(-self.counts // self.seats)).sum())

    def refresh(self, chunks: range | npt.NDArray[np.intp]) -> None:
        """Recompute what emptying one tile of each of these chunks would lose."""
        for chunk in chunks:
            count = int(self.counts[chunk])
            if count == 0:
                self.loss[chunk] = np.inf
                continue
            remainder = (count - 1) % self.seats + 1
            self.loss[chunk] = np.partition(self.costs[:, chunk], remainder - 1)[:remainder].sum()

    def without_remainder(self, chunk: int) -> tuple[npt.NDArray[np.intp], BoolArray]:
        """The ranks that give up `chunk` to empty one of its tiles, and their touches afterwards."""
        remainder = int(self.counts[chunk] - 1) % self.seats + 1
        leaving = np.argsort(self.costs[:, chunk], kind="stable")[:remainder]
        rest = self.now[leaving].copy()
        if self.intervals_only:
            before, after = _run_ends(rest, self.importance[leaving])
            for row, start_goes in zip(rest, before[:, chunk] <= after[:, chunk], strict=True):
                _cut_run(row, chunk, start_goes)
        rest[:, chunk] = False
        return leaving, rest

    def put(self, ranks: npt.NDArray[np.intp], touches: BoolArray) -> None:
        """Replace the touches of some ranks and bring counts, costs and losses up to date."""
        changed = (self.now[ranks] != touches).any(axis=0)
        self.now[ranks] = touches
        self.counts = self.now.sum(axis=0)
        self.costs[ranks] = self._removal_costs(touches, self.importance[ranks])
        self.refresh(range(self.chunks) if self.intervals_only else np.flatnonzero(changed))

    def _removal_costs(self, touches: BoolArray, importance: FloatArray) -> FloatArray:
        """What each rank loses with each chunk: its importance, or the lesser end through it. Infinite if untouched."""
        if self.intervals_only:
            importance = np.minimum(*_run_ends(touches, importance))
        return np.where(touches, importance, np.inf)

    def returnable(self, chunk: int, alive: BoolArray) -> npt.NDArray[np.intp]:
        """Living ranks that gave up `chunk` and could take it back, the most important first."""
        could = self.original[:, chunk] & ~self.now[:, chunk] & alive
        if self.intervals_only:
            could &= self.now[:, chunk - 1] | self.now[:, (chunk + 1) % self.chunks]
        ranks = np.flatnonzero(could)
        return ranks[np.argsort(-self.importance[ranks, chunk], kind="stable")]

    def give_back(self, chunk: int, ranks: npt.NDArray[np.intp]) -> None:
        self.now[ranks, chunk] = True
        self.counts[chunk] += len(ranks)


class _Layer:
    """One layer while it is projected. Its three kinds of move: a read tile, a write tile, a dense tile."""

    def __init__(
        self, name: str, structure: Structure, importance: Importance, rows: int, cols: int, intervals_only: bool
    ) -> None:
        _check(name, structure, importance, intervals_only)
        self.tiles = structure.tiles.copy()
        self.original_tiles = structure.tiles
        self.tile_importance = np.asarray(importance.tiles, np.float64)
        self.tile_loss = np.where(self.tiles, self.tile_importance, np.inf)
        self.reads = _Side(structure.reads, np.asarray(importance.reads, np.float64), cols, intervals_only)
        self.writes = _Side(structure.writes, np.asarray(importance.writes, np.float64), rows, intervals_only)

    def tile_count(self) -> int:
        return int(self.tiles.sum()) + self.reads.tile_count() + self.writes.tile_count()

    def alive(self) -> BoolArray:
        return np.asarray(self.reads.now.any(axis=1))

    def cheapest_loss(self) -> float:
        return float(min(part.min(initial=np.inf) for part in (self.tile_loss, self.reads.loss, self.writes.loss)))

    def drop_cheapest(self) -> None:
        """Make the move that loses least; a move that would empty the layer is barred instead."""
        if self.tile_loss.min(initial=np.inf) <= min(
            self.reads.loss.min(initial=np.inf), self.writes.loss.min(initial=np.inf)
        ):
            where = np.unravel_index(np.argmin(self.tile_loss), self.tile_loss.shape)
            self.tile_loss[where] = np.inf
            if self.tiles.sum() > 1 or self.alive().any():
                self.tiles[where] = False
            return
        side, other = self.reads, self.writes
        if self.writes.loss.min(initial=np.inf) < self.reads.loss.min(initial=np.inf):
            side, other = other, side
        chunk = int(np.argmin(side.loss))
        leaving, rest = side.without_remainder(chunk)
        dying = leaving[~rest.any(axis=1)]
        if len(dying) == self.alive().sum() and not self.tiles.any():
            side.loss[chunk] = np.inf
            return
        side.put(leaving, rest)
        if len(dying):
            other.put(dying, np.zeros((len(dying), other.chunks), bool))

    def structure(self) -> Structure:
        return Structure(self.tiles, self.reads.now, self.writes.now)


def _run_ends(touches: BoolArray, importance: FloatArray) -> tuple[FloatArray, FloatArray]:
    """For cyclic runs (K, C): the importance from the run's start through each chunk, and from each chunk through its
    end.

    A full circle has no ends: taking any one chunk leaves a run, so there each chunk stands for itself.
    """
    starts = np.argmax(touches & ~np.roll(touches, 1, axis=1), axis=1)
    order = (starts[:, None] + np.arange(touches.shape[1])) % touches.shape[1]
    worth = np.where(touches, importance, 0.0)
    own = np.take_along_axis(worth, order, axis=1)
    through = np.cumsum(own, axis=1)
    before, after = np.empty_like(own), np.empty_like(own)
    np.put_along_axis(before, order, through, axis=1)
    np.put_along_axis(after, order, through[:, -1:] - through + own, axis=1)
    full = touches.all(axis=1, keepdims=True)
    return np.where(full, worth, before), np.where(full, worth, after)


def _cut_run(row: BoolArray, chunk: int, start_goes: bool) -> None:
    """Clear a cyclic run from `chunk` to its start or to its end, in place; of a full circle only `chunk` goes."""
    if row.all():
        return
    step = -1 if start_goes else 1
    at = chunk
    while row[at]:
        row[at] = False
        at = (at + step) % len(row)


def _restore(states: Mapping[str, _Layer], costs: Mapping[str, float], slack: float) -> None:
    """Give back what the budget still pays for: free seats first, then the tiles worth most per cost."""
    for state in states.values():
        _fill_seats(state)
    while True:
        best: tuple[float, str, Callable[[], None]] | None = None
        for name, state in states.items():
            if costs[name] > slack * (1 + _SLACK) + _SLACK:
                continue
            for gain, move in _returns(state):
                if best is None or gain / costs[name] > best[0]:
                    best = gain / costs[name], name, move
        if best is None:
            return
        best[2]()
        slack -= costs[best[1]]
        _fill_seats(states[best[1]])


def _fill_seats(state: _Layer) -> None:
    """Let living ranks take back chunks whose tiles have seats; repeated, as a run grows one chunk at a time."""
    alive = state.alive()
    moved = True
    while moved:
        moved = False
        for side in (state.reads, state.writes):
            for chunk in np.flatnonzero(side.counts % side.seats):
                ranks = side.returnable(int(chunk), alive)[: int(-side.counts[chunk] % side.seats)]
                if len(ranks):
                    side.give_back(int(chunk), ranks)
                    moved = True


def _returns(state: _Layer) -> list[tuple[float, Callable[[], None]]]:
    """Every single tile that could be given back: (importance regained, the move)."""
    found: list[tuple[float, Callable[[], None]]] = []
    for where in np.argwhere(state.original_tiles & ~state.tiles):
        at = (int(where[0]), int(where[1]))
        found.append((float(state.tile_importance[at]), lambda at=at: state.tiles.__setitem__(at, True)))  # type: ignore[misc]
    alive = state.alive()
    for side in (state.reads, state.writes):
        for chunk in range(side.chunks):
            ranks = side.returnable(chunk, alive)[: side.seats]
            if len(ranks):
                gain = float(side.importance[ranks, chunk].sum())
                found.append((gain, lambda s=side, c=chunk, r=ranks: s.give_back(c, r)))  # type: ignore[misc]
    return found


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
