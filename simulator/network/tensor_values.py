"""The values of a network's tensors: where parts lie within larger tensors, and how a model's arrays become rows."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike

from simulator.base.errors import NOT_OURS, InputError
from simulator.network.network import Network, Port, Tensor


def stored_tensors(network: Network, fill: float = np.nan) -> dict[str, np.ndarray]:
    """An array (batch, tokens, channels) for every tensor, float64 and full of ``fill``; parts are views of their
    parents, so that what is written to one is read from the other (a part of batch 1 is in every sequence of its
    parent). Raises InputError for a part that sticks out.
    """
    arrays: dict[str, np.ndarray] = {}

    def array_of(name: str) -> np.ndarray:
        if name not in arrays:
            tensor = network.tensors[name]
            channels = tensor.groups * tensor.width
            if tensor.within is None:
                arrays[name] = np.full((tensor.batch, tensor.tokens, channels), fill, dtype=np.float64)
            else:
                parent, token0, channel0 = tensor.within
                whole = array_of(parent)
                place = whole[:, token0 : token0 + tensor.tokens, channel0 : channel0 + channels]
                if place.shape[1:] != (tensor.tokens, channels) or tensor.batch not in (1, len(place)):
                    raise InputError(
                        f"tensor '{name}' within '{parent}'",
                        f"{tensor.batch} x {tensor.tokens} x {channels} at token {token0}, channel {channel0}",
                        f"a part lies inside its whole, which is {' x '.join(map(str, whole.shape))}",
                        NOT_OURS,
                    )
                arrays[name] = place
        return arrays[name]

    for name in network.tensors:
        array_of(name)
    return arrays


def root_of(network: Network, name: str) -> str:
    """The tensor that ``name`` lies in, itself if it lies in none."""
    within = network.tensors[name].within
    return name if within is None else root_of(network, within[0])


def port_to_tensor(port: Port, tensor: Tensor, array: ArrayLike) -> np.ndarray:
    """A model's input as its tensor's (batch, tokens, groups, width), float64. Raises InputError for another shape, and
    for NaN.
    """
    values = np.asarray(array)
    if values.shape != port.shape:
        raise InputError(
            f"input '{port.name}'",
            f"shape {values.shape}",
            f"the network was made for shape {port.shape}",
            "Give an array of this shape, or capture and lower the model for another one.",
        )
    values = values.astype(np.float64)
    if np.isnan(values).any():
        raise InputError(f"input '{port.name}'", "NaN", "inputs are numbers", "Look where they come from.")
    axes = values.reshape(port.split).transpose(port.order)
    return axes.reshape(tensor.batch, tensor.tokens, tensor.groups, tensor.width)


def tensor_to_port(port: Port, values: np.ndarray) -> np.ndarray:
    """The inverse: a tensor's values as the model's output of ``port.shape``."""
    axes = values.reshape([port.split[axis] for axis in port.order])
    return axes.transpose(np.argsort(port.order)).reshape(port.shape)


def input_values(network: Network, inputs: Mapping[str, ArrayLike]) -> dict[str, np.ndarray]:
    """Tensor name -> (batch, tokens, groups, width) of every input port. Raises InputError for missing or unknown
    names.
    """
    known = [port.name for port in network.inputs]
    for name in inputs:
        if name not in known:
            raise InputError(
                f"input '{name}'", "no such input", f"the network's inputs are {', '.join(known)}", "Check the name."
            )
    for name in known:
        if name not in inputs:
            raise InputError(
                f"input '{name}'", "nothing", f"the network's inputs are {', '.join(known)}", "Give all of them."
            )
    return {
        port.tensor: port_to_tensor(port, network.tensors[port.tensor], inputs[port.name]) for port in network.inputs
    }
