"""Networks of every family at every share of the tiles, fitted once a layer and array and kept: fits are the slow
part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from gblr_hw.codesign.space import has_shares
from gblr_hw.conversion.allocate import dense_tiles
from gblr_hw.conversion.fit.fit_layer import Schedule
from gblr_hw.conversion.fit.fit_problem import FitProblem
from gblr_hw.conversion.fit.fit_weights import Converted, relative_error
from gblr_hw.conversion.fit.fit_whole import tiles_of
from gblr_hw.conversion.fit_one import fit_key, keep_one, kept_one, least_tiles, made_one
from gblr_hw.conversion.from_dense import FitOptions
from gblr_hw.jobs.one_thread import one_thread
from gblr_hw.weights.family import FAMILIES

# What the dense network is stored as: it has all of the tiles.
_ALL_TILES = "block_sparse"
# Of a fitted layer: its name, family, array (P = Q) and share of the tiles.
Place = tuple[str, str, int, float]


def _untold(what: str) -> None:
    pass


@dataclass(frozen=True)
class NetworkChoice:
    """A network: family, the array that it was fitted to (P = Q = ``side``), and each layer's share of its dense
    tiles.
    """

    family: str
    side: int
    shares: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class FittedLayer:
    """A layer of a network: weights, ||(W - W') C^(1/2)|| / ||W C^(1/2)||, tiles, and a digest of what it was fitted
    from.
    """

    weights: Converted
    error: float
    tiles: int
    key: str


@dataclass(frozen=True, eq=False)
class _Wanted:
    """What a layer is fitted from; key: of it in its family's folder; called: as measurements know it."""

    problem: FitProblem
    budget: int
    family: str
    options: FitOptions
    key: str
    called: str


@dataclass(frozen=True, eq=False)
class Networks:
    """Layers to be approximated (their problems of any array), and those that have been fitted.

    work: folder that keeps fits. fitting: told of each fit that is not kept there, before it is made.
    """

    problems: Mapping[str, FitProblem]
    biases: Mapping[str, Tensor | None]
    schedule: Schedule
    work: Path | None
    fitting: Callable[[str], None] = _untold
    _fitted: dict[Place, FittedLayer] = field(default_factory=dict)
    _problems: dict[tuple[str, int], FitProblem] = field(default_factory=dict)
    _asked: dict[Place, _Wanted] = field(default_factory=dict)

    def __getstate__(self) -> dict[str, Any]:
        """What fits need that are made elsewhere: neither the folder nor what was fitted here."""
        return {**vars(self), "work": None, "fitting": _untold, "_fitted": {}, "_problems": {}, "_asked": {}}

    def layers(self, choice: NetworkChoice) -> dict[str, FittedLayer]:
        """The network's layers by name."""
        return {place[0]: self._layer(place) for place in self._places(choice)}

    def missing(self, choices: Iterable[NetworkChoice]) -> list[Place]:
        """Layers of the networks that are still to be fitted, of those that are the same the first. The largest come
        first, so that workers end together.
        """
        found: dict[tuple[str, str], Place] = {}
        for place in dict.fromkeys(place for choice in choices for place in self._places(choice)):
            if place not in self._fitted:
                wanted = self._wanted(place)
                if not self._found(place, wanted):
                    found.setdefault((place[0], wanted.called), place)
        return sorted(found.values(), key=lambda place: -self.problems[place[0]].matrix.size)

    @one_thread
    def made(self, place: Place) -> tuple[Converted, float]:
        """A layer's weights, fitted now, without its bias, and their error."""
        wanted = self._wanted(place)
        weights = made_one(wanted.problem, wanted.budget, wanted.family, wanted.options)
        return weights, relative_error(wanted.problem, weights)

    def keep(self, place: Place, weights: Converted, error: float) -> None:
        """Remember what `made` gave, here and in the work folder."""
        wanted = self._wanted(place)
        keep_one(wanted.key, wanted.family, self.work, weights)
        self._remember(place, wanted, weights, error)

    def told(self, place: Place) -> str:
        """What is fitted, in words."""
        name, family, side, share = place
        return f"fitting {name}: {FAMILIES[family].label}, {share:g} of the tiles, P = {side}"

    def check(self, family: str, side: int) -> None:
        """Raise InputError, naming the layer, where one cannot be of the family on such an array."""
        if has_shares(family):
            for name in self.problems:
                least_tiles(self._problem(name, side), family, FitOptions(self.schedule), f"layer '{name}'")

    def uniform(self, family: str, side: int, share: float) -> NetworkChoice:
        """The same share for every layer; dense has all tiles."""
        return NetworkChoice(family, side, (share if has_shares(family) else 1.0,) * len(self.problems))

    def dense_tiles(self, side: int) -> int:
        """Tiles of the dense network on such an array."""
        return sum(dense_tiles(self._problem(name, side)) for name in self.problems)

    def _places(self, choice: NetworkChoice) -> list[Place]:
        shares = zip(self.problems, choice.shares, strict=True)
        return [(name, choice.family, choice.side, share) for name, share in shares]

    def _problem(self, name: str, side: int) -> FitProblem:
        if (name, side) not in self._problems:
            self._problems[name, side] = replace(self.problems[name], rows=side, cols=side)
        return self._problems[name, side]

    def _layer(self, place: Place) -> FittedLayer:
        if place not in self._fitted and not self._found(place, self._wanted(place)):
            self.fitting(self.told(place))
            self.keep(place, *self.made(place))
        return self._fitted[place]

    def _wanted(self, place: Place) -> _Wanted:
        if place not in self._asked:
            name, family, side, share = place
            problem, options = self._problem(name, side), FitOptions(self.schedule)
            budget = _budget(problem, family, share, options)
            made_as = family if has_shares(family) else _ALL_TILES
            key = fit_key(problem, budget, options)
            self._asked[place] = _Wanted(problem, budget, made_as, options, key, f"{family}-{key}")
        return self._asked[place]

    def _found(self, place: Place, wanted: _Wanted) -> bool:
        """Whether the layer is known: from a share of as many tiles, or kept in the work folder."""
        for other, fitted in self._fitted.items():
            if other[0] == place[0] and fitted.key == wanted.called:
                self._fitted[place] = fitted
                return True
        weights = kept_one(wanted.key, wanted.family, self.work)
        if weights is None:
            return False
        self._remember(place, wanted, weights, one_thread(relative_error)(wanted.problem, weights))
        return True

    def _remember(self, place: Place, wanted: _Wanted, weights: Converted, error: float) -> None:
        tiles, bias = tiles_of(weights, place[2], place[2]), self.biases[place[0]]
        self._fitted[place] = FittedLayer(replace(weights, bias=bias), error, tiles, wanted.called)


def _budget(problem: FitProblem, family: str, share: float, options: FitOptions) -> int:
    """Whole tiles in the share, at least what the family cannot do without; all of them for a family without shares."""
    most = dense_tiles(problem)
    if not has_shares(family):
        return most
    return min(most, max(least_tiles(problem, family, options), int(share * most + 1e-9)))
