"""A captured model's nodes, one after another, into the graph that a Builder holds."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import nn
from torch.fx import Node

from gblr_hw.frontend.capture import Captured, sized_by_data
from gblr_hw.frontend.decide import decided_value, depends_on_values
from gblr_hw.frontend.fold_padding import fold_padding
from gblr_hw.frontend.foreign_code import SEED, drawn_alike
from gblr_hw.frontend.graph.builder import Builder, Site
from gblr_hw.frontend.graph.complex_value import Complex
from gblr_hw.frontend.graph.layout import LayoutError, View
from gblr_hw.frontend.graph.messages import PRODUCTS, module_path, refusal, source_of
from gblr_hw.frontend.graph.registry import COMPLEX, LOWERINGS, Lowering, arguments_of, lowering_of
from gblr_hw.frontend.operators.treatment import treated
from gblr_hw.layers.conv import GBLRConv2d
from gblr_hw.layers.matrix_conv import MatrixConv2d
from simulator.base.errors import InputError

CONVOLUTIONS = (GBLRConv2d, MatrixConv2d)

Treatment = Literal["free", "vector"]


# Operations that look at nothing of their first argument but its shape and type.
_SHAPE_ONLY = (
    "aten.full_like", "aten.zeros_like", "aten.ones_like", "aten.new_zeros", "aten.new_ones", "aten.new_full",
    "aten.empty_like", "aten.new_empty", "aten.rand_like", "aten.randn_like", "aten.randint_like",
)  # fmt: skip


class Translation:
    """The values of a model's nodes: constants, computed at once, and Views of what the graph computes.

    treat, plugins: as `export_network` takes them.
    """

    def __init__(
        self,
        model: nn.Module,
        captured: Captured,
        builder: Builder,
        treat: Mapping[str, Treatment],
        plugins: Mapping[str, Lowering],
    ) -> None:
        self._builder, self._captured, self._treat, self._plugins = builder, captured, treat, plugins
        self._leaves = {path for path, module in model.named_modules() if not any(True for _ in module.children())}
        self._values: dict[str, Any] = dict(captured.constants)
        self._examples: dict[str, Any] = {
            node: example for node, (_, example) in captured.inputs.items() if not example.dtype.is_floating_point
        }
        self._worked_out: dict[Node, Any] = {}
        self._used: set[str] = set()

    def run(self) -> list[tuple[str, Any]]:
        """The model's outputs: (name, value). Raises InputError for a node that cannot be lowered, naming it."""
        with drawn_alike():
            return self._run()

    def _run(self) -> list[tuple[str, Any]]:
        own = [path for path, (module, _) in self._captured.layers.items() if isinstance(module, CONVOLUTIONS)]
        fold_padding(self._captured.nodes, {*self._treat, *self._plugins}, own)
        needed = _needed(self._captured)
        for node in self._captured.nodes:
            if node.name in self._captured.inputs:
                name, _ = self._captured.inputs[node.name]
                self._values[node.name] = self._builder.input(name, _shape_of(node, name))
            elif node.op == "call_function" and node in needed:
                self._builder.site = self._site(node)
                self._values[node.name] = self._value(node)
        self._check_treated()
        self._builder.site = Site(operation="output")
        return [
            (name, self._values[node.name] if isinstance(node, Node) else node) for name, node in self._captured.outputs
        ]

    def _site(self, node: Node) -> Site:
        path = module_path(node)
        schema = getattr(node.target, "_schema", None)
        names = [argument.name for argument in schema.arguments] if schema is not None else []
        given = [*zip(names, node.args, strict=False), *node.kwargs.items()]
        tensors = {}
        for name, argument in given:
            value = next((one for one in _flat(argument) if isinstance(one, Node)), None)
            if value is not None and isinstance(value.meta.get("val"), torch.Tensor):
                tensors[name] = value.meta["val"]
        dtypes = {name: tensor.dtype for name, tensor in tensors.items()}
        operation = str(node.target).split(".")[1] if schema is not None else node.name
        return Site(path, path in self._leaves, operation.strip("_"), source_of(node), dtypes, tensors)

    def _argument(self, argument: Any) -> Any:
        return torch.fx.node.map_arg(argument, lambda inner: self._values[inner.name])

    def _value(self, node: Node) -> Any:
        """What a node computes: a constant if no model input reaches it, else what its lowering function builds."""
        if node.target is operator.getitem:
            return self._argument(node.args[0])[node.args[1]]
        if not any(isinstance(value, View) for value in _flat([self._values[n.name] for n in node.all_input_nodes])):
            return self._computed(node)
        name, result = str(node.target), node.meta.get("val")
        if isinstance(result, torch.Tensor) and any(isinstance(size, int) and size == 0 for size in result.shape):
            return torch.zeros(tuple(result.shape), dtype=result.dtype)
        if name.rpartition(".")[0] in _SHAPE_ONLY:
            return self._computed(node)
        if depends_on_values(node.target) and self._captured.decisions is not None:
            self._take_decided(node)
            if node.name in self._values:
                return self._values[node.name]
        lowering = lowering_of(name, self._plugins) or lowering_of(name, COMPLEX if _is_complex(node) else LOWERINGS)
        keys = [key for key in (node.name, name, name.rpartition(".")[0]) if key in self._treat]
        if lowering is None:
            keys += [path for path in self._treat if _inside(self._builder.site.path, path)]
        if keys:
            self._builder.treated.add(keys[0])
            try:
                return treated(self._builder, node, self._argument, self._treat[keys[0]])
            except LayoutError as error:
                raise refusal(node, f"{error}, which no operator of the machine reads") from error
        try:
            return self._lowered(node, lowering)
        except InputError as error:
            example = self._example(node)
            if example is not None:
                return example
            laid_out = isinstance(error.__cause__, LayoutError) and not self._builder.relays
            if laid_out or not self._take_masks(node):
                raise
            return self._value(node)

    def _take_decided(self, node: Node) -> None:
        """What decides a shape, places or truth values, is what it was for the example, for this and other nodes."""
        inputs = node.all_input_nodes
        for one in (*(one for one in inputs if isinstance(self._values[one.name], View)), node):
            if one is node and not any(isinstance(self._values[inner.name], View) for inner in inputs):
                # Constants say more than the trace, which may have drawn other random numbers.
                self._values[one.name] = self._computed(one)
                continue
            value = decided_value(one)
            if value is not None and not value.dtype.is_floating_point:
                self._values[one.name] = self._named(one, value)

    def _take_masks(self, node: Node) -> bool:
        """Whether truth values or places that a node reads are now those of the example: of no weight's making, unless
        the user lets the example decide.
        """
        decisions, taken = self._captured.decisions, False
        free = decisions is not None and decisions.by_example
        for one in node.all_input_nodes:
            if isinstance(self._values[one.name], View) and (free or not self._weighed(one)):
                value = self._example(one)
                if value is not None:
                    self._values[one.name], taken = value, True
        return taken

    def _weighed(self, node: Node) -> bool:
        """Whether a parameter has a part in a node's value."""
        order, seen = [node], {node}
        for one in order:
            fresh = [inner for inner in one.all_input_nodes if inner not in seen]
            seen.update(fresh)
            order += fresh
        held = (self._captured.constants.get(one.name) for one in order)
        return any(isinstance(one, torch.nn.Parameter) for one in held)

    def _lowered(self, node: Node, lowering: Lowering | None) -> Any:
        decisions = self._captured.decisions
        if sized_by_data(node) and decisions is not None and decisions.refused is not None:
            raise decisions.refused
        _check_type(node)
        if lowering is None:
            kind = " on complex values" if _is_complex(node) else ""
            raise refusal(node, f"the front end does not know this operation{kind}")
        before = self._builder.mark()
        try:
            value = lowering(self._builder, arguments_of(node, self._argument))
            _check_shape(node, value)
            return _typed(node, value)
        except LayoutError as error:
            self._builder.reset(before)
            raise refusal(node, f"{error}, which no operator of the machine reads") from error
        except InputError as error:
            where = f"node '{node.name}' ({node.target}): {error.where}"
            remedy = f"{error.remedy} It is made in {source_of(node)}."
            raise InputError(where, error.value, error.rule, remedy) from None

    def _computed(self, node: Node) -> Any:
        args, kwargs = self._argument(node.args), self._argument(node.kwargs)
        if args and isinstance(args[0], (View, Complex)):
            like = node.args[0].meta["val"]  # type: ignore[union-attr]
            # Random numbers come in the order in which the places lie in memory.
            args = (torch.empty_strided(tuple(like.shape), like.stride(), dtype=like.dtype), *args[1:])
        result = _called(node, args, kwargs)
        if torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()):
            self._builder.note(
                f"'{node.name}' ({node.target}) draws random numbers at every call of the model. The program holds one "
                f"draw, which PyTorch makes after torch.manual_seed({SEED}): {self._builder.site.source}"
            )
        if ".empty" in str(node.target) or ".new_empty" in str(node.target):
            result = torch.zeros_like(result)  # what memory happens to hold is in no program
        return self._named(node, result)

    def _named(self, node: Node, result: Any) -> Any:
        for value in _flat(result):
            if isinstance(value, torch.Tensor):
                self._builder.constant_names.setdefault(id(value), node.name)
        return result

    def _example(self, node: Node) -> Any:
        """The whole numbers or truth values that a node computes from the example's inputs, if it depends on inputs of
        whole numbers alone; None for others. Positions, counted from the words that are no padding, are such.
        """
        result = node.meta["val"]
        if not isinstance(result, torch.Tensor) or result.dtype.is_floating_point or result.dtype.is_complex:
            return None
        order = [node]
        seen = {node}
        for one in order:
            order += [inner for inner in one.all_input_nodes if inner not in seen]
            seen.update(one.all_input_nodes)
        inputs = [one for one in seen if one.name in self._captured.inputs]
        if any(one.name not in self._examples for one in inputs):
            return None
        known = self._worked_out
        for one in self._captured.nodes:
            if one not in seen or one in known:
                continue
            if one.op == "placeholder":
                known[one] = self._examples.get(one.name, self._captured.constants.get(one.name))
            else:
                args, kwargs = (
                    torch.fx.node.map_arg(part, lambda inner: known[inner]) for part in (one.args, one.kwargs)
                )
                known[one] = _called(one, args, kwargs)
        names = ", ".join(f"'{self._captured.inputs[one.name][0]}'" for one in inputs)
        self._builder.note(
            f"'{node.name}' ({node.target}) is worked out once, from the example's {names}: the program is for inputs "
            "that give the same."
        )
        return self._named(node, known[node])

    def _check_treated(self) -> None:
        for key in self._treat:
            if key not in self._builder.treated:
                raise InputError(
                    f"treatment of '{key}'", "nothing of that name",
                    "it names a node, an operation, or a module with an operation that is not known",
                    "Take the name from the message about the operation.",
                )  # fmt: skip


