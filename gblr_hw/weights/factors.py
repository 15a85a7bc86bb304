"""Evaluated weights: the numpy form that lowering reads, with masks computed, rounded and thresholded."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gblr_hw.weights.bits.grid import Grid
from gblr_hw.weights.chains import CHAIN_KINDS, ChainWeights
from gblr_hw.weights.mask import evaluation_mask
from gblr_hw.weights.mixes import Mixes, carried, check_mixes, in_use
from gblr_hw.weights.stored import (
    ConvWeights,
    DenseWeights,
    GBLRWeights,
    GroupedWeights,
    LatticeWeights,
    LayerWeights,
)
from gblr_hw.weights.structure import Structure, touched
from simulator.base.errors import InputError
from simulator.base.shown import Shown

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]

_LARGE = 1 << 30  # multiplications from which a product is looked at for blocks
_MOST_GROUPS = 64


@dataclass(frozen=True, eq=False, repr=False)
class Factors(Shown):
    """One layer as the hardware runs it: ``W = u v + dense``, as single ranks with their supports.

    u (m, K) and v (K, n) float32, zero outside writes (K, m) and reads (K, n), which are the supports that the
    evaluated masks leave; a block of rank r is r ranks with equal supports, and an empty block keeps its (empty) ranks.
    dense (m, n) float32 or None, zero outside dense_support (m, n). bias (m,) float32 or None. multiplications: per
    token (per output position for a convolution), the sum over blocks of min(r (|R_k| + |C_k|), |R_k| |C_k|) plus the
    entries of dense_support.
    block_sizes: ranks per block, in order, summing to K; () means that each rank is its own block.
    mix_source, mix_target (E,) int64 and mix_value (E,) float32: the value of rank target gets mix_value x the value of
    rank source added; sorted by target, then source, each pair once, without circles. W = u (chains) v + dense then.
    output_order (m,) int64: row p of u, writes, dense and bias is the layer's output output_order[p]; None means their
    natural order.
    grid: that the dense weights lie on, rows as they are stored, or None. rank_grid: that v lies on, or None.
    Raises InputError on inconsistent shapes.
    """

    in_features: int
    out_features: int
    u: Floats
    v: Floats
    writes: Bools
    reads: Bools
    dense: Floats | None
    dense_support: Bools | None
    bias: Floats | None
    family: str
    multiplications: int
    block_sizes: tuple[int, ...] = field(default=())
    mix_source: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    mix_target: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    mix_value: Floats = field(default_factory=lambda: np.zeros(0, np.float32))
    output_order: NDArray[np.int64] | None = None
    grid: Grid | None = None
    rank_grid: Grid | None = None

    def __post_init__(self) -> None:
        m, n, ranks = self.out_features, self.in_features, self.u.shape[-1]
        expected: dict[str, tuple[int, ...]] = {
            "u": (m, ranks),
            "v": (ranks, n),
            "writes": (ranks, m),
            "reads": (ranks, n),
            "dense": (m, n),
            "dense_support": (m, n),
            "bias": (m,),
        }
        for name, shape in expected.items():
            value = getattr(self, name)
            if value is not None and value.shape != shape:
                raise InputError(
                    f"factors field '{name}'",
                    f"shape {value.shape}",
                    f"it must be {shape}",
                    "Build it with evaluate().",
                )
        if (self.dense is None) != (self.dense_support is None):
            raise InputError("factors", "one of dense and dense_support", "they come together", "Give both or neither.")
        if self.block_sizes and sum(self.block_sizes) != ranks:
            raise InputError("block_sizes", str(sum(self.block_sizes)), f"they must sum to {ranks}", "Leave them out.")
        check_mixes(ranks, self.mix_source, self.mix_target, self.mix_value)
        order = self.output_order
        if order is not None and not np.array_equal(np.sort(order), np.arange(m)):
            raise InputError(
                "factors field 'output_order'",
                f"{len(order)} entries",
                f"it names each of {m} outputs once",
                "Leave it out where outputs are in order.",
            )

    @property
    def ranks(self) -> int:
        """Number of single ranks K."""
        return self.u.shape[1]

    @property
    def mixes(self) -> Mixes:
        """The edges of the ranks' chains, in float64."""
        return Mixes(self.mix_source, self.mix_target, self.mix_value.astype(np.float64))

    def stored_matrix(self) -> NDArray[np.float64]:
        """The layer's matrix (m, n) with its rows as they are stored, computed in float64."""
        v = carried(self.v, self.mixes) if len(self.mix_source) else self.v
        matrix = _product(self.u, v, self.writes)
        return matrix if self.dense is None else matrix + self.dense

    def matrix(self) -> NDArray[np.float64]:
        """The layer's matrix (m, n), outputs in their natural order, computed in float64."""
        matrix = self.stored_matrix()
        return matrix if self.output_order is None else matrix[np.argsort(self.output_order)]

    def in_natural_order(self) -> Factors:
        """The same layer with its outputs stored in their natural order."""
        if self.output_order is None:
            return self
        back = np.argsort(self.output_order)
        return replace(
            self,
            u=np.ascontiguousarray(self.u[back]),
            writes=np.ascontiguousarray(self.writes[:, back]),
            dense=None if self.dense is None else self.dense[back],
            dense_support=None if self.dense_support is None else self.dense_support[back],
            bias=None if self.bias is None else self.bias[back],
            output_order=None,
            grid=None if self.grid is None else self.grid.rows(back),
        )

    def block_starts(self) -> NDArray[np.int64]:
        """First rank of each block, then K: (number of blocks + 1,)."""
        sizes = self.block_sizes or (1,) * self.ranks
        return np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)]).astype(np.int64)


