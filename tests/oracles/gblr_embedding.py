"""The baselines as GBLR, exactly: an independent way to say what a layer is, which tests compare with its own weights."""

from __future__ import annotations

import torch
from torch import Tensor

from gblr_hw.weights.from_factors import DEFAULT_CHUNK, block_sparse_weights
from gblr_hw.weights.stored import DenseWeights, GBLRWeights, LatticeWeights
from simulator.base.errors import InputError


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
    rank (all masks full), grids of blocks and block sparse layers qualify. A one-channel interval is stored with width
    2/n, since evaluation empties narrower ones. Raises InputError for ranks in several pieces and for layers with one
    input or output.
    """
    lattice = block_sparse_weights(weights.weight, torch.ones(1, 1, dtype=torch.bool), weights.bias,
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

    Shapes as `block_sparse_weights`. Raises InputError for layers with one input or output.
    """
    sparse = block_sparse_weights(weight, kept, bias, chunk_in=chunk_in, chunk_out=chunk_out)
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
