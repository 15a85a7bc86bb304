"""Checks of a layer's tensors and sizes: each raises one InputError that says what is wrong with which tensor."""

from __future__ import annotations

import math
from numbers import Integral

import torch
from torch import Tensor

from simulator.base.errors import InputError

# 16 GiB as float32: no real layer is larger, and what a damaged header declares easily is.
MAX_MATRIX_ENTRIES = 2**32


def check_shape(name: str, tensor: Tensor, shape: tuple[int, ...], rule: str) -> None:
    """Raise InputError unless `tensor` has exactly `shape`; `rule` says where the expected shape comes from."""
    if tuple(tensor.shape) != shape:
        raise InputError(
            f"tensor '{name}'",
            f"shape {tuple(tensor.shape)}",
            f"{rule}, so it must be {shape}",
            "Check the layer's tensors.",
        )


def not_stored(tensor: Tensor) -> str:
    """Why a tensor's numbers are not all there as they are, in words; an empty text where they are."""
    if tensor.is_nested:  # it has no shape
        return "a nested tensor"
    if tensor.is_meta:
        return f"shape {tuple(tensor.shape)} on the device 'meta', which holds no numbers"
    if tensor.layout != torch.strided or tensor.is_quantized:
        return f"shape {tuple(tensor.shape)}, layout {tensor.layout}{', quantised' if tensor.is_quantized else ''}"
    return ""


def check_finite(name: str, tensor: Tensor) -> None:
    """Raise InputError naming the first NaN or infinite entry of `tensor`."""
    if not tensor.is_floating_point():
        raise InputError(
            f"tensor '{name}'", f"dtype {tensor.dtype}", "weights are floating point", "Convert it to float32 first."
        )
    # The hardware's numbers start from float32: what overflows there is infinite.
    single = tensor.float()
    # One reduction first: building the full boolean mask of a large, healthy tensor would cost as much as reading it.
    if tensor.numel() == 0 or bool(torch.isfinite(single.sum())):
        return
    bad = ~torch.isfinite(single)
    if not bool(bad.any()):
        return
    index = tuple(int(i) for i in bad.nonzero()[0])
    raise InputError(
        f"tensor '{name}'",
        f"{float(tensor[index])} at index {index} ({int(bad.sum())} such entries)",
        "every weight must be a finite float32 number",
        "The network has probably diverged in training: use an earlier checkpoint.",
    )


def check_range(name: str, tensor: Tensor, bounds: tuple[float, float], rule: str) -> None:
    """Raise InputError naming the first entry of `tensor` outside `bounds`; `rule` says what its numbers mean."""
    outside = (tensor < bounds[0]) | (tensor > bounds[1])
    if bool(outside.any()):
        index = tuple(int(i) for i in outside.nonzero()[0])
        raise InputError(
            f"tensor '{name}'",
            f"{float(tensor[index]):g} at index {index}",
            f"{rule} and must lie in [{bounds[0]:g}, {bounds[1]:g}]",
            "Divide by the number of channels if it is given in channels.",
        )


def check_sigma(sigma: float) -> None:
    """Raise InputError unless the Gaussian's standard deviation is positive and finite."""
    if not (sigma > 0 and math.isfinite(sigma)):
        raise InputError(
            "sigma", str(sigma), "the Gaussian's standard deviation must be positive and finite", "Use e.g. 100."
        )


def check_positive(name: str, value: int) -> None:
    """Raise InputError unless `value` is an integer of at least 1."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise InputError(name, repr(value), "it is a whole number", "Check the layer's sizes.")
    if value < 1:
        raise InputError(name, str(value), "it must be at least 1", "Check the layer's sizes.")


def check_matrix_size(rows: int, cols: int) -> None:
    """Raise InputError if a matrix would have more than MAX_MATRIX_ENTRIES entries."""
    if rows * cols > MAX_MATRIX_ENTRIES:
        raise InputError(
            "layer",
            f"{rows} outputs and {cols} inputs",
            f"its matrix may have at most {MAX_MATRIX_ENTRIES} entries",
            "The file is probably damaged: write it again.",
        )


def check_bias(bias: Tensor | None, out_features: int) -> None:
    """Raise InputError for a bias that is not one finite number an output; None is no bias."""
    if bias is None:
        return
    check_shape("bias", bias, (out_features,), f"the layer has {out_features} outputs")
    check_finite("bias", bias)


def check_dims(name: str, tensor: Tensor, dims: int, layout: str) -> None:
    """Raise InputError unless `tensor` has `dims` dimensions, the last two not empty; `layout` says which they are."""
    if tensor.dim() != dims or 0 in tensor.shape[-2:]:
        raise InputError(
            f"tensor '{name}'",
            f"shape {tuple(tensor.shape)}",
            f"it must have the shape {layout}",
            "Check the layer's tensors.",
        )
