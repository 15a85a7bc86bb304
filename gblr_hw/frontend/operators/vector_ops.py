"""Vector operators: elementwise functions, and functions of a row's groups or width."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from dataclasses import replace
from math import prod

import numpy as np
import torch

from gblr_hw.frontend.graph.builder import Builder, Value
from gblr_hw.frontend.graph.frame import Frame, Read, as_float, frame_of, refined
from gblr_hw.frontend.graph.layout import BATCH, CHANNELS, REPEAT, TOKENS, Atom, LayoutError, View, drop, expand
from gblr_hw.frontend.operators.relays import natural, or_relaid, packed
from simulator.network.network import Operand, Window
from simulator.network.vector_functions import Reach, VectorFunction, function_named
from simulator.network.vector_steps import Step


def _entry(function: str, reach: Reach) -> VectorFunction:
    """The function's entry. TypeError where its reach is another: it would get rows that are laid out for others."""
    entry = function_named(function)
    if entry.reach is not reach:
        raise TypeError(f"vector function '{function}' has the reach '{entry.reach.value}', not '{reach.value}'")
    return entry


def pointwise(builder: Builder, function: str, *values: Value, numbers: Sequence[float] = ()) -> View:
    """``function`` of values of shapes that broadcast, at most one of them a constant, which the step takes last."""
    _entry(function, Reach.ELEMENT)
    constant = next((value for value in values if isinstance(value, torch.Tensor)), None)
    views = [value for value in values if isinstance(value, View)]
    shape = tuple(np.broadcast_shapes(*(tuple(value.shape) for value in values)))

    def pointwise_of(*given: View) -> View:
        return _pointwise(builder, function, list(given), constant, shape, numbers)

    try:
        return or_relaid(builder, pointwise_of, views, _together(builder, views, len(shape)))
    except LayoutError:
        if not builder.relays or all(view.shape == shape for view in views):
            raise
        # Each varies where the other is repeated, along axes that no layout tells apart: copies in full.
        grown = [expand(view, shape) for view in views]
        return or_relaid(builder, pointwise_of, grown, [[natural(len(shape))] * len(grown)])


def _together(builder: Builder, views: Sequence[View], rank: int) -> Iterator[list[str | None]]:
    """Layouts in which values meet: as the largest lies, then all as most operations read them."""
    lead = max(range(len(views)), key=lambda index: views[index].size)
    model = builder.placed(views[lead])
    if all(len(model.axes(dim)) <= 1 for dim in range(len(model.dims))) and len(model.dims) == rank:
        axes = ["".join(model.axes(dim)) for dim in range(rank)]
        roles = "".join({BATCH: "b", TOKENS: "t", CHANNELS: "w", "": "w" if dim == rank - 1 else "t"}[axis]
                        for dim, axis in enumerate(axes))  # fmt: skip
        yield [None if index == lead else roles[rank - len(view.dims) :] for index, view in enumerate(views)]
        yield [roles[rank - len(view.dims) :] for view in views]
    yield [natural(rank)[rank - len(view.dims) :] for view in views]
    if rank > 2:
        yield [f"bw{'t' * (rank - 2)}"[rank - len(view.dims) :] for view in views]


def _pointwise(
    builder: Builder,
    function: str,
    views: list[View],
    constant: torch.Tensor | None,
    shape: Sequence[int],
    numbers: Sequence[float],
) -> View:
    model = next((view for view in views if not builder.is_unplaced(view)), views[0])
    views = [builder.place_like(view, model) for view in views]
    lead = min(range(len(views)), key=lambda index: _unfitness(views[index], shape))
    ordered = [views[lead], *(view for index, view in enumerate(views) if index != lead)]
    for index, view in enumerate(ordered[1:], start=1):
        if _crosswise(ordered[0], view, shape):
            ordered[index] = builder.transposed(view)
    others = iter(ordered[1:])
    views = [ordered[0] if index == lead else next(others) for index in range(len(views))]
    frame = frame_of(refined(ordered, shape), _varies(constant, shape))
    return emit(builder, function, views, frame, constant, numbers)


def _varies(constant: torch.Tensor | None, shape: Sequence[int]) -> list[bool]:
    if constant is None:
        return [False] * len(shape)
    sizes = [1] * (len(shape) - constant.dim()) + list(constant.shape)
    return [size > 1 for size in sizes]


