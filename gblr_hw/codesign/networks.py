"""Networks of every family at every share of the tiles, fitted once a layer and array and kept: fits are the slow
part.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from torch import Tensor

from gblr_hw.codesign.space import has_shares
from gblr_hw.conversion.allocate import dense_tiles
from gblr_hw.conversion.fit.fit_layer import Schedule
from gblr_hw.conversion.fit.fit_problem import FitProblem
from gblr_hw.conversion.fit.fit_weights import Converted, relative_error
from gblr_hw.conversion.fit.fit_whole import tiles_of
from gblr_hw.conversion.fit_one import fit_key, fit_one, least_tiles
from gblr_hw.conversion.from_dense import FitOptions
from gblr_hw.weights.family import FAMILIES

# What the dense network is stored as: it has all of the tiles.
_ALL_TILES = "block_sparse"


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
class Networks:
    """Layers to be approximated (their problems of any array), and those that have been fitted."""

    problems: Mapping[str, FitProblem]
    biases: Mapping[str, Tensor | None]
    schedule: Schedule
    work: Path | None
    fitting: Callable[[str], None] = lambda what: None
    _fitted: dict[tuple[str, str, int, float], FittedLayer] = field(default_factory=dict)
    _problems: dict[tuple[str, int], FitProblem] = field(default_factory=dict)

    def layers(self, choice: NetworkChoice) -> dict[str, FittedLayer]:
        """The network's layers by name."""
        return {
            name: self._layer(name, choice.family, choice.side, share)
            for name, share in zip(self.problems, choice.shares, strict=True)
        }

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

    def _problem(self, name: str, side: int) -> FitProblem:
        if (name, side) not in self._problems:
            self._problems[name, side] = replace(self.problems[name], rows=side, cols=side)
        return self._problems[name, side]

    def _layer(self, name: str, family: str, side: int, share: float) -> FittedLayer:
        place = (name, family, side, share)
        if place not in self._fitted:
            problem, options = self._problem(name, side), FitOptions(self.schedule)
            budget = _budget(problem, family, share, options)
            what = f"fitting {name}: {FAMILIES[family].label}, {share:g} of the tiles, P = {side}"
            made_as = family if has_shares(family) else _ALL_TILES
            weights = fit_one(problem, budget, made_as, options, self.work, lambda: self.fitting(what))
            key = f"{family}-{fit_key(problem, budget, options)}"
            tiles = tiles_of(weights, side, side)
            error = relative_error(problem, weights)
            self._fitted[place] = FittedLayer(replace(weights, bias=self.biases[name]), error, tiles, key)
        return self._fitted[place]


def _budget(problem: FitProblem, family: str, share: float, options: FitOptions) -> int:
    """Whole tiles in the share, at least what the family cannot do without; all of them for a family without shares."""
    most = dense_tiles(problem)
    if not has_shares(family):
        return most
    return min(most, max(least_tiles(problem, family, options), int(share * most + 1e-9)))
