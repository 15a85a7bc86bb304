"""Activations of a network as the machine stores them: exact numbers in float mode, codes at each tensor's step in
int8.
"""

from __future__ import annotations

import numpy as np

from simulator.base.errors import InputError
from simulator.network.network import Network
from simulator.network.tensor_values import root_of
from simulator.network.vector_functions import function_named
from simulator.numbers.numerics import code_limit, quantise


class ActivationCodes:
    """Encodes and decodes tensors by name. ``bits``: width of a code, or None for float mode, where all steps are 1.

    Rows of tables that "gather" names are integers and never codes. Raises InputError in int8 mode for a tensor
    without a step, or with another one than the tensor that it lies in.
    """

    def __init__(self, network: Network, bits: int | None) -> None:
        self.bits = bits
        self._step = dict.fromkeys(network.tensors, 1.0)
        self._exact = index_tensors(network)
        if bits is not None:
            for name in network.tensors:
                if name not in self._exact:
                    self._step[name] = _calibrated_step(network, name)

    def step(self, name: str) -> float:
        """What a stored 1 stands for in tensor ``name``."""
        return self._step[name]

    def encode(self, name: str, values: np.ndarray | float) -> np.ndarray:
        """Stored numbers of ``values``, float64. Raises InputError for NaN, which has no code."""
        values = np.asarray(values, dtype=np.float64)
        if self.bits is None or name in self._exact:
            return values
        if np.isnan(values).any():
            raise InputError(
                f"tensor '{name}'",
                "NaN",
                "codes stand for numbers",
                "Look for rows that a mask empties, or run in float mode.",
            )
        return quantise(values, self._step[name], self.bits).astype(np.float64)

    def decode(self, name: str, stored: np.ndarray) -> np.ndarray:
        """The numbers that ``stored`` stands for."""
        return stored * self._step[name]

    @property
    def unwritten(self) -> float:
        """What memory holds that nothing has written: it must show when a program reads it."""
        return np.nan if self.bits is None else float(code_limit(self.bits))


def index_tensors(network: Network) -> set[str]:
    """Tensors that hold rows of tables, and those that they are computed from, as long as these are whole numbers."""
    named = {operand.indices for operator in network.operators for operand in operator.operands}
    found = {name for name in named if name is not None} | {p.tensor for p in network.inputs if p.dtype == "index"}
    for operator in reversed(network.operators):
        whole = operator.kind == "vector" and not any(
            function_named(step.function).makes_places for step in operator.steps
        )
        if operator.output in found and whole:
            found |= {operand.tensor for operand in operator.operands if operand.access != "gather"}
    return found


def _calibrated_step(network: Network, name: str) -> float:
    step, root = network.tensors[name].step, root_of(network, name)
    if not (np.isfinite(step) and step > 0):
        raise InputError(
            f"tensor '{name}'",
            f"activation step {step:g}",
            "in int8 every tensor has a step from calibration",
            "Lower the model with calibration inputs, or run in float mode.",
        )
    if step != network.tensors[root].step:
        raise InputError(
            f"tensor '{name}'",
            f"activation step {step:g}",
            f"it lies in '{root}', which has step {network.tensors[root].step:g}",
            "Calibrate the network again: parts of one tensor share its step.",
        )
    return step