def _unfitness(view: View, shape: Sequence[int]) -> tuple[int, bool]:
    grown = expand(view, shape)
    repeated = prod(atom.size for dim in grown.dims for atom in dim if atom.axis == REPEAT)
    return repeated, bool(grown.dims) and grown.axes(len(grown.dims) - 1) == {TOKENS}


def _crosswise(first: View, second: View, shape: Sequence[int]) -> bool:
    """Whether tokens of one meet channels of the other."""
    pairs = zip(*refined([first, second], shape), strict=True)
    axes = {(a.axis, b.axis) for one, two in pairs for a, b in zip(one, two, strict=True)}
    return bool(axes & {(TOKENS, CHANNELS), (CHANNELS, TOKENS)})


def emit(
    builder: Builder,
    function: str,
    views: Sequence[View],
    frame: Frame,
    constant: torch.Tensor | None = None,
    numbers: Sequence[float] = (),
    name: str = "",
) -> View:
    """One vector operator with the step ``function`` over the frame, its channels grouped as its operands need."""
    frame, reads = _grouped(builder, views, frame, constant)
    operands: list[Operand] = []
    places = [_place_of(operands, read.operand) for read in reads]
    steps: list[Step] = []
    args = []
    for place, read in zip(places, reads, strict=True):
        if read.picks:
            steps.append(Step("permute", (place,), numbers=tuple(float(pick) for pick in read.picks)))
            place = len(operands) + len(steps) - 1
        args.append(place)
    label, constants = None, {}
    if constant is not None:
        label, array = builder.constant(constant, frame)
        constants[label] = array
    steps.append(Step(function, tuple(args), label, tuple(float(number) for number in numbers)))
    padded = any(_keeps_padding(builder, read, frame) for read in reads)
    return builder.add_operator(
        "vector", name or builder.name_here(), operands, frame, steps, constants, padded=padded
    )  # fmt: skip


def _place_of(operands: list[Operand], operand: Operand) -> int:
    if operand not in operands:
        operands.append(operand)
    return operands.index(operand)


def _keeps_padding(builder: Builder, read: Read, frame: Frame) -> bool:
    tensor = builder.tensors[read.operand.tensor]
    return tensor.padded and (tensor.groups, tensor.width) == (frame.groups, frame.width)


def _grouped(
    builder: Builder, views: Sequence[View], frame: Frame, constant: torch.Tensor | None
) -> tuple[Frame, list[Read]]:
    """The frame with the grouping that costs the operands least to read, and the operands."""
    widths = [builder.tensors[view.tensor].width for view in views] + [frame.channels]
    widths += sorted(a.size * a.stride for dim in frame.atoms for a in dim if a.axis == CHANNELS)
    best: tuple[tuple[int, int], Frame, list[Read]] | None = None
    failure: LayoutError | None = None
    for width in dict.fromkeys(width for width in widths if frame.channels % width == 0):
        try:
            grouped = frame.with_width(width)
            reads = [builder.read(view, grouped) for view in views]
            size = 0 if constant is None else builder.constant(constant, grouped)[1].size
        except LayoutError as error:
            failure = failure or error
            continue
        cost = (sum(len(read.picks) for read in reads), size)
        if best is None or cost < best[0]:
            best = (cost, grouped, reads)
    if best is None:
        raise failure or LayoutError("no grouping of the channels fits")
    return best[1], best[2]


def copied(builder: Builder, view: View, name: str = "", frame: Frame | None = None) -> View:
    """The value in a tensor of its own, rows and channels packed as they lie, or as ``frame`` says."""
    view = builder.placed(view)
    return emit(builder, "copy", [view], frame or builder.frame(view), name=name or builder.name_here("copy"))


def rowwise(builder: Builder, function: str, view: View, dims: Sequence[int], numbers: Sequence[float] = ()) -> View:
    """``function`` over the dimensions ``dims`` of each row, which keep their size (softmax, norms)."""
    if not _entry(function, Reach.WIDTH).keeps_width:
        raise TypeError(f"vector function '{function}' does not keep the width of what it reads")
    inner = {dim % len(view.dims) for dim in dims}
    view = builder.place(view, "".join("w" if dim in inner else "r" for dim in range(len(view.dims))))
    return or_relaid(
        builder, lambda one: builder.either_way(one, lambda value: _rowwise(builder, function, value, dims, numbers)),
        [view], [[_rows_and(inner, len(view.dims))]],
    )  # fmt: skip


