"""The model's outputs as ports: whole tensors, and how they become the framework's arrays."""

from __future__ import annotations

from typing import Any

import torch

from gblr_hw.frontend.graph.builder import Builder
from gblr_hw.frontend.graph.complex_value import Complex
from gblr_hw.frontend.graph.frame import frame_of, refined
from gblr_hw.frontend.graph.layout import LayoutError, View
from gblr_hw.frontend.operators.relays import natural, or_relaid
from gblr_hw.frontend.operators.vector_ops import copied
from simulator.base.errors import InputError
from simulator.network.network import Port


def output_port(builder: Builder, name: str, value: Any) -> list[Port]:
    """The port of one output; none, with a note, for what is not an array that depends on an input."""
    if isinstance(value, torch.Tensor):
        builder.note(f"Output '{name}' does not depend on an input and is left out.")
        return []
    if isinstance(value, Complex):
        raise InputError(
            f"output '{name}'", "complex values", "a network returns real ones", "Return torch.view_as_real of it."
        )
    if not isinstance(value, View):
        return []
    try:
        return [_port(builder, name, value)]
    except LayoutError as error:
        raise InputError(
            f"output '{name}'", f"shape {value.shape}", f"{error}: an output is a whole tensor of the graph",
            "Return the value that it is a part of, and take the part outside.",
        ) from error  # fmt: skip


def _port(builder: Builder, name: str, value: View) -> Port:
    view = or_relaid(
        builder, lambda one: _whole(builder, name, one), [builder.placed(value)], [[natural(len(value.dims))]]
    )
    atoms = [atom for dim in view.dims for atom in dim]
    order = sorted(range(len(atoms)), key=lambda place: ("btc".index(atoms[place].axis), -atoms[place].stride))
    return Port(name, view.tensor, view.shape, tuple(atom.size for atom in atoms), tuple(order))


def _whole(builder: Builder, name: str, view: View) -> View:
    """The value in a tensor that it fills."""
    frame = frame_of(refined([view], view.shape), [True] * len(view.dims))
    if not builder.is_whole(view, frame) or builder.tensors[view.tensor].kind != "result":
        view = copied(builder, view, builder.unique(f"{name}.copy"), frame)
    return view
