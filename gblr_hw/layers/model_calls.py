"""A model called with what a data loader gives, and the tensors that it returns."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

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