def _rows_and(inner: Container[int], rank: int) -> str:
    """Roles in which the dimensions ``inner`` are a row's channels."""
    return "".join("w" if dim in inner else "t" if dim or rank < 3 else "b" for dim in range(rank))


def _rowwise(builder: Builder, function: str, view: View, dims: Sequence[int], numbers: Sequence[float]) -> View:
    frame = _rows_of(builder, view, dims)
    read = builder.read(view, frame)
    steps, place = _picked(read)
    steps.append(Step(function, (place,), numbers=tuple(float(number) for number in numbers)))
    padded = _keeps_padding(builder, read, frame)
    return builder.add_operator("vector", builder.name_here(), (read.operand,), frame, steps, padded=padded)


def _picked(read: Read) -> tuple[list[Step], int]:
    if not read.picks:
        return [], 0
    return [Step("permute", (0,), numbers=tuple(float(pick) for pick in read.picks))], 1


def _rows_of(builder: Builder, view: View, dims: Sequence[int]) -> Frame:
    """The frame in which ``dims`` together are the width."""
    inner = {dim % len(view.dims) for dim in dims}
    if any(view.axes(dim) - {CHANNELS} for dim in inner):
        raise LayoutError("a function of a row reads along its tokens")
    if any(atom.axis == REPEAT for dim in inner for atom in view.dims[dim]):
        raise LayoutError("a function of a row reads repeated channels")
    frame = frame_of(refined([view], view.shape), inner=inner)
    return frame.with_width(prod(view.shape[dim] for dim in inner))


def widthwise(
    builder: Builder, function: str, values: Sequence[Value], dim: int, width: int, numbers: Sequence[float] = ()
) -> View:
    """``function`` of the rows along ``dim``, which gets ``width`` elements, of one or two values whose other
    dimensions agree; at most the second is a constant.
    """
    views = [value for value in values if isinstance(value, View)]
    constant = next((value for value in values if isinstance(value, torch.Tensor)), None)
    rank = len(views[0].dims)
    dim %= rank
    roles = _rows_and({dim}, rank)

    def emit(*given: View) -> View:
        return _widthwise(builder, function, given, constant, dim, width, numbers)

    placed = [builder.place(view, roles.replace("b", "r").replace("t", "r")) for view in views]
    return or_relaid(builder, emit, placed, [[roles] * len(views)])


def _widthwise(
    builder: Builder,
    function: str,
    views: Sequence[View],
    constant: torch.Tensor | None,
    dim: int,
    width: int,
    numbers: Sequence[float],
) -> View:
    frames = [_rows_of(builder, view, [dim]) for view in views]
    outs = [_with_width(frame, dim, width) for frame in frames]
    if any(out != outs[0] for out in outs):
        raise LayoutError("rows of two values lie in different ways")
    operands: list[Operand] = []
    steps: list[Step] = []
    args = []
    reads = [builder.read(view, frame) for view, frame in zip(views, frames, strict=True)]
    places = [_place_of(operands, read.operand) for read in reads]
    for place, read in zip(places, reads, strict=True):
        if read.picks:
            steps.append(Step("permute", (place,), numbers=tuple(float(pick) for pick in read.picks)))
            place = len(operands) + len(steps) - 1
        args.append(place)
    label, constants = None, {}
    if constant is not None:
        label, array = builder.constant(constant, _with_width(frames[0], dim, constant.shape[dim]))
        constants[label] = array
    steps.append(Step(function, tuple(args), label, tuple(float(number) for number in numbers)))
    return builder.add_operator("vector", builder.name_here(), operands, outs[0], steps, constants)