def _product(u: NDArray[Any], v: NDArray[Any], writes: NDArray[np.bool_]) -> NDArray[np.float64]:
    """u (m, K) times v (K, n) in float64; of large ones where outputs fall into few groups that read the same ranks
    (blocks), each group by its own ranks alone.
    """
    if u.size * v.shape[1] >= _LARGE:
        group = np.unique(np.packbits(writes.T, axis=1), axis=0, return_inverse=True)[1].reshape(-1)
        if group.max() < _MOST_GROUPS:
            product = np.empty((len(u), v.shape[1]))
            for number in range(int(group.max()) + 1):
                rows = np.flatnonzero(group == number)
                ranks = np.flatnonzero(writes[:, rows[0]])
                product[rows] = u[np.ix_(rows, ranks)].astype(np.float64) @ v[ranks].astype(np.float64)
            return product
    return np.asarray(u.astype(np.float64) @ v.astype(np.float64))


def block_multiplications(rows: NDArray[np.integer], cols: NDArray[np.integer], rank: int) -> int:
    """Multiplications per token of blocks of one rank: sum of min(rank (rows + cols), rows cols), zero where either is
    empty.

    rows and cols: support sizes per block, (K,). Source: arXiv 2310.18882, section 3 (cost of a GBLR matrix).
    """
    rows, cols = rows.astype(np.int64), cols.astype(np.int64)
    return int(np.minimum(rank * (rows + cols), rows * cols).sum())


def as_float32(tensor: Tensor) -> Floats:
    """A detached float32 numpy copy of a tensor, from any device and floating dtype."""
    return tensor.detach().to(device="cpu", dtype=torch.float32).contiguous().numpy().copy()


def _optional_float32(tensor: Tensor | None) -> Floats | None:
    return None if tensor is None else as_float32(tensor)


def evaluated_masks(weights: GBLRWeights) -> tuple[Tensor, Tensor]:
    """Evaluated masks of the inputs (K, n) and of the outputs (K, m), float32 on the CPU."""
    sigma = weights.sigma if weights.gaussian else None
    widths, locations = weights.widths.detach().cpu(), weights.locations.detach().cpu()
    return (
        evaluation_mask(widths[0], locations[0], weights.in_features, sigma=sigma),
        evaluation_mask(widths[1], locations[1], weights.out_features, sigma=sigma),
    )