def _needed(captured: Captured) -> set[Node]:
    """The nodes that an output depends on."""
    found = {node for _, node in captured.outputs if isinstance(node, Node)}
    order = list(found)
    for node in order:
        fresh = [inner for inner in node.all_input_nodes if inner not in found]
        found.update(fresh)
        order += fresh
    return found


def _called(node: Node, args: Any, kwargs: Any) -> Any:
    """What the framework computes for a node. Raises InputError naming it where the framework cannot."""
    _check_type(node)
    try:
        with torch.no_grad():
            return node.target(*args, **kwargs)  # type: ignore[operator]
    except Exception as error:
        text = str(error).strip().splitlines()
        raise refusal(
            node, f"the framework cannot work it out ({text[0] if text else type(error).__name__})"
        ) from error


def _check_shape(node: Node, value: Any) -> None:
    """Raise LayoutError unless a View is shaped as the framework says: no lowering passes on another value."""
    for found, said in zip(_flat(value), _flat(node.meta["val"]), strict=False):
        if isinstance(found, View) and isinstance(said, torch.Tensor) and found.shape != tuple(said.shape):
            raise LayoutError(f"its lowering gives shape {found.shape} instead of {tuple(said.shape)}")


def _typed(node: Node, value: Any) -> Any:
    """A constant in the framework's type: a lowering that passes one on (``type_as`` a computed value) leaves its own,
    in which what follows computes other numbers.
    """
    said = node.meta["val"]
    if isinstance(value, torch.Tensor) and isinstance(said, torch.Tensor) and value.dtype != said.dtype:
        return value.to(said.dtype)
    return value


