"""An ONNX file as its graph: parsed and checked by the onnx package, with its constants as numpy arrays."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from simulator.base.errors import InputError


@dataclass(frozen=True, eq=False)
class OnnxInput:
    """An input of the graph: its name, its shape (None where it is free), and its element type as numpy has it."""

    name: str
    shape: tuple[int | None, ...]
    dtype: np.dtype[Any]


@dataclass(frozen=True, eq=False)
class OnnxGraph:
    """Nodes in order, inputs that are no constants, names of outputs, and constants by name."""

    nodes: tuple[Any, ...]
    inputs: tuple[OnnxInput, ...]
    outputs: tuple[str, ...]
    constants: dict[str, np.ndarray]


def read_onnx(path: Path) -> OnnxGraph:
    """The graph of an ONNX file. Raises InputError if the package is missing, the file is none, or it has parts that
    are executed only sometimes (If, Loop, Scan) or functions of its own.
    """
    if importlib.util.find_spec("onnx") is None:
        raise InputError("package 'onnx'", "not installed", "it reads ONNX files", "pip install 'gblr-hw[onnx]'.")
    import onnx
    from onnx import numpy_helper

    if not path.is_file():
        raise InputError(str(path), "no such file", "the model must exist", "Check the path.")
    try:
        model = onnx.load(str(path))
        onnx.checker.check_model(str(path))
    except Exception as error:  # protobuf, checker and file errors have no common base
        raise InputError(
            str(path),
            f"no valid ONNX model ({' '.join(str(error).split())[:160]})",
            "the checker of the onnx package accepts it",
            "Export it again.",
        ) from error
    if model.functions:
        raise InputError(str(path), "functions of its own", "only operators of the standard are read", "Inline them.")
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    inputs = tuple(_input(path, value) for value in model.graph.input if value.name not in constants)
    outputs = tuple(value.name for value in model.graph.output)
    return OnnxGraph(tuple(model.graph.node), inputs, outputs, constants)


def _input(path: Path, value: Any) -> OnnxInput:
    from onnx import helper

    kind = value.type.tensor_type
    if not value.type.HasField("tensor_type") or not kind.elem_type:
        raise InputError(f"{path}: input '{value.name}'", "no tensor", "inputs are tensors", "Export it again.")
    shape = tuple(d.dim_value if d.HasField("dim_value") else None for d in kind.shape.dim)
    return OnnxInput(value.name, shape, np.dtype(helper.tensor_dtype_to_np_dtype(kind.elem_type)))
