"""What an operand reads out of a tensor: rows, an image's windows, a transpose, rows of a table, other axes, or
stationary weights.

Values are (batch, tokens, channels) as ``stored_tensors`` keeps them; a view is (batch, tokens, groups, width).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from simulator.base.arithmetic import ceil_div
from simulator.base.errors import NOT_OURS, InputError
from simulator.network.network import Digit, Operand, Strides, Window


def operand_view(operand: Operand, values: np.ndarray, indices: np.ndarray | None = None) -> np.ndarray:
    """The whole view of ``values`` (batch, tokens, channels) as (batch, tokens, groups, width).

    indices (batch, tokens): rows of the table for "gather". Raises InputError for a view that leaves its tensor and for
    indices that are no rows of the table.
    """
    count = operand.groups * operand.width
    shape = (-1, operand.tokens, operand.groups, operand.width)
    channels = slice(operand.channel0, operand.channel0 + count)
    tokens = slice(operand.token0, operand.token0 + operand.tokens)
    if operand.access in ("window", "image"):
        return _window_view(operand, values)
    if operand.access == "strided":
        return _strided_view(operand, values)
    if operand.access == "transposed":
        _inside(operand, values, operand.channel0 + count, operand.token0 + operand.tokens)
        return values[:, channels, tokens].transpose(0, 2, 1).reshape(shape)
    if operand.access == "gather":
        _inside(operand, values, 0, operand.channel0 + count)
        assert indices is not None, "gather reads the values of its index tensor first"
        rows = table_rows(operand, indices, values.shape[1])
        table = np.arange(len(rows))[:, None] % len(values)
        return values[table, rows][:, :, channels].reshape(shape)
    _inside(operand, values, operand.token0 + operand.tokens, operand.channel0 + count)
    return values[:, tokens, channels].reshape(shape)


def table_rows(operand: Operand, indices: np.ndarray, count: int) -> np.ndarray:
    """Indices as int64 rows of a table of ``count``. Raises InputError for any that is none."""
    rows = np.asarray(indices).astype(np.int64)
    bad = (rows != indices) | (rows < 0) | (rows >= count)
    if bad.any():
        raise InputError(
            f"index '{operand.indices}'",
            f"{np.asarray(indices)[bad][0]:g}",
            f"table '{operand.tensor}' has rows 0 to {count - 1}",
            "Check the input that the indices come from.",
        )
    return rows


def window_tokens(window: Window) -> np.ndarray:
    """(positions, k1 k2) int64: the token that each kernel position reads for each output position, -1 outside the
    image.
    """
    sides = []
    for size, kernel, stride, padding, dilation, count in zip(
        window.image, window.kernel, window.stride, window.padding, window.dilation, window.output, strict=True
    ):
        read = np.arange(count)[:, None] * stride - padding + np.arange(kernel) * dilation
        sides.append(np.where((read >= 0) & (read < size), read, -1))
    rows, columns = sides[0][:, None, :, None], sides[1][None, :, None, :]
    tokens = np.where((rows >= 0) & (columns >= 0), rows * window.image[1] + columns, -1)
    return tokens.reshape(window.output[0] * window.output[1], window.kernel[0] * window.kernel[1])


def operand_window(operand: Operand) -> Window:
    """The operand's window. Raises InputError if it has none, or one of other sizes than its view."""
    window = operand.window
    sizes = None if window is None else (int(np.prod(window.output)), int(np.prod(window.kernel)))
    if window is None or sizes != (operand.tokens, operand.groups):
        raise InputError(
            f"window of '{operand.tensor}'",
            f"{sizes} positions and kernel positions",
            f"the view has {operand.tokens} tokens and {operand.groups} groups",
            NOT_OURS,
        )
    return window


def _window_view(operand: Operand, values: np.ndarray) -> np.ndarray:
    window = operand_window(operand)
    size, last = window.image[0] * window.image[1], operand.channel0 + operand.width
    _inside(operand, values, operand.token0 + size, last)
    image = values[:, operand.token0 : operand.token0 + size, operand.channel0 : last]
    outside = np.full((len(image), 1, operand.width), window.fill)
    return np.concatenate([image, outside], axis=1)[:, window_tokens(window)]  # token -1 is the row outside


def _strided_view(operand: Operand, values: np.ndarray) -> np.ndarray:
    strides = operand_strides(operand)
    rows, channels = (np.arange(digits_size(digits)) for digits in (strides.rows, strides.channels))
    batch, token, channel = strided_places(operand, rows, channels)
    for places, size in zip((batch, token, channel), values.shape, strict=True):
        if places.min() < 0 or places.max() >= size:
            _outside(operand, values, int(token.max()) + 1, int(channel.max()) + 1)
    return values[batch, token, channel].reshape(-1, operand.tokens, operand.groups, operand.width)


def _inside(operand: Operand, values: np.ndarray, tokens: int, channels: int) -> None:
    if tokens > values.shape[1] or channels > values.shape[2]:
        _outside(operand, values, tokens, channels)


def _outside(operand: Operand, values: np.ndarray, tokens: int, channels: int) -> None:
    raise InputError(
        f"operand '{operand.tensor}'",
        f"{operand.access} to token {tokens}, channel {channels}",
        f"the tensor has {values.shape[1]} tokens of {values.shape[2]} channels",
        NOT_OURS,
    )


def digits_size(digits: Sequence[Digit]) -> int:
    """How many places digits count."""
    return prod(digit.size for digit in digits)


def operand_strides(operand: Operand) -> Strides:
    """The operand's strides. Raises InputError if it has none, or ones of other sizes than its view."""
    strides = operand.strides
    sizes = None if strides is None else (digits_size(strides.rows), digits_size(strides.channels))
    if strides is None or sizes is None or sizes[0] % operand.tokens or sizes[1] != operand.groups * operand.width:
        raise InputError(
            f"strides of '{operand.tensor}'",
            f"{sizes} rows and channels",
            f"the view has sequences of {operand.tokens} tokens of {operand.groups} x {operand.width} channels",
            NOT_OURS,
        )
    return strides


def strided_places(operand: Operand, rows: np.ndarray, channels: np.ndarray) -> tuple[np.ndarray, ...]:
    """Sequence, token and channel of the tensor at each row and channel of a strided view, (rows, channels) int64
    each.
    """
    strides = operand_strides(operand)
    start = (strides.batch0, operand.token0, operand.channel0)
    down, across = _moved(strides.rows, rows), _moved(strides.channels, channels)
    return tuple(first + one[:, None] + other[None, :] for first, one, other in zip(start, down, across, strict=True))


def _moved(digits: Sequence[Digit], index: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sequences, tokens and channels that digits move the place at ``index``, (N,) int64 each."""
    batch, token, channel = (np.zeros(len(index), dtype=np.int64) for _ in range(3))
    inner = digits_size(digits)
    for digit in digits:
        inner //= digit.size
        value = np.asarray(index, dtype=np.int64) // inner % digit.size
        batch += value * digit.batch
        token += value * digit.token
        channel += value * digit.channel
    return batch, token, channel


def channel_places(groups: int, width: int, padded: bool, side: int) -> np.ndarray:
    """(groups x width,) places of channels in rows cut into chunks of ``side``: packed, or each group of a padded
    tensor from a chunk's edge on.
    """
    pitch = ceil_div(width, side) * side if padded else width
    return (np.arange(groups)[:, None] * pitch + np.arange(width)).reshape(-1)
