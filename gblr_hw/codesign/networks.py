"""Networks of every family at every share of the tiles, fitted once a layer and array and kept: fits are the slow
part.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from torch import Tensor

from gblr_hw.codesign.space import Family
from gblr_hw.conversion.allocate import dense_tiles
from gblr_hw.conversion.fit.fit_groups import fit_groups
from gblr_hw.conversion.fit.fit_layer import Schedule, block_sparse_layer, fit_layer, truncated_layer
from gblr_hw.conversion.fit.fit_problem import Fit, FitProblem
from gblr_hw.conversion.fit.fit_weights import lattice_weights, relative_error
from gblr_hw.conversion.kept_layers import kept_or_made, layer_key
from gblr_hw.weights.stored import LatticeWeights
from gblr_hw.weights.structure import Structure


@dataclass(frozen=True)
class NetworkChoice:
    """A network: family, the array that it was fitted to (P = Q = ``side``), and each layer's share of its dense
    tiles.
    """

    family: Family
    side: int
    shares: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class FittedLayer:
    """A layer of a network: weights, ||(W - W') C^(1/2)|| / ||W C^(1/2)||, tiles, and a digest of what it was fitted
    from.
    """

    weights: LatticeWeights
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

    def uniform(self, family: Family, side: int, share: float) -> NetworkChoice:
        """The same share for every layer; dense has all tiles."""
        return NetworkChoice(family, side, (1.0 if family == "dense" else share,) * len(self.problems))

    def dense_tiles(self, side: int) -> int:
        """Tiles of the dense network on such an array."""
        return sum(dense_tiles(self._problem(name, side)) for name in self.problems)

    def _problem(self, name: str, side: int) -> FitProblem:
        if (name, side) not in self._problems:
            self._problems[name, side] = replace(self.problems[name], rows=side, cols=side)
        return self._problems[name, side]

    def _layer(self, name: str, family: Family, side: int, share: float) -> FittedLayer:
        place = (name, family, side, share)
        if place not in self._fitted:
            problem = self._problem(name, side)
            budget = _budget(problem, family, share)
            key = layer_key(problem, budget, self.schedule, (False, True))
            folder = None if self.work is None else self.work / family
            if folder is not None:
                folder.mkdir(exist_ok=True)

            def make() -> LatticeWeights:
                self.fitting(f"fitting {name}: {family.replace('_', ' ')}, {share:g} of the tiles, P = {side}")
                return lattice_weights(*_fit(problem, family, budget, self.schedule), side, side)

            weights = kept_or_made(folder, key, make)
            tiles = weights.structure().tile_count(side, side)
            error = relative_error(problem, weights)
            self._fitted[place] = FittedLayer(replace(weights, bias=self.biases[name]), error, tiles, f"{family}-{key}")
        return self._fitted[place]


def _budget(problem: FitProblem, family: Family, share: float) -> int:
    """Whole tiles in the share, and at least what the family cannot do without."""
    most = dense_tiles(problem)
    least = problem.chunks_in + problem.chunks_out if family == "low_rank" else 1
    return most if family == "dense" else min(most, max(least, int(share * most + 1e-9)))


def _fit(problem: FitProblem, family: Family, budget: int, schedule: Schedule) -> tuple[Structure, Fit]:
    if family in ("dense", "block_sparse") or budget >= dense_tiles(problem):
        return block_sparse_layer(problem, budget)
    if family == "low_rank":
        return truncated_layer(problem, budget)
    return (fit_layer if family == "lattice" else fit_groups)(problem, budget, schedule)
