"""One ONNX node while it becomes a torch function: its attributes, and its inputs that are constants."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from simulator.base.errors import InputError

# What a node becomes: a function of its inputs that are not constants, in order.
Made = Callable[..., Any]


@dataclass(frozen=True, eq=False)
class Node:
    """constants: values of inputs that do not depend on the network's inputs. shapes: of the inputs that do."""

    proto: Any
    constants: Mapping[str, np.ndarray]
    shapes: Mapping[str, tuple[int, ...]]
    opset: int

    @property
    def where(self) -> str:
        return f"node '{self.proto.name or self.proto.output[0]}' ({self.proto.op_type})"

    def attribute(self, name: str, default: Any = None) -> Any:
        import onnx

        for one in self.proto.attribute:
            if one.name == name:
                value = onnx.helper.get_attribute_value(one)
                return value.decode() if isinstance(value, bytes) else value
        return default

    def given(self, index: int) -> bool:
        return index < len(self.proto.input) and bool(self.proto.input[index])

    def is_constant(self, index: int) -> bool:
        return self.given(index) and self.proto.input[index] in self.constants

    def constant(self, index: int, what: str) -> np.ndarray:
        """The value of an input that must not depend on the network's inputs; ``what`` it is."""
        if not self.is_constant(index):
            raise self.refused(f"its {what} depends on the network's inputs", f"the {what} is a constant")
        return self.constants[self.proto.input[index]]

    def ints(self, name: str, index: int) -> tuple[int, ...] | None:
        """Integers that older operators have as an attribute and newer ones as an input; None if they are not given."""
        value = self.attribute(name)
        if value is None and self.given(index):
            value = self.constant(index, name)
        return None if value is None else tuple(int(one) for one in np.asarray(value).reshape(-1))

    def rank(self, index: int) -> int:
        name = self.proto.input[index]
        return self.constants[name].ndim if name in self.constants else len(self.shapes[name])

    def refused(self, found: str, rule: str) -> InputError:
        return InputError(self.where, found, rule, "Export the model in another way, or give its PyTorch code.")

    def with_constants(self, function: Callable[..., Any]) -> Made:
        """``function`` of all inputs, those that are constants filled in as tensors."""
        filled: list[Tensor | None] = []
        for name in self.proto.input:
            constant = self.constants.get(name) if name else None
            filled.append(None if constant is None else torch.from_numpy(np.array(constant)))
        live = [bool(name) and name not in self.constants for name in self.proto.input]

        def made(*values: Tensor) -> Any:
            rest = iter(values)
            return function(*(next(rest) if own else fixed for own, fixed in zip(live, filled, strict=True)))

        return made
