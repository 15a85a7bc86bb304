"""Products of two activations: scores (queries by keys) and mix (weights by values), for one or many heads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from gblr_hw.frontend.graph.builder import Builder
from gblr_hw.frontend.graph.frame import Frame, frame_of, refined
from gblr_hw.frontend.graph.layout import (
    BATCH,
    CHANNELS,
    REPEAT,
    TOKENS,
    Atom,
    Dim,
    LayoutError,
    View,
    expand,
    permute,
    size_of,
)
from gblr_hw.frontend.operators.matrix_ops import in_order
from gblr_hw.frontend.operators.relays import or_relaid
from gblr_hw.frontend.operators.vector_ops import copied
from simulator.network.network import Operand
from simulator.network.vector_steps import Step

Kind = Literal["scores", "mix"]


@dataclass(frozen=True)
class _Side:
    """One factor as its operator reads it: its heads broadcast and cut like the other's, then the dimension of its
    rows, then the one of its channels, in the strides of its own frame.
    """

    operand: Operand
    batch: int
    heads: tuple[Dim, ...]
    rows: Dim
    channels: Dim


def product(builder: Builder, left: View, right: View) -> View:
    """(..., M, K) times (..., K, N), both activations, leading dimensions broadcast; heads may share keys in groups."""
    if min(len(left.dims), len(right.dims)) < 2:
        raise LayoutError("a product of two activations has at least two dimensions each")
    left, right = (in_order(builder, one) for one in (left, right))
    sides = [_placed(builder, left), _placed(builder, right)]
    try:
        return or_relaid(builder, lambda *given: _product(builder, *given), sides, _layouts(builder, left, right))
    except LayoutError:
        shape = np.broadcast_shapes(left.shape[:-2], right.shape[:-2])
        if not builder.relays or left.shape[:-2] == right.shape[:-2]:
            raise
        # Copies for every sequence of what all of them read.
        grown = [expand(one, [*shape, *one.shape[-2:]]) for one in sides]
        return or_relaid(builder, lambda *given: _product(builder, *given), grown, _layouts(builder, *grown))


def _layouts(builder: Builder, left: View, right: View) -> Iterator[list[str | None]]:
    """Roles of two factors that meet: one as the other lies, then both with heads in channels, then each head a
    sequence of its own.
    """
    rank = max(len(left.dims), len(right.dims))
    if len(left.dims) == len(right.dims):
        for lead, which in ((left, 1), (right, 0)):
            seen = builder.placed(lead)
            if all(len(seen.axes(dim)) <= 1 for dim in range(rank - 2)):
                heads = "".join({TOKENS: "b", BATCH: "b", CHANNELS: "w", "": "b"}["".join(seen.axes(dim))]
                                for dim in range(rank - 2))  # fmt: skip
                yield [f"{heads}tw" if place == which else None for place in range(2)]
        if rank > 3:
            yield ["b" * (rank - 3) + "wtw"] * 2
    yield ["b" * (len(view.dims) - 2) + "tw" for view in (left, right)]


def _product(builder: Builder, left: View, right: View) -> View:
    flipped = _flip(right), _flip(left)
    for rows, stationary, crosswise in ((left, right, False), (*flipped, True)):
        kind = _kind(rows, stationary)
        if kind is not None:
            result = _emit(builder, kind, rows, stationary)
            return _flip(result) if crosswise else result
    raise LayoutError(
        "the factors of a product of activations lie neither as queries and keys nor as weights and values"
    )


def _placed(builder: Builder, view: View) -> View:
    rank = len(view.dims)
    return builder.place(view, "rw" if rank == 2 else "r" + "g" * (rank - 3) + "tw")


def _flip(view: View) -> View:
    return permute(view, [*range(len(view.dims) - 2), len(view.dims) - 1, len(view.dims) - 2])


def _kind(rows: View, stationary: View) -> Kind | None:
    if not (rows.axes(-2) <= {TOKENS} and rows.axes(-1) <= {CHANNELS}):
        return None
    if stationary.axes(-2) <= {CHANNELS} and stationary.axes(-1) <= {TOKENS}:
        return "scores"
    return "mix" if stationary.axes(-2) <= {TOKENS} and stationary.axes(-1) <= {CHANNELS} else None


def _emit(builder: Builder, kind: Kind, rows: View, stationary: View) -> View:
    if kind == "scores":
        stationary = _flip(stationary)
    else:
        rows = _head_by_head(builder, rows)
    shape = tuple(np.broadcast_shapes(rows.shape[:-2], stationary.shape[:-2]))
    first = _side(builder, rows, stationary, shape)
    second = _side(builder, stationary, rows, shape)
    summed = second.channels if kind == "scores" else second.rows
    if not np.array_equal(_places(first.channels), _places(summed)):
        raise LayoutError("the dimension that is summed lies in different orders in the two factors")
    _check_heads(first, second)
    kept = second.rows if kind == "scores" else second.channels
    width = size_of(kept)
    last = tuple(Atom(atom.size, CHANNELS, atom.stride) for atom in kept)
    heads = tuple(
        tuple(replace(a, stride=a.stride // first.operand.width * width) if a.axis == CHANNELS else a for a in dim)
        for dim in first.heads
    )
    groups = first.operand.groups
    frame = Frame((*heads, first.rows, last), first.batch, first.operand.tokens, groups * width, width)
    operands = (first.operand, replace(second.operand, access="weights"))
    return builder.add_operator(kind, builder.name_here(kind), operands, frame, padded=kind == "scores")


def _head_by_head(builder: Builder, rows: View) -> View:
    """Weights of several heads in a tensor in which each head begins at a chunk's edge, as scores are stored."""
    frame = _frame(rows)
    if builder.tensors[rows.tensor].padded or frame.groups == 1:
        return rows
    read = builder.read(rows, frame)
    steps = [Step("permute", (0,), numbers=tuple(map(float, read.picks)))] if read.picks else []
    steps.append(Step("copy", (len(steps),)))
    name = builder.name_here("copy")
    return builder.add_operator("vector", name, (read.operand,), frame, steps, padded=True)


