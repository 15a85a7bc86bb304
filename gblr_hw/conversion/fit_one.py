"""One layer of a network fitted as all of them are: by single ranks or rank groups, kept in the work folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gblr_hw.conversion.conversion_input import Array
from gblr_hw.conversion.fit.fit_groups import fit_groups
from gblr_hw.conversion.fit.fit_layer import Schedule, fit_layer
from gblr_hw.conversion.fit.fit_problem import FitProblem
from gblr_hw.conversion.fit.fit_weights import lattice_weights
from gblr_hw.conversion.kept_layers import kept_or_made, layer_key
from gblr_hw.weights.stored import LatticeWeights
from gblr_hw.weights.structure import check_square
from simulator.base.errors import InputError
from simulator.machine.machine import Machine


@dataclass(frozen=True)
class FitOptions:
    """How every layer of a network is fitted: fields as the parameters of `conversion.convert`."""

    schedule: Schedule
    intervals_only: bool
    groups: bool
    dense_tiles: bool
    work: Path | None


def fit_one(problem: FitProblem, budget: int, options: FitOptions) -> LatticeWeights:
    """A layer's weights at its tiles, without a bias."""

    def make() -> LatticeWeights:
        # A layer of one tile has no cheaper form than that tile.
        tiles = options.dense_tiles or budget < 2
        if options.groups:
            found = fit_groups(problem, budget, options.schedule, dense_tiles=tiles)
        else:
            runs = options.intervals_only
            found = fit_layer(problem, budget, options.schedule, intervals_only=runs, dense_tiles=tiles)
        return lattice_weights(*found, problem.rows, problem.cols)

    flags = (options.intervals_only, options.dense_tiles, *([True] if options.groups else []))
    return kept_or_made(options.work, layer_key(problem, budget, options.schedule, flags), make)


def runs_groups_only(machine: Array | Machine) -> bool:
    """Is it a machine without scatter, where single ranks with chunks of their own take more tiles than are counted?"""
    return isinstance(machine, Machine) and not machine.scatter


def check_groups(array: Array, intervals_only: bool) -> None:
    """Raise InputError where rank groups cannot be."""
    check_square(array.rows, array.cols)
    if intervals_only:
        raise InputError(
            "intervals_only",
            "with rank groups",
            "groups have any chunk sets (a machine without scatter runs groups only)",
            "Leave it out, or convert for a machine with scatter.",
        )


def work_folder(work: Path | None) -> Path | None:
    """The folder for finished layers, made if need be. Raises InputError for a file."""
    if work is None:
        return None
    if work.exists() and not work.is_dir():
        raise InputError(f"work folder '{work}'", "a file", "finished layers are kept in a folder", "Name another.")
    work.mkdir(parents=True, exist_ok=True)
    return work
