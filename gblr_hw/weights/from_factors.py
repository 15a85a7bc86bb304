"""Weights from the factors of a published structure, exactly: low rank, block sparse, Monarch in both arrangements."""

from __future__ import annotations

import torch
from torch import Tensor

from gblr_hw.weights.checks import check_positive, check_shape
from gblr_hw.weights.stored import LatticeWeights
from simulator.base.arithmetic import ceil_div
from simulator.base.errors import InputError

DEFAULT_CHUNK = 32


def _chunks(channels: int, chunk: int) -> int:
    return ceil_div(channels, chunk)


def low_rank_weights(
    u: Tensor, v: Tensor, bias: Tensor | None = None, *, chunk_in: int = DEFAULT_CHUNK, chunk_out: int = DEFAULT_CHUNK
) -> LatticeWeights:
    """``W = u v`` with u (m, r), v (r, n): every rank reads every input chunk and writes every output chunk."""
    if u.dim() != 2 or v.dim() != 2 or u.shape[1] != v.shape[0]:
        raise InputError(
            "u and v",
            f"shapes {tuple(u.shape)} and {tuple(v.shape)}",
            "they are (m, r) and (r, n)",
            "Transpose one of them.",
        )
    m, ranks, n = u.shape[0], u.shape[1], v.shape[1]
    check_positive("chunk_in", chunk_in)
    check_positive("chunk_out", chunk_out)
    rows, cols = _chunks(m, chunk_out), _chunks(n, chunk_in)
    return LatticeWeights(
        u=u,
        v=v,
        reads=torch.ones(ranks, cols, dtype=torch.bool),
        writes=torch.ones(ranks, rows, dtype=torch.bool),
        tiles=torch.zeros(rows, cols, dtype=torch.bool),
        dense=torch.zeros(m, n),
        bias=bias,
        chunk_in=chunk_in,
        chunk_out=chunk_out,
        family="low_rank",
    )


def block_grid_weights(
    u: Tensor, v: Tensor, bias: Tensor | None = None, *, shape: tuple[int, int] | None = None
) -> LatticeWeights:
    """Monarch as blocks of a grid: R x C blocks of rank r. Block (i, j) is ``u[i, j] @ v[i, j]``; u (R, C, p, r), v (R,
    C, r, q).

    shape (m, n) crops the last row and column of blocks, for sizes that p and q do not divide. Raises InputError on
    shapes that disagree.
    """
    if u.dim() != 4 or v.dim() != 4 or u.shape[:2] != v.shape[:2] or u.shape[3] != v.shape[2]:
        raise InputError(
            "u and v",
            f"shapes {tuple(u.shape)} and {tuple(v.shape)}",
            "they are (R, C, p, r) and (R, C, r, q)",
            "Reshape them.",
        )
    grid_rows, grid_cols, p, rank = u.shape
    q = v.shape[3]
    m, n = (grid_rows * p, grid_cols * q) if shape is None else shape
    if _chunks(m, p) != grid_rows or _chunks(n, q) != grid_cols:
        raise InputError("shape", str(shape), f"it must fill a grid of {grid_rows} x {grid_cols} blocks", "Correct it.")
    ranks = grid_rows * grid_cols * rank
    row = torch.arange(grid_rows).repeat_interleave(grid_cols * rank)
    col = torch.arange(grid_cols).repeat_interleave(rank).repeat(grid_rows)
    full_u, full_v = u.new_zeros(ranks, grid_rows, p), v.new_zeros(ranks, grid_cols, q)
    index = torch.arange(ranks)
    full_u[index, row] = u.permute(0, 1, 3, 2).reshape(ranks, p)
    full_v[index, col] = v.reshape(ranks, q)
    return LatticeWeights(
        u=full_u.reshape(ranks, grid_rows * p)[:, :m].T.contiguous(),
        v=full_v.reshape(ranks, grid_cols * q)[:, :n].contiguous(),
        reads=torch.arange(grid_cols) == col[:, None],
        writes=torch.arange(grid_rows) == row[:, None],
        tiles=torch.zeros(grid_rows, grid_cols, dtype=torch.bool),
        dense=torch.zeros(m, n),
        bias=bias,
        chunk_in=q,
        chunk_out=p,
        family="monarch",
    )


def monarch_weights(right: Tensor, left: Tensor, bias: Tensor | None = None) -> LatticeWeights:
    """A Monarch matrix from its two block-diagonal factors (Dao et al., ICML 2022): right (k, q, p), left (l, s, r).

    Inputs k p, hidden channels k q = l r, outputs l s. Each hidden channel is one rank: it reads one run of p inputs
    and writes the s outputs that are l apart, so outputs have chunks of one channel. Raises InputError if k q and l r
    differ.
    """
    if right.dim() != 3 or left.dim() != 3 or right.shape[0] * right.shape[1] != left.shape[0] * left.shape[2]:
        raise InputError(
            "right and left",
            f"shapes {tuple(right.shape)} and {tuple(left.shape)}",
            "they are (k, q, p) and (l, s, r) with k q = l r",
            "Check the factors.",
        )
    (blocks_in, q, p), (blocks_out, s, r) = right.shape, left.shape
    hidden = torch.arange(blocks_in * q)
    source, target = hidden // q, hidden % blocks_out
    reads = torch.arange(blocks_in) == source[:, None]
    writes = torch.zeros(len(hidden), s, blocks_out, dtype=torch.bool)
    writes[hidden, :, target] = True
    v, u = right.new_zeros(len(hidden), blocks_in, p), left.new_zeros(len(hidden), s, blocks_out)
    v[hidden, source] = right.reshape(-1, p)
    u[hidden, :, target] = left.permute(2, 0, 1).reshape(r * blocks_out, s)
    return LatticeWeights(
        u=u.reshape(len(hidden), s * blocks_out).T.contiguous(),
        v=v.reshape(len(hidden), blocks_in * p),
        reads=reads,
        writes=writes.reshape(len(hidden), s * blocks_out),
        tiles=torch.zeros(s * blocks_out, blocks_in, dtype=torch.bool),
        dense=torch.zeros(s * blocks_out, blocks_in * p),
        bias=bias,
        chunk_in=p,
        chunk_out=1,
        family="monarch",
    )


def block_sparse_weights(
    weight: Tensor,
    kept: Tensor,
    bias: Tensor | None = None,
    *,
    chunk_in: int = DEFAULT_CHUNK,
    chunk_out: int = DEFAULT_CHUNK,
) -> LatticeWeights:
    """The blocks of weight (m, n) that `kept` (ceil(m / chunk_out), ceil(n / chunk_in)) bool names, as dense tiles."""
    check_positive("chunk_in", chunk_in)
    check_positive("chunk_out", chunk_out)
    m, n = weight.shape
    check_shape("kept", kept, (_chunks(m, chunk_out), _chunks(n, chunk_in)), f"the weight is {m} x {n}")
    support = kept.repeat_interleave(chunk_out, dim=0)[:m].repeat_interleave(chunk_in, dim=1)[:, :n]
    return LatticeWeights(
        u=weight.new_zeros(m, 0),
        v=weight.new_zeros(0, n),
        reads=torch.zeros(0, kept.shape[1], dtype=torch.bool),
        writes=torch.zeros(0, kept.shape[0], dtype=torch.bool),
        tiles=kept.clone(),
        dense=torch.where(support, weight, torch.zeros_like(weight)),
        bias=bias,
        chunk_in=chunk_in,
        chunk_out=chunk_out,
        family="block_sparse",
    )
