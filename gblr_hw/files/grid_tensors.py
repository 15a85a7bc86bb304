"""Dense weights on a grid of few bits as tensors of a file: codes, steps and shifts."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from gblr_hw.weights.bits.grid import Grid, Rounded
from gblr_hw.weights.bits.packed import pack_codes, packed_bytes, unpack_codes
from gblr_hw.weights.checks import check_matrix_size
from simulator.base.arithmetic import ceil_div
from simulator.base.errors import InputError


def encode_grid(grid: Grid | None, tensors: dict[str, Tensor], field: str, before: str = "") -> dict[str, Any]:
    """What a record says of the grid of tensor ``field``, which becomes its codes; nothing without either. before: what
    names of tensors and entries begin with.
    """
    if grid is None or field not in tensors:
        return {}
    matrix = tensors.pop(field).detach().float().cpu().numpy()
    own: dict[str, Any] = {
        "codes": pack_codes(grid.codes_of(matrix), grid.bits),
        "step": grid.step,
        "shift": grid.shift.astype(np.uint8),
    }
    tensors |= {f"{before}{name}": torch.from_numpy(array.copy()) for name, array in own.items()}
    return {f"{before}bits": grid.bits, f"{before}group": grid.group, f"{before}inputs": matrix.shape[1]}


def decode_grid(record: dict[str, Any], take: Any, field: str, before: str = "") -> tuple[Tensor | None, Grid | None]:
    """The tensor ``field`` and its grid; either may be missing. take: (name, optional=) -> tensor of the layer. Raises
    InputError for tensors that do not fit the record.
    """
    if f"{before}bits" not in record:
        return take(field, optional=True), None
    bits, group, inputs = (_whole(record, f"{before}{name}") for name in ("bits", "group", "inputs"))
    step, shift, packed = (take(f"{before}{name}") for name in ("step", "shift", "codes"))
    outputs = step.shape[0] if step.dim() == 1 else 0
    check_matrix_size(outputs, inputs)
    expected: dict[str, tuple[Tensor, torch.dtype, tuple[int, ...]]] = {
        "step": (step, torch.float64, (outputs,)),
        "shift": (shift, torch.uint8, (outputs, ceil_div(inputs, group))),
        "codes": (packed, torch.uint8, (packed_bytes(outputs * inputs, bits),)),
    }
    for name, (tensor, dtype, shape) in expected.items():
        if (tensor.dtype, tuple(tensor.shape)) != (dtype, shape):
            found = f"{tensor.dtype} of shape {tuple(tensor.shape)}"
            rule = f"on a grid of {outputs} x {inputs} weights it is {dtype} of shape {shape}"
            raise InputError(f"tensor '{before}{name}'", found, rule, "Write the file again.")
    grid = Grid(step.numpy(), shift.numpy().astype(np.int64), group, bits)
    codes = unpack_codes(packed.numpy(), bits, (outputs, inputs))
    return torch.from_numpy(Rounded(codes, grid).matrix().astype(np.float32)), grid


def _whole(record: dict[str, Any], name: str) -> int:
    value = record[name]
    if type(value) is not int or value < 1:
        raise InputError(name, repr(value), "it is a whole number above 0", "Write the file again.")
    return value
