"""Run a PyTorch model with its matrix products computed by a program: what the machine would answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal, TypeGuard

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from gblr_hw.layers.conv import GBLRConv2d
from simulator.base.errors import InputError
from simulator.numbers.execute import execute
from simulator.program.program import Program


def record_layers(model: nn.Module, names: list[str], inputs: Tensor) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Run ``model(inputs)`` and return (input rows, output rows) of the named layers: (N, n) and (N, m) float32.

    A convolution's rows are its im2col rows and its output positions. Raises InputError for a layer that did not run.
    """
    seen: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    def keep(name: str) -> object:
        def hook(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            seen[name] = (_rows(module, args[0]), _output_rows(module, output))

        return hook

    handles = [model.get_submodule(name).register_forward_hook(keep(name)) for name in names]  # type: ignore[arg-type]
    try:
        with torch.no_grad():
            model(inputs)
    finally:
        for handle in handles:
            handle.remove()
    for name in names:
        if name not in seen:
            raise InputError(
                f"layer '{name}'", "it did not run", "every recorded layer is part of the forward pass", "Leave it out."
            )
    return seen


@contextmanager
def on_machine(model: nn.Module, program: Program, mode: Literal["float", "int8"]) -> Iterator[nn.Module]:
    """Inside the block, the program's layers in ``model`` compute what the machine would compute, one after another.

    Everything that is no matrix product (normalisation, attention scores, softmax, residuals) stays in PyTorch.
    """
    modules = [(layer.name, model.get_submodule(layer.name)) for layer in program.layers]
    try:
        for name, module in modules:
            module.forward = _forward(module, program, name, mode)
        yield model
    finally:
        for _, module in modules:
            module.__dict__.pop("forward", None)


def largest_error(
    program: Program, recorded: dict[str, tuple[np.ndarray, np.ndarray]], mode: Literal["float", "int8"]
) -> dict[str, float]:
    """Per layer, the largest difference between machine and PyTorch, relative to the layer's largest output."""
    results = execute(program, {name: rows for name, (rows, _) in recorded.items()}, mode)
    return {
        name: float(
            np.abs(results[name] - expected).max(initial=0.0) / max(float(np.abs(expected).max(initial=0.0)), 1e-30)
        )
        for name, (_, expected) in recorded.items()
    }


def _forward(
    module: nn.Module, program: Program, name: str, mode: Literal["float", "int8"]
) -> Callable[[Tensor], Tensor]:
    def forward(x: Tensor) -> Tensor:
        result = execute(program, {name: _rows(module, x)}, mode)[name]
        values = torch.as_tensor(result, dtype=x.dtype, device=x.device)
        if not _is_conv(module):
            return values.reshape(*x.shape[:-1], -1)
        height, width = _output_size(module, x)
        return values.reshape(x.shape[0], height, width, -1).permute(0, 3, 1, 2)

    return forward


def _is_conv(module: nn.Module) -> TypeGuard[nn.Conv2d | GBLRConv2d]:
    return isinstance(module, nn.Conv2d | GBLRConv2d)


def _rows(module: nn.Module, x: Tensor) -> np.ndarray:
    if _is_conv(module):
        return _im2col(module, x)
    return x.detach().float().cpu().numpy().reshape(-1, x.shape[-1])


def _output_rows(module: nn.Module, y: Tensor) -> np.ndarray:
    if _is_conv(module):
        y = y.permute(0, 2, 3, 1)
    return y.detach().float().cpu().numpy().reshape(-1, y.shape[-1])


def _im2col(module: nn.Conv2d | GBLRConv2d, x: Tensor) -> np.ndarray:
    """Rows of k1 k2 ic inputs, one an output position, in the (k1, k2, ic) order of the lowered matrix."""
    unfolded = functional.unfold(
        functional.pad(x.detach().float().cpu(), _padding(module)),
        module.kernel_size,
        dilation=module.dilation,
        stride=module.stride,
    )
    channels = x.shape[1]
    rows = unfolded.transpose(1, 2).unflatten(2, (channels, -1)).transpose(2, 3)
    return rows.reshape(-1, unfolded.shape[1]).numpy()


def _padding(module: nn.Conv2d | GBLRConv2d) -> tuple[int, int, int, int]:
    """(left, right, top, bottom) zeros."""
    padding = module.padding
    if padding == "valid":
        return (0, 0, 0, 0)
    if isinstance(padding, str):
        totals = [d * (k - 1) for d, k in zip(module.dilation, module.kernel_size, strict=True)]
        return (totals[1] // 2, totals[1] - totals[1] // 2, totals[0] // 2, totals[0] - totals[0] // 2)
    return (padding[1], padding[1], padding[0], padding[0])


def _output_size(module: nn.Conv2d | GBLRConv2d, x: Tensor) -> tuple[int, int]:
    left, right, top, bottom = _padding(module)
    padded = (x.shape[2] + top + bottom, x.shape[3] + left + right)
    sizes = zip(padded, module.kernel_size, module.dilation, module.stride, strict=True)
    height, width = ((size - d * (k - 1) - 1) // s + 1 for size, k, d, s in sizes)
    return height, width
