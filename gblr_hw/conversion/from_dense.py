"""How each family is made from dense weights: fitted at a number of tiles, and as the layer that training begins with.

A family that conversion or projection in training is to know has its entry here, besides the one in the registry.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import nn

from gblr_hw.conversion.fit.fit_groups import fit_groups
from gblr_hw.conversion.fit.fit_layer import Schedule, block_sparse_layer, fit_layer, truncated_layer
from gblr_hw.conversion.fit.fit_problem import Fit, FitProblem
from gblr_hw.conversion.starts import ranks_start, tiles_start
from gblr_hw.layers.lattice_linear import LatticeLinear
from gblr_hw.weights.family import FAMILIES, complete, converted
from gblr_hw.weights.structure import Structure


@dataclass(frozen=True)
class FitOptions:
    """How every layer of a network is fitted: fields as the parameters of `conversion.convert`."""

    schedule: Schedule
    intervals_only: bool = False
    with_dense_tiles: bool = True


@dataclass(frozen=True)
class Fitting:
    """How a family approximates one matrix.

    fit: (problem, tiles, options) -> structure and factors that take at most those tiles. It is given at least `least`,
        and never as many as the dense layer has, unless dense tiles are ruled out.
    least: (problem, options) -> tiles that a layer cannot do without.
    keeps_runs: whether `intervals_only` keeps the chunks of each rank one cyclic run.
    without_tiles: whether anything is left without dense tiles.
    """

    fit: Callable[[FitProblem, int, FitOptions], tuple[Structure, Fit]]
    least: Callable[[FitProblem, FitOptions], int]
    keeps_runs: bool
    without_tiles: bool


@dataclass(frozen=True)
class FromDense:
    """How one family is made from dense weights.

    start: (dense layer, family's name, rows, cols) -> the layer that training begins with; None where training does not
        begin so.
    fitting: None where the family is not converted to.
    """

    start: Callable[[nn.Linear, str, int, int], LatticeLinear] | None
    fitting: Fitting | None


def _fit_lattice(problem: FitProblem, tiles: int, options: FitOptions) -> tuple[Structure, Fit]:
    runs, dense_tiles = options.intervals_only, options.with_dense_tiles
    return fit_layer(problem, tiles, options.schedule, intervals_only=runs, dense_tiles=dense_tiles)


def _fit_rank_groups(problem: FitProblem, tiles: int, options: FitOptions) -> tuple[Structure, Fit]:
    return fit_groups(problem, tiles, options.schedule, dense_tiles=options.with_dense_tiles)


def _fit_low_rank(problem: FitProblem, tiles: int, options: FitOptions) -> tuple[Structure, Fit]:
    return truncated_layer(problem, tiles)


def _fit_block_sparse(problem: FitProblem, tiles: int, options: FitOptions) -> tuple[Structure, Fit]:
    return block_sparse_layer(problem, tiles)


def _one_tile_or_rank(problem: FitProblem, options: FitOptions) -> int:
    """A dense tile; or, without those, a rank reduced and expanded."""
    return 1 if options.with_dense_tiles else 2


def _a_whole_rank(problem: FitProblem, options: FitOptions) -> int:
    """A tile for each chunk."""
    return problem.chunks_in + problem.chunks_out


FROM_DENSE: Mapping[str, FromDense] = complete(
    {
        "low_rank": FromDense(ranks_start, Fitting(_fit_low_rank, _a_whole_rank, keeps_runs=False, without_tiles=True)),
        "block_sparse": FromDense(
            tiles_start, Fitting(_fit_block_sparse, _one_tile_or_rank, keeps_runs=False, without_tiles=False)
        ),
        "rank_groups": FromDense(
            ranks_start, Fitting(_fit_rank_groups, _one_tile_or_rank, keeps_runs=False, without_tiles=True)
        ),
        "lattice": FromDense(
            ranks_start, Fitting(_fit_lattice, _one_tile_or_rank, keeps_runs=True, without_tiles=True)
        ),
    },
    (name for name, family in FAMILIES.items() if name in converted() or family.training == "projection"),
    "from_dense",
)


def check_from_dense(table: Mapping[str, FromDense]) -> None:
    """Raise InputError, naming family and field, where an entry is not what its family's registered entry promises."""
    for name, made in table.items():
        family = FAMILIES[name]
        for field, promised in (("start", family.training == "projection"), ("fitting", name in converted())):
            if promised != (getattr(made, field) is not None):
                found = "nothing" if promised else "something"
                raise family.incomplete(field, found, "it is given where the family is made so, and nowhere else")


check_from_dense(FROM_DENSE)


def fitting_of(family: str) -> Fitting:
    """How a family approximates a matrix. Raises InputError for one that is not converted to."""
    fitting = FROM_DENSE[family].fitting if family in FROM_DENSE else None
    if fitting is None:
        raise FAMILIES[family].incomplete("fitting", "nothing", "only families that are converted to are fitted")
    return fitting


def layer_start(linear: nn.Linear, family: str, rows: int, cols: int) -> LatticeLinear:
    """The lattice layer with which training begins. Raises InputError for a family that does not begin so."""
    start = FROM_DENSE[family].start if family in FROM_DENSE else None
    if start is None:
        raise FAMILIES[family].incomplete("start", "nothing", "only what is projected in training begins with a layer")
    return start(linear, family, rows, cols)
