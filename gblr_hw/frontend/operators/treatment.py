"""Operations that the user says how to account for, without computing them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch.fx import Node

from gblr_hw.frontend.graph.builder import Builder
from gblr_hw.frontend.graph.complex_value import Complex
from gblr_hw.frontend.graph.layout import LayoutError, View, drop, expand, insert, reshape, take
from gblr_hw.frontend.graph.messages import PRODUCTS, refusal
from gblr_hw.frontend.operators.relays import natural, or_relaid
from gblr_hw.frontend.operators.vector_ops import copied, pointwise
from simulator.base.errors import InputError


def treated(builder: Builder, node: Node, value_of: Callable[[Any], Any], choice: str) -> Any:
    """The node's value if it is "free" (its first input passes through) or one pass ("vector"), in the shape that the
    framework gives it. Raises InputError for another choice, and for a product that is to be free.
    """
    if choice not in ("free", "vector"):
        raise InputError(f"treatment of '{node.name}'", repr(choice), "it is 'free' or 'vector'", "Choose one of them.")
    if choice == "free" and str(node.target).rpartition(".")[0] in PRODUCTS:
        raise InputError(
            f"treatment of '{node.name}'", "'free'",
            f"{node.target} is a product, whose multiplications cost something",
            f"Use {node.name}=vector, or a plug-in lowering function.",
        )  # fmt: skip
    views = [view for inner in node.all_input_nodes for view in _views(value_of(inner))]
    result = node.meta["val"]
    line = f"{node.name}={choice} ({node.target})"
    if line not in builder.treatments:
        builder.treatments.append(line)
    if not isinstance(result, (tuple, list)):
        return _passed(builder, node, views, result, choice)
    # Only what is used is made: norms return statistics that nobody reads.
    used = {user.args[1] for user in node.users}
    return tuple(
        _passed(builder, node, views, one, choice) if place in used else None for place, one in enumerate(result)
    )


def _views(value: Any) -> list[View]:
    if isinstance(value, (tuple, list)):
        return [view for one in value for view in _views(one)]
    return [value] if isinstance(value, View) else [value.real] if isinstance(value, Complex) else []


def _passed(builder: Builder, node: Node, views: list[View], result: Any, choice: str) -> View | Complex | None:
    if not isinstance(result, torch.Tensor):
        return None
    shape = tuple(result.shape)
    if any(not isinstance(size, int) for size in shape):
        raise refusal(node, "a shape depends on the data, and the network has static shapes")
    same = [view for view in views if view.shape == shape] or [view for view in views if view.size == result.numel()]
    view = _in_shape((same or views)[0], shape)
    passes = "cut or repeated to its shape" if not same else "as it is"
    if choice == "free":
        builder.note(
            f"'{node.name}' ({node.target}) is taken to cost nothing: its first input stands for it"
            f"{'' if same else ', ' + passes}."
        )
    else:
        builder.note(
            f"'{node.name}' ({node.target}) is one pass of the vector unit that copies its input: executing the "
            "network does not compute it."
        )
    if result.dtype.is_complex:
        return Complex(view if choice == "free" else _over(builder, view, partial(_copy, builder)), None)
    if not result.dtype.is_floating_point:
        # Truth values and places have to be such; zero is one, wherever they are used.
        return _over(builder, view, lambda value: pointwise(builder, "multiply", value, numbers=(0.0,)))
    if choice == "free":
        return view
    return _over(builder, view, partial(_copy, builder))


def _copy(builder: Builder, value: View) -> View:
    return copied(builder, value, builder.name_here())


def _over(builder: Builder, view: View, emit: Callable[[View], View]) -> View:
    return or_relaid(builder, emit, [view], [[natural(len(view.dims))]])


def _in_shape(view: View, shape: tuple[int, ...]) -> View:
    """A value in another shape: regrouped if that is possible, else its first elements, repeated where these are too
    few.
    """
    if view.size == _size(shape):
        try:
            return reshape(view, shape)
        except LayoutError:
            pass
    while len(view.dims) > len(shape):
        view = drop(take(view, 0, 0, 1), 0)
    while len(view.dims) < len(shape):
        view = insert(view, 0)
    for dim, size in enumerate(shape):
        view = _first(view, dim, size if view.shape[dim] >= size else 1)
    return expand(view, shape)


def _first(view: View, dim: int, size: int) -> View:
    try:
        return take(view, dim, 0, size)
    except LayoutError:
        return take(view, dim, 0, 1)


def _size(shape: tuple[int, ...]) -> int:
    return torch.Size(shape).numel()
