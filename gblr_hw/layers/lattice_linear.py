"""A linear layer on a lattice structure: ranks with any chunks, plus dense tiles; packed once it is fixed."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from gblr_hw.layers.linear import factored_is_cheaper
from gblr_hw.layers.tile_linear import tile_linear
from gblr_hw.weights.bits.grid import Grid, kept_grid
from gblr_hw.weights.family import Unit, lattice_family
from gblr_hw.weights.stored import LatticeWeights
from gblr_hw.weights.structure import Structure, channel_mask

# Tile by tile pays from this many weights a tile on, and up to this share of the tiles:
# benchmarks/speed/training_step.py.
_TILE_WEIGHTS = 256
_TILE_SHARE = 0.5


class LatticeLinear(nn.Module):
    """``y = (u v + dense) x + bias`` with u (m, K), v (K, n) and dense (m, n) zero outside the chunks of a structure.

    Parameters
    ----------
    in_features, out_features: n and m.
    structure: which chunks each rank reads and writes and which tiles are dense.
    chunk_in, chunk_out: channels per input chunk (the array's rows P) and per output chunk (its columns Q).
    bias: whether there is a bias (m,).
    family: the registered one that the layer belongs to, which says what a projection takes from it.

    State dict: ``u``, ``v``, ``dense`` (absent when the structure has no tiles at construction), ``bias``, and the
    buffers ``reads`` (K, C), ``writes`` (K, R), ``tiles`` (R, C), all bool. `set_structure` may change the structure,
    never K.

    The layer multiplies masks into full factors, so that any structure can come in force. `pack` is for a structure
    that stays: then only living ranks and kept tiles are computed with, to the same numbers and gradients but for
    rounding. With `open_gradients` the parameters also receive the gradients that they would have without masks: what
    a part that was dropped would be worth. They are for whoever regrows parts, and have to be masked before a step.
    """

    u: nn.Parameter
    v: nn.Parameter
    reads: Tensor
    writes: Tensor
    tiles: Tensor
    u_mask: Tensor
    v_mask: Tensor
    dense_mask: Tensor
    alive: Tensor
    kept_tiles: Tensor

    def __init__(
        self,
        in_features: int,
        out_features: int,
        structure: Structure,
        chunk_in: int,
        chunk_out: int,
        *,
        bias: bool = True,
        family: str = "lattice",
    ) -> None:
        lattice_family(family)
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.chunk_in, self.chunk_out, self.family = chunk_in, chunk_out, family
        ranks = len(structure.reads)
        # Both factors share the scale, so that neither learns faster, and the product has the variance of a dense
        # layer.
        scale = (3.0 * in_features * max(ranks, 1)) ** -0.25
        self.u = nn.Parameter(torch.empty(out_features, ranks).normal_(0, scale))
        self.v = nn.Parameter(torch.empty(ranks, in_features).normal_(0, scale))
        bound = 1 / math.sqrt(in_features)
        dense = torch.empty(out_features, in_features).uniform_(-bound, bound)
        self.dense = nn.Parameter(dense) if structure.tiles.any() else None
        self.bias = nn.Parameter(torch.zeros(out_features)) if bias else None
        for name in ("reads", "writes", "tiles"):
            self.register_buffer(name, torch.zeros(getattr(structure, name).shape, dtype=torch.bool))
        for name in ("u_mask", "v_mask", "dense_mask", "alive"):
            self.register_buffer(name, torch.empty(0), persistent=False)
        self.kept_tiles = torch.empty(0)  # no buffer: it stays on the CPU
        self.packed = self.open_gradients = False
        # That dense weights and v lie on as long as they are not trained.
        self.grid: Grid | None = None
        self.rank_grid: Grid | None = None
        self.set_structure(structure)
        self.register_load_state_dict_post_hook(_refresh_masks)

    @property
    def unit(self) -> Unit:
        """What a projection takes from the layer at a time."""
        unit = lattice_family(self.family).unit
        assert unit is not None  # as of every family on the lattice
        return unit

    @property
    def structure(self) -> Structure:
        """The structure in force."""
        return Structure(*(getattr(self, name).cpu().numpy() for name in ("tiles", "reads", "writes")))

    def set_structure(self, structure: Structure) -> None:
        """Put another structure (same K, same chunks) in force; factors outside it become zero."""
        for name in ("reads", "writes", "tiles"):
            getattr(self, name).copy_(torch.from_numpy(np.array(getattr(structure, name))))
        self._set_masks()
        with torch.no_grad():
            self.u.mul_(self.u_mask)
            self.v.mul_(self.v_mask)
            if self.dense is not None:
                self.dense.mul_(self.dense_mask)

    def _set_masks(self) -> None:
        structure, like = self.structure, self.u
        writes = channel_mask(structure.writes, self.chunk_out, self.out_features)
        reads = channel_mask(structure.reads, self.chunk_in, self.in_features)
        tiles = channel_mask(structure.tiles, self.chunk_in, self.in_features).T
        self.u_mask = torch.from_numpy(writes.T.copy()).to(like)
        self.v_mask = torch.from_numpy(reads).to(like)
        self.dense_mask = torch.from_numpy(channel_mask(tiles, self.chunk_out, self.out_features).T.copy()).to(like)
        self.alive = torch.from_numpy(np.flatnonzero(structure.reads.any(axis=1))).to(like.device)
        self.kept_tiles = torch.from_numpy(np.argwhere(structure.tiles))

    def pack(self, packed: bool = True) -> None:
        """Compute with living ranks and kept tiles only from now on (or no longer)."""
        self.packed = packed

    def forward(self, x: Tensor) -> Tensor:
        """x (..., n) -> (..., m)."""
        if self.packed:
            return self._forward_packed(x)
        if self.u.shape[1] == 0 and self.dense is not None:
            return functional.linear(x, self._masked(self.dense, self.dense_mask), self.bias)
        v, u = self._masked(self.v, self.v_mask), self._masked(self.u, self.u_mask)
        y = functional.linear(functional.linear(x, v), u, self.bias)
        return y if self.dense is None else y + functional.linear(x, self._masked(self.dense, self.dense_mask))

    def matrix(self) -> Tensor:
        """W (m, n)."""
        found = self._masked(self.u, self.u_mask) @ self._masked(self.v, self.v_mask)
        return found if self.dense is None else found + self._masked(self.dense, self.dense_mask)

    def _masked(self, parameter: Tensor, mask: Tensor) -> Tensor:
        if self.open_gradients:
            return parameter.detach() * mask + (parameter - parameter.detach())
        return parameter * mask

    def _forward_packed(self, x: Tensor) -> Tensor:
        dense = self.dense if len(self.kept_tiles) else None
        ranks, bias = len(self.alive), self._packed_bias(x)
        if ranks == 0:
            if dense is None:
                return x.new_zeros(*x.shape[:-1], self.out_features) + bias
            if self._tile_by_tile(x):
                return self._run_tiles(x, dense) + bias
            return functional.linear(x, dense * self.dense_mask, bias)
        u, v = self._living_factors()
        if dense is not None and self._tile_by_tile(x):
            return functional.linear(functional.linear(x, v), u, bias) + self._run_tiles(x, dense)
        tokens = x.numel() // self.in_features
        if dense is None and factored_is_cheaper(tokens, self.out_features, self.in_features, ranks):
            return functional.linear(functional.linear(x, v), u, bias)
        matrix = u @ v if dense is None else torch.addmm(dense * self.dense_mask, u, v)
        return functional.linear(x, matrix, bias)

    def _run_tiles(self, x: Tensor, dense: Tensor) -> Tensor:
        rows = x.reshape(-1, self.in_features)
        y = tile_linear(rows, dense, self.kept_tiles, self.chunk_in, self.chunk_out)
        return y.view(*x.shape[:-1], self.out_features)

    def _packed_bias(self, x: Tensor) -> Tensor:
        """The bias, tied to every parameter that is out of use: data-parallel training waits for all gradients."""
        bias = x.new_zeros(self.out_features) if self.bias is None else self.bias
        unused = [] if len(self.alive) or not self.u.numel() else [self.u, self.v]
        if self.dense is not None and not len(self.kept_tiles):
            unused.append(self.dense)
        for parameter in unused:
            bias = bias + 0.0 * parameter[0, 0]
        return bias

    def _living_factors(self) -> tuple[Tensor, Tensor]:
        if len(self.alive) == self.u.shape[1]:
            return self.u * self.u_mask, self.v * self.v_mask
        u = self.u.index_select(1, self.alive) * self.u_mask.index_select(1, self.alive)
        return u, self.v.index_select(0, self.alive) * self.v_mask.index_select(0, self.alive)

    def _tile_by_tile(self, x: Tensor) -> bool:
        large = self.chunk_in * self.chunk_out >= _TILE_WEIGHTS
        few = len(self.kept_tiles) <= _TILE_SHARE * self.tiles.numel()
        return large and few and x.device.type == "cpu" and not torch.is_autocast_enabled("cpu") and x.dim() > 1

    @torch.no_grad()
    def weights(self) -> LatticeWeights:
        """The layer as checkpoint weights (copies, zero outside the structure)."""
        dense = torch.zeros_like(self.dense_mask) if self.dense is None else self.dense * self.dense_mask
        bias = None if self.bias is None else self.bias.detach().clone()
        v = self.v * self.v_mask
        return LatticeWeights(
            u=self.u * self.u_mask,
            v=v,
            reads=self.reads.clone(),
            writes=self.writes.clone(),
            tiles=self.tiles.clone(),
            dense=dense,
            bias=bias,
            chunk_in=self.chunk_in,
            chunk_out=self.chunk_out,
            family=self.family,
            grid=kept_grid(self.grid, dense.detach().float().cpu().numpy()),
            rank_grid=kept_grid(self.rank_grid, v.detach().float().cpu().numpy()),
        )

    @classmethod
    def from_weights(cls, weights: LatticeWeights) -> LatticeLinear:
        """A module that computes the same as checkpoint weights."""
        structure = Structure(*(getattr(weights, name).cpu().numpy() for name in ("tiles", "reads", "writes")))
        module = cls(
            weights.in_features,
            weights.out_features,
            structure,
            weights.chunk_in,
            weights.chunk_out,
            bias=weights.bias is not None,
            family=weights.family,
        )
        with torch.no_grad():
            module.u.copy_(weights.u)
            module.v.copy_(weights.v)
            if module.dense is not None:
                module.dense.copy_(weights.dense)
            if module.bias is not None and weights.bias is not None:
                module.bias.copy_(weights.bias)
        module.grid, module.rank_grid = weights.grid, weights.rank_grid
        return module

    def extra_repr(self) -> str:
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, ranks={self.structure.ranks}, "
            f"tiles={self.structure.tile_count(self.chunk_in, self.chunk_out)}, family={self.family}"
        )


def _refresh_masks(module: nn.Module, incompatible_keys: object) -> None:
    """The element masks are not stored: derive them from the structure that was just loaded."""
    del incompatible_keys
    if isinstance(module, LatticeLinear):
        module._set_masks()
