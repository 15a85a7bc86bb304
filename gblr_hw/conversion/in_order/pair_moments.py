"""What layers see in a converted model beside the dense one: moments of inputs, and of what is missing behind them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from gblr_hw.conversion.conversion_input import positive_moments
from gblr_hw.conversion.covariances import collect_covariances
from gblr_hw.conversion.in_order.runs import Runs
from gblr_hw.layers.matrix_layers import check_inputs, input_of, matrix_layer, matrix_of, output_rows, rows_key
from gblr_hw.layers.model_calls import Batch, run_batch
from simulator.base.errors import InputError

FloatArray = npt.NDArray[np.float64]
Hook = Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]


@dataclass(frozen=True, eq=False)
class PairMoments:
    """Moments of a layer's input x' (n) in the converted model and of e (m), what the dense model has more behind it.

    inputs: E[x' x'^T] (n, n). wanted: E[e x'^T] (m, n). mean_input (n,), mean_wanted (m,). noise: sum of the variances
    of what `inputs` holds off its diagonal, as estimates, rows taken for independent.
    """

    inputs: FloatArray
    wanted: FloatArray
    mean_input: FloatArray
    mean_wanted: FloatArray
    noise: float = 0.0

    def made_up(self, share: float) -> PairMoments:
        """The same, as if so much of what is missing were missing."""
        return replace(self, wanted=share * self.wanted, mean_wanted=share * self.mean_wanted)

    def about_means(self) -> tuple[FloatArray, FloatArray]:
        """inputs and wanted as covariances."""
        return (
            self.inputs - np.outer(self.mean_input, self.mean_input),
            self.wanted - np.outer(self.mean_wanted, self.mean_input),
        )


def stages(model: nn.Module, batches: Sequence[Batch], names: Iterable[str]) -> list[list[str]]:
    """The named layers in the order in which they run; those that read the same rows of one tensor one after another
    together.

    Raises InputError for a layer that is neither linear nor a convolution, has too many inputs (`check_inputs`), or
    does not run exactly once.
    """
    found: list[list[str]] = []
    seen: list[tuple[Tensor, Any]] = []

    def keep(name: str) -> Hook:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            given, key = input_of(name, args, kwargs), rows_key(module)
            if seen and seen[-1][0] is given and seen[-1][1] == key:
                found[-1].append(name)
            else:
                found.append([name])
            # Kept alive, so that no later tensor takes its place in memory.
            seen.append((given, key))

        return hook

    wanted = list(names)
    check_inputs(model, wanted)
    handles = [matrix_layer(model, name).register_forward_pre_hook(keep(name), with_kwargs=True) for name in wanted]
    _run(model, batches[0], handles)
    ran = [name for stage in found for name in stage]
    for name in wanted:
        if ran.count(name) != 1:
            raise InputError(
                f"layer '{name}'", f"{ran.count(name)} runs", "a layer to convert in order runs once", "Leave it out."
            )
    return found


def pair_moments(
    teacher: Runs,
    student: Runs,
    stage: Sequence[str],
    sums: Mapping[str, str],
    rows: Callable[[Batch], Tensor] | None,
) -> dict[str, PairMoments]:
    """Moments of the layers of one stage, whose dense weights are still in both models, which run the same batches.

    Behind a layer is its own output, or the input of the module that `sums` names for it. rows: as for
    `collect_covariances`.
    """
    behind = {name: sums[name] for name in stage if name in sums}
    points = {"": stage[0], **behind}
    totals: dict[str, FloatArray] = {}
    count, fourth = 0, 0.0

    def add(key: str, left: Tensor, right: Tensor) -> None:
        # In float64 from the start: covariances are what is left of these sums when the means are taken out.
        totals[key] = totals.get(key, 0.0) + (left.double().T @ right.double()).numpy()

    def sums_as_rows(found: dict[str, Tensor]) -> dict[str, Tensor]:
        layers = {key: matrix_layer(teacher.model, key) for key in behind}
        return {key: output_rows(layers[key], x) if key in layers else x for key, x in found.items()}

    for index, batch in enumerate(teacher.batches):
        mask = None if rows is None else rows(batch).bool()
        wanted, given = (_rows_of(sums_as_rows(one.inputs(index, points)), mask) for one in (teacher, student))
        x, gap = given[""], wanted[""] - given[""]
        ones = torch.ones(len(x), 1)
        count += len(x)
        squares = x.double().square()
        fourth += float((squares.sum(1).square() - squares.square().sum(1)).sum())
        add("inputs", x, x)
        add("mean input", x, ones)
        for key, ahead in (("", gap), *((name, wanted[name] - given[name]) for name in behind)):
            add(f"wanted {key}", ahead, x)
            add(f"mean wanted {key}", ahead, ones)
    mean_input, inputs = totals["mean input"][:, 0] / count, totals["inputs"] / count
    noise = max(0.0, fourth / count - _off_diagonal(inputs)) / count
    found = {}
    for name in stage:
        key = name if name in behind else ""
        missing, mean_missing = totals[f"wanted {key}"] / count, totals[f"mean wanted {key}"][:, 0] / count
        if name not in behind:
            matrix: FloatArray = matrix_of(matrix_layer(teacher.model, name)).detach().cpu().double().numpy()
            missing, mean_missing = matrix @ missing, matrix @ mean_missing
        found[name] = PairMoments(inputs, missing, mean_input, mean_missing, noise)
    return found


def shrunk(inputs: FloatArray, noise: float | None, share: float = 0.0) -> FloatArray:
    """Moments (n, n) with what is off their diagonal drawn to zero by a share, or by as much of it as noise is."""
    if noise is not None:
        share = min(1.0, noise / max(_off_diagonal(inputs), 1e-300))
    return (1 - share) * inputs + share * np.diag(np.diag(inputs))


def ridged(inputs: FloatArray, ridge: float) -> FloatArray:
    """Moments with a share of their mean variance more in every direction: errors count a little where no input was."""
    return np.asarray(inputs + ridge * float(np.trace(inputs)) / len(inputs) * np.eye(len(inputs)), np.float64)


def input_moments(
    model: nn.Module,
    batches: Sequence[Batch],
    turns: Sequence[Sequence[str]],
    rows: Callable[[Batch], Tensor] | None,
    ridge: float,
    covariances: Mapping[str, FloatArray] | None = None,
) -> dict[str, FloatArray]:
    """Second moments (n, n) by layer, ridged; layers of one stage share an array. covariances: known already."""
    firsts = [stage[0] for stage in turns]
    found = collect_covariances(model, batches, firsts, rows) if covariances is None else covariances
    each = {name: ridged(positive_moments(name, found[name], len(found[name])), ridge) for name in firsts}
    return {name: each[stage[0]] for stage in turns for name in stage}


def _off_diagonal(inputs: FloatArray) -> float:
    """Squared norm off the diagonal."""
    return float(np.square(inputs).sum() - np.square(np.diag(inputs)).sum())


def _rows_of(inputs: Mapping[str, Tensor], mask: Tensor | None) -> dict[str, Tensor]:
    return {key: x.reshape(-1, x.shape[-1]) if mask is None else x[mask] for key, x in inputs.items()}


def _run(model: nn.Module, batch: Batch, handles: Sequence[torch.utils.hooks.RemovableHandle]) -> None:
    training = model.training
    model.eval()
    try:
        run_batch(model, batch)
    finally:
        model.train(training)
        for handle in handles:
            handle.remove()
