"""Matrix products with stored weights: linear layers over rows, convolutions over windows of an image."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

import torch

from gblr_hw.frontend.graph.builder import Builder, single
from gblr_hw.frontend.graph.frame import Frame
from gblr_hw.frontend.graph.layout import (
    BATCH,
    CHANNELS,
    REPEAT,
    TOKENS,
    Atom,
    Dim,
    LayoutError,
    View,
    contiguous,
    permute,
    reshape,
)
from gblr_hw.frontend.operators.relays import natural, or_relaid
from gblr_hw.frontend.operators.vector_ops import copied, reduction
from gblr_hw.weights.collect import matrix_of_kernel
from gblr_hw.weights.stored import DenseWeights, GroupedWeights, LayerWeights
from simulator.base.errors import InputError
from simulator.network.network import Operand, Window
from simulator.network.vector_functions import Reach
from simulator.network.vector_steps import Step

# A grouped convolution's matrix is mostly zeros that nothing stores, but lowering lays it out: a gigabyte at most.
MAX_GROUPED_ENTRIES = 2**28


def linear(builder: Builder, view: View, weights: LayerWeights, name: str) -> View:
    """``weights`` times the last dimension of ``view``, as an operator ``name``."""
    view = builder.place(view, "r" * (len(view.dims) - 1) + "w")
    return or_relaid(
        builder, lambda one: builder.either_way(one, lambda value: _linear(builder, value, weights, name)), [view],
        [[natural(len(view.dims))]],
    )  # fmt: skip


def _linear(builder: Builder, view: View, weights: LayerWeights, name: str) -> View:
    last = len(view.dims) - 1
    if view.axes(last) == {TOKENS, CHANNELS}:
        view, weights = _flattened(builder, view, weights)
    if view.axes(last) == {TOKENS}:
        raise LayoutError("the inputs of a linear layer lie along its tokens")
    if any(CHANNELS in view.axes(dim) for dim in range(last)):
        raise LayoutError("the rows of a linear layer lie along channels")
    if any(atom.axis == REPEAT for atom in view.dims[last]):
        raise LayoutError("the inputs of a linear layer are one value, repeated")
    # Weights have their columns in the framework's order, so the inputs are packed in that order.
    frame = builder.frame(view)
    frame = replace(frame, atoms=(*frame.atoms[:-1], packed_in_order(view.dims[last])))
    read = builder.read(view, frame)
    if read.picks:
        read = builder.read(copied(builder, view, frame=frame), frame)
    out = _with_last(frame, weights.out_features)
    return _emit(builder, read.operand, weights, name, out)


def packed_in_order(dim: Dim) -> Dim:
    """Channels packed in the framework's order, cut as ``dim`` is."""
    inner = [prod(atom.size for atom in dim[place + 1 :]) for place in range(len(dim))]
    return tuple(Atom(atom.size, CHANNELS, stride) for atom, stride in zip(dim, inner, strict=True))


def in_order(builder: Builder, view: View) -> View:
    """``view``, of a copy with its channels packed in the framework's order if heads are cut out of channels that are
    stored in another one (Monarch's outputs): one pass over rows, where heads of their own would be moved one element
    at a time.
    """
    if builder.is_unplaced(view) or not builder.relays:
        return view
    channels = [dim for dim in range(len(view.dims)) if CHANNELS in view.axes(dim)]
    strewn = any(len(view.dims[dim]) > 1 for dim in channels)
    alone = all(atom.axis == CHANNELS for dim in channels for atom in view.dims[dim])  # nothing that is repeated
    if not (strewn and alone and len(channels) > 1):
        return view
    rows = [dim for dim in range(len(view.dims)) if dim not in channels]
    order = [*rows, *channels]
    turned = permute(view, order)
    sizes = turned.shape
    whole = reshape(turned, [*sizes[: len(rows)], prod(sizes[len(rows) :])])
    frame = builder.frame(whole)
    frame = replace(frame, atoms=(*frame.atoms[:-1], packed_in_order(whole.dims[-1])))
    flat = copied(builder, whole, frame=frame)
    return permute(reshape(flat, sizes), [order.index(dim) for dim in range(len(order))])


