"""The tensors of one layer as a state dict holds them: which there must be, and their numbers in float32."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from gblr_hw.weights.checks import not_stored
from simulator.base.errors import InputError


def as_float32(name: str, tensor: Tensor) -> Tensor:
    """A tensor's numbers in float32, or float64 if they are that. Raises InputError for what is no floating point."""
    if not (isinstance(tensor, Tensor) and tensor.is_floating_point()):
        raise InputError(
            f"tensor '{name}'",
            f"dtype {tensor.dtype}" if isinstance(tensor, Tensor) else f"a {type(tensor).__name__}",
            "weights are tensors of real floating-point numbers",
            "Convert it to float32 first; integers of a quantised network need its scales.",
        )
    if found := not_stored(tensor):
        rule = "weights are dense tensors with their numbers"
        raise InputError(f"tensor '{name}'", found, rule, "Load it, or make it dense by to_dense().")
    if tensor.dtype == torch.float64:
        return tensor.detach()
    try:
        return tensor.detach().float()
    except NotImplementedError:  # two numbers of four bits in a byte
        raise InputError(
            f"tensor '{name}'",
            f"dtype {tensor.dtype}",
            "weights are tensors of floating-point numbers that torch can convert",
            "Convert it to float32 first.",
        ) from None


def optional_float32(name: str, mapping: Mapping[str, Tensor]) -> Tensor | None:
    """The same of a tensor that may be missing or None."""
    return None if mapping.get(name) is None else as_float32(name, mapping[name])


def check_keys(
    kind: str, mapping: Mapping[str, Tensor], required: Collection[str], optional: Collection[str] = ("bias",)
) -> None:
    """Raise InputError unless `mapping` has all `required` keys and nothing but those and the `optional` ones."""
    if not isinstance(mapping, Mapping):
        rule = f"it maps {', '.join(required)} to tensors"
        raise InputError(f"{kind} layer", f"a {type(mapping).__name__}", rule, "Pass a state dict of one layer.")
    missing = [key for key in required if key not in mapping]
    if missing:
        found = f"no {', '.join(missing)}"
        raise InputError(f"{kind} layer", found, f"a layer has {', '.join(required)}", "Pass the keys of one layer.")
    unknown = sorted(set(mapping) - set(required) - set(optional))
    if unknown:
        raise InputError(
            f"{kind} layer",
            f"unknown tensors {', '.join(unknown)}",
            "a layer has only the published keys",
            "Leave them out.",
        )
