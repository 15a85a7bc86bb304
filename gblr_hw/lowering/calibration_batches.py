"""Calibration batches as data loaders give them, as arrays for the inputs of a network, whose sizes are fixed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from gblr_hw.frontend.containers import tensors_in
from simulator.base.errors import InputError
from simulator.network.network import Port


def port_arrays(ports: Sequence[Port], inputs: Any, where: str = "inputs") -> dict[str, np.ndarray]:
    """A model's inputs as arrays by port name, in the order of the ports. Raises InputError if shapes differ."""
    values = [value for _, value in tensors_in(inputs)]
    if [tuple(value.shape) for value in values] != [port.shape for port in ports]:
        raise _other_shapes(ports, values, where)
    return _arrays(ports, values)


def calibration_arrays(ports: Sequence[Port], batches: Iterable[Any]) -> list[dict[str, np.ndarray]]:
    """Inputs by port name, from what a data loader gives.

    A batch is what the model is called with. Of a list, what stands behind its inputs (labels) is left out, and of a
    dict what is no input. A batch with more examples than the network is for is cut into pieces of that size; what is
    left over, or has fewer, is not used. Raises InputError for other shapes and where nothing is left.
    """
    found: list[dict[str, np.ndarray]] = []
    for number, batch in enumerate(batches):
        where = f"calibration batch {number}"
        values = _values(ports, batch, where)
        found += [_arrays(ports, piece) for piece in _pieces(ports, values, where)]
    if not found:
        raise InputError(
            "calibration",
            "no batch of the network's size",
            f"the model was exported with {[port.shape for port in ports]}",
            "Give batches of as many examples or more; a generator serves one run.",
        )
    return found


def _values(ports: Sequence[Port], batch: Any, where: str) -> list[Tensor]:
    if isinstance(batch, Mapping):
        named = {"_".join(path): value for path, value in tensors_in(batch)}
        missing = [port.name for port in ports if port.name not in named]
        if not missing:
            return [named[port.name] for port in ports]
    values = [value for _, value in tensors_in(batch)]
    if len(values) < len(ports) or (isinstance(batch, Mapping) and len(values) != len(ports)):
        raise _other_shapes(ports, values, where)
    return values[: len(ports)]


def _pieces(ports: Sequence[Port], values: Sequence[Tensor], where: str) -> Iterator[list[Tensor]]:
    """Values cut along their first axis into the ports' sizes."""
    shapes = [tuple(value.shape) for value in values]
    if shapes == [port.shape for port in ports]:
        yield list(values)
        return
    if any(not port.shape or shape[1:] != port.shape[1:] for shape, port in zip(shapes, ports, strict=True)):
        raise _other_shapes(ports, values, where)
    counts = {shape[0] // port.shape[0] for shape, port in zip(shapes, ports, strict=True)}
    if len(counts) > 1:
        raise _other_shapes(ports, values, where)
    for piece in range(counts.pop()):
        yield [
            value[piece * port.shape[0] : (piece + 1) * port.shape[0]]
            for value, port in zip(values, ports, strict=True)
        ]


def _arrays(ports: Sequence[Port], values: Sequence[Tensor]) -> dict[str, np.ndarray]:
    held = [value.detach().cpu() for value in values]
    return {
        port.name: value.numpy() if port.dtype == "index" else value.double().numpy()
        for port, value in zip(ports, held, strict=True)
    }


def _other_shapes(ports: Sequence[Port], values: Sequence[Tensor], where: str) -> InputError:
    return InputError(
        where,
        f"shapes {[tuple(value.shape) for value in values]}",
        f"the model was exported with {[port.shape for port in ports]}",
        "Give inputs like those.",
    )
