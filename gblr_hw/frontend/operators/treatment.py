"""Operations that the user says how to account for, without computing them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.fx import Node

from gblr_hw.frontend.graph.builder import Builder
from gblr_hw.frontend.graph.layout import LayoutError, View, reshape
from gblr_hw.frontend.graph.messages import refusal
from gblr_hw.frontend.operators.vector_ops import copied
from simulator.base.errors import InputError


def treated(builder: Builder, node: Node, value_of: Callable[[Any], Any], choice: str) -> Any:
    """The node's value if it is "free" (its first input of that size passes through) or one pass ("vector")."""
    if choice not in ("free", "vector"):
        raise InputError(f"treatment of '{node.name}'", repr(choice), "it is 'free' or 'vector'", "Choose one of them.")
    inputs = [value_of(inner) for inner in node.all_input_nodes]
    views = [value for value in inputs if isinstance(value, View)]
    result = node.meta["val"]
    if isinstance(result, (tuple, list)):
        return tuple(_passed(builder, node, views, one, choice) for one in result)
    return _passed(builder, node, views, result, choice)


def _passed(builder: Builder, node: Node, views: list[View], result: Any, choice: str) -> View | None:
    if not isinstance(result, torch.Tensor):
        return None
    shape = tuple(result.shape)
    same = [view for view in views if view.shape == shape] or [view for view in views if view.size == result.numel()]
    if not same:
        raise refusal(node, f"none of its inputs has the {result.numel()} elements of its output, shape {shape}")
    try:
        view = reshape(same[0], shape)
        if choice == "free":
            builder.note(f"'{node.name}' ({node.target}) is taken to cost nothing: its first input stands for it.")
            return view
        builder.note(
            f"'{node.name}' ({node.target}) is one pass of the vector unit that copies its input: executing the "
            "network does not compute it."
        )
        return copied(builder, view, builder.name_here())
    except LayoutError as error:
        raise refusal(node, f"{error}, which no operator of the machine reads") from error
