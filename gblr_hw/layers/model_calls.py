"""A model called with what a data loader gives, and its linear layers as matrices and inputs, however they are kept."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from gblr_hw.weights.collect import is_conv1d
from gblr_hw.weights.stored import DenseWeights
from simulator.base.errors import InputError

# A tensor, keyword arguments, or a list as loaders make it: inputs first, then labels.
Batch = Any


def call_of(model: nn.Module, batch: Batch) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of one call of a model: a tensor is the only one, a mapping holds keyword arguments, of which those
    are left out that the model does not take (labels).

    Of a list or tuple, as data sets of inputs and labels give it, the model gets as many as it asks for, one at least.
    Raises InputError for anything else.
    """
    if isinstance(batch, Tensor):
        return (batch,), {}
    if isinstance(batch, Mapping):
        return (), {name: value for name, value in batch.items() if _takes(model, name)}
    if isinstance(batch, (list, tuple)) and batch:
        return tuple(batch[: max(1, _asked_for(model))]), {}
    raise InputError(
        "batch",
        type(batch).__name__,
        "it is a tensor, a dict of keyword arguments, or a list of inputs (and labels)",
        "Give what the model is called with.",
    )


def run_batch(model: nn.Module, batch: Batch, where: str = "batch") -> None:
    """Call a model with a batch. Raises InputError for one that it does not take, naming the module in which it fails;
    an exception of its own kind, which a hook raises to end the call, goes through.
    """
    args, kwargs = call_of(model, batch)
    try:
        model(*args, **kwargs)
    except InputError:
        raise
    except (RuntimeError, TypeError, ValueError, IndexError, AttributeError) as error:
        text = (str(error).strip().splitlines() or [""])[0]
        path = _failing(model, error)
        raise InputError(
            f"{where}, layer '{path}'" if path else where,
            f"{type(error).__name__}: {text}",
            "the model runs on every batch",
            "Give what it is called with, in the types of its weights.",
        ) from error


def _failing(model: nn.Module, error: Exception) -> str:
    """The path of the innermost module whose code was running."""
    paths = {id(module): path for path, module in model.named_modules()}
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    running = [paths.get(id(frame.f_locals.get("self")), "") for frame in frames]
    return next((path for path in reversed(running) if path), "")


def _takes(model: nn.Module, name: str) -> bool:
    parameters = inspect.signature(model.forward).parameters
    return name in parameters or any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters.values())


def _asked_for(model: nn.Module) -> int:
    """Positional arguments without a default."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(model.forward).parameters.values()
    return sum(one.kind in kinds and one.default is inspect.Parameter.empty for one in parameters)


def tensors_of(result: Any) -> list[Tensor]:
    """The tensors that a module returns: itself one, or those of a mapping or a series, in their order."""
    if isinstance(result, Tensor):
        return [result]
    values = result.values() if hasattr(result, "values") else result if hasattr(result, "__iter__") else ()
    return [one for one in values if isinstance(one, Tensor)]


def linear_layer(model: nn.Module, name: str) -> nn.Module:
    """The linear layer of that name: nn.Linear, or transformers' Conv1D. Raises InputError if it is none."""
    try:
        module: nn.Module | None = model.get_submodule(name)
    except AttributeError:
        module = None
    if module is None or not is_linear(module):
        raise InputError(
            f"layer '{name}'",
            "no such module" if module is None else type(module).__name__,
            "it is a linear layer of the model",
            "Check the name.",
        )
    return module


def linear_names(model: nn.Module) -> list[str]:
    """Names of all linear layers of a model, in its order."""
    return [name for name, module in model.named_modules() if is_linear(module)]


def matrix_of(layer: nn.Module) -> Tensor:
    """The matrix (m, n) of a linear layer: a view, so that what is written into it is the layer's."""
    weight = layer.weight
    assert isinstance(weight, Tensor)
    return weight.t() if is_conv1d(layer) else weight


def dense_weights(model: nn.Module) -> dict[str, DenseWeights]:
    """The linear layers of a model as they are, by name."""
    found = {}
    for name in linear_names(model):
        layer: Any = linear_layer(model, name)
        bias = None if layer.bias is None else layer.bias.detach()
        found[name] = DenseWeights(matrix_of(layer).detach().contiguous(), bias)
    return found


def input_of(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
    """The input (..., n) of a linear layer's call, given by place or by name. Raises InputError if it is no tensor."""
    given = args[0] if args else next(iter(kwargs.values()), None)
    if not isinstance(given, Tensor):
        raise InputError(
            f"layer '{name}'", f"called with {type(given).__name__}", "its input is a tensor", "Leave the layer out."
        )
    return given


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


def is_linear(module: nn.Module) -> bool:
    """Whether a module is nn.Linear or transformers' Conv1D."""
    return isinstance(module, nn.Linear) or is_conv1d(module)
