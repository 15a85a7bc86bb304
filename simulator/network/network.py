"""The operator graph of a whole network: tensors, how operators read them, and what each computes. Declared once,
immutable, checked when it is made; framework-free.

Every tensor is stored as rows of channels. A row is a token of one sequence (or a position of one image), a channel
belongs to a group (a head; one group for most). So a value has four axes everywhere: batch, tokens, groups, width.
Reshapes and transposes of a framework that only name these axes otherwise cost nothing and do not appear here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np

from simulator.base.arithmetic import ceil_div
from simulator.base.errors import refuse_program
from simulator.network.vector_steps import Step, passes_of

Access = Literal["rows", "window", "image", "transposed", "gather", "strided", "weights"]
TensorKind = Literal["input", "constant", "result"]
OperatorKind = Literal["linear", "scores", "mix", "vector"]

ACCESSES: tuple[Access, ...] = ("rows", "window", "image", "transposed", "gather", "strided", "weights")
OPERATOR_KINDS: tuple[OperatorKind, ...] = ("linear", "scores", "mix", "vector")


@dataclass(frozen=True)
class Tensor:
    """A value: (batch, tokens, groups, width). Row b * tokens + t; channel g * pitch + w, where pitch is ``width``, or
    the next multiple of the array's side if ``padded`` (each group then begins at a chunk's edge).

    kind: "input" comes from the host, "constant" lies in DRAM from the start (tables, a class token), "result" is
    written by one operator. ``within``: (parent, token0, channel0) if the value lies inside a larger tensor
    (concatenation): its parts are stored in their places, so that concatenating costs nothing. ``step``: int8
    activation step from calibration, 0 before that.
    """

    name: str
    batch: int
    tokens: int
    groups: int
    width: int
    kind: TensorKind = "result"
    padded: bool = False
    within: tuple[str, int, int] | None = None
    step: float = 0.0

    @property
    def rows(self) -> int:
        return self.batch * self.tokens

    def channels(self, side: int) -> int:
        """Stored channels of a row on an array of ``side`` rows and columns, without padding of the last chunk."""
        return self.groups * self.pitch(side)

    def pitch(self, side: int) -> int:
        """Channels from one group's first to the next one's."""
        return ceil_div(self.width, side) * side if self.padded else self.width


@dataclass(frozen=True)
class Window:
    """Reading an image by im2col: row (oh, ow), group (k1, k2), width the image's channels. Outside it is ``fill``.

    ``after``: padding below and on the right, where it is not that above and on the left.
    """

    image: tuple[int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int] = (1, 1)
    fill: float = 0.0
    after: tuple[int, int] | None = None

    @property
    def output(self) -> tuple[int, int]:
        """Height and width of the output positions."""
        reach = [d * (k - 1) + 1 for d, k in zip(self.dilation, self.kernel, strict=True)]
        sides = [
            (size + pad + behind - span) // stride + 1
            for size, pad, behind, span, stride in zip(
                self.image, self.padding, self.after or self.padding, reach, self.stride, strict=True
            )
        ]
        return sides[0], sides[1]


@dataclass(frozen=True)
class Digit:
    """``size`` places, each so many sequences, tokens and channels behind the one before; none: repeated."""

    size: int
    batch: int = 0
    token: int = 0
    channel: int = 0


@dataclass(frozen=True)
class Strides:
    """Reading a tensor into other axes: the view's rows, and its channels, count in digits, the most significant first,
    and each digit moves the place that is read. ``batch0``: the sequence of the first element.
    """

    rows: tuple[Digit, ...]
    channels: tuple[Digit, ...]
    batch0: int = 0


@dataclass(frozen=True)
class Operand:
    """How an operator reads a tensor: (batch, tokens, groups, width) taken out of it.

    access "rows": tokens [token0, token0 + tokens) and channels [channel0, channel0 + groups x width), seen as that
    many groups of that width; with tokens = 1 (or groups = 1) the value is broadcast over the operator's. "window":
    im2col (groups = k1 k2). "image": the same view, taken from ``kept`` rows of the padded image that are held in the
    scratchpad; lowering chooses it. "transposed": token t, channel c of the view is token c, channel t of the tensor.
    "gather": row t of the view is row ``indices``[t] of the table. "strided": rows and channels of the view are taken
    as ``strides`` say, from token0, channel0 on. "weights": the stationary operand of scores and mix, whole. Only
    "rows" can be what another operator left in the scratchpad; the others read DRAM, after the whole tensor is there.
    """

    tensor: str
    tokens: int
    groups: int
    width: int
    token0: int = 0
    channel0: int = 0
    access: Access = "rows"
    window: Window | None = None
    indices: str | None = None
    strides: Strides | None = None
    kept: int = 0


@dataclass(frozen=True, eq=False)
class Operator:
    """One operation on rows; ``output`` is the tensor it writes, with ``batch`` x ``tokens`` rows.

    kind "linear": y = W x + b, over one operand seen as one row of groups x width inputs (a convolution reads a
    window). "scores": y[t, h, s] = sum_d x[t, h, d] k[s, h', d]; "mix": y[t, h, d] = sum_s x[t, h, s] v[s, h', d], with
    operand 1 the weights and h' = h * (their groups) // (operand 0's groups). "vector": ``steps`` over the operands,
    row by row. constants: arrays that steps name, each broadcastable to (batch, tokens, groups, width).
    source: where the model's code says so, for messages.
    """

    name: str
    kind: OperatorKind
    operands: tuple[Operand, ...]
    output: str
    batch: int
    tokens: int
    steps: tuple[Step, ...] = ()
    constants: Mapping[str, np.ndarray] = field(default_factory=dict)
    source: str = ""

    @property
    def rows(self) -> int:
        return self.batch * self.tokens

    @property
    def passes(self) -> int:
        """Passes of the vector unit over the row's elements (machine.md, V2); 0 for matrix operators."""
        return passes_of(self.steps)


