"""The layout arithmetic against torch: any chain of reshapes, transposes, slices and expansions reads the same numbers."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gblr_hw.frontend.graph import layout
from gblr_hw.frontend.graph.frame import frame_of, operand_of, refined
from gblr_hw.frontend.graph.layout import FLAT, REPEAT, Atom, LayoutError, Origin, View
from gblr_hw.frontend.graph.placement import place, resolve, whole_input
from simulator.network.network import Tensor


def places(view: View, strides: dict[str, int]) -> np.ndarray:
    """The address of each element of a view, as axis x stride summed."""
    start = sum(getattr(view.origin, axis) * stride for axis, stride in strides.items())
    address = np.full(view.shape, start)
    for position, dim in enumerate(view.dims):
        index = np.zeros(1, dtype=int)
        for atom in dim:
            step = atom.stride * strides.get(atom.axis, 0)
            index = (index[:, None] + step * np.arange(atom.size)).reshape(-1)
        shape = [1] * len(view.dims)
        shape[position] = -1
        address = address + index.reshape(shape)
    return address


def moved(data: st.DataObject, view: View, array: torch.Tensor) -> tuple[View, torch.Tensor]:
    """One random operation on both."""
    rank = array.dim()
    kind = data.draw(st.sampled_from(["take", "permute", "reshape", "insert", "drop", "expand"]))
    dim = data.draw(st.integers(0, rank - 1)) if rank else 0
    if kind == "permute":
        order = data.draw(st.permutations(range(rank)))
        return layout.permute(view, order), array.permute(order)
    if kind == "reshape":
        shape = data.draw(st.permutations(factors(data, array.numel())))
        return layout.reshape(view, shape), array.reshape(shape)
    if kind == "take" and rank:
        size = array.shape[dim]
        start, step = data.draw(st.integers(0, size - 1)), data.draw(st.integers(1, 2))
        count = data.draw(st.integers(1, (size - 1 - start) // step + 1))
        return layout.take(view, dim, start, count, step), array.narrow(dim, start, (count - 1) * step + 1)[
            (slice(None),) * dim + (slice(None, None, step),)
        ]
    if kind == "drop" and rank and array.shape[dim] == 1:
        return layout.drop(view, dim), array.squeeze(dim)
    if kind == "expand" and rank and array.shape[dim] == 1:
        shape = [*array.shape[:dim], 3, *array.shape[dim + 1 :]]
        return layout.expand(view, shape), array.expand(shape)
    position = data.draw(st.integers(0, rank))
    return layout.insert(view, position), array.unsqueeze(position)


def factors(data: st.DataObject, number: int) -> list[int]:
    found, left = [], number
    for prime in (2, 3, 5, 7):
        while left % prime == 0:
            found.append(prime)
            left //= prime
    while len(found) > 1 and data.draw(st.booleans()):
        found.append(found.pop() * found.pop())
    return [*found, left] if left > 1 or not found else found


@given(st.lists(st.integers(1, 6), min_size=1, max_size=4), st.data())
def test_views_read_what_torch_reads(shape: list[int], data: st.DataObject) -> None:
    view, array = whole_input("x", shape), torch.arange(prod(shape)).reshape(shape)
    for _ in range(6):
        try:
            view, array = moved(data, view, array)
        except LayoutError:
            continue
        assert view.shape == tuple(array.shape)
        assert np.array_equal(places(view, {FLAT: 1}), array.numpy())


@settings(max_examples=300)
@given(st.lists(st.sampled_from([4, 3, 2, 5, 1]), min_size=2, max_size=4), st.data())
def test_placed_inputs_keep_their_numbers(shape: list[int], data: st.DataObject) -> None:
    """The port's reshape and transpose, then the placed view, read what torch reads in the input."""
    whole = whole_input("x", shape)
    roles = [data.draw(st.sampled_from("btgwr")) for _ in shape]
    placement = place(whole, roles, shape, data.draw(st.integers(-1, 1)))
    batch, tokens, groups, width = placement.sizes
    assert prod(placement.sizes) == prod(shape)
    array = np.arange(prod(shape)).reshape(placement.split).transpose(placement.order)
    stored = array.reshape(batch, tokens, groups * width)
    view, wanted = whole, torch.arange(prod(shape)).reshape(shape)
    for _ in range(4):
        try:
            after = moved(data, view, wanted)
            placed = resolve(after[0], placement)
        except LayoutError:
            continue
        view, wanted = after
        at = places(placed, {"b": tokens * groups * width, "t": groups * width, "c": 1})
        assert np.array_equal(stored.reshape(-1)[at], wanted.numpy())
    assert resolve(resolve(whole, placement), placement) == resolve(whole, placement)