def _with_width(frame: Frame, dim: int, width: int) -> Frame:
    """The same rows with ``width`` channels in each group, which ``dim`` walks along."""
    atoms = tuple(
        ((Atom(width, CHANNELS, 1),) if width > 1 else ()) if place == dim else tuple(
            replace(a, stride=a.stride // frame.width * width) if a.axis == CHANNELS else a for a in row
        )
        for place, row in enumerate(frame.atoms)
    )  # fmt: skip
    return Frame(atoms, frame.batch, frame.tokens, frame.groups * width, width)


def lifted(builder: Builder, value: torch.Tensor, roles: str) -> View:
    """A constant as a tensor that lies in DRAM, its dimensions along sequences, tokens and channels ("b", "t", "w")."""
    order = [dim for role in "btw" for dim in range(value.dim()) if roles[dim] == role]
    sizes = {role: prod(size for size, one in zip(value.shape, roles, strict=True) if one == role) for role in "btw"}
    name = builder.constant_names.get(id(value), builder.site.operation or "constant")

    def emit() -> View:
        array = as_float(value.detach().permute(order)).reshape(sizes["b"], sizes["t"], 1, sizes["w"])
        return packed(builder.add_constant(name, array), value.shape, roles)

    builder.name_constant(value, name)
    return builder.once(("lifted", id(value), roles), emit)


def reduced(builder: Builder, function: str, view: View, dims: Sequence[int], *, keep: bool) -> View:
    """``function`` ("mean", "sum" or "max") over dimensions, which become 1 or, without ``keep``, go."""
    view = builder.placed(view)
    inner = sorted({dim % len(view.dims) for dim in dims})
    view = or_relaid(
        builder, lambda value: _reduced(builder, function, value, inner), [view], [[_rows_and(inner, len(view.dims))]]
    )
    for dim in reversed(inner) if not keep else ():
        view = drop(view, dim)
    return view


def _reduced(builder: Builder, function: str, view: View, inner: Sequence[int]) -> View:
    for axis, reduce in ((TOKENS, _reduce_tokens), (CHANNELS, _reduce_channels)):
        chosen = [dim for dim in inner if view.axes(dim) == {axis}]
        if chosen:
            view = reduce(builder, function, view, chosen)
    if any(view.shape[dim] > 1 for dim in inner):
        raise LayoutError("a reduction mixes tokens and channels, or goes over sequences")
    return view


def reduction(function: str, over: Reach) -> str:
    """The vector function that makes the ``function`` ("mean", "sum", "max") of a row's width or groups."""
    return _entry(f"{function}_{over.value}", over).name


def _reduce_channels(builder: Builder, function: str, view: View, dims: Sequence[int]) -> View:
    """Over the width of a row's groups, or over its groups."""
    frame = _rows_of(builder, view, dims)
    try:
        read = builder.read(view, frame)
        over = Reach.WIDTH
    except LayoutError:
        frame = builder.frame(view)
        frame = frame.with_width(frame.channels // prod(view.shape[dim] for dim in dims))
        if any(a.stride < frame.width for dim in dims for a in frame.atoms[dim]):
            raise
        read = builder.read(view, frame)
        over = Reach.GROUPS
    steps, place = _picked(read)
    steps.append(Step(reduction(function, over), (place,)))
    left, divisor = (frame.groups, frame.width) if over is Reach.WIDTH else (frame.width, 1)
    atoms = tuple(
        () if index in dims else tuple(
            replace(a, stride=a.stride // divisor) if a.axis == CHANNELS else a for a in dim
        )
        for index, dim in enumerate(frame.atoms)
    )  # fmt: skip
    out = Frame(atoms, frame.batch, frame.tokens, left, 1 if over is Reach.WIDTH else left)
    return builder.add_operator("vector", builder.name_here(), (read.operand,), out, steps)


def _reduce_tokens(builder: Builder, function: str, view: View, dims: Sequence[int]) -> View:
    count = prod(view.shape[dim] for dim in dims)
    frame = builder.frame(view)
    if frame.tokens != count:
        raise LayoutError("a reduction goes over a part of the tokens' axes")
    if not builder.is_whole(view, frame):
        view = copied(builder, view)
    tensor = builder.tensors[view.tensor]
    window = Window((count, 1), (count, 1), (1, 1), (0, 0))
    channels = tensor.groups * tensor.width
    operand = Operand(tensor.name, 1, count, channels, access="window", window=window)
    atoms = tuple(() if index in dims else dim for index, dim in enumerate(builder.frame(view).atoms))
    out = Frame(atoms, frame.batch, 1, channels, channels)
    steps = (Step(reduction(function, Reach.GROUPS), (0,)),)
    return builder.add_operator("vector", builder.name_here(), (operand,), out, steps)
