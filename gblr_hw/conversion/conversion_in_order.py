"""Convert a model layer by layer, each layer making up for what the ones before it got wrong."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from gblr_hw.conversion.allocate import share_evenly, total_tiles
from gblr_hw.conversion.choose_family import choose_family
from gblr_hw.conversion.conversion_input import Array, positive_moments, read_layers
from gblr_hw.conversion.fit.accelerate import refit
from gblr_hw.conversion.fit.fit_layer import Schedule
from gblr_hw.conversion.fit.fit_problem import FitProblem
from gblr_hw.conversion.fit.fit_weights import Converted, fit_of, lattice_weights
from gblr_hw.conversion.fit_one import fit_one, least_tiles, work_folder
from gblr_hw.conversion.from_dense import FitOptions
from gblr_hw.conversion.in_order.pair_moments import PairMoments, pair_moments, stages
from gblr_hw.conversion.in_order.runs import Runs, block_index, chain_of
from gblr_hw.layers.model_calls import Batch, linear_layer, matrix_of
from gblr_hw.weights.family import converted, converted_whole
from gblr_hw.weights.stored import DenseWeights, LatticeWeights
from simulator.base.errors import InputError
from simulator.machine.machine import Machine

FloatArray = npt.NDArray[np.float64]


@torch.no_grad()
def convert_in_order(
    model: nn.Module,
    machine: Array | Machine,
    batches: Iterable[Batch],
    names: Iterable[str],
    tiles: float = 0.3,
    *,
    sums: Mapping[str, str] | None = None,
    rows: Callable[[Batch], Tensor] | None = None,
    hidden: Mapping[str, str] | None = None,
    family: str | None = None,
    with_dense_tiles: bool = True,
    ridge: float = 0.01,
    start: Mapping[str, Converted] | None = None,
    schedule: Schedule | None = None,
    progress: Callable[[int, int, str], None] | None = None,
    work: Path | None = None,
) -> dict[str, Converted]:
    """Convert linear layers of a model in the order in which they run, on the inputs that the converted ones leave.

    A layer W, b then sees x' in the place of x. It is fitted to W x + b all the same: its target is the matrix that
    comes closest to that from x' (ridge regression towards W), and the error counts in the covariance of x'. Means go
    into the bias, where there is one. Layers that read the same tensor are fitted together.

    Parameters
    ----------
    model: in evaluation mode while this runs, and left as it is. batches, rows: as for `collect_covariances`.
    names: the linear layers (nn.Linear, Conv1D) to convert.
    tiles, hidden, family, with_dense_tiles, schedule, progress, work: as for `convert`, each layer with the same
        fraction.
    sums: layer -> module whose input its output is added to (the normalisation after a residual sum): it is this sum
        that is then made to fit, so that errors that came along the residual are made up for as well.
    ridge: pull towards W, relative to the mean of the inputs' variances.
    start: a network made by `convert` with the same `hidden`, of a family that is cut tile by tile: its structures are
        kept, and only its factors are fitted anew (`schedule.final_sweeps` sweeps), which is much quicker.

    Returns name -> weights, biases included; with `hidden` in the new order of the channels.

    Raises
    ------
    InputError: as `convert` and `collect_covariances`, and for layers that do not run.
    """
    batches = list(batches)  # every layer runs on all of them again
    if not batches:
        raise InputError("batches", "none", "the model is called with one at least", "Give batches.")
    kept = None if start is None else _structures(start, names := list(names))
    turns = stages(model, batches, names)
    order = [name for stage in turns for name in stage]
    dense = {name: _weights(model, name) for name in order}
    options = FitOptions(schedule or Schedule(), with_dense_tiles=with_dense_tiles)
    kind, folder = choose_family(family, machine, options, (*converted(), *converted_whole())).name, work_folder(work)
    problems, biases = read_layers(dense, machine, None, hidden or {})
    least = {name: least_tiles(problem, kind, options, f"layer '{name}'") for name, problem in problems.items()}
    shares = share_evenly(problems, total_tiles(problems, tiles), least)

    def approximate(name: str, problem: FitProblem) -> Converted:
        if kept is None:
            return fit_one(problem, shares[name], kind, options, folder)
        structure, fit = kept[name].structure(), fit_of(kept[name])
        fit = refit(problem, structure, fit, options.schedule.final_sweeps)
        return lattice_weights(structure, fit, problem.rows, problem.cols, kept[name].family)

    teacher = copy.deepcopy(model).eval()
    for name, problem in problems.items():
        _put(teacher, name, torch.from_numpy(problem.matrix), biases[name])
    student, found = copy.deepcopy(teacher), dict[str, Converted]()
    blocks = chain_of(teacher, batches[0], turns)
    wanted, given = (Runs(one, batches, blocks) for one in (teacher, student))
    for stage in turns:
        for runs in (wanted, given):
            runs.skip(block_index(blocks, stage[0]) or 0)
        moments = pair_moments(wanted, given, stage, sums or {}, rows)
        for name in stage:
            if progress is not None:
                progress(len(found), len(order), name)
            weights = _fit(problems[name], biases[name], moments[name], ridge, partial(approximate, name))
            found[name] = weights
            _put(student, name, weights.matrix(), weights.bias)
    return found


def _fit(
    problem: FitProblem,
    bias: Tensor | None,
    moments: PairMoments,
    ridge: float,
    approximate: Callable[[FitProblem], Converted],
) -> Converted:
    """A layer's target and its norm from the moments, and the bias that makes up for means."""
    inputs, wanted = moments.about_means() if bias is not None else (moments.inputs, moments.wanted)
    inputs = positive_moments("to convert in order", inputs, problem.matrix.shape[1])
    # Ridge regression towards W: errors count in the covariance and, by the pull, in every direction a little.
    inputs = inputs + ridge * float(np.trace(inputs)) / len(inputs) * np.eye(len(inputs))
    change = np.linalg.solve(inputs, wanted.T).T
    weights = approximate(FitProblem(problem.matrix + change, inputs, problem.rows, problem.cols))
    if bias is None:
        return weights
    left = (problem.matrix - weights.matrix().double().numpy()) @ moments.mean_input + moments.mean_wanted
    return replace(weights, bias=bias + torch.from_numpy(left).to(bias))


def _structures(start: Mapping[str, Converted], names: Iterable[str]) -> dict[str, LatticeWeights]:
    """Layers of a start, as points of the lattice. Raises InputError for one that is missing, or no such point."""
    found = {}
    for name in names:
        layer = start.get(name)
        if layer is None:
            raise InputError(
                "start", f"no layer '{name}'", "it has every layer's structure", "Convert the same layers."
            )
        if not isinstance(layer, LatticeWeights):
            rule = "only factors of a structure of tiles and ranks are fitted anew"
            raise InputError(f"start: layer '{name}'", layer.family, rule, "Leave start out, and name the family.")
        found[name] = layer
    return found


def _weights(model: nn.Module, name: str) -> DenseWeights:
    layer = linear_layer(model, name)
    bias = layer.bias.detach().cpu().clone() if isinstance(layer.bias, Tensor) else None
    return DenseWeights(matrix_of(layer).detach().cpu().clone(), bias)


def _put(model: nn.Module, name: str, matrix: Tensor, bias: Tensor | None) -> None:
    layer = linear_layer(model, name)
    matrix_of(layer).copy_(matrix)
    if bias is not None:
        assert isinstance(layer.bias, Tensor)
        layer.bias.copy_(bias)
