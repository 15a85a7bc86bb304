"""One layer of a network fitted as its family is, and kept in the work folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from gblr_hw.conversion.allocate import dense_tiles
from gblr_hw.conversion.fit.fit_layer import block_sparse_layer
from gblr_hw.conversion.fit.fit_problem import Fit, FitProblem
from gblr_hw.conversion.fit.fit_weights import Converted, lattice_weights
from gblr_hw.conversion.fit.fit_whole import fit_whole, sizes_of
from gblr_hw.conversion.from_dense import FitOptions, fitting_of
from gblr_hw.conversion.kept_layers import keep, kept, layer_key
from gblr_hw.weights.family import FAMILIES
from gblr_hw.weights.stored import LatticeWeights
from gblr_hw.weights.structure import Structure
from simulator.base.files import output_folder


def fit_one(
    problem: FitProblem,
    budget: int,
    family: str,
    options: FitOptions,
    work: Path | None = None,
    begin: Callable[[], None] = lambda: None,
) -> Converted:
    """A layer's weights at its tiles, without a bias.

    work: a folder, in which each family has one of its own. begin: called if the layer is not kept there.
    """
    key = fit_key(problem, budget, options)
    layer = kept_one(key, family, work)
    if layer is None:
        begin()
        layer = made_one(problem, budget, family, options)
        keep_one(key, family, work, layer)
    return layer


def made_one(problem: FitProblem, budget: int, family: str, options: FitOptions) -> Converted:
    """The same, made whether or not it is kept anywhere."""
    if FAMILIES[family].whole:
        return fit_whole(problem, sizes_of(family, problem), budget)
    return lattice_weights(*_fitted(problem, budget, family, options), problem.rows, problem.cols, family)


def kept_one(key: str, family: str, work: Path | None) -> Converted | None:
    """The layer of that `fit_key`, if it is kept."""
    layer = kept(_family_folder(work, family), key)
    # What a point of the lattice was called when it was kept does not matter.
    return replace(layer, family=family) if isinstance(layer, LatticeWeights) else layer


def keep_one(key: str, family: str, work: Path | None, layer: Converted) -> None:
    """Keep the layer of that `fit_key`; without a folder nothing is done."""
    keep(_family_folder(work, family), key, layer)


def fit_key(problem: FitProblem, budget: int, options: FitOptions) -> str:
    """A digest of all that a layer of one family depends on."""
    return layer_key(problem, budget, options.schedule, (options.intervals_only, options.with_dense_tiles))


def least_tiles(problem: FitProblem, family: str, options: FitOptions, where: str = "layer") -> int:
    """Tiles that a layer of the family cannot do without, at most those of the dense layer. Raises InputError, saying
    so of `where`, for a layer that cannot be of the family.
    """
    if FAMILIES[family].whole:
        return min(one.tiles(1) for one in sizes_of(family, problem, where))
    return min(fitting_of(family).least(problem, options), dense_tiles(problem))


def _fitted(problem: FitProblem, budget: int, family: str, options: FitOptions) -> tuple[Structure, Fit]:
    fitting = fitting_of(family)
    # Nothing is cheaper than the whole matrix where the budget holds it, nor than dense tiles where it does not hold
    # the least that the family takes: a layer of one tile, say.
    whole = options.with_dense_tiles and budget >= dense_tiles(problem)
    if whole or budget < fitting.least(problem, options):
        return block_sparse_layer(problem, budget)
    return fitting.fit(problem, budget, options)


def _family_folder(work: Path | None, family: str) -> Path | None:
    return None if work is None else work_folder(work / family)


def work_folder(work: Path | None) -> Path | None:
    """The folder for finished layers, made if need be. Raises InputError for a file."""
    return None if work is None else output_folder(work)
