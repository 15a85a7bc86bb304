"""What a checkpoint holds for one layer: the raw tensors of each family, checked on construction.

These are the *stored* forms. What the hardware runs is the *evaluated* form (``gblr_hw.weights.factors``), where the
masks have been computed, rounded and thresholded.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from gblr_hw.weights.bits.grid import Grid
from gblr_hw.weights.chains import BLASTWeights, ChainWeights, KroneckerWeights, MonarchWeights, TensorTrainWeights
from gblr_hw.weights.checks import (
    check_bias,
    check_dims,
    check_finite,
    check_positive,
    check_range,
    check_shape,
    check_sigma,
)
from gblr_hw.weights.family import lattice_family
from gblr_hw.weights.structure import Structure
from simulator.base.arithmetic import ceil_div
from simulator.base.errors import InputError
from simulator.base.shown import Shown

Arrangement = Literal["positions", "unfolded"]
# An optimiser step may carry a width a little outside [0, 1], and locations are free to go round. A width of dozens is
# one given in channels; a location so far out has lost the digits that say where the interval is.
_WIDTH_RANGE = (-1.0, 2.0)
_LOCATION_RANGE = (-64.0, 64.0)


@dataclass(frozen=True, eq=False, repr=False)
class DenseWeights(Shown):
    """A dense layer ``y = weight x + bias``: weight (m, n), bias (m,) or None. grid: of few bits, that the weights lie
    on; the hardware then runs its codes. Raises InputError on bad shapes or values, and weights beside their grid.
    """

    weight: Tensor
    bias: Tensor | None = None
    grid: Grid | None = None

    def __post_init__(self) -> None:
        check_dims("weight", self.weight, 2, "(out_features, in_features)")
        check_finite("weight", self.weight)
        check_bias(self.bias, self.out_features)
        if self.grid is not None:
            self.grid.codes_of(self.weight.detach().float().cpu().numpy())

    @property
    def in_features(self) -> int:
        return self.weight.shape[1]

    @property
    def out_features(self) -> int:
        return self.weight.shape[0]

    @property
    def family(self) -> str:
        return "dense"


@dataclass(frozen=True, eq=False, repr=False)
class GBLRWeights(Shown):
    """A GBLR layer in the authors' published layout (Lee & Kim, ICLR 2024, arXiv 2310.18882).

    widths (2, K) and locations (2, K), normalised to [0, 1], with index 0 = inputs and 1 = outputs; lr_weight1 (K, r,
    n); lr_weight2 (K, m, r); bias (m,) or None. sigma and gaussian: the Gaussian term of the mask and whether it is
    used. Evaluation empties widths below zero and follows the mask's formula above one (the interval then overlaps
    itself); locations are cyclic. Raises InputError on bad shapes, NaN or infinite values, widths outside [-1, 2] or
    locations outside [-64, 64] (given in channels, or damaged), or a sigma that is not positive and finite.
    """

    widths: Tensor
    locations: Tensor
    lr_weight1: Tensor
    lr_weight2: Tensor
    bias: Tensor | None
    sigma: float
    gaussian: bool

    def __post_init__(self) -> None:
        check_dims("lr_weight1", self.lr_weight1, 3, "(blocks, rank, in_features)")
        check_dims("lr_weight2", self.lr_weight2, 3, "(blocks, out_features, rank)")
        blocks, rank = self.lr_weight1.shape[:2]
        check_shape(
            "lr_weight2",
            self.lr_weight2,
            (blocks, self.out_features, rank),
            f"lr_weight1 has {blocks} blocks of rank {rank}",
        )
        for name in ("widths", "locations"):
            check_shape(
                name, getattr(self, name), (2, blocks), f"lr_weight1 has {blocks} blocks (index 0 inputs, 1 outputs)"
            )
        for name in ("widths", "locations", "lr_weight1", "lr_weight2"):
            check_finite(name, getattr(self, name))
        check_bias(self.bias, self.out_features)
        check_range("widths", self.widths, _WIDTH_RANGE, "a width is a fraction of the channels")
        check_range("locations", self.locations, _LOCATION_RANGE, "a location is a fraction of the channels")
        check_sigma(self.sigma)

    @property
    def in_features(self) -> int:
        return self.lr_weight1.shape[2]

    @property
    def out_features(self) -> int:
        return self.lr_weight2.shape[1]

    @property
    def blocks(self) -> int:
        """Number of blocks K."""
        return self.lr_weight1.shape[0]

    @property
    def rank(self) -> int:
        """Rank r of each block."""
        return self.lr_weight1.shape[1]

    @property
    def family(self) -> str:
        return "gblr"


@dataclass(frozen=True, eq=False, repr=False)
class LatticeWeights(Shown):
    """Ranks with any set of chunks, plus dense tiles: ``W = u v + dense`` (`Structure` holds which are there).

    u (m, K) and v (K, n) are zero outside the chunks of `writes` (K, R) and `reads` (K, C); dense (m, n) is zero
    outside `tiles` (R, C). Chunks are runs of chunk_in inputs and chunk_out outputs (the last one may be shorter), so
    C = ceil(n / chunk_in), R = ceil(m / chunk_out). family: the registered one that the layer
    belongs to, which says what a projection takes from it. grid: of few bits, that the dense weights lie on; the
    hardware then runs its codes. rank_grid: the same for v, a step a rank; u then has as many bits, and is rounded when
    it is lowered, as only then it is known what a rank's code stands for. Ranks without one have the machine's
    weight_bits.
    Raises InputError on bad shapes or values, on a nonzero outside the declared chunks or tiles, and on dense weights
    beside their grids.
    """

    u: Tensor
    v: Tensor
    reads: Tensor
    writes: Tensor
    tiles: Tensor
    dense: Tensor
    bias: Tensor | None
    chunk_in: int
    chunk_out: int
    family: str = "lattice"
    grid: Grid | None = None
    rank_grid: Grid | None = None

    def __post_init__(self) -> None:
        check_positive("chunk_in", self.chunk_in)
        check_positive("chunk_out", self.chunk_out)
        check_dims("dense", self.dense, 2, "(out_features, in_features)")
        m, n = self.dense.shape
        ranks = self.u.shape[-1] if self.u.dim() else 0
        rows, cols = ceil_div(m, self.chunk_out), ceil_div(n, self.chunk_in)
        rule = (
            f"the layer is {m} x {n} with {ranks} ranks, in chunks of {self.chunk_out} outputs, {self.chunk_in} inputs"
        )
        check_shape("u", self.u, (m, ranks), rule)
        check_shape("v", self.v, (ranks, n), rule)
        check_shape("reads", self.reads, (ranks, cols), rule)
        check_shape("writes", self.writes, (ranks, rows), rule)
        check_shape("tiles", self.tiles, (rows, cols), rule)
        for name in ("u", "v", "dense"):
            check_finite(name, getattr(self, name))
        for name in ("reads", "writes", "tiles"):
            self._check_bool(name)
        check_bias(self.bias, m)
        lattice_family(self.family)
        self._check_zero("v", self.v, self.read_support())
        self._check_zero("u", self.u, self.write_support().T)
        self._check_zero("dense", self.dense, self.dense_support())
        if self.grid is not None:
            self.grid.codes_of(self.dense.detach().float().cpu().numpy())
        if self.rank_grid is not None:
            self.rank_grid.codes_of(self.v.detach().float().cpu().numpy())

    def _check_bool(self, name: str) -> None:
        dtype = getattr(self, name).dtype
        if dtype != torch.bool:
            raise InputError(
                f"tensor '{name}'", f"dtype {dtype}", "a set of chunks is boolean", "Convert with .bool()."
            )

    @staticmethod
    def _check_zero(name: str, tensor: Tensor, support: Tensor) -> None:
        stray = (tensor != 0) & ~support
        if bool(stray.any()):
            index = tuple(int(i) for i in stray.nonzero()[0])
            raise InputError(
                f"tensor '{name}'",
                f"{float(tensor[index])} at index {index}",
                "it must be zero outside the chunks that the layer declares",
                "Zero it there, or add the chunk to the set.",
            )

    def matrix(self) -> Tensor:
        """The matrix (m, n) that the layer multiplies by, in float64."""
        return self.u.double() @ self.v.double() + self.dense.double()

    def structure(self) -> Structure:
        """The point of the tile lattice that the layer is."""
        return Structure(*(getattr(self, name).cpu().numpy() for name in ("tiles", "reads", "writes")))

    def read_support(self) -> Tensor:
        """Inputs each rank may read, (K, n) bool."""
        return self.reads.repeat_interleave(self.chunk_in, dim=1)[:, : self.in_features]

    def write_support(self) -> Tensor:
        """Outputs each rank may write, (K, m) bool."""
        return self.writes.repeat_interleave(self.chunk_out, dim=1)[:, : self.out_features]

    def dense_support(self) -> Tensor:
        """Entries of the kept dense tiles, (m, n) bool."""
        by_row = self.tiles.repeat_interleave(self.chunk_out, dim=0)[: self.out_features]
        return by_row.repeat_interleave(self.chunk_in, dim=1)[:, : self.in_features]

    @property
    def in_features(self) -> int:
        return self.dense.shape[1]

    @property
    def out_features(self) -> int:
        return self.dense.shape[0]


@dataclass(frozen=True, eq=False, repr=False)
class ConvWeights(Shown):
    """A convolution as GBLR, in one of the two published arrangements.

    "positions": one part per kernel position in row-major order (k1, k2), each in_channels -> out_channels, outputs
    summed. "unfolded": a single part, (k1 k2 in_channels) -> out_channels, inputs in (k1, k2, in_channels) order.
    Seen as a linear layer it reads an im2col row of k1 * k2 * in_channels inputs in (k1, k2, in_channels) order, in
    both arrangements. Bias (out_channels,) or None belongs to the convolution; the parts have none.
    Raises InputError on a wrong number or shape of parts, or a part with a bias.
    """

    parts: tuple[GBLRWeights, ...]
    arrangement: Arrangement
    kernel: tuple[int, int]
    in_channels: int
    out_channels: int
    bias: Tensor | None = None

    def __post_init__(self) -> None:
        for name, size in zip(("k1", "k2"), self.kernel, strict=True):
            check_positive(f"kernel size {name}", size)
        check_positive("in_channels", self.in_channels)
        check_positive("out_channels", self.out_channels)
        if self.arrangement not in ("positions", "unfolded"):
            raise InputError(
                "arrangement", repr(self.arrangement), "it is 'positions' or 'unfolded'", "Choose one of them."
            )
        positions = self.kernel[0] * self.kernel[1]
        count, inputs = (positions, self.in_channels) if self.arrangement == "positions" else (1, self.in_features)
        if len(self.parts) != count:
            raise InputError(
                "parts",
                f"{len(self.parts)} GBLR parts",
                f"a {self.kernel[0]} x {self.kernel[1]} kernel arranged as '{self.arrangement}' has {count}",
                "Give the kernel size and the arrangement that the layer was trained with.",
            )
        for index, part in enumerate(self.parts):
            self._check_part(index, part, inputs)
        check_bias(self.bias, self.out_channels)

    def _check_part(self, index: int, part: GBLRWeights, inputs: int) -> None:
        if (part.in_features, part.out_features) != (inputs, self.out_channels):
            raise InputError(
                f"part {index}",
                f"{part.in_features} inputs, {part.out_features} outputs",
                f"arranged as '{self.arrangement}' it must have {inputs} inputs and {self.out_channels} outputs",
                "Check in_channels, out_channels and the kernel size.",
            )
        if part.bias is not None:
            raise InputError(
                f"part {index}", "a bias", "a convolution has one bias of its own", "Move it to the layer."
            )

    @property
    def in_features(self) -> int:
        """Inputs of the layer as a linear over an im2col row: k1 * k2 * in_channels."""
        return self.kernel[0] * self.kernel[1] * self.in_channels

    @property
    def out_features(self) -> int:
        return self.out_channels

    @property
    def family(self) -> str:
        return f"conv_{self.arrangement}"


@dataclass(frozen=True, eq=False, repr=False)
class GroupedWeights(Shown):
    """A convolution whose outputs read a group of the inputs each: kernel (oc, ic / groups, k1, k2), bias (oc,).

    As a linear over im2col rows, (k1, k2, ic), its matrix is zero outside the groups' blocks. No file holds it so.
    Raises InputError on inconsistent shapes and weights that are not finite.
    """

    kernel: Tensor
    groups: int
    bias: Tensor | None = None

    def __post_init__(self) -> None:
        check_dims("kernel", self.kernel, 4, "(outputs, inputs of a group, k1, k2)")
        check_finite("kernel", self.kernel)
        check_bias(self.bias, self.out_features)
        if self.groups < 1 or self.out_features % self.groups:
            raise InputError(
                "groups", str(self.groups), f"they divide the {self.out_features} outputs", "Check the layer's sizes."
            )

    @property
    def in_features(self) -> int:
        """Inputs of the layer as a linear over an im2col row: k1 * k2 * groups * inputs of a group."""
        return self.kernel.shape[1] * self.kernel.shape[2] * self.kernel.shape[3] * self.groups

    @property
    def out_features(self) -> int:
        return self.kernel.shape[0]

    @property
    def family(self) -> str:
        return "grouped"

    @property
    def group_of_output(self) -> Tensor:
        """(oc,) int64: the group that each output belongs to."""
        return torch.arange(self.out_features) // (self.out_features // self.groups)


FileWeights = (
    DenseWeights
    | GBLRWeights
    | LatticeWeights
    | ConvWeights
    | BLASTWeights
    | MonarchWeights
    | KroneckerWeights
    | TensorTrainWeights
)
LayerWeights = FileWeights | GroupedWeights | ChainWeights
# The kinds that files hold.
WEIGHT_KINDS = (
    DenseWeights,
    GBLRWeights,
    LatticeWeights,
    ConvWeights,
    BLASTWeights,
    MonarchWeights,
    KroneckerWeights,
    TensorTrainWeights,
)


def named_tensors(weights: LayerWeights) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a layer with their field names, in declaration order; a ConvWeights part gives
    ``parts.0.widths``.
    """
    for name in weights.__dataclass_fields__:
        value = getattr(weights, name)
        if isinstance(value, Tensor):
            yield name, value
        elif isinstance(value, tuple) and value and isinstance(value[0], GBLRWeights):
            for index, part in enumerate(value):
                for inner, tensor in named_tensors(part):
                    yield f"{name}.{index}.{inner}", tensor
