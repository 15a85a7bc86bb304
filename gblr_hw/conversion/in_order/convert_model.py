"""One `convert` for matrices and for a whole model: the model comes back with its converted layers in their places."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from html import escape
from typing import Any, overload

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from analysis.tables.table import Column, count, format_table
from gblr_hw.conversion.conversion import convert as convert_matrices
from gblr_hw.conversion.conversion_input import read_layers
from gblr_hw.conversion.covariances import collect_covariances
from gblr_hw.conversion.fit.fit_layer import QUICK
from gblr_hw.conversion.fit.fit_weights import Converted, relative_error
from gblr_hw.conversion.fit.fit_whole import tiles_of
from gblr_hw.conversion.in_order.conversion_in_order import convert_in_order
from gblr_hw.conversion.in_order.share_by_loss import BADLY
from gblr_hw.files.named_layers import Checkpoint
from gblr_hw.frontend.put_weights import put_layers
from gblr_hw.layers.matrix_layers import matrix_layer, matrix_names, matrix_of
from gblr_hw.layers.model_calls import Batch, call_of, tensors_of
from gblr_hw.layers.replace import patterns_of
from gblr_hw.lowering.lower_model import lower_model
from gblr_hw.weights.stored import DenseWeights
from gblr_hw.weights.structure import dense_tile_count
from simulator.base.errors import InputError
from simulator.base.shown import Table, Tabled
from simulator.machine.machine import Machine
from simulator.timing.simulate import simulate


@dataclass(frozen=True)
class ConvertedLayer:
    """What became of a layer. relative_error: of what it makes of the dense model's inputs, ||(W - W') C^(1/2)|| /
    ||W C^(1/2)|| with their second moments C. In order a layer also makes up for those before it, which counts here as
    well; the model's `output_error` tells what is left in the end.
    """

    name: str
    tiles: int
    dense_tiles: int
    relative_error: float


@dataclass(frozen=True, repr=False)
class ConvertedModel(Tabled):
    """A model in a structure.

    model: a copy of the given one, in its mode, with modules of the structure in the places of its layers: it can be
        trained on (what is dropped stays so), saved, lowered, simulated.
    weights: layer -> weights, for `save_checkpoint`. layers: what became of each.
    latency_cycles, dense_cycles, energy_pj, dense_energy_pj: of the whole program, as simulated.
    output_error: of the model's first output, ||y - y'|| / ||y|| over all batches.
    warnings: a sentence for each layer that came out badly.
    """

    model: nn.Module
    weights: Mapping[str, Converted]
    layers: tuple[ConvertedLayer, ...]
    latency_cycles: int
    dense_cycles: int
    energy_pj: float
    dense_energy_pj: float
    output_error: float
    warnings: tuple[str, ...]

    @property
    def of_dense(self) -> float:
        """Latency as a part of the dense model's."""
        return self.latency_cycles / self.dense_cycles

    def table(self) -> Table:
        """What became of each layer, under a line for the whole."""
        rows = [(one.name, one.tiles, one.dense_tiles, one.relative_error) for one in self.layers]
        return Table(self._whole(), ("layer", "tiles", "dense layer's", "relative error"), rows)

    def __repr__(self) -> str:
        columns = (
            Column("layer", "name", align="left"),
            Column("tiles", "tiles", count),
            Column("dense layer's", "dense_tiles", count),
            Column("relative error", "relative_error", lambda value: f"{value:.4f}"),
        )
        lines = [self._whole(), *self.warnings]
        return format_table(columns, [vars(layer) for layer in self.layers]) + "\n".join(lines)

    def _repr_html_(self) -> str:
        return self.table().html() + "".join(f"<p>{escape(warning)}</p>" for warning in self.warnings)

    def _whole(self) -> str:
        return (
            f"{self.latency_cycles:,} cycles, {self.of_dense:.4f} of dense; {1e-6 * self.energy_pj:.4g} uJ, "
            f"{self.energy_pj / self.dense_energy_pj:.4f} of dense; error of the output {self.output_error:.4f}"
        )


@overload
def convert(
    layers: nn.Module,
    machine: Machine,
    tiles: float | None = None,
    *,
    batches: Iterable[Batch],
    names: str | Iterable[str] = "*",
    exclude: str | Iterable[str] = (),
    example_inputs: Any = None,
    **options: Any,
) -> ConvertedModel: ...


@overload
def convert(
    layers: Mapping[str, npt.NDArray[np.floating] | DenseWeights],
    machine: Any,
    tiles: float | None = None,
    covariances: Mapping[str, npt.NDArray[np.floating]] | None = None,
    **options: Any,
) -> Checkpoint[Converted]: ...