def _with_last(frame: Frame, width: int) -> Frame:
    atoms = (*frame.atoms[:-1], (Atom(width, CHANNELS, 1),))
    return Frame(atoms, frame.batch, frame.tokens, width, width)


def _emit(builder: Builder, operand: Operand, weights: LayerWeights, name: str, out: Frame) -> View:
    name = builder.unique(name)
    builder.weights[name] = weights
    return builder.add_operator("linear", name, (operand,), out)


def _flattened(builder: Builder, view: View, weights: LayerWeights) -> tuple[View, LayerWeights]:
    """Tokens and channels of an image as one row, and dense weights with their columns in that row's order."""
    tensor = builder.tensors[view.tensor]
    channels = tensor.groups * tensor.width
    if tensor.tokens * channels != view.shape[-1] or len(view.dims) != 2 or TOKENS in view.axes(0):
        raise LayoutError("a part of an image is flattened, or images and other tokens meet")
    count = tensor.tokens
    window = Window((count, 1), (count, 1), (1, 1), (0, 0))
    operand = Operand(tensor.name, 1, count, channels, access="window", window=window)
    row = Frame((*contiguous((tensor.batch,), BATCH), *contiguous((count * channels,), CHANNELS)), tensor.batch, 1,
                count * channels, channels)  # fmt: skip
    flat = builder.add_operator("vector", builder.name_here("flatten"), (operand,), row, (Step("copy", (0,)),))
    places = torch.zeros(1, dtype=torch.long)
    for atom in view.dims[1]:
        stride = atom.stride * (channels if atom.axis == TOKENS else 1)
        places = (places[:, None] + stride * torch.arange(atom.size)).reshape(-1)
    if torch.equal(places, torch.arange(len(places))):
        return flat, weights
    if not isinstance(weights, DenseWeights):
        atoms = tuple(Atom(a.size, CHANNELS, a.stride * (channels if a.axis == TOKENS else 1)) for a in view.dims[1])
        return View(flat.tensor, (flat.dims[0], atoms)), weights
    matrix = torch.empty_like(weights.weight)
    matrix[:, places] = weights.weight
    return flat, DenseWeights(matrix, weights.bias)


def along(builder: Builder, view: View, dim: int, matrix: torch.Tensor) -> View:
    """A constant matrix (new, old) times one dimension of a value."""
    order = [*(place for place in range(len(view.dims)) if place != dim), dim]
    turned = permute(view, order)
    weights = DenseWeights(matrix.float().contiguous(), None)
    result = linear(builder, turned, weights, builder.name_here("matrix"))
    return permute(result, [order.index(place) for place in range(len(order))])


