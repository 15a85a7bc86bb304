"""Input second moments of a model's layers, collected from batches, and a file that holds them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from gblr_hw.files.tensor_files import read_tensors, write_safetensors
from gblr_hw.layers.matrix_layers import check_inputs, input_of, input_rows, linear_names, matrix_layer
from gblr_hw.layers.model_calls import Batch, run_batch
from simulator.base.errors import InputError

FloatArray = npt.NDArray[np.float64]


@torch.no_grad()
def collect_covariances(
    model: nn.Module,
    batches: Iterable[Batch],
    names: Iterable[str] | None = None,
    rows: Callable[[Batch], Tensor] | None = None,
) -> dict[str, FloatArray]:
    """Second moments E[x x^T] (n, n) of the inputs of linear layers, and of what convolutions' windows read in
    (k1, k2, channels) order; float64, the model in evaluation mode.

    batches: what the model is called with, as a data loader gives it (`gblr_hw.layers.model_calls.call_of`): tensors,
    dicts of keyword arguments, or lists of inputs and labels. names: the layers, without them all linear ones that run
    (no convolutions).
    rows: batch -> bool mask over the leading axes of the layers' inputs (say, an attention mask), so that padding does
    not count. Raises InputError for a layer that is neither or has too many inputs, that did not run, whose inputs are
    not finite or do not have the mask's shape, and without a batch.
    """
    wanted = linear_names(model) if names is None else list(names)
    check_inputs(model, wanted)
    sums: dict[str, Tensor] = {}
    counts: dict[str, int] = {}
    mask: Tensor | None = None

    def keep(name: str) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            # In float64 before it is multiplied: squares of half precision overflow.
            x = input_rows(name, module, input_of(name, args, kwargs).detach()).double()
            if mask is not None and x.shape[:-1] != mask.shape:
                raise InputError(
                    f"layer '{name}'",
                    f"inputs of shape {tuple(x.shape)}",
                    f"the mask has shape {tuple(mask.shape)}",
                    "Leave the mask out, or the layer.",
                )
            x = x.reshape(-1, x.shape[-1]) if mask is None else x[mask]
            if not bool(torch.isfinite(x).all()):
                raise InputError(
                    f"layer '{name}'", "NaN or infinity in its inputs", "moments are of finite numbers",
                    "Look where they come from.",
                )  # fmt: skip
            sums[name] = sums[name] + x.T @ x if name in sums else x.T @ x
            counts[name] = counts.get(name, 0) + len(x)

        return hook

    handles = [matrix_layer(model, name).register_forward_pre_hook(keep(name), with_kwargs=True) for name in wanted]
    training, called = model.training, 0
    model.eval()
    try:
        for batch in batches:
            mask = None if rows is None else rows(batch).bool()
            run_batch(model, batch, f"batch {called}")
            called += 1
    finally:
        model.train(training)
        for handle in handles:
            handle.remove()
    if not called:
        raise InputError(
            "batches", "none", "the model is called with one at least", "Give batches; a generator serves one run."
        )
    if names is None:
        wanted = [name for name in wanted if name in counts]
    for name in wanted:
        if not counts.get(name):
            raise InputError(f"layer '{name}'", "no inputs", "every layer must run on the batches", "Leave it out.")
    return {name: (sums[name] / counts[name]).cpu().numpy() for name in wanted}


def save_covariances(covariances: Mapping[str, npt.NDArray[np.floating]], path: Path) -> None:
    """Write covariances as safetensors, float32, one (n, n) tensor a layer under its name."""
    write_safetensors(path, {n: torch.from_numpy(np.asarray(c, np.float32)) for n, c in covariances.items()}, {})


def load_covariances(path: Path) -> dict[str, FloatArray]:
    """Read what `save_covariances` wrote. Raises InputError for anything but square matrices of real numbers."""
    found = read_tensors(path).state
    for name, tensor in found.items():
        if not tensor.is_floating_point():
            raise InputError(
                f"{path}: '{name}'", f"dtype {tensor.dtype}", "moments are real numbers", "Collect it again."
            )
        if tensor.dim() != 2 or tensor.shape[0] != tensor.shape[1]:
            raise InputError(
                f"{path}: '{name}'", f"shape {tuple(tensor.shape)}", "a covariance is square", "Collect it again."
            )
    return {name: tensor.double().numpy() for name, tensor in found.items()}