def _evaluate_dense(weights: DenseWeights) -> Factors:
    m, n = weights.out_features, weights.in_features
    factors = _without_ranks(weights, as_float32(weights.weight), np.ones((m, n), np.bool_), m * n)
    return replace(factors, grid=weights.grid)


def _without_ranks(
    weights: DenseWeights | GroupedWeights, dense: Floats, support: Bools, multiplications: int
) -> Factors:
    m, n = dense.shape
    return Factors(
        in_features=n,
        out_features=m,
        u=np.zeros((m, 0), np.float32),
        v=np.zeros((0, n), np.float32),
        writes=np.zeros((0, m), np.bool_),
        reads=np.zeros((0, n), np.bool_),
        dense=dense,
        dense_support=support,
        bias=_optional_float32(weights.bias),
        family=weights.family,
        multiplications=multiplications,
    )


def _evaluate_gblr(weights: GBLRWeights) -> Factors:
    blocks, rank, m, n = weights.blocks, weights.rank, weights.out_features, weights.in_features
    mask_in, mask_out = (as_float32(mask) for mask in evaluated_masks(weights))
    v = (as_float32(weights.lr_weight1) * mask_in[:, None, :]).reshape(blocks * rank, n)
    u = (as_float32(weights.lr_weight2) * mask_out[:, :, None]).transpose(1, 0, 2).reshape(m, blocks * rank)
    reads, writes = mask_in != 0, mask_out != 0
    return Factors(
        in_features=n,
        out_features=m,
        u=np.ascontiguousarray(u),
        v=v,
        writes=writes.repeat(rank, axis=0),
        reads=reads.repeat(rank, axis=0),
        dense=None,
        dense_support=None,
        bias=_optional_float32(weights.bias),
        family=weights.family,
        multiplications=block_multiplications(writes.sum(axis=1), reads.sum(axis=1), rank),
        block_sizes=(rank,) * blocks,
    )


def _evaluate_lattice(weights: LatticeWeights) -> Factors:
    reads, writes = weights.read_support().cpu().numpy(), weights.write_support().cpu().numpy()
    support = weights.dense_support().cpu().numpy()
    has_tiles = bool(support.any())
    return Factors(
        in_features=weights.in_features,
        out_features=weights.out_features,
        u=as_float32(weights.u),
        v=as_float32(weights.v),
        writes=writes,
        reads=reads,
        dense=as_float32(weights.dense) if has_tiles else None,
        dense_support=support if has_tiles else None,
        bias=_optional_float32(weights.bias),
        family=weights.family,
        multiplications=block_multiplications(writes.sum(axis=1), reads.sum(axis=1), 1) + int(support.sum()),
        grid=weights.grid if has_tiles else None,
        rank_grid=weights.rank_grid,
    )


def _evaluate_conv(weights: ConvWeights) -> Factors:
    parts = [_evaluate_gblr(part) for part in weights.parts]
    n = weights.in_features

    def spread(values: NDArray, position: int) -> NDArray:
        # A position's part reads its own run of in_channels in the im2col row, which is (k1, k2, in_channels) ordered.
        wide = np.zeros((values.shape[0], n), values.dtype)
        wide[:, position * values.shape[1] : (position + 1) * values.shape[1]] = values
        return wide

    return Factors(
        in_features=n,
        out_features=weights.out_features,
        u=np.concatenate([part.u for part in parts], axis=1),
        v=np.concatenate([spread(part.v, index) for index, part in enumerate(parts)]),
        writes=np.concatenate([part.writes for part in parts]),
        reads=np.concatenate([spread(part.reads, index) for index, part in enumerate(parts)]),
        dense=None,
        dense_support=None,
        bias=_optional_float32(weights.bias),
        family=weights.family,
        multiplications=sum(part.multiplications for part in parts),
        block_sizes=tuple(size for part in parts for size in part.block_sizes),
    )


