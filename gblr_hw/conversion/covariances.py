"""Input second moments of a model's linear layers, collected from batches, and a file that holds them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from gblr_hw.files.tensor_files import read_tensors, write_safetensors
from simulator.base.errors import InputError

FloatArray = npt.NDArray[np.float64]
Batch = Mapping[str, Any] | Tensor


@torch.no_grad()
def collect_covariances(
    model: nn.Module,
    batches: Iterable[Batch],
    names: Iterable[str],
    rows: Callable[[Batch], Tensor] | None = None,
) -> dict[str, FloatArray]:
    """Second moments E[x x^T] (n, n) of the inputs of the named linear layers, float64, the model in evaluation mode.

    batches: what the model is called with: a tensor, or keyword arguments. rows: batch -> bool mask over the leading
    axes of the layers' inputs (say, an attention mask), so that padding does not count. Raises InputError for a layer
    that is not linear, that did not run, or whose inputs do not have the mask's shape.
    """
    wanted = list(names)
    sums: dict[str, Tensor] = {}
    counts: dict[str, int] = {}
    mask: Tensor | None = None

    def keep(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            x = inputs[0].detach().double()
            if mask is not None and x.shape[:-1] != mask.shape:
                raise InputError(
                    f"layer '{name}'",
                    f"inputs of shape {tuple(x.shape)}",
                    f"the mask has shape {tuple(mask.shape)}",
                    "Leave the mask out, or the layer.",
                )
            x = x.reshape(-1, x.shape[-1]) if mask is None else x[mask]
            sums[name] = sums[name] + x.T @ x if name in sums else x.T @ x
            counts[name] = counts.get(name, 0) + len(x)

        return hook

    handles = [linear_module(model, name).register_forward_pre_hook(keep(name)) for name in wanted]
    training = model.training
    model.eval()
    try:
        for batch in batches:
            mask = None if rows is None else rows(batch).bool()
            _ = model(batch) if isinstance(batch, Tensor) else model(**batch)
    finally:
        model.train(training)
        for handle in handles:
            handle.remove()
    for name in wanted:
        if not counts.get(name):
            raise InputError(f"layer '{name}'", "no inputs", "every layer must run on the batches", "Leave it out.")
    return {name: (sums[name] / counts[name]).cpu().numpy() for name in wanted}


def save_covariances(covariances: Mapping[str, npt.NDArray[np.floating]], path: Path) -> None:
    """Write covariances as safetensors, float32, one (n, n) tensor a layer under its name."""
    write_safetensors(path, {n: torch.from_numpy(np.asarray(c, np.float32)) for n, c in covariances.items()}, {})


def load_covariances(path: Path) -> dict[str, FloatArray]:
    """Read what `save_covariances` wrote. Raises InputError for anything but square matrices."""
    found = read_tensors(path).state
    for name, tensor in found.items():
        if tensor.dim() != 2 or tensor.shape[0] != tensor.shape[1]:
            raise InputError(
                f"{path}: '{name}'", f"shape {tuple(tensor.shape)}", "a covariance is square", "Collect it again."
            )
    return {name: tensor.double().numpy() for name, tensor in found.items()}


def linear_module(model: nn.Module, name: str) -> nn.Linear:
    """The linear layer of that name. Raises InputError if it is none."""
    try:
        module = model.get_submodule(name)
    except AttributeError:
        module = None
    if not isinstance(module, nn.Linear):
        raise InputError(
            f"layer '{name}'", type(module).__name__, "inputs of linear layers are collected", "Check the name."
        )
    return module
