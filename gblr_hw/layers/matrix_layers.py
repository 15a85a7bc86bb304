"""Layers that are one matrix product, whatever the module: their matrix, and the rows that it multiplies.

A convolution of images is one over windows: a row holds what a window reads, (k1, k2, channels), and the rows lie where
its outputs do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from gblr_hw.layers.matrix_conv import is_matrix_conv, kernel_of, windows, windows_key
from gblr_hw.weights.collect import is_conv1d, matrix_of_kernel
from gblr_hw.weights.stored import DenseWeights
from simulator.base.errors import InputError

MOST_INPUTS = 16_384  # of a layer: their second moments then take 2 GiB


def is_linear(module: nn.Module) -> bool:
    """Whether a module is nn.Linear or transformers' Conv1D."""
    return isinstance(module, nn.Linear) or is_conv1d(module)


def is_matrix(module: nn.Module) -> bool:
    """Whether a module is a linear layer or an nn.Conv2d of one group."""
    return is_linear(module) or is_matrix_conv(module)


def linear_layer(model: nn.Module, name: str) -> nn.Module:
    """The linear layer of that name: nn.Linear, or transformers' Conv1D. Raises InputError if it is none."""
    return _layer(model, name, is_linear, "it is a linear layer of the model")


def matrix_layer(model: nn.Module, name: str) -> nn.Module:
    """The layer of that name: a linear one, or an nn.Conv2d of one group. Raises InputError if it is none."""
    return _layer(model, name, is_matrix, "it is a linear layer of the model, or a convolution of one group")


def _layer(model: nn.Module, name: str, wanted: Callable[[nn.Module], bool], rule: str) -> nn.Module:
    try:
        module: nn.Module | None = model.get_submodule(name)
    except AttributeError:
        module = None
    if module is None or not wanted(module):
        found = "no such module" if module is None else type(module).__name__
        raise InputError(f"layer '{name}'", found, rule, "Check the name.")
    return module


def linear_names(model: nn.Module) -> list[str]:
    """Names of all linear layers of a model, in its order."""
    return [name for name, module in model.named_modules() if is_linear(module)]


def matrix_names(model: nn.Module) -> list[str]:
    """Names of all linear layers and convolutions of one group, in the model's order."""
    return [name for name, module in model.named_modules() if is_matrix(module)]


def check_inputs(model: nn.Module, names: Iterable[str]) -> None:
    """Raise InputError for a layer with more inputs than second moments are taken of."""
    for name in names:
        inputs = matrix_of(matrix_layer(model, name)).shape[1]
        if inputs > MOST_INPUTS:
            raise InputError(
                f"layer '{name}'", f"{inputs:,} inputs",
                f"second moments, which take their square, are taken of {MOST_INPUTS:,} at most", "Exclude it.",
            )  # fmt: skip


def matrix_of(layer: nn.Module) -> Tensor:
    """The matrix (m, n) of a layer; a convolution's has its inputs in (k1, k2, channels) order."""
    weight = layer.weight
    assert isinstance(weight, Tensor)
    if weight.dim() == 4:
        return matrix_of_kernel(weight)
    return weight.t() if is_conv1d(layer) else weight


@torch.no_grad()
def put_matrix(layer: nn.Module, matrix: Tensor) -> None:
    """Write a matrix (m, n) as `matrix_of` gives it into the layer's weight."""
    weight = layer.weight
    assert isinstance(weight, Tensor)
    if weight.dim() == 4:
        weight.copy_(kernel_of(matrix, weight.shape))
    else:
        weight.copy_(matrix.t() if is_conv1d(layer) else matrix)


def dense_weights(model: nn.Module) -> dict[str, DenseWeights]:
    """The layers of a model that `matrix_names` finds, as they are, by name."""
    found = {}
    for name in matrix_names(model):
        layer: Any = matrix_layer(model, name)
        bias = None if layer.bias is None else layer.bias.detach()
        found[name] = DenseWeights(matrix_of(layer).detach().contiguous(), bias)
    return found


def input_of(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
    """The input of a layer's call, given by place or by name. Raises InputError if it is no tensor."""
    given = args[0] if args else next(iter(kwargs.values()), None)
    if not isinstance(given, Tensor):
        raise InputError(
            f"layer '{name}'", f"called with {type(given).__name__}", "its input is a tensor", "Leave the layer out."
        )
    return given


def input_rows(name: str, module: nn.Module, given: Tensor) -> Tensor:
    """What a layer's matrix multiplies, (..., n), of its input: a convolution's windows, (B, H', W', n); of any other
    module its input. Raises InputError as `matrix_conv.geometry`.
    """
    return windows(name, module, given) if is_matrix_conv(module) else given


def output_rows(module: nn.Module, output: Tensor) -> Tensor:
    """What a layer returns, or its gradient, with its outputs last, as `input_rows` has the inputs."""
    return output.movedim(-3, -1) if is_matrix_conv(module) else output


def rows_key(module: nn.Module) -> Any:
    """What two layers that are called with the same tensor have alike if its rows are the same for both."""
    return windows_key(module) if is_matrix_conv(module) else None


def as_linear(layer: nn.Module) -> nn.Linear:
    """The linear layer of that name as nn.Linear: itself, or one of the same weights for a Conv1D."""
    if isinstance(layer, nn.Linear):
        return layer
    matrix, bias = matrix_of(layer), layer.bias
    linear = nn.Linear(matrix.shape[1], matrix.shape[0], bias is not None, device="meta")
    linear.weight = nn.Parameter(matrix.detach().clone(), requires_grad=matrix.requires_grad)
    if isinstance(bias, Tensor):
        linear.bias = nn.Parameter(bias.detach().clone(), requires_grad=bias.requires_grad)
    return linear.train(layer.training)
