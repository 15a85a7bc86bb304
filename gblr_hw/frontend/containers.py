"""What models take and return besides tensors: mappings, sequences, dataclasses and objects that hold tensors (caches
of keys and values), as a flat list of named tensors and back.
"""

from __future__ import annotations

import copy
import dataclasses
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import FunctionType, MethodType, ModuleType
from typing import Any

from torch import Tensor, nn

Path = tuple[str, ...]
Named = tuple[Path, Tensor]

_OPAQUE = (str, bytes, int, float, complex, type, FunctionType, MethodType, ModuleType, nn.Module)


def arguments_by_name(
    forward: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> list[tuple[Path, Any]]:
    """Each argument of one call with the name of its parameter; those of ``*args`` are numbered behind its name.

    Raises TypeError for arguments that the function does not take.
    """
    signature = inspect.signature(forward)
    found: list[tuple[Path, Any]] = []
    for name, value in signature.bind(*args, **kwargs).arguments.items():
        kind = signature.parameters[name].kind
        if kind is inspect.Parameter.VAR_POSITIONAL:
            found += [((name, str(place)), one) for place, one in enumerate(value)]
        elif kind is inspect.Parameter.VAR_KEYWORD:
            found += [((key,), one) for key, one in value.items()]
        else:
            found.append(((name,), value))
    return found


def tensors_in(value: Any, path: Path = ()) -> list[Named]:
    """The tensors that a value holds, each with the keys, numbers and attributes that lead to it, in order."""
    return list(_walk(value, path, set()))


def _walk(value: Any, path: Path, above: set[int]) -> Iterator[Named]:
    if isinstance(value, Tensor):
        yield path, value
        return
    if id(value) in above:
        return
    for key, inner in _children(value):
        yield from _walk(inner, (*path, key), above | {id(value)})


def _children(value: Any) -> list[tuple[str, Any]]:
    """What a container holds; nothing for what is none."""
    if value is None or isinstance(value, _OPAQUE):
        return []
    if isinstance(value, Mapping):
        return [(str(key), inner) for key, inner in value.items()]
    if isinstance(value, (list, tuple)):
        return [(str(place), inner) for place, inner in enumerate(value)]
    if dataclasses.is_dataclass(value):
        return [(one.name, getattr(value, one.name)) for one in dataclasses.fields(value)]
    return [(key, inner) for key, inner in getattr(value, "__dict__", {}).items() if not key.startswith("_")]


def with_tensors(value: Any, tensors: Iterator[Tensor]) -> Any:
    """A copy of a value in which the tensors that ``tensors_in`` finds are the next ones of ``tensors``; what holds
    none is itself.
    """
    if isinstance(value, Tensor):
        return next(tensors)
    if not tensors_in(value):
        return value
    inner = {key: with_tensors(one, tensors) for key, one in _children(value)}
    if isinstance(value, tuple):
        return type(value)(*inner.values()) if hasattr(value, "_fields") else tuple(inner.values())
    if isinstance(value, list):
        return list(inner.values())
    result = copy.copy(value)
    if isinstance(value, Mapping):
        for key, one in zip(value, inner.values(), strict=True):
            result[key] = one
        return result
    for key, one in inner.items():
        object.__setattr__(result, key, one)
    return result
