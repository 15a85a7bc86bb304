"""Swap the linear layers of any model for structured layers, by name pattern."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any, Literal

from torch import nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from gblr_hw.layers.blast_linear import BLASTLinear
from gblr_hw.layers.kronecker_linear import KroneckerLinear, TensorTrainLinear
from gblr_hw.layers.linear import GBLRLinear
from gblr_hw.layers.matrix_layers import as_linear, is_linear
from gblr_hw.layers.monarch_linear import MonarchLinear
from simulator.base.errors import InputError

KINDS: Mapping[str, type[nn.Module]] = {
    "gblr": GBLRLinear,
    "blast": BLASTLinear,
    "monarch": MonarchLinear,
    "kronecker": KroneckerLinear,
    "tensor_train": TensorTrainLinear,
}
# What a layer takes from the one that it replaces.
_GIVEN = ("in_features", "out_features", "bias", "device", "dtype")


def linear_names(model: nn.Module) -> list[str]:
    """Names of the linear layers that can be swapped, tied ones under each of their names.

    The output projection inside nn.MultiheadAttention is not among them: that module reads its weight and never calls
    it.
    """
    return [
        name
        for name, module in model.named_modules(remove_duplicate=False)
        if name and is_linear(module) and not isinstance(module, NonDynamicallyQuantizableLinear)
    ]


def set_module(model: nn.Module, name: str, module: nn.Module) -> None:
    """Put a module in the place of the submodule called `name`."""
    owner, _, attribute = name.rpartition(".")
    setattr(model.get_submodule(owner), attribute, module)


def patterns_of(pattern: str | Iterable[str]) -> list[str]:
    """One shell pattern or several, as a list."""
    return [pattern] if isinstance(pattern, str) else list(pattern)


def replace_linear(
    model: nn.Module,
    pattern: str | Iterable[str] = "*",
    *,
    exclude: str | Iterable[str] = (),
    kind: str = "gblr",
    init: Literal["svd", "random"] = "svd",
    **options: Any,
) -> list[str]:
    """Replace each linear layer (nn.Linear, or transformers' Conv1D) whose name matches, in place.

    Returns the names in the model's order.

    pattern and exclude: shell patterns on module names ("blocks.*.mlp.*"), one or several. A layer used under several
        names is replaced once and shared again, under all of them, if any of them matches (and none is excluded).
    kind: "gblr", "blast", "monarch", "kronecker" or "tensor_train".
    init: "svd" makes the nearest layer of the kind that has a closed form (GBLR: the leading singular triplets at full
        width, which keep the function of the model at the default number of blocks); "random" draws new parameters.
    options: those of the kind's class: blocks, rank, gaussian, sigma, straight_through (with "random" also init_width)
        of GBLRLinear; blocks and rank of BLASTLinear; blocks, arrangement and values of MonarchLinear; left and terms
        of KroneckerLinear; first and rank of TensorTrainLinear.

    Device, dtype, bias, training mode and requires_grad of the weight carry over.

    Raises InputError if a pattern matches nothing (with the candidates), or kind, init or an option is unknown; the
    model is then unchanged.
    """
    made_of = KINDS.get(str(kind).replace("-", "_"))
    if made_of is None:
        raise InputError("kind", repr(kind), f"it is one of {', '.join(KINDS)}", "Choose one of them.")
    if init not in ("svd", "random"):
        raise InputError("init", repr(init), "it is 'svd' or 'random'", "Choose one of them.")
    candidates, modules = linear_names(model), dict(model.named_modules(remove_duplicate=False))
    for one in patterns_of(pattern):
        if not any(fnmatchcase(name, one) for name in candidates):
            raise InputError(
                "pattern",
                repr(one),
                f"it must match a linear layer; there are: {', '.join(candidates) or 'none'}",
                "Correct it.",
            )
    refused = {id(modules[name]) for name in candidates for one in patterns_of(exclude) if fnmatchcase(name, one)}
    matched = {
        id(modules[name]) for name in candidates for one in patterns_of(pattern) if fnmatchcase(name, one)
    } - refused
    # All replacements are made before the first swap, so that an error leaves the model as it was.
    made: dict[int, nn.Module] = {}
    names = [name for name in candidates if id(modules[name]) in matched]
    for name in names:
        old = modules[name]
        if id(old) not in made:
            made[id(old)] = _replacement(as_linear(old), made_of, init, options)
    for name in names:
        set_module(model, name, made[id(modules[name])])
    return names


def _replacement(linear: nn.Linear, kind: Any, init: str, options: dict[str, Any]) -> nn.Module:
    known = [name for name in inspect.signature(kind).parameters if name not in _GIVEN]
    for name in options:
        if name not in known:
            raise InputError("options", name, f"{kind.__name__} has {', '.join(known)}", "Correct it.")
    missing = [name for name in _required(kind.from_dense if init == "svd" else kind) if name not in options]
    if missing:
        raise InputError(
            "options", f"no {' and no '.join(missing)}",
            f"{kind.__name__} has no default for its sizes: outputs and inputs of its first factor, which divide the "
            f"{linear.out_features} outputs and {linear.in_features} inputs of the layer",
            f"Give them, as {missing[0]}=({_divisor(linear.out_features)}, {_divisor(linear.in_features)}).",
        )  # fmt: skip
    if init == "svd":
        new: nn.Module = kind.from_dense(linear, **options)
    else:
        place = {"device": linear.weight.device, "dtype": linear.weight.dtype}
        new = kind(linear.in_features, linear.out_features, bias=linear.bias is not None, **place, **options)
    if not linear.weight.requires_grad:
        new.requires_grad_(False)
    return new.train(linear.training)


def _required(make: Any) -> list[str]:
    """Options without a default, of those that a user gives."""
    parameters = inspect.signature(make).parameters.values()
    named = [one for one in parameters if one.kind is not one.VAR_KEYWORD and one.name not in (*_GIVEN, "linear")]
    return [one.name for one in named if one.default is one.empty]


def _divisor(size: int) -> int:
    """The smallest factor above 1."""
    return next((one for one in range(2, size + 1) if size % one == 0), 1)
