"""From an nn.Module to an operator graph and the weights of its matrix operators."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from torch.fx import Node

from gblr_hw.frontend.capture import Captured, capture, release
from gblr_hw.frontend.graph.builder import Builder, Site
from gblr_hw.frontend.graph.layout import LayoutError, View
from gblr_hw.frontend.graph.messages import module_path, refusal, source_of
from gblr_hw.frontend.graph.registry import LOWERINGS, Lowering, arguments_of, lowering_of
from gblr_hw.frontend.operators.outputs import output_port
from gblr_hw.frontend.operators.treatment import treated
from gblr_hw.frontend.tidy.finish import finished
from gblr_hw.frontend.torch_ops import lower_joins, lower_logic, lower_matrix, lower_pointwise, lower_rows, lower_views
from gblr_hw.weights.stored import LayerWeights
from simulator.base.errors import InputError
from simulator.network.network import Network

Treatment = Literal["free", "vector"]
# The modules that declare lowering functions; naming them keeps the imports from looking unused.
_DECLARED = (lower_views, lower_pointwise, lower_rows, lower_matrix, lower_joins, lower_logic)


@dataclass(frozen=True, eq=False)
class ExportedNetwork:
    """A model as an operator graph, the weights of each of its "linear" operators by operator name, and what to know
    about the translation.
    """

    network: Network
    weights: Mapping[str, LayerWeights]
    notes: tuple[str, ...]


def export_network(
    model: nn.Module,
    example_inputs: Any,
    *,
    treat: Mapping[str, Treatment] | None = None,
    plugins: Mapping[str, Lowering] | None = None,
) -> ExportedNetwork:
    """The operator graph of a model in evaluation mode.

    Parameters
    ----------
    example_inputs: a tensor, a tuple of positional arguments, or a dict of keyword arguments; their shapes are the
    network's.
    treat: for operations that are not known, by node name, module path or operation ("aten.foo.default"): "free" passes
    the first input of the output's shape through, "vector" lets the vector unit pass over it once. Neither computes
    the operation, which the notes say.
    plugins: operation -> lowering function (`registry.Lowering`), before the built-in ones.

    Raises InputError for what torch.export cannot follow, and for an operation that is not known or a value that lies
    in a way that no operator can read, naming the node and its source line.
    """
    treat, plugins = dict(treat or {}), dict(plugins or {})

    def known(name: str) -> bool:
        tables: tuple[Mapping[str, Any], ...] = (plugins, LOWERINGS, treat)
        return any(name in table or name.rpartition(".")[0] in table for table in tables)

    captured = capture(model, example_inputs, known)
    try:
        return _lowered(model, captured, treat, plugins, tokens_first=False)
    except InputError as first:
        # Sequences come first in most models' arrays, tokens in some: only how the model uses them shows which.
        if not isinstance(first.__cause__, LayoutError):
            raise
        try:
            return _lowered(model, captured, treat, plugins, tokens_first=True)
        except InputError:
            raise first from None
    finally:
        release(captured.layers)


def _lowered(
    model: nn.Module,
    captured: Captured,
    treat: Mapping[str, Treatment],
    plugins: Mapping[str, Lowering],
    *,
    tokens_first: bool,
) -> ExportedNetwork:
    builder = Builder(tokens_first=tokens_first)
    builder.layers = captured.layers
    builder.parameter_names = captured.names
    builder.constant_names.update(captured.names)
    leaves = {path for path, module in model.named_modules() if not any(True for _ in module.children())}
    values: dict[str, Any] = dict(captured.constants)
    for node in captured.nodes:
        if node.name in captured.inputs:
            values[node.name] = builder.input(node.name, _shape_of(node))
        elif node.op == "call_function":
            builder.site = _site(node, leaves)
            values[node.name] = _value(builder, node, values, treat, plugins)
    _check_treated(builder, treat)
    outputs = []
    for name, node in captured.outputs:
        builder.site = Site(operation="output")
        value = values[node.name] if isinstance(node, Node) else node
        outputs += output_port(builder, name, value)
    _note_types(builder, captured)
    return ExportedNetwork(*finished(builder, outputs))


def _shape_of(node: Node) -> tuple[int, ...]:
    value = node.meta["val"]
    shape = tuple(value.shape)
    if not all(isinstance(size, int) for size in shape):
        raise InputError(
            f"input '{node.name}'", f"shape {shape}", "the network has static shapes", "Export without dynamic shapes."
        )
    if value.dtype.is_complex:
        raise InputError(
            f"input '{node.name}'", str(value.dtype), "activations are real", "Give real and imaginary parts apart."
        )
    return shape


def _site(node: Node, leaves: set[str]) -> Site:
    path = module_path(node)
    schema = getattr(node.target, "_schema", None)
    names = [argument.name for argument in schema.arguments] if schema is not None else []
    given = [*zip(names, node.args, strict=False), *node.kwargs.items()]
    dtypes = {
        name: value.meta["val"].dtype
        for name, value in given
        if isinstance(value, Node) and isinstance(value.meta.get("val"), torch.Tensor)
    }
    operation = str(node.target).split(".")[1] if schema is not None else node.name
    return Site(path, path in leaves, operation.strip("_"), source_of(node), dtypes)


def _value(
    builder: Builder,
    node: Node,
    values: Mapping[str, Any],
    treat: Mapping[str, Treatment],
    plugins: Mapping[str, Lowering],
) -> Any:
    """What a node computes: a constant if no model input reaches it, else what its lowering function builds."""

    def value_of(argument: Any) -> Any:
        return torch.fx.node.map_arg(argument, lambda inner: values[inner.name])

    if node.target is operator.getitem:
        return value_of(node.args[0])[node.args[1]]
    if not any(isinstance(value, View) for value in _flat([values[inner.name] for inner in node.all_input_nodes])):
        return _computed(builder, node, value_of)
    name = str(node.target)
    lowering = lowering_of(name, plugins) or lowering_of(name, LOWERINGS)
    keys = [key for key in (node.name, name, name.rpartition(".")[0]) if key in treat]
    if lowering is None:
        keys += [path for path in treat if _inside(builder.site.path, path)]
    if keys:
        builder.treated.add(keys[0])
        return treated(builder, node, value_of, treat[keys[0]])
    _check_type(node)
    if lowering is None:
        raise refusal(node, "the front end does not know this operation")
    try:
        return lowering(builder, arguments_of(node, value_of))
    except LayoutError as error:
        raise refusal(node, f"{error}, which no operator of the machine reads") from error
    except InputError as error:
        where = f"node '{node.name}' ({node.target}): {error.where}"
        raise InputError(where, error.value, error.rule, f"{error.remedy} It is made in {source_of(node)}.") from None


def _inside(path: str, outer: str) -> bool:
    return path == outer or path.startswith(f"{outer}.")


def _flat(values: Any) -> list[Any]:
    if isinstance(values, (list, tuple)):
        return [inner for value in values for inner in _flat(value)]
    return [values]


def _computed(builder: Builder, node: Node, value_of: Any) -> Any:
    with torch.no_grad():
        result = node.target(*value_of(node.args), **value_of(node.kwargs))  # type: ignore[operator]
    for value in _flat(result):
        if isinstance(value, torch.Tensor):
            builder.constant_names.setdefault(id(value), node.name)
    return result


def _check_type(node: Node) -> None:
    for inner in (node, *node.all_input_nodes):
        value = inner.meta.get("val")
        if isinstance(value, torch.Tensor) and value.dtype.is_complex:
            raise refusal(node, f"its values are {value.dtype}, and activations are real")
        sizes = value.shape if isinstance(value, torch.Tensor) else (value,)
        if any(isinstance(size, (torch.SymInt, torch.SymFloat, torch.SymBool)) for size in sizes):
            raise refusal(node, "a number or shape depends on the data, and the network has static shapes")


def _check_treated(builder: Builder, treat: Mapping[str, Treatment]) -> None:
    for key in treat:
        if key not in builder.treated:
            raise InputError(
                f"treatment of '{key}'", "nothing of that name", "it names a node, an operation, or a module with an "
                "operation that is not known", "Take the name from the message about the operation.",
            )  # fmt: skip


def _note_types(builder: Builder, captured: Captured) -> None:
    small = {
        str(value.dtype) for value in captured.constants.values()
        if isinstance(value, torch.Tensor) and value.dtype in (torch.float16, torch.bfloat16)
    }  # fmt: skip
    if small:
        builder.note(f"Parameters in {', '.join(sorted(small))} are read as float32.")