def convert(
    layers: nn.Module | Mapping[str, Any],
    machine: Any,
    tiles: float | None = None,
    covariances: Mapping[str, npt.NDArray[np.floating]] | None = None,
    **options: Any,
) -> ConvertedModel | Checkpoint[Converted]:
    """Turn dense layers into layers of one family at one budget: of a whole model, or of matrices by name.

    layers: an nn.Module goes through `convert_model` (`batches`, and what else it takes), in order, and a copy of the
    model comes back; name -> matrix through `gblr_hw.conversion.conversion.convert`, and name -> weights comes back.
    """
    if not isinstance(layers, nn.Module):
        for name in ("batches", "names", "exclude", "example_inputs"):
            if name in options:
                raise InputError(name, "with matrices", "it acts with a model", "Leave it out, or give the model.")
        return Checkpoint(convert_matrices(layers, machine, tiles, covariances, **options))
    if covariances is not None:
        rule = "moments of a model's inputs are taken from its batches"
        raise InputError("covariances", "with a model", rule, "Give `batches`.")
    if options.get("batches") is None:
        raise InputError("batches", "nothing", "a model is converted on batches of its inputs", "Give a list of them.")
    return convert_model(layers, machine, tiles, **options)


def convert_model(
    model: nn.Module,
    machine: Machine,
    tiles: float | None = None,
    *,
    batches: Iterable[Batch],
    names: str | Iterable[str] = "*",
    exclude: str | Iterable[str] = (),
    example_inputs: Any = None,
    **options: Any,
) -> ConvertedModel:
    """A copy of a model whose linear layers and convolutions are converted in order (`convert_in_order`), each on the
    inputs that those before it leave. The model is left as it is.

    Parameters
    ----------
    tiles: budget as a fraction of the layers' dense tiles (0.3 if None).
    batches: as the model is called with, a few hundred rows or more in all.
    names, exclude: shell patterns on module names, one or several; layers that are not converted stay as they are.
    example_inputs: what cycles and energy are of, as a tensor, a tuple of arguments or a mapping of keyword arguments;
        the first batch if None.
    options: others of `convert_in_order` (family, hidden, shrink, allocation, schedule, work, progress, ...); its
        schedule is the quick one.

    Raises
    ------
    InputError: as `convert_in_order`; patterns that match no layer; a model that cannot be lowered.
    """
    batches = list(batches)
    if not batches:
        raise InputError("batches", "none", "the model is called with one at least", "Give batches.")
    chosen = _chosen(model, names, exclude)
    training = model.training
    dense = copy.deepcopy(model).eval()
    args, kwargs = call_of(dense, batches[0] if example_inputs is None else example_inputs)
    before = simulate(lower_model(dense, machine, args, kwargs=kwargs), machine)  # what cannot be lowered is told first
    options.setdefault("schedule", QUICK)
    weights = convert_in_order(dense, machine, batches, chosen, 0.3 if tiles is None else tiles, **options)
    student = copy.deepcopy(dense)
    put_layers(student, weights, "converted layers")
    after = simulate(lower_model(student, machine, args, kwargs=kwargs), machine)
    own = {name: DenseWeights(matrix_of(matrix_layer(dense, name)).detach().cpu()) for name in weights}
    moments = collect_covariances(dense, batches, list(weights), options.get("rows"))
    problems, _ = read_layers(own, machine, moments, options.get("hidden") or {})  # in the new order of hidden channels
    told = tuple(
        ConvertedLayer(
            name,
            tiles_of(one, machine.rows, machine.cols),
            dense_tile_count(one.out_features, one.in_features, machine.rows, machine.cols),
            relative_error(problems[name], one),
        )
        for name, one in weights.items()
    )
    warnings = tuple(text for one in told if (text := badly_told(one.name, one.relative_error)))
    error = output_error(dense, student, batches)
    return ConvertedModel(
        student.train(training), weights, told, int(after.latency_cycles), int(before.latency_cycles),
        after.energy_pj, before.energy_pj, error, warnings,
    )  # fmt: skip


def badly_told(name: str, relative_error: float) -> str:
    """A sentence on a layer that came out badly; nothing on another one."""
    if relative_error <= BADLY:
        return ""
    lost = f"{relative_error:.2f} of its output is lost"
    return f"layer '{name}' came out badly: {lost}; give more tiles, or exclude it"


@torch.no_grad()
def output_error(dense: nn.Module, student: nn.Module, batches: Sequence[Batch]) -> float:
    """||y - y'|| / ||y|| of two models' first output over batches, both in evaluation mode."""
    lost = whole = 0.0
    for batch in batches:
        args, kwargs = call_of(dense, batch)
        wanted, found = (tensors_of(one(*args, **kwargs))[0].double() for one in (dense, student))
        lost, whole = lost + float((wanted - found).square().sum()), whole + float(wanted.square().sum())
    return float(np.sqrt(lost / whole)) if whole else 0.0


def _chosen(model: nn.Module, names: str | Iterable[str], exclude: str | Iterable[str]) -> list[str]:
    """Names of the layers to convert. InputError for a pattern that matches none, and where none is left."""
    there = matrix_names(model)
    for what, patterns in (("names", patterns_of(names)), ("exclude", patterns_of(exclude))):
        for one in patterns:
            if not any(fnmatchcase(name, one) for name in there):
                listed = ", ".join(there[:20]) or "none"
                rule = f"it must match a linear layer or a convolution of one group; there are: {listed}"
                raise InputError(what, repr(one), rule, "Correct it.")
    wanted, refused = patterns_of(names), patterns_of(exclude)
    found = [
        name
        for name in there
        if any(fnmatchcase(name, one) for one in wanted) and not any(fnmatchcase(name, one) for one in refused)
    ]
    if not found:
        raise InputError("names", ", ".join(map(repr, wanted)), "a layer is left", "Exclude fewer.")
    return found