def _side(builder: Builder, view: View, other: View, shape: Sequence[int]) -> _Side:
    """``view`` as one factor; its heads are packed by a copy if they lie apart."""
    frame = _frame(view)
    read = builder.read(view, frame)
    if read.picks:
        view = copied(builder, view, frame=frame)
        frame = _frame(view)
        read = builder.read(view, frame)
    seen = frame.view(view.tensor)
    mine, _ = refined([replace(seen, dims=seen.dims[:-2]), replace(other, dims=other.dims[:-2])], shape)
    return _Side(read.operand, frame.batch, mine, *frame.atoms[-2:])


def _frame(view: View) -> Frame:
    last = len(view.dims) - 1
    if any(TOKENS in view.axes(dim) for dim in range(last - 1)):
        raise LayoutError("the heads of a product lie along its tokens")
    if any(atom.axis == REPEAT for dim in view.dims[-2:] for atom in dim):
        raise LayoutError("a factor of a product of activations is repeated")
    return frame_of(refined([view], view.shape), inner={last}).with_width(view.shape[last])


def _places(atoms: Sequence[Atom]) -> np.ndarray:
    places = np.zeros(1, dtype=np.int64)
    for atom in atoms:
        places = (places[:, None] + atom.stride * np.arange(atom.size)).reshape(-1)
    return places


def _check_heads(first: _Side, second: _Side) -> None:
    """Raise unless head h of the rows meets head h * theirs // ours of the stationary side, sequence by sequence."""
    for axis in (BATCH, CHANNELS):
        atoms = [
            [a if a.axis == axis else Atom(a.size, REPEAT) for dim in side.heads for a in dim]
            for side in (first, second)
        ]
        if axis == BATCH and first.batch == second.batch and atoms[0] == atoms[1]:
            continue  # a million sequences are not compared one by one
        ours, theirs = map(_places, atoms)
        if axis == CHANNELS:
            ours, theirs = ours // first.operand.width, theirs // second.operand.width
            ours = ours * second.operand.groups // first.operand.groups
        elif first.batch != second.batch:
            raise LayoutError("the factors of a product have different numbers of sequences")
        if not np.array_equal(ours, theirs):
            raise LayoutError("heads of the two factors meet in another order than groups of queries share keys")
