"""Swap the linear layers of any model for GBLR layers, by name pattern."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Any, Literal

from torch import nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from gblr_hw.layers.linear import GBLRLinear
from simulator.base.errors import InputError


def linear_names(model: nn.Module) -> list[str]:
    """Names of the linear layers that can be swapped, tied ones under each of their names.

    The output projection inside nn.MultiheadAttention is not among them: that module reads its weight and never calls
    it.
    """
    return [
        name
        for name, module in model.named_modules(remove_duplicate=False)
        if name and isinstance(module, nn.Linear) and not isinstance(module, NonDynamicallyQuantizableLinear)
    ]


def set_module(model: nn.Module, name: str, module: nn.Module) -> None:
    """Put a module in the place of the submodule called `name`."""
    owner, _, attribute = name.rpartition(".")
    setattr(model.get_submodule(owner), attribute, module)


def _patterns(pattern: str | Iterable[str]) -> list[str]:
    return [pattern] if isinstance(pattern, str) else list(pattern)


def replace_linear(
    model: nn.Module,
    pattern: str | Iterable[str] = "*",
    *,
    exclude: str | Iterable[str] = (),
    init: Literal["svd", "random"] = "svd",
    blocks: int | None = None,
    rank: int = 1,
    **options: Any,
) -> list[str]:
    """Replace each nn.Linear whose name matches, in place, and return the names in the model's order.

    pattern and exclude: shell patterns on module names ("blocks.*.mlp.*"), one or several. A layer used under several
    names is replaced once and shared again, under all of them, if any of them matches (and none is excluded). init:
    "svd" fills the blocks with the layer's leading singular triplets at full width, which keeps the function of the
    model at the default number of blocks; "random" draws new parameters. blocks, rank and options (gaussian, sigma,
    straight_through; with "random" also init_width) are those of GBLRLinear. Device, dtype, bias, training mode and
    requires_grad of the weight carry over.

    Raises InputError if a pattern matches nothing (with the candidates), or init is unknown; the model is then
    unchanged.
    """
    if init not in ("svd", "random"):
        raise InputError("init", repr(init), "it is 'svd' or 'random'", "Choose one of them.")
    candidates, modules = linear_names(model), dict(model.named_modules(remove_duplicate=False))
    for one in _patterns(pattern):
        if not any(fnmatchcase(name, one) for name in candidates):
            raise InputError(
                "pattern",
                repr(one),
                f"it must match a linear layer; there are: {', '.join(candidates) or 'none'}",
                "Correct it.",
            )
    refused = {id(modules[name]) for name in candidates for one in _patterns(exclude) if fnmatchcase(name, one)}
    matched = {
        id(modules[name]) for name in candidates for one in _patterns(pattern) if fnmatchcase(name, one)
    } - refused
    # All replacements are made before the first swap, so that an error leaves the model as it was.
    made: dict[int, GBLRLinear] = {}
    names = [name for name in candidates if id(modules[name]) in matched]
    for name in names:
        old = modules[name]
        if id(old) not in made and isinstance(old, nn.Linear):
            made[id(old)] = _replacement(old, init, blocks, rank, options)
    for name in names:
        set_module(model, name, made[id(modules[name])])
    return names


def _replacement(linear: nn.Linear, init: str, blocks: int | None, rank: int, options: dict[str, Any]) -> GBLRLinear:
    if init == "svd":
        new = GBLRLinear.from_dense(linear, blocks, rank, **options)
    else:
        new = GBLRLinear(
            linear.in_features, linear.out_features, blocks, rank, bias=linear.bias is not None,
            device=linear.weight.device, dtype=linear.weight.dtype, **options,
        )  # fmt: skip
    if not linear.weight.requires_grad:
        new.requires_grad_(False)
    return new.train(linear.training)