def _evaluate_grouped(weights: GroupedWeights) -> Factors:
    kernel = as_float32(weights.kernel)
    outputs, share, k1, k2 = kernel.shape
    m, n, groups = weights.out_features, weights.in_features, weights.groups
    dense = np.zeros((m, k1, k2, groups, share), np.float32)
    support = np.zeros((m, k1, k2, groups, share), np.bool_)
    # Advanced indices that a slice parts come first: (outputs, k1, k2, share).
    places = np.arange(outputs), slice(None), slice(None), weights.group_of_output.numpy()
    dense[places], support[places] = kernel.transpose(0, 2, 3, 1), True
    return _without_ranks(weights, dense.reshape(m, n), support.reshape(m, n), kernel.size)


def _evaluate_chain(weights: ChainWeights) -> Factors:
    order = slice(None) if weights.output_order is None else weights.output_order.cpu().numpy()
    reads, writes = weights.reads.cpu().numpy(), weights.writes.cpu().numpy()[order].T
    bias = _optional_float32(weights.bias)
    return Factors(
        in_features=weights.in_features,
        out_features=weights.out_features,
        u=np.ascontiguousarray(as_float32(weights.u)[order]),
        v=as_float32(weights.v),
        writes=np.ascontiguousarray(writes),
        reads=np.ascontiguousarray(reads),
        dense=None,
        dense_support=None,
        bias=None if bias is None else bias[order],
        family=weights.family,
        multiplications=int(reads.sum()) + len(weights.mix_value) + int(writes.sum()),
        mix_source=weights.mix_source.cpu().numpy(),
        mix_target=weights.mix_target.cpu().numpy(),
        mix_value=as_float32(weights.mix_value),
        output_order=None if weights.output_order is None else np.asarray(order),
    )


def evaluate(weights: LayerWeights) -> Factors:
    """The evaluated form of any stored layer. A convolution becomes a linear over im2col rows of n = k1 k2 in_channels
    inputs.

    Raises InputError for an object that is none of the weight kinds.
    """
    if isinstance(weights, DenseWeights):
        return _evaluate_dense(weights)
    if isinstance(weights, GBLRWeights):
        return _evaluate_gblr(weights)
    if isinstance(weights, LatticeWeights):
        return _evaluate_lattice(weights)
    if isinstance(weights, ConvWeights):
        return _evaluate_conv(weights)
    if isinstance(weights, GroupedWeights):
        return _evaluate_grouped(weights)
    if isinstance(weights, CHAIN_KINDS):
        return _evaluate_chain(weights.chain())
    known = ", ".join(kind.__name__ for kind in get_args(LayerWeights))
    raise InputError(
        "layer weights",
        type(weights).__name__,
        f"they must be one of {known}",
        "Turn a model or a module into weights with weights_of().",
    )


def structure_of(factors: Factors, rows: int, cols: int) -> Structure:
    """The smallest structure that holds evaluated factors: the chunks of `rows` in, `cols` out that they touch."""
    reads = touched(factors.reads, rows)
    writes = touched(factors.writes, cols)
    alive = in_use(reads, writes, factors.mix_source, factors.mix_target)
    if factors.dense_support is None:
        tiles = np.zeros((writes.shape[1], reads.shape[1]), bool)
    else:
        tiles = touched(touched(factors.dense_support, rows).T, cols).T
    chained = None
    if len(factors.mix_source):
        chained = np.zeros(factors.ranks, bool)
        edges = alive[factors.mix_source] & alive[factors.mix_target]
        chained[factors.mix_source[edges]] = chained[factors.mix_target[edges]] = True
    return Structure(tiles, reads & alive[:, None], writes & alive[:, None], chained)
