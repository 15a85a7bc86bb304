"""Convert a model layer by layer, each layer making up for what the ones before it got wrong."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from gblr_hw.conversion.allocate import in_steps_of, share_evenly, total_tiles
from gblr_hw.conversion.choose_family import choose_family
from gblr_hw.conversion.conversion_input import Array, positive_moments, read_layers
from gblr_hw.conversion.fit.accelerate import refit
from gblr_hw.conversion.fit.fit_layer import Schedule
from gblr_hw.conversion.fit.fit_problem import FitProblem
from gblr_hw.conversion.fit.fit_weights import Converted, fit_of, lattice_weights
from gblr_hw.conversion.fit_one import fit_one, least_tiles, work_folder
from gblr_hw.conversion.from_dense import FitOptions
from gblr_hw.conversion.in_order.minding import minding
from gblr_hw.conversion.in_order.pair_moments import PairMoments, input_moments, pair_moments, ridged, shrunk, stages
from gblr_hw.conversion.in_order.runs import Runs, chain_of, standing
from gblr_hw.conversion.in_order.sensitivity import output_moments
from gblr_hw.conversion.in_order.share_by_loss import Sensitivity, share_by_loss
from gblr_hw.files.named_layers import Checkpoint
from gblr_hw.layers.matrix_layers import matrix_layer, matrix_of, put_matrix
from gblr_hw.layers.model_calls import Batch
from gblr_hw.weights.family import FAMILIES, converted, converted_whole
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
    shrink: float | Literal["auto"] = 0.0,
    allocation: Literal["even", "by-loss"] = "even",
    sensitivity: Sensitivity | None = None,
    make_up: float = 1.0,
    start: Mapping[str, Converted] | None = None,
    schedule: Schedule | None = None,
    progress: Callable[[int, int, str], None] | None = None,
    work: Path | None = None,
) -> dict[str, Converted]:
    """Convert layers of a model in the order in which they run, on the inputs that the converted ones leave.

    A layer W, b then sees x' in the place of x. It is fitted to W x + b all the same: its target is the matrix that
    comes closest to that from x' (ridge regression towards W), and the error counts in the covariance of x'. Means go
    into the bias, where there is one. Layers that read the same tensor are fitted together.

    Parameters
    ----------
    model: in evaluation mode while this runs, and left as it is. batches, rows: as for `collect_covariances`.
    names: the layers to convert: nn.Linear, transformers' Conv1D, and nn.Conv2d of one group, whose inputs are what
        its windows read.
    tiles, hidden, family, with_dense_tiles, schedule, progress, work: as for `convert`.
    sums: layer -> module whose input its output is added to (the normalisation after a residual sum): it is this sum
        that is then made to fit, so that errors that came along the residual are made up for as well.
    ridge: pull towards W, relative to the mean of the inputs' variances.
    shrink: how far what the inputs' moments say off their diagonal is drawn to zero, 0 to 1; "auto": as far as their
        noise asks for (Schafer & Strimmer, 2005, taking rows for independent).
    allocation: "even" gives each layer the same fraction. "by-loss" gives tiles where the model's output would lose
        most without them, and fits ranks and tiles to what counts for it. sensitivity: what `measured` found, so that
        it is not measured again.
    make_up: how much of the error before it a layer makes up for, 0 to 1: with few batches for its width, it learns
        their noise as well.
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
    teacher = copy.deepcopy(model).eval()
    for name, problem in problems.items():
        _put(teacher, name, torch.from_numpy(problem.matrix), biases[name])
    least = {name: least_tiles(problem, kind, options, f"layer '{name}'") for name, problem in problems.items()}
    outputs: Mapping[str, FloatArray] = {}
    budget = total_tiles(problems, tiles)
    if kept is None and allocation == "by-loss":
        known = sensitivity or measured(teacher, batches, turns, rows, ridge)
        outputs = known.outputs
        shares = share_by_loss(problems, known, budget, least, whole_ranks=FAMILIES[kind].unit == "rank")
    else:
        shares = share_evenly(problems, budget, least)
        if kept is None:
            shares = in_steps_of(FAMILIES[kind], problems, shares, dense=options.with_dense_tiles)

    def approximate(name: str, problem: FitProblem) -> Converted:
        if kept is None:
            return fit_one(problem, shares[name], kind, options, folder)
        structure, fit = kept[name].structure(), fit_of(kept[name])
        fit = refit(problem, structure, fit, options.schedule.final_sweeps)
        return lattice_weights(structure, fit, problem.rows, problem.cols, kept[name].family)

    student, found = copy.deepcopy(teacher), dict[str, Converted]()
    blocks = chain_of(teacher, batches[0], turns)
    runs = Runs(teacher, batches, blocks), Runs(student, batches, blocks)
    for stage, before in zip(turns, standing(blocks, turns), strict=True):
        for one in runs:
            one.skip(before)
        moments = pair_moments(*runs, stage, sums or {}, rows)
        for name in stage:
            if progress is not None:
                progress(len(found), len(order), name)
            fit = minding(outputs.get(name), kind, partial(approximate, name))
            seen = moments[name].made_up(make_up)
            weights = _fit(problems[name], biases[name], seen, ridge, fit, shrink)
            found[name] = weights
            _put(student, name, weights.matrix(), weights.bias)
    return Checkpoint(found)


def measured(
    model: nn.Module,
    batches: Sequence[Batch],
    turns: Sequence[Sequence[str]],
    rows: Callable[[Batch], Tensor] | None = None,
    ridge: float = 0.01,
    covariances: Mapping[str, npt.NDArray[np.float64]] | None = None,
) -> Sensitivity:
    """A model's sensitivity, and moments ridged as for conversion. turns: its layers, as `pair_moments.stages`.
    covariances: of their inputs on the same batches, where they are known already.
    """
    names = [name for stage in turns for name in stage]
    inputs = input_moments(model, batches, turns, rows, ridge, covariances)
    return Sensitivity(output_moments(model, batches, names, rows), inputs)


def _fit(
    problem: FitProblem,
    bias: Tensor | None,
    moments: PairMoments,
    ridge: float,
    approximate: Callable[[FitProblem], Converted],
    shrink: float | Literal["auto"] = 0.0,
) -> Converted:
    """A layer's target and its norm from the moments, and the bias that makes up for means."""
    inputs, wanted = moments.about_means() if bias is not None else (moments.inputs, moments.wanted)
    inputs = shrunk(inputs, moments.noise if shrink == "auto" else None, 0.0 if shrink == "auto" else shrink)
    inputs = ridged(positive_moments("to convert in order", inputs, problem.matrix.shape[1]), ridge)
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
    layer = matrix_layer(model, name)
    bias = layer.bias.detach().cpu().clone() if isinstance(layer.bias, Tensor) else None
    return DenseWeights(matrix_of(layer).detach().cpu().clone(), bias)


def _put(model: nn.Module, name: str, matrix: Tensor, bias: Tensor | None) -> None:
    layer = matrix_layer(model, name)
    put_matrix(layer, matrix)
    if bias is not None:
        assert isinstance(layer.bias, Tensor)
        layer.bias.copy_(bias)
