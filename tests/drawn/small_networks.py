"""Small operator graphs: written line by line, and drawn at random with every access, kind and awkward size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from simulator.network.network import Network, Operand, Operator, Port, Tensor, Window
from simulator.network.vector_steps import Step


@dataclass
class Sketch:
    """A network under construction. Sizes are (batch, tokens, groups, width); operands default to the whole tensor."""

    rng: np.random.Generator
    tensors: dict[str, Tensor] = field(default_factory=dict)
    operators: list[Operator] = field(default_factory=list)
    values: dict[str, np.ndarray] = field(default_factory=dict)
    weights: dict[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    inputs: list[Port] = field(default_factory=list)

    def tensor(self, name: str, *sizes: int, **fields: object) -> str:
        self.tensors[name] = Tensor(name, *sizes, **fields)  # type: ignore[arg-type]
        return name

    def input(self, name: str, *sizes: int, **fields: object) -> str:
        self.inputs.append(_port(name, sizes, "index" if fields.pop("index", False) else "float"))
        return self.tensor(name, *sizes, kind="input", **fields)

    def constant(self, name: str, values: np.ndarray, **fields: object) -> str:
        self.values[name] = values
        return self.tensor(name, *values.shape, kind="constant", **fields)

    def whole(self, name: str, **fields: object) -> Operand:
        tensor = self.tensors[name]
        sizes = {"tokens": tensor.tokens, "groups": tensor.groups, "width": tensor.width} | fields
        return Operand(name, **sizes)  # type: ignore[arg-type]

    def linear(self, name: str, operand: Operand | str, outputs: int, groups: int = 1, **fields: object) -> str:
        operand = self.whole(operand) if isinstance(operand, str) else operand
        inputs = operand.groups * operand.width
        self.weights[name] = (
            self.rng.normal(size=(outputs, inputs)) / np.sqrt(inputs), self.rng.normal(size=outputs)
        )  # fmt: skip
        return self._add(name, "linear", (operand,), groups, outputs // groups, **fields)

    def scores(self, name: str, x: str, keys: str | Operand, **fields: object) -> str:
        keys = self.whole(keys, access="weights") if isinstance(keys, str) else keys
        return self._add(name, "scores", (self.whole(x), keys), self.tensors[x].groups, keys.tokens, **fields)

    def mix(self, name: str, x: str, values: str | Operand, **fields: object) -> str:
        values = self.whole(values, access="weights") if isinstance(values, str) else values
        return self._add(name, "mix", (self.whole(x), values), self.tensors[x].groups, values.width, **fields)

    def vector(
        self, name: str, operands: list[Operand | str], steps: list[Step], groups: int, width: int,
        constants: Mapping[str, np.ndarray] | None = None, **fields: object,
    ) -> str:  # fmt: skip
        read = tuple(self.whole(o) if isinstance(o, str) else o for o in operands)
        return self._add(name, "vector", read, groups, width, tuple(steps), constants or {}, **fields)

    def _add(
        self, name: str, kind: str, operands: tuple[Operand, ...], groups: int, width: int,
        steps: tuple[Step, ...] = (), constants: Mapping[str, np.ndarray] | None = None, **fields: object,
    ) -> str:  # fmt: skip
        batch = fields.pop("batch", self.tensors[operands[0].tensor].batch)
        tokens = fields.pop("tokens", operands[0].tokens)
        output = self.tensor(f"{name}.out", batch, tokens, groups, width, **fields)  # type: ignore[arg-type]
        self.operators.append(
            Operator(name, kind, operands, output, batch, tokens, steps, constants or {})  # type: ignore[arg-type]
        )
        return output

    def network(self, *outputs: str) -> Network:
        ports = tuple(_port(name, _sizes(self.tensors[name]), "float") for name in outputs)
        return Network(self.tensors, tuple(self.operators), tuple(self.inputs), ports, self.values)

    def apply(self, name: str, rows: np.ndarray) -> np.ndarray:
        """y = W x + b of the linear operator ``name``."""
        matrix, bias = self.weights[name]
        return rows @ matrix.T + bias


def _sizes(tensor: Tensor) -> tuple[int, int, int, int]:
    return tensor.batch, tensor.tokens, tensor.groups, tensor.width


def _port(name: str, sizes: tuple[int, ...], dtype: str) -> Port:
    return Port(name, name, sizes, sizes, (0, 1, 2, 3), dtype)  # type: ignore[arg-type]


def window_operand(tensor: str, window: Window, channels: int, **fields: object) -> Operand:
    """All of the image's channels, by im2col."""
    height, width = window.output
    return Operand(
        tensor, height * width, window.kernel[0] * window.kernel[1], channels, access="window", window=window, **fields
    )  # type: ignore[arg-type]
