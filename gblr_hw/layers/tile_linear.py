"""A linear layer that multiplies only with the tiles kept: y = x W^T, one small product a tile, for CPU training.

The op is opaque to torch.compile, has gradients, and leaves the weight's gradient zero outside the tiles.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


@torch.library.custom_op("gblr_hw::tile_linear", mutates_args=())
def tile_linear(x: Tensor, weight: Tensor, tiles: Tensor, chunk_in: int, chunk_out: int) -> Tensor:
    """x (T, n) times the kept tiles of weight (m, n): (T, m).

    tiles (N, 2) int64: (output chunk, input chunk) of each tile kept, on the CPU. chunk_in, chunk_out: channels per
    chunk; the last chunk of a side may be short.
    """
    y = x.new_zeros(len(x), len(weight))
    for row, col in tiles.tolist():
        out, into = _slice(row, chunk_out), _slice(col, chunk_in)
        y[:, out].addmm_(x[:, into], weight[out, into].T)
    return y


@torch.library.custom_op("gblr_hw::tile_linear_backward", mutates_args=())
def _tile_linear_backward(
    gradient: Tensor, x: Tensor, weight: Tensor, tiles: Tensor, chunk_in: int, chunk_out: int
) -> tuple[Tensor, Tensor]:
    to_x, to_weight = torch.zeros_like(x), torch.zeros_like(weight)
    for row, col in tiles.tolist():
        out, into = _slice(row, chunk_out), _slice(col, chunk_in)
        to_x[:, into].addmm_(gradient[:, out], weight[out, into])
        to_weight[out, into] = gradient[:, out].T @ x[:, into]
    return to_x, to_weight


def _slice(chunk: int, size: int) -> slice:
    return slice(chunk * size, (chunk + 1) * size)


@tile_linear.register_fake
def _(x: Tensor, weight: Tensor, tiles: Tensor, chunk_in: int, chunk_out: int) -> Tensor:
    return x.new_empty(x.shape[0], weight.shape[0])


@_tile_linear_backward.register_fake
def _(
    gradient: Tensor, x: Tensor, weight: Tensor, tiles: Tensor, chunk_in: int, chunk_out: int
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(weight)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, tiles, ctx.chunk_in, ctx.chunk_out = inputs
    ctx.save_for_backward(x, weight, tiles)


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    x, weight, tiles = ctx.saved_tensors
    to_x, to_weight = _tile_linear_backward(gradient, x, weight, tiles, ctx.chunk_in, ctx.chunk_out)
    return to_x, to_weight, None, None, None


tile_linear.register_autograd(_backward, setup_context=_keep)