def read(tensor: Tensor, stored: np.ndarray, view: View, frame_view: View, width: int) -> np.ndarray:
    """The operand as an operator sees it, broadcast to its rows and put back into the framework's dimensions."""
    frame = frame_of(refined([frame_view, view], frame_view.shape)).with_width(width)
    found = operand_of(tensor, view, frame)
    operand = found.operand
    region = stored[:, operand.token0 : operand.token0 + operand.tokens]
    region = region[:, :, operand.channel0 : operand.channel0 + operand.groups * operand.width]
    region = region.reshape(tensor.batch, operand.tokens, operand.groups, operand.width)
    region = region[..., list(found.picks)] if found.picks else region
    full = np.broadcast_to(region, (frame.batch, frame.tokens, frame.groups, frame.width)).reshape(-1)
    strides = {"b": frame.tokens * frame.channels, "t": frame.channels, "c": 1}
    return full[places(frame.view("out"), strides)]


@given(st.data())
def test_operands_read_what_the_view_does(data: st.DataObject) -> None:
    """Heads, slices within heads, permuted channels and broadcasts, through token0, channel0, groups and picks."""
    batch, tokens, heads, width = (data.draw(st.integers(1, 4)) for _ in range(4))
    tensor = Tensor("x", batch, tokens, 1, heads * width)
    stored = np.arange(batch * tokens * heads * width).reshape(batch, tokens, heads * width)
    shape = (batch, tokens, heads, width)
    view = View(
        "x", tuple((Atom(n, a, s),) if n > 1 else () for n, a, s in zip(shape, "btcc", (1, 1, width, 1), strict=True))
    )
    array = torch.from_numpy(stored).reshape(shape)
    for dim in (1, 3):
        start = data.draw(st.integers(0, shape[dim] - 1))
        count = data.draw(st.integers(1, shape[dim] - start))
        view, array = layout.take(view, dim, start, count), array.narrow(dim, start, count)
    order = data.draw(st.permutations(range(4)))
    view, array = layout.permute(view, order), array.permute(order)
    try:
        found = read(tensor, stored, view, view, array.shape[order.index(3)])
    except LayoutError:
        pytest.fail("a slice of heads is an operand")
    assert np.array_equal(found, array.numpy())


@pytest.mark.parametrize(
    ("shape", "wanted", "message"),
    [
        ((4, 6), (4, 6), r"shape \(6, 4\) as \(4, 6\) mixes axes"),
        ((2, 3), (6, 2), r"shape \(3, 2\) does not fit \(6, 2\)"),
    ],
)
def test_reshapes_that_mix_axes_are_refused(shape: Sequence[int], wanted: Sequence[int], message: str) -> None:
    view = layout.permute(whole_input("x", shape), (1, 0))
    with pytest.raises(LayoutError, match=message):
        layout.reshape(view, wanted)


def test_repeated_atoms_have_no_place() -> None:
    view = layout.expand(View("x", ((), (Atom(3, "c", 1),)), Origin(c=2)), (4, 3))
    assert view.dims[0] == (Atom(4, REPEAT),)
    assert layout.take(view, 0, 2, 1).origin == Origin(c=2)
