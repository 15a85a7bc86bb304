"""The graph while it grows: tensors, operators, weights, ports, and where the framework's values lie in them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from gblr_hw.frontend.graph.frame import Frame, Read, constant_array, frame_of, operand_of, refined
from gblr_hw.frontend.graph.layout import BATCH, CHANNELS, TOKENS, LayoutError, Origin, View, contiguous
from gblr_hw.frontend.graph.placement import Placement, default_roles, place, resolve, whole_input
from gblr_hw.weights.stored import DenseWeights, LayerWeights
from simulator.network.network import Operand, Operator, OperatorKind, Port, Tensor
from simulator.network.vector_steps import Step

Value = View | torch.Tensor
Layers = Mapping[str, tuple[nn.Module, LayerWeights]]


def single(value: torch.Tensor) -> torch.Tensor:
    """A copy in float32, or float64 if it is that."""
    dtype = torch.float64 if value.dtype == torch.float64 else torch.float32
    return value.detach().to(dtype, copy=True).contiguous()


@dataclass(frozen=True)
class Site:
    """The node at hand: the path of its module and whether that has none inside it, the operation's short name, the
    source line, and by name the types of its tensor arguments and these themselves as the framework traces them, which
    have strides and no values.
    """

    path: str = ""
    leaf: bool = False
    operation: str = ""
    source: str = ""
    dtypes: Mapping[str, torch.dtype] = field(default_factory=dict)
    tensors: Mapping[str, torch.Tensor] = field(default_factory=dict)


class Mark(NamedTuple):
    """A builder's state at one moment: operators so far, and the tables of `_UNDONE`."""

    operators: int
    tables: tuple[Any, ...]


# The tables that name tensors and operators: an attempt that fails leaves nothing in them.
_UNDONE = (
    "tensors", "values", "weights", "_transposed", "_taken", "_emitted", "_tables", "_placements", "_indices",
)  # fmt: skip