def _inside(path: str, outer: str) -> bool:
    return path == outer or path.startswith(f"{outer}.")


def _flat(values: Any) -> list[Any]:
    if isinstance(values, (list, tuple)):
        return [inner for value in values for inner in _flat(value)]
    return [values.real] if isinstance(values, Complex) else [values]


def _shape_of(node: Node, name: str) -> tuple[int, ...]:
    value = node.meta["val"]
    shape = tuple(value.shape)
    if not all(isinstance(size, int) for size in shape):
        raise InputError(
            f"input '{name}'", f"shape {shape}", "the network has static shapes", "Export without dynamic shapes."
        )
    if value.dtype.is_complex:
        raise InputError(
            f"input '{name}'", str(value.dtype), "activations are real", "Give real and imaginary parts apart."
        )
    return shape


def _is_complex(node: Node) -> bool:
    values = [inner.meta.get("val") for inner in (node, *node.all_input_nodes)]
    return any(isinstance(one, torch.Tensor) and one.dtype.is_complex for value in values for one in _flat(value))


def _check_type(node: Node) -> None:
    factors = [one.meta.get("val") for one in node.args[:2] if isinstance(one, Node)]
    types = {one.dtype for one in factors if isinstance(one, torch.Tensor)}
    numbers = all(one.is_floating_point or one.is_complex for one in types)
    if str(node.target).rpartition(".")[0] in PRODUCTS and len(types) == 2 and not numbers:
        # Export lets these pass, which the framework refuses to run.
        raise refusal(node, f"a product of {' and '.join(sorted(map(str, types)))}, which PyTorch does not compute")
