"""``load_onnx``: an ONNX model for inputs of given shapes, as a torch module that the front end exports like any other.

What does not depend on the network's inputs, or only on their shapes, is worked out first by the onnx package's own
reference, so that the module has nothing left but work on activations.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gblr_hw.frontend.onnx_models.node import Made, Node
from gblr_hw.frontend.onnx_models.operations import MAKERS
from gblr_hw.frontend.onnx_models.read_model import OnnxGraph, OnnxInput, read_onnx
from simulator.base.errors import InputError

_SHAPES = ("Shape", "Size")  # they depend on the inputs' sizes alone


@dataclass(frozen=True, eq=False)
class _Step:
    """A node that is left: its function, names of the values that it takes, and names of its results."""

    function: Made
    takes: tuple[str, ...]
    gives: tuple[str, ...]
    name: str


class OnnxModule(nn.Module):
    """Steps in order, on inputs by position; a tensor, or a tuple of several outputs."""

    def __init__(self, steps: Sequence[_Step], inputs: Sequence[str], outputs: Sequence[str]) -> None:
        super().__init__()
        self._steps, self._inputs, self._outputs = tuple(steps), tuple(inputs), tuple(outputs)
        for step in steps:
            if isinstance(step.function, nn.Module):
                self.add_module(self._free(step.name), step.function)

    def _free(self, name: str) -> str:
        """A node's name as a module's: its scopes without slashes, numbered where two nodes are called the same."""
        plain = re.sub(r"\W+", "_", name).strip("_") or "node"
        taken = dict(self.named_children())
        return plain if plain not in taken else f"{plain}_{len(taken)}"

    def forward(self, *values: Tensor) -> Any:
        known: dict[str, Any] = dict(zip(self._inputs, values, strict=True))
        for step in self._steps:
            found = step.function(*(known[name] for name in step.takes))
            results = found if isinstance(found, tuple | list) else (found,)
            known.update(zip(step.gives, results, strict=False))
        results = tuple(known[name] for name in self._outputs)
        return results[0] if len(results) == 1 else results


def load_onnx(
    path: Path, sizes: Mapping[str, int] | None = None, seed: int = 0
) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """The module and example inputs drawn for it.

    sizes: what an input's free dimensions are, by "INPUT.AXIS" or for all inputs by "AXIS" (the batch, axis 0, is 1
    unless it is given). Raises InputError for a file that is no model, free dimensions that nobody gives, and operators
    that are not known, by node.
    """
    graph = read_onnx(path)
    generator = torch.Generator().manual_seed(seed)
    inputs = tuple(_example(path, one, sizes or {}, generator) for one in graph.inputs)
    try:
        module = _made(graph, inputs, _opset(path))
    except InputError as error:
        raise InputError(f"{path}: {error.where}", error.value, error.rule, error.remedy) from None
    return module.eval(), inputs


def _layer_name(proto: Any) -> str:
    """The node's own name, or that of its weight without its last part, or of its result."""
    weight = proto.input[1].rpartition(".")[0] if len(proto.input) > 1 else ""
    return str(weight or proto.name or proto.output[0])


def _opset(path: Path) -> int:
    import onnx

    model = onnx.load(str(path), load_external_data=False)
    return max((one.version for one in model.opset_import if one.domain in ("", "ai.onnx")), default=1)


def _example(path: Path, one: OnnxInput, sizes: Mapping[str, int], generator: torch.Generator) -> Tensor:
    shape = []
    for axis, side in enumerate(one.shape):
        given = sizes.get(f"{one.name}.{axis}", sizes.get(str(axis), side if side else (1 if axis == 0 else None)))
        if given is None:
            raise InputError(
                f"{path}: input '{one.name}'",
                f"axis {axis} is free",
                "a program is made for fixed sizes",
                f"Give it: --size {one.name}.{axis}=N.",
            )
        shape.append(int(given))
    if np.issubdtype(one.dtype, np.floating):
        return torch.randn(shape, generator=generator).to(torch.from_numpy(np.zeros(1, one.dtype)).dtype)
    # Ones are ids that every vocabulary has, and a mask that shuts nothing out.
    return torch.from_numpy(np.ones(shape, one.dtype))


def _made(graph: OnnxGraph, inputs: tuple[Tensor, ...], opset: int) -> OnnxModule:
    constants = dict(graph.constants)
    live: dict[str, Tensor] = {one.name: value for one, value in zip(graph.inputs, inputs, strict=True)}
    steps = []
    for proto in graph.nodes:
        named = [name for name in proto.input if name]
        if proto.op_type in _SHAPES and named[0] in live:
            _evaluate(proto, {named[0]: np.zeros(live[named[0]].shape, np.float32)}, constants, opset)
        elif all(name in constants for name in named):
            _evaluate(proto, {name: constants[name] for name in named}, constants, opset)
        else:
            steps.append(_step(proto, constants, live, opset))
    missing = [name for name in graph.outputs if name not in live]
    if missing:
        raise InputError(
            f"output '{missing[0]}'",
            "a constant",
            "outputs depend on the network's inputs",
            "Remove it from the graph.",
        )
    return OnnxModule(steps, [one.name for one in graph.inputs], graph.outputs)


def _evaluate(proto: Any, feeds: dict[str, np.ndarray], constants: dict[str, np.ndarray], opset: int) -> None:
    """Work a node out on constants, with the onnx package's reference."""
    import onnx
    from onnx.reference import ReferenceEvaluator

    values = [onnx.helper.make_tensor_value_info(name, 0, None) for name in feeds]
    outputs = [onnx.helper.make_tensor_value_info(name, 0, None) for name in proto.output if name]
    graph = onnx.helper.make_graph([proto], "constant", values, outputs)
    # The reference knows these from opset 19 on; what a code stands for has not changed.
    imports = [
        onnx.helper.make_opsetid(
            "", max(opset, 19) if proto.op_type in ("QuantizeLinear", "DequantizeLinear") else opset
        )
    ]
    model = onnx.helper.make_model(graph, opset_imports=imports)
    found = ReferenceEvaluator(model).run(None, feeds)
    constants.update({name: np.asarray(one) for name, one in zip(filter(None, proto.output), found, strict=True)})


def _step(proto: Any, constants: Mapping[str, np.ndarray], live: dict[str, Tensor], opset: int) -> _Step:
    """A node as a function, and its results on the example inputs, whose shapes later nodes may ask for."""
    node = Node(proto, constants, {name: tuple(value.shape) for name, value in live.items()}, opset)
    if proto.domain not in ("", "ai.onnx") or proto.op_type not in MAKERS:
        raise node.refused("an operator that is not known", f"the known ones are {', '.join(sorted(MAKERS)[:12])}, ...")
    takes = tuple(name for name in proto.input if name and name not in constants)
    function = MAKERS[proto.op_type](node)
    with torch.no_grad():
        found = function(*(live[name] for name in takes))
    gives = tuple(proto.output)
    live.update(zip(gives, found if isinstance(found, tuple | list) else (found,), strict=False))
    return _Step(function, takes, gives, _layer_name(proto))