class Builder:
    """What lowering functions (and plug-ins) build with.

    A value is a View (depends on a model input) or a torch.Tensor (a constant, already computed). Matrix products,
    vector operations and joins are functions over a Builder in `matrix_ops`, `attention_ops`, `vector_ops` and
    `join_ops`; all name what they emit after ``site``.
    """

    def __init__(self, *, tokens_first: bool = False, relays: bool = True) -> None:
        self._tokens_first = tokens_first
        self.relays = relays
        self.tensors: dict[str, Tensor] = {}
        self.operators: list[Operator] = []
        self.values: dict[str, np.ndarray] = {}
        self.weights: dict[str, LayerWeights] = {}
        self.notes: list[str] = []
        self.site = Site()
        self.layers: Layers = {}
        self.homes: dict[str, Site] = {}
        self.treated: set[str] = set()
        self.treatments: list[str] = []
        self.parameter_names: Mapping[int, str] = {}
        self.constant_names: dict[int, str] = {}
        self._input_shapes: dict[str, tuple[int, ...]] = {}
        self._placements: dict[str, Placement] = {}
        self._indices: set[str] = set()
        self._arrays: dict[tuple[object, ...], np.ndarray] = {}
        self._transposed: dict[str, str] = {}
        self._taken: dict[str, int] = {}
        self._tables: dict[int, str] = {}
        self._dense: dict[tuple[object, ...], DenseWeights] = {}
        self._emitted: dict[tuple[object, ...], View] = {}
        self._derived: dict[tuple[object, ...], torch.Tensor] = {}
        # Arrays are found by the identity of the tensor that they come from, so that has to live as long.
        self._kept: list[torch.Tensor] = []

    # Names

    def unique(self, name: str) -> str:
        """``name``, or name#2, name#3, ... if operators or tensors have it already."""
        count = self._taken.get(name, 0) + 1
        self._taken[name] = count
        return name if count == 1 else f"{name}#{count}"

    def name_here(self, what: str = "") -> str:
        """A fresh name for an operator at the current site."""
        parts = [part for part in (self.site.path, what or self.site.operation) if part]
        return self.unique(".".join(parts))

    def named(self, operation: str, emit: Callable[[], View]) -> View:
        """``emit()`` with what it emits named after ``operation``."""
        before = self.site
        self.site = replace(before, operation=operation)
        try:
            return emit()
        finally:
            self.site = before

    def once(self, key: tuple[object, ...], emit: Callable[[], View]) -> View:
        """``emit()`` the first time, and its value after that: what several layers compute alike."""
        if key not in self._emitted:
            self._emitted[key] = emit()
        return self._emitted[key]

    def dtype_of(self, argument: str) -> torch.dtype | None:
        """The framework's type of a tensor argument of the node at hand."""
        return self.site.dtypes.get(argument)

    def weight_name(self, weight: torch.Tensor) -> str:
        """What a matrix layer at the site is called: its module's path, or its parameter's name without "weight"."""
        known = self.parameter_names.get(id(weight), "")
        owner, _, parameter = known.rpartition(".")
        if self.site.leaf and self.site.path and (owner != self.site.path or parameter == "weight"):
            return self.site.path
        short = known.removesuffix("weight").rstrip("._")
        return short or (f"{self.site.path}.{self.site.operation}" if self.site.path else self.site.operation)

    def note(self, text: str) -> None:
        """Say something once in the result's notes."""
        if text not in self.notes:
            self.notes.append(text)

    # Weights and constants

    def dense(self, weight: torch.Tensor, bias: torch.Tensor | None, *, across: bool = False) -> DenseWeights:
        """A constant matrix (m, n), or with ``across`` (n, m), as weights; the same object each time."""
        return self.kernel(weight, bias, lambda: weight.t() if across else weight, across)

    def kernel(
        self,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        matrix: Callable[[], torch.Tensor],
        *key: object,
        bias_times: int = 1,
    ) -> DenseWeights:
        """``matrix()`` and ``bias``, so many times over, as weights, made once for each parameter ``weight``."""
        whole = (id(weight), id(bias), *key)
        if whole not in self._dense:
            self._kept += [weight] if bias is None else [weight, bias]
            self._dense[whole] = DenseWeights(
                single(matrix()), None if bias is None else single(bias.repeat(bias_times))
            )
        return self._dense[whole]

    def derived(
        self, key: tuple[object, ...], make: Callable[[], torch.Tensor], *sources: torch.Tensor
    ) -> torch.Tensor:
        """A constant computed from ``sources``, once for each key."""
        if key not in self._derived:
            self._kept += sources
            self._derived[key] = self.name_constant(make(), str(key[0]))
        return self._derived[key]

    # Inputs

    def input(self, name: str, shape: Sequence[int]) -> View:
        """A model input; it gets its place when something reads it."""
        self._input_shapes[name] = tuple(shape)
        self._taken[name] = 1
        return whole_input(name, shape)

    def place(self, view: View, roles: str, *, index: bool = False) -> View:
        """``view`` in the axes of its tensor; an input that has no place yet gets one, with the view's dimensions in
        these roles (b, t, g, w; r for rows of whatever kind).
        """
        name = view.tensor
        shape = self._input_shapes.get(name)
        if shape is None:
            return view
        if index:
            self._indices.add(name)
        if name not in self._placements:
            batch_dim = (1 if len(shape) > 2 else -1) if self._tokens_first else 0
            try:
                placement = place(view, roles, shape, batch_dim)
            except LayoutError:
                placement = place(whole_input(name, shape), default_roles(shape), shape, batch_dim)
            self._placements[name] = placement
            self.tensors[name] = Tensor(name, *placement.sizes, kind="input")
        return resolve(view, self._placements[name])

    def placed(self, value: View) -> View:
        """``value`` in the axes of its tensor; an input that nothing has placed is by its own dimensions."""
        if self.is_unplaced(value):
            shape = self._input_shapes[value.tensor]
            self.place(whole_input(value.tensor, shape), default_roles(shape))
        return self.place(value, "")

    def place_like(self, view: View, model: View) -> View:
        """``view`` placed; an input that has no place yet gets one as ``model``, which it is broadcast to, lies."""
        if not self.is_unplaced(view) or self.is_unplaced(model):
            return self.placed(view)
        model = self.placed(model)
        skip = len(model.dims) - len(view.dims)
        if skip < 0:
            return self.placed(view)
        return self.place(view, "".join(_role(model, place) for place in range(skip, len(model.dims))))

    def is_unplaced(self, view: View) -> bool:
        """Whether the view shows an input that nothing has read yet."""
        return view.tensor in self._input_shapes and view.tensor not in self._placements

    def ports(self) -> tuple[Port, ...]:
        """The model's inputs in order; one that nothing reads is placed by default."""
        found = []
        for name, shape in self._input_shapes.items():
            self.placed(whole_input(name, shape))
            placement = self._placements[name]
            dtype = "index" if name in self._indices else "float"
            found.append(Port(name, name, shape, placement.split, placement.order, dtype))  # type: ignore[arg-type]
        return tuple(found)

    # Tensors and operators

    def add_tensor(self, name: str, frame: Frame, *, padded: bool = False) -> str:
        """A result that a frame's rows fill."""
        self.tensors[name] = Tensor(name, frame.batch, frame.tokens, frame.groups, frame.width, padded=padded)
        return name

    def add_constant(self, name: str, array: np.ndarray) -> str:
        """A tensor that lies in DRAM from the start; array (batch, tokens, groups, width)."""
        name = self.unique(name)
        batch, tokens, groups, width = array.shape
        self.tensors[name] = Tensor(name, batch, tokens, groups, width, kind="constant")
        self.values[name] = array
        return name

    def table(self, name: str, key: int, array: np.ndarray) -> str:
        """The constant tensor of the framework's tensor ``key``, added the first time."""
        if key not in self._tables:
            self._tables[key] = self.add_constant(name, array)
        return self._tables[key]

    def add_operator(
        self,
        kind: OperatorKind,
        name: str,
        operands: Sequence[Operand],
        frame: Frame,
        steps: Sequence[Step] = (),
        constants: Mapping[str, np.ndarray] | None = None,
        *,
        padded: bool = False,
    ) -> View:
        """Emit an operator that fills a new tensor of its own name, and see the result in the frame's dimensions."""
        output = self.add_tensor(name, frame, padded=padded)
        self.homes[name] = self.site
        self.operators.append(
            Operator(
                name,
                kind,
                tuple(operands),
                output,
                frame.batch,
                frame.tokens,
                tuple(steps),
                dict(constants or {}),
                self.site.source,
            )
        )
        return frame.view(output)

    def name_constant(self, value: torch.Tensor, name: str) -> torch.Tensor:
        """Give a computed constant a name, and keep it."""
        self._kept.append(value)
        self.constant_names[id(value)] = name
        return value

    def keep(self, value: torch.Tensor) -> torch.Tensor:
        """A computed constant, named after the site."""
        return self.name_constant(value, self.site.operation or "constant")

    def constant(self, value: torch.Tensor, frame: Frame) -> tuple[str, np.ndarray]:
        """A constant's name and its array over the frame's rows; the same array each time it is asked for."""
        name = self.constant_names.get(id(value), "constant")
        key = (id(value), frame)
        if key not in self._arrays:
            self._kept.append(value)
            self._arrays[key] = constant_array(value, frame)
        return name, self._arrays[key]

    def read(self, view: View, frame: Frame) -> Read:
        """``view`` as an operand of an operator with ``frame``."""
        return operand_of(self.tensors[view.tensor], view, frame)

    def is_whole(self, view: View, frame: Frame) -> bool:
        """Whether the view is the whole of its tensor, in exactly the frame's order."""
        tensor = self.tensors[view.tensor]
        sizes = (tensor.batch, tensor.tokens, tensor.groups * tensor.width)
        same = view.dims == frame.view(view.tensor).dims and view.origin == Origin()
        return same and sizes == (frame.batch, frame.tokens, frame.channels)

    def frame(self, *views: View) -> Frame:
        """The frame that views of the same shape have in common, as the first one lies."""
        shape = tuple(np.broadcast_shapes(*(view.shape for view in views)))
        return frame_of(refined(views, shape))

    def transposed(self, view: View) -> View:
        """The same value read from a copy of its tensor in which tokens and channels have changed places."""
        tensor = self.tensors[view.tensor]
        if tensor.name not in self._transposed:
            tokens, width = tensor.groups * tensor.width, tensor.tokens
            atoms = contiguous((tensor.batch,), BATCH) + contiguous((tokens,), TOKENS) + contiguous((width,), CHANNELS)
            frame = Frame(atoms, tensor.batch, tokens, width, width)
            operand = Operand(tensor.name, tokens, 1, width, access="transposed")
            name = self.unique(f"{tensor.name}.transposed")
            self.add_operator("vector", name, (operand,), frame, (Step("copy", (0,)),))
            self._transposed[tensor.name] = name
        swap = {TOKENS: CHANNELS, CHANNELS: TOKENS}
        dims = tuple(tuple(replace(a, axis=swap.get(a.axis, a.axis)) for a in dim) for dim in view.dims)
        return View(self._transposed[tensor.name], dims, Origin(view.origin.b, view.origin.c, view.origin.t))

    def either_way(self, view: View, emit: Callable[[View], View]) -> View:
        """``emit(view)``, or, where the value lies crosswise, emit of its transposed copy."""
        view = self.placed(view)
        before = self.mark()
        try:
            return emit(view)
        except LayoutError as first:
            self.reset(before)
            try:
                return emit(self.transposed(view))
            except LayoutError:
                self.reset(before)
                raise first from None

    def mark(self) -> Mark:
        """What `reset` takes back what is built from here on to."""
        return Mark(len(self.operators), tuple(copy(getattr(self, name)) for name in _UNDONE))

    def reset(self, mark: Mark) -> None:
        """Forget what was built since ``mark``."""
        del self.operators[mark.operators :]
        for name, kept in zip(_UNDONE, mark.tables, strict=True):
            setattr(self, name, copy(kept))


def _role(view: View, place: int) -> str:
    """The role of a dimension of a placed value: of several dimensions of channels, the last is the width."""
    axes = view.axes(place)
    if axes == {BATCH}:
        return "b"
    if axes == {CHANNELS}:
        later = [other for other in range(place + 1, len(view.dims)) if view.axes(other) == {CHANNELS}]
        return "g" if later else "w"
    return "t" if axes or place else "b"