@dataclass(frozen=True)
class Port:
    """An input or output of the model: a tensor and how a framework's array of ``shape`` becomes its four axes:
    ``array.reshape(split).transpose(order).reshape(batch, tokens, groups, width)``. For outputs, the inverse.
    ``dtype``: "float" or "index" (rows of a table).
    """

    name: str
    tensor: str
    shape: tuple[int, ...]
    split: tuple[int, ...]
    order: tuple[int, ...]
    dtype: Literal["float", "index"] = "float"


@dataclass(frozen=True, eq=False)
class Network:
    """Tensors by name, operators in an order in which they can run, and the model's inputs and outputs.

    values: the contents of "constant" tensors, (batch, tokens, groups, width) each. Raises InputError for an operator
    that reads what nobody has written, a view outside its tensor, or shapes that do not fit.
    """

    tensors: Mapping[str, Tensor]
    operators: tuple[Operator, ...]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    values: Mapping[str, np.ndarray]

    def __post_init__(self) -> None:
        known = {name for name, tensor in self.tensors.items() if tensor.kind != "result"}
        for name in known:
            if self.tensors[name].kind == "constant" and name not in self.values:
                refuse_program(f"tensor '{name}'", "no values", "a constant tensor has them")
        for operator in self.operators:
            for operand in operator.operands:
                self._check_operand(operator, operand, known)
            self._check_heads(operator)
            if operator.output not in self.tensors:
                refuse_program(f"operator '{operator.name}'", operator.output, "its output is one of the tensors")
            written = self.tensors[operator.output]
            if (written.batch, written.tokens) != (operator.batch, operator.tokens):
                refuse_program(f"operator '{operator.name}'", f"{operator.rows} rows", f"its output has {written.rows}")
            known.add(operator.output)

    def _check_operand(self, operator: Operator, operand: Operand, known: set[str]) -> None:
        where = f"operator '{operator.name}': operand '{operand.tensor}'"
        if operand.tensor not in self.tensors:
            refuse_program(where, "no such tensor", "operators read tensors of the network")
        missing = [part for part in self.parts(operand.tensor) if part not in known]
        if missing:
            refuse_program(where, f"'{missing[0]}' not yet written", "an operator reads what stands before it")
        tensor = self.tensors[operand.tensor]
        last_token, last_channel = operand.token0 + operand.tokens, operand.channel0 + operand.groups * operand.width
        if operand.access in ("rows", "weights") and (
            last_token > tensor.tokens or last_channel > tensor.groups * tensor.width
        ):
            refuse_program(
                where, f"tokens to {last_token}, channels to {last_channel}", "a view lies inside its tensor"
            )

    def _check_heads(self, operator: Operator) -> None:
        """Scores lie head by head from a chunk's edge, for what works on some heads at a time; a single head does so
        wherever it begins.
        """
        scores = {"scores": operator.output, "mix": operator.operands[0].tensor}.get(operator.kind)
        if operator.kind == "mix" and operator.operands[0].groups == 1:
            return
        if scores is not None and scores in self.tensors and not self.tensors[scores].padded:
            refuse_program(f"operator '{operator.name}': tensor '{scores}'", "not padded", "scores are a padded tensor")

    def parts(self, name: str) -> tuple[str, ...]:
        """The tensors that lie within ``name``, or the name itself if none do."""
        return self._parts.get(name, (name,))

    @cached_property
    def _parts(self) -> dict[str, tuple[str, ...]]:
        found: dict[str, list[str]] = {}
        for tensor in self.tensors.values():
            if tensor.within is not None:
                found.setdefault(tensor.within[0], []).append(tensor.name)
        return {parent: tuple(parts) for parent, parts in found.items()}

    def unread(self, name: str) -> bool:
        """Whether no operator reads what is in the tensor, nor in one that it lies in."""
        while (within := self.tensors[name].within) is not None:
            name = within[0]
        return name not in self._read_wholes

    @cached_property
    def _read_wholes(self) -> frozenset[str]:
        """What operators read, and what it lies in."""
        found = {*self.readers, *self.index_readers}
        for name in tuple(found):
            while (within := self.tensors[name].within) is not None:
                name = within[0]
                found.add(name)
        return frozenset(found)

    @cached_property
    def writer(self) -> Mapping[str, int]:
        """Index of the operator that writes each result."""
        return {operator.output: index for index, operator in enumerate(self.operators)}

    @cached_property
    def readers(self) -> Mapping[str, tuple[int, ...]]:
        """Indices of the operators that read each tensor by its name."""
        found: dict[str, list[int]] = {}
        for index, operator in enumerate(self.operators):
            for name in dict.fromkeys(operand.tensor for operand in operator.operands):
                found.setdefault(name, []).append(index)
        return {name: tuple(indices) for name, indices in found.items()}

    @cached_property
    def index_readers(self) -> Mapping[str, tuple[int, ...]]:
        """Indices of the operators that look up rows of a table by what each tensor holds."""
        found: dict[str, list[int]] = {}
        for index, operator in enumerate(self.operators):
            for name in {operand.indices for operand in operator.operands if operand.indices is not None}:
                found.setdefault(name, []).append(index)
        return {name: tuple(indices) for name, indices in found.items()}

    def __str__(self) -> str:
        return "\n".join(self._lines()) + "\n"

    def _lines(self) -> Iterator[str]:
        for tensor in self.tensors.values():
            place = "" if tensor.within is None else f" in {tensor.within[0]} at {tensor.within[1]}, {tensor.within[2]}"
            yield f"tensor {tensor.name} {tensor.kind} {_size(tensor)}{' padded' if tensor.padded else ''}{place}"
        for operator in self.operators:
            reads = "; ".join(_view(operand) for operand in operator.operands)
            yield f"{operator.kind} {operator.name} -> {operator.output}: {reads}"
            for step in operator.steps:
                yield f"  {step}"


def _size(item: Tensor) -> str:
    return f"{item.batch} x {item.tokens} x {item.groups} x {item.width}"


def _view(operand: Operand) -> str:
    place = f"@{operand.token0},{operand.channel0}" if operand.token0 or operand.channel0 else ""
    how = "" if operand.access == "rows" else f" {operand.access}"
    return f"{operand.tensor}{place}[{operand.tokens} x {operand.groups} x {operand.width}]{how}"
