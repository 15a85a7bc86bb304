"""Copies into other axes: the answer, at a stated cost, where a value does not lie in a way that its reader can use.

Such a copy is a vector operator of one pass over a "strided" view: its loads move each run of elements in whole bursts
(machine.md, E1). It is made only where nothing cheaper does, and only in a graph that cannot be had without.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import prod

from gblr_hw.frontend.graph.builder import Builder
from gblr_hw.frontend.graph.frame import Frame
from gblr_hw.frontend.graph.layout import BATCH, CHANNELS, REPEAT, TOKENS, Atom, Dim, LayoutError, View, reshape
from simulator.network.network import Digit, Operand, Strides
from simulator.network.vector_steps import Step

_AXES = {"b": BATCH, "t": TOKENS, "w": CHANNELS}
# A copy that turns the whole of a tensor reads it once; not worth it for less than this share of its elements.
_TURNED_SHARE = 4


def natural(rank: int) -> str:
    """Roles of the dimensions of a value as most operations read it: sequences, rows, channels."""
    return "w" if rank == 1 else "tw" if rank == 2 else "b" + "t" * (rank - 2) + "w" if rank else ""


def relaid(builder: Builder, view: View, roles: str, flipped: Sequence[int] = ()) -> View:
    """A copy of ``view`` whose dimensions walk along sequences, tokens or channels ("b", "t", "w"), packed, in order;
    those of ``flipped`` are read backwards.
    """
    view = builder.placed(view)
    key = ("relaid", view, roles, tuple(flipped))
    return builder.once(key, lambda: _relaid(builder, view, roles, flipped))


def _relaid(builder: Builder, view: View, roles: str, flipped: Sequence[int]) -> View:
    view = _turned(builder, view, roles)
    frame = _frame(view.shape, roles)
    if not flipped:
        try:
            read = builder.read(view, frame)
        except LayoutError:
            pass
        else:
            steps = [Step("permute", (0,), numbers=tuple(map(float, read.picks)))] if read.picks else []
            steps.append(Step("copy", (len(steps),)))
            return builder.add_operator("vector", builder.name_here("copy"), (read.operand,), frame, steps)
    operand = _strided(view, roles, frame, flipped)
    return builder.add_operator("vector", builder.name_here("relayout"), (operand,), frame, (Step("copy", (0,)),))


def _turned(builder: Builder, view: View, roles: str) -> View:
    """``view``, seen in a transposed copy of its tensor if what is to be the channels lies along its tokens."""
    atoms = [atom for dim, role in zip(view.dims, roles, strict=True) if role == "w" for atom in dim]
    tensor = builder.tensors[view.tensor]
    whole = tensor.rows * tensor.groups * tensor.width
    if not atoms or atoms[-1].axis != TOKENS or view.size * _TURNED_SHARE < whole or tensor.padded:
        return view
    return builder.transposed(view)


def _frame(shape: Sequence[int], roles: str) -> Frame:
    sizes = {axis: 1 for axis in "btw"}
    atoms: list[Dim] = []
    for size, role in reversed(list(zip(shape, roles, strict=True))):
        atoms.append((Atom(size, _AXES[role], sizes[role]),) if size > 1 else ())
        sizes[role] *= size
    width = next((size for size, role in reversed(list(zip(shape, roles, strict=True))) if role == "w"), 1)
    return Frame(tuple(reversed(atoms)), sizes["b"], sizes["t"], sizes["w"], max(width, 1))


def packed(tensor: str, shape: Sequence[int], roles: str) -> View:
    """What fills a tensor whole, its dimensions packed in order."""
    return _frame(shape, roles).view(tensor)


def _strided(view: View, roles: str, frame: Frame, flipped: Sequence[int]) -> Operand:
    origin = {BATCH: view.origin.b, TOKENS: view.origin.t, CHANNELS: view.origin.c}
    digits: dict[str, list[Digit]] = {role: [] for role in "btw"}
    for dim, (atoms, role) in enumerate(zip(view.dims, roles, strict=True)):
        sign = -1 if dim in flipped else 1
        for atom in atoms:
            if sign < 0 and atom.axis != REPEAT:
                origin[atom.axis] += (atom.size - 1) * atom.stride
            digits[role].append(_digit(atom, sign))
    return Operand(
        view.tensor, frame.tokens, frame.groups, frame.width, origin[TOKENS], origin[CHANNELS], "strided",
        strides=Strides((*digits["b"], *digits["t"]), tuple(digits["w"]), origin[BATCH]),
    )  # fmt: skip


def _digit(atom: Atom, sign: int) -> Digit:
    strides = {axis: sign * atom.stride if atom.axis == axis else 0 for axis in (BATCH, TOKENS, CHANNELS)}
    return Digit(atom.size, strides[BATCH], strides[TOKENS], strides[CHANNELS])


def or_relaid(
    builder: Builder,
    emit: Callable[..., View],
    views: Sequence[View],
    layouts: Iterable[Sequence[str | None]],
) -> View:
    """``emit(*views)``; where they lie in a way that it cannot read, with copies in the first of ``layouts`` (roles for
    each view, None: as it is) that it can. Raises the first LayoutError if none helps.
    """
    before = builder.mark()
    try:
        return emit(*views)
    except LayoutError as first:
        if not builder.relays:
            raise
        for layout in layouts:
            builder.reset(before)
            try:
                return emit(
                    *(view if roles is None else relaid(builder, view, roles)
                      for view, roles in zip(views, layout, strict=True))
                )  # fmt: skip
            except LayoutError:
                continue
        builder.reset(before)
        raise first from None


def seen(builder: Builder, view: View, change: Callable[[View], View]) -> View:
    """``change(view)``, which only names axes otherwise; of a copy in which each dimension lies on one axis if it
    cannot be so of the view.
    """
    return or_relaid(builder, change, [view], [[natural(len(view.dims))], ["w" * len(view.dims)]])


def regrouped(builder: Builder, view: View, shape: Sequence[int]) -> View:
    """The same elements in another shape."""
    return or_relaid(
        builder, lambda value: reshape(value, shape), [view], [[_segments(view.shape, shape)], ["w" * len(view.dims)]]
    )


def _segments(old: Sequence[int], new: Sequence[int]) -> str:
    """Roles of the dimensions of ``old``: those that no dimension of ``new`` takes apart together, the outermost such
    run sequences, the innermost channels.
    """
    edges = {prod(new[place:]) for place in range(len(new) + 1)}
    cuts = [prod(old[place:]) in edges for place in range(len(old))]
    runs = [sum(cuts[: place + 1]) for place in range(len(old))]
    last = max(runs, default=0)
    return "".join("w" if run == last else "b" if run == runs[0] else "t" for run in runs)
