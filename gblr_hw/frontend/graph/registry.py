"""Lowering functions by the name of the operation that they lower, and a node's arguments by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch.fx import Node

from gblr_hw.frontend.graph.builder import Builder

Arguments = Mapping[str, Any]
# A lowering function gets the builder and the node's arguments by their names in the operation's schema, tensors as
# values (View or torch.Tensor), and returns the node's value (a tuple of them for several results).
Lowering = Callable[[Builder, Arguments], Any]

LOWERINGS: dict[str, Lowering] = {}
# Of operations that read or make complex values (`complex_value.Complex`).
COMPLEX: dict[str, Lowering] = {}


def lowers(*names: str) -> Callable[[Lowering], Lowering]:
    """Declare a function as the lowering of operations such as "aten.add.Tensor", or "aten.add" for all overloads."""

    return _adds(names, LOWERINGS)


def lowers_complex(*names: str) -> Callable[[Lowering], Lowering]:
    """Declare a function as the lowering of operations where values are complex."""
    return _adds(names, COMPLEX)


def _adds(names: tuple[str, ...], table: dict[str, Lowering]) -> Callable[[Lowering], Lowering]:
    def add(function: Lowering) -> Lowering:
        for name in names:
            table[name] = function
        return function

    return add


def lowering_of(name: str, table: Mapping[str, Lowering]) -> Lowering | None:
    """The function for an operation, looked up by its whole name and then without its overload."""
    return table.get(name) or table.get(name.rpartition(".")[0])


def arguments_of(node: Node, value_of: Callable[[Any], Any]) -> dict[str, Any]:
    """A node's arguments by name, with the schema's defaults; ``value_of`` turns nodes into values."""
    schema = node.target._schema  # type: ignore[union-attr]
    found = {}
    for index, argument in enumerate(schema.arguments):
        if index < len(node.args):
            found[argument.name] = value_of(node.args[index])
        elif argument.name in node.kwargs:
            found[argument.name] = value_of(node.kwargs[argument.name])
        else:
            found[argument.name] = argument.default_value if argument.has_default_value() else None
    return found