@dataclass(frozen=True)
class Convolution:
    """The sizes of a convolution over images (H, W)."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int] = (1, 1)
    after: tuple[int, int] | None = None

    def window(self, image: tuple[int, int], fill: float = 0.0) -> Window:
        """How it reads an image."""
        after = None if self.after == self.padding else self.after
        return Window(image, self.kernel, self.stride, self.padding, self.dilation, fill, after)

    @property
    def by_rows(self) -> bool:
        """Whether each output position reads the same input position alone."""
        alone = (self.kernel, self.stride, self.padding) == ((1, 1), (1, 1), (0, 0))
        return alone and self.after in (None, (0, 0))


def image_of(builder: Builder, view: View) -> tuple[View, tuple[int, int]]:
    """A value (B, C, H, W) whose image fills a tensor, row by row, and its height and width."""
    size = view.shape[2], view.shape[3]
    return or_relaid(builder, lambda value: _image_of(builder, value), [view], [["bwtt"]]), size


def _image_of(builder: Builder, view: View) -> View:
    height, width = view.shape[2:]
    view = builder.place(view, "bwtt")
    if view.axes(1) == {TOKENS} or CHANNELS in view.axes(2) | view.axes(3):
        view = builder.transposed(view)
    wanted = (
        *contiguous((view.shape[0],), BATCH), *contiguous((view.shape[1],), CHANNELS),
        *contiguous((height, width), TOKENS),
    )  # fmt: skip
    frame = Frame(wanted, view.shape[0], height * width, view.shape[1], view.shape[1])
    if not builder.is_whole(view, frame):
        read = builder.read(view, frame)
        place = 1 if read.picks else 0
        steps = [Step("permute", (0,), numbers=tuple(map(float, read.picks)))] if read.picks else []
        steps.append(Step("copy", (place,)))
        view = builder.add_operator("vector", builder.name_here("copy"), (read.operand,), frame, steps)
    return view


def image_frame(batch: int, channels: int, output: tuple[int, int]) -> Frame:
    """The frame of images (B, C, H, W) with positions as tokens."""
    atoms = (
        *contiguous((batch,), BATCH), *contiguous((channels,), CHANNELS), *contiguous(output, TOKENS)
    )  # fmt: skip
    return Frame(atoms, batch, prod(output), channels, channels)


def convolution(builder: Builder, view: View, weights: LayerWeights, sizes: Convolution, name: str) -> View:
    """A convolution of images (B, C, H, W) by ``weights`` over im2col rows in (k1, k2, channel) order."""
    view, image = image_of(builder, view)
    channels = view.shape[1]
    window = sizes.window(image)
    out = image_frame(view.shape[0], weights.out_features, window.output)
    tokens = prod(window.output)
    if sizes.by_rows:
        operand = Operand(view.tensor, tokens, 1, channels)
    else:
        operand = Operand(view.tensor, tokens, prod(sizes.kernel), channels, access="window", window=window)
    return _emit(builder, operand, weights, name, out)


def windows(builder: Builder, view: View, sizes: Convolution) -> View:
    """Of images (B, C, H, W) the rows that a convolution reads, (B, H', W', k1 k2 C), copied where windows overlap."""
    if sizes.by_rows:
        return permute(view, [0, 2, 3, 1])
    view, image = image_of(builder, view)
    channels, window = view.shape[1], sizes.window(image)
    out = replace(image_frame(view.shape[0], prod(sizes.kernel) * channels, window.output), width=channels)
    operand = Operand(view.tensor, prod(window.output), prod(sizes.kernel), channels, access="window", window=window)
    rows = builder.add_operator("vector", builder.name_here("windows"), (operand,), out, (Step("copy", (0,)),))
    return permute(rows, [0, 2, 3, 1])


def convolution_weights(
    builder: Builder, weight: torch.Tensor, kernel: torch.Tensor, bias: torch.Tensor | None, groups: int, name: str
) -> LayerWeights:
    """A convolution's weights: one matrix, or the blocks of its groups. ``kernel``: the parameter ``weight`` with both
    sides of an image.
    """
    if groups == 1:
        return builder.kernel(weight, bias, lambda: matrix_of_kernel(kernel))
    entries = kernel.numel() * groups
    if entries > MAX_GROUPED_ENTRIES:
        raise InputError(
            name, f"groups={groups}, as one matrix {entries} entries",
            f"a grouped convolution is laid out as one block-diagonal matrix of at most {MAX_GROUPED_ENTRIES} entries",
            "Replace it by an ordinary convolution, or give a plug-in lowering function.",
        )  # fmt: skip
    return GroupedWeights(single(kernel), groups, None if bias is None else single(bias))


def pooled(builder: Builder, function: str, view: View, sizes: Convolution) -> View:
    """Largest value, mean or sum ("max", "mean", "sum") over windows of images (B, C, H, W)."""
    view, image = image_of(builder, view)
    window = sizes.window(image, float("-inf") if function == "max" else 0.0)
    out = image_frame(view.shape[0], view.shape[1], window.output)
    operand = Operand(
        view.tensor, prod(window.output), prod(sizes.kernel), view.shape[1], access="window", window=window
    )
    return builder.add_operator(
        "vector", builder.name_here(), (operand,), out, (Step(reduction(function, Reach.GROUPS), (0,)),)
    )  # fmt: skip
