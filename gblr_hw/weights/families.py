"""Baselines as exact weights: dense, low rank, block low rank (Monarch) and block sparse, and their embedding into
GBLR.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gblr_hw.weights.stored import DenseWeights, GBLRWeights, LatticeWeights, check_positive, check_shape
from simulator.base.arithmetic import ceil_div
from simulator.base.errors import InputError

DEFAULT_CHUNK = 32


def _chunks(channels: int, chunk: int) -> int:
    return ceil_div(channels, chunk)


def dense(weight: Tensor, bias: Tensor | None = None) -> DenseWeights:
    """A dense layer: weight (m, n), bias (m,)."""
    return DenseWeights(weight, bias)


def low_rank(
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


def block_low_rank(
    u: Tensor, v: Tensor, bias: Tensor | None = None, *, shape: tuple[int, int] | None = None
) -> LatticeWeights:
    """A grid of R x C blocks of rank r: block (i, j) is ``u[i, j] @ v[i, j]``, u (R, C, p, r), v (R, C, r, q).

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
        family="block_low_rank",
    )


def monarch(right: Tensor, left: Tensor, bias: Tensor | None = None) -> LatticeWeights:
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
        family="block_low_rank",
    )


def block_sparse(
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


def cyclic_runs(support: Tensor) -> tuple[Tensor, Tensor]:
    """Start and length of each row of support (K, n) bool as one cyclic run; an empty row gives length 0.

    Raises InputError if a row is more than one run.
    """
    begins = support & ~support.roll(1, dims=1)
    broken = (begins.sum(dim=1) > 1).nonzero()
    if len(broken):
        raise InputError(
            "ranks",
            f"rank {int(broken[0])} in several pieces",
            "a GBLR mask is one cyclic interval",
            "Keep it as a lattice.",
        )
    # A full row never begins: it starts at 0, as an empty one does.
    return begins.int().argmax(dim=1), support.sum(dim=1)


def _interval_parameters(support: Tensor) -> tuple[Tensor, Tensor]:
    """Widths and locations (K,) whose evaluated masks cover each cyclic run of support (K, n)."""
    starts, lengths = cyclic_runs(support)
    channels = support.shape[1]
    if channels == 1 and bool((lengths == 1).any()):
        raise InputError("layer", "one channel", "a GBLR mask of width 1/n or less is empty", "Keep it dense.")
    # The evaluation rules empty an interval of one channel; on two channels the factor is zero on the other one.
    lengths = torch.where(lengths == 1, torch.full_like(lengths, 2), lengths)
    # In double precision, so that the evaluated masks are exact zeros and ones.
    return lengths.double() / channels, starts.double() / channels


def as_gblr(weights: DenseWeights | LatticeWeights) -> GBLRWeights:
    """The same matrix as exact GBLR with rank-1 blocks, without the Gaussian.

    Each rank whose chunks form cyclic intervals is a block; each dense tile is as many blocks as its shorter side. Low
    rank (all masks full), block low rank and block sparse layers qualify. A one-channel interval is stored with width
    2/n, since evaluation empties narrower ones. Raises InputError for ranks in several pieces and for layers with one
    input or output.
    """
    lattice = block_sparse(weights.weight, torch.ones(1, 1, dtype=torch.bool), weights.bias,
                           chunk_in=weights.in_features, chunk_out=weights.out_features) \
        if isinstance(weights, DenseWeights) else weights  # fmt: skip
    tile_u, tile_v, tile_writes, tile_reads = _tile_ranks(lattice)
    u = torch.cat([lattice.u.T, tile_u]).float()
    v = torch.cat([lattice.v, tile_v]).float()
    widths_in, locations_in = _interval_parameters(torch.cat([lattice.read_support(), tile_reads]))
    widths_out, locations_out = _interval_parameters(torch.cat([lattice.write_support(), tile_writes]))
    return GBLRWeights(
        widths=torch.stack([widths_in, widths_out]),
        locations=torch.stack([locations_in, locations_out]),
        lr_weight1=v.unsqueeze(1).contiguous(),
        lr_weight2=u.unsqueeze(2).contiguous(),
        bias=weights.bias,
        sigma=100.0,
        gaussian=False,
    )


def _tile_ranks(lattice: LatticeWeights) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The dense tiles as exact ranks: u (k, m), v (k, n), write support (k, m), read support (k, n)."""
    m, n = lattice.out_features, lattice.in_features
    us, vs, writes, reads = ([lattice.dense.new_zeros(0, size)] for size in (m, n, m, n))
    for i, j in lattice.tiles.nonzero().tolist():
        rows = slice(i * lattice.chunk_out, min(m, (i + 1) * lattice.chunk_out))
        cols = slice(j * lattice.chunk_in, min(n, (j + 1) * lattice.chunk_in))
        block = lattice.dense[rows, cols]
        side = min(block.shape)
        # block = block @ identity = identity @ block, whichever has fewer ranks; both are exact.
        tall = block.shape[0] >= block.shape[1]
        u, v = lattice.dense.new_zeros(side, m), lattice.dense.new_zeros(side, n)
        u[:, rows] = block.T if tall else torch.eye(side, dtype=block.dtype)
        v[:, cols] = torch.eye(side, dtype=block.dtype) if tall else block
        write, read = torch.zeros_like(u), torch.zeros_like(v)
        write[:, rows] = u[:, rows] if not tall else 1.0
        read[:, cols] = v[:, cols] if tall else 1.0
        for parts, part in zip((us, vs, writes, reads), (u, v, write, read), strict=True):
            parts.append(part)
    return torch.cat(us), torch.cat(vs), torch.cat(writes) != 0, torch.cat(reads) != 0


def block_sparse_as_gblr(
    weight: Tensor,
    kept: Tensor,
    bias: Tensor | None = None,
    *,
    chunk_in: int = DEFAULT_CHUNK,
    chunk_out: int = DEFAULT_CHUNK,
) -> GBLRWeights:
    """Block sparse as GBLR whose blocks are the kept ones, with rank min(chunk_in, chunk_out): exact, without the
    Gaussian.

    Shapes as `block_sparse`. Raises InputError for layers with one input or output.
    """
    sparse = block_sparse(weight, kept, bias, chunk_in=chunk_in, chunk_out=chunk_out)
    (m, n), places = weight.shape, kept.nonzero()
    rank, blocks = min(chunk_in, chunk_out, m, n), len(places)
    v, u = torch.zeros(blocks, rank, n), torch.zeros(blocks, m, rank)
    reads, writes = torch.zeros(blocks, n, dtype=torch.bool), torch.zeros(blocks, m, dtype=torch.bool)
    for index, (i, j) in enumerate(places.tolist()):
        rows = slice(i * chunk_out, min(m, (i + 1) * chunk_out))
        cols = slice(j * chunk_in, min(n, (j + 1) * chunk_in))
        block = sparse.dense[rows, cols].float()
        reads[index, cols], writes[index, rows] = True, True
        side = min(block.shape)
        if block.shape[0] >= block.shape[1]:
            u[index, rows, :side], v[index, :side, cols] = block, torch.eye(side)
        else:
            u[index, rows, :side], v[index, :side, cols] = torch.eye(side), block
    widths_in, locations_in = _interval_parameters(reads)
    widths_out, locations_out = _interval_parameters(writes)
    return GBLRWeights(
        widths=torch.stack([widths_in, widths_out]),
        locations=torch.stack([locations_in, locations_out]),
        lr_weight1=v,
        lr_weight2=u,
        bias=bias,
        sigma=100.0,
        gaussian=False,
    )
