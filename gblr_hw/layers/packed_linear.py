"""Layers of ranks and tiles packed for use on a CPU: products of what is there only."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from gblr_hw.layers.lattice_linear import LatticeLinear
from gblr_hw.layers.linear import GBLRLinear
from gblr_hw.layers.packed_products import Indices, Products, added, by_middle, gathered, on_best_windows
from gblr_hw.layers.replace import set_module
from gblr_hw.weights.factors import Factors, evaluate

# Channels of a chunk where a layer has none of its own: blocks on intervals.
_CHUNK = 32
# Of a token, in the dense product's multiplications: one of a small product, a value copied, and what a product
# takes beside them. benchmarks/speed/packed_layers.py.
_SMALL, _MOVED, _PART = 1.15, 24.0, 3000.0


class _Way(NamedTuple):
    """A layer's products: inputs to ranks, these in another order or not, and ranks, or they and inputs, to outputs."""

    reduce: Products
    turn: Indices | None
    expand: Products
    with_inputs: bool

    def cost(self) -> float:
        """As multiplications of the dense product, of a token."""
        parts = (self.reduce, self.expand)
        moved = sum(part.moved for part in parts) + (0 if self.turn is None else len(self.turn))
        if self.with_inputs:
            moved += self.expand.cols
        return sum(_SMALL * part.work + _PART * part.count for part in parts) + _MOVED * moved


class PackedLinear(nn.Module):
    """``y = (u v + dense) x + bias`` of a layer as it is in evaluation mode, for use: it holds no parameters.

    Ranks on intervals are put in the order of their intervals, of inputs for v and of outputs for u, so that few of
    them share a short window that nothing copies. Else v adds each chunk of inputs to the ranks that read it, or
    gathers inputs for ranks that read the same chunks, whichever has fewer products; each run of outputs is one
    product with the gathered chunks and ranks that reach it. Where all of this would take longer than the dense
    product, the layer is that. Gradients go to the inputs.

    factors: as `evaluate` gives them, without mixes. chunk_in, chunk_out: channels that are kept or left together.
    """

    bias: Tensor | None
    matrix: Tensor | None
    turn: Tensor | None

    def __init__(self, factors: Factors, chunk_in: int, chunk_out: int) -> None:
        super().__init__()
        self.in_features, self.out_features = factors.in_features, factors.out_features
        self.multiplications = factors.multiplications
        self.register_buffer("bias", None if factors.bias is None else torch.from_numpy(factors.bias.copy()))
        ways = [
            _by_chunks(factors, chunk_in, chunk_out),
            *([_by_windows(factors)] if _has_ranks_alone(factors) else []),
        ]
        way = min(ways, key=_Way.cost)
        is_dense = way.cost() >= self.in_features * self.out_features
        self.register_buffer("matrix", torch.from_numpy(_matrix(factors)) if is_dense else None)
        self.register_buffer("turn", None if way.turn is None or is_dense else torch.from_numpy(way.turn))
        self._with_inputs = way.with_inputs
        if not is_dense:
            self.reduce, self.expand = way.reduce, way.expand

    def forward(self, x: Tensor) -> Tensor:
        """x (..., n) -> (..., m)."""
        if self.matrix is not None:
            return functional.linear(x, self.matrix, self.bias)
        turned = x.reshape(-1, self.in_features).t()
        turned = turned.contiguous() if self.reduce.gathers or self._with_inputs else turned
        seen = self.reduce.ranks(turned)
        if self.turn is not None:
            seen = seen.index_select(0, self.turn)
        if self._with_inputs:
            seen = torch.cat([seen, turned]) if len(seen) else turned
        return self.expand.outputs(seen, self.bias).reshape(*x.shape[:-1], self.out_features)

    def extra_repr(self) -> str:
        way = "dense" if self.matrix is not None else "gathered" if self.turn is None else "on windows"
        return f"in_features={self.in_features}, out_features={self.out_features}, {way}"


def pack(model: nn.Module) -> nn.Module:
    """A copy of a model, in evaluation mode, whose `GBLRLinear` and `LatticeLinear` layers are `PackedLinear`: the same
    function to rounding, in fewer multiplications, for use on a CPU. Other layers stay as they are: those of BLAST,
    Monarch, Kronecker and tensor trains are products of their factors already.

    Gradients reach inputs and other layers, not what was packed: train the model itself, and pack it anew.
    """
    packed = copy.deepcopy(model).eval()
    found: Mapping[str, nn.Module] = dict(packed.named_modules())
    made: dict[int, nn.Module] = {}
    for name, module in found.items():
        if not isinstance(module, (GBLRLinear, LatticeLinear)):
            continue
        if id(module) not in made:
            made[id(module)] = packed_linear(module)
        if not name:
            return made[id(module)]
        set_module(packed, name, made[id(module)])
    return packed


def packed_linear(layer: GBLRLinear | LatticeLinear) -> PackedLinear:
    """One layer, packed."""
    factors = evaluate(layer.weights())
    chunks = (layer.chunk_in, layer.chunk_out) if isinstance(layer, LatticeLinear) else (_CHUNK, _CHUNK)
    kept = PackedLinear(factors, *chunks).eval()
    like = next(layer.parameters())
    return kept.to(device=like.device, dtype=like.dtype)


def _chunked(support: np.ndarray, chunk: int) -> np.ndarray:
    """A support (k, n) by chunks (k, C): True where any of a chunk's channels is."""
    padded = np.pad(support, ((0, 0), (0, -support.shape[1] % chunk)))
    return np.asarray(padded.reshape(len(support), padded.shape[1] // chunk, chunk).any(2))


def _has_ranks_alone(factors: Factors) -> bool:
    dense = factors.dense_support
    return factors.u.shape[1] > 0 and (dense is None or not dense.any())


def _matrix(factors: Factors) -> np.ndarray:
    matrix = factors.u @ factors.v
    return matrix if factors.dense is None else matrix + factors.dense


def _living(factors: Factors) -> Indices:
    return np.flatnonzero(factors.reads.any(1) & factors.writes.any(1))


def _by_windows(factors: Factors) -> _Way:
    """Ranks in the order of what they read, then of what they write."""
    living = _living(factors)
    read = living[by_middle(factors.reads[living])]
    written = living[by_middle(factors.writes[living])]
    v, u = torch.from_numpy(factors.v[read]), torch.from_numpy(factors.u[:, written])
    places = np.empty(factors.u.shape[1], np.int64)
    places[read] = np.arange(len(read))
    reduce = on_best_windows(v, factors.reads[read], _PART / _SMALL)
    return _Way(reduce, places[written], on_best_windows(u, factors.writes[written].T, _PART / _SMALL), False)


def _by_chunks(factors: Factors, chunk_in: int, chunk_out: int) -> _Way:
    """Whole chunks of what ranks and tiles reach, gathered."""
    living = _living(factors)
    reads = _chunked(factors.reads[living], chunk_in)
    alike = np.lexsort(reads.T)  # ranks that read the same follow one another
    living, reads = living[alike], reads[alike]
    u, v = torch.from_numpy(factors.u[:, living]), torch.from_numpy(factors.v[living])
    writes = np.repeat(_chunked(factors.writes[living], chunk_out), chunk_out, 1)[:, : factors.out_features].T
    if len(np.unique(reads, axis=0)) <= reads.shape[1]:
        reduce = gathered(v, np.repeat(reads, chunk_in, 1)[:, : factors.in_features])
    else:
        reduce = added(v, reads, chunk_in)
    if factors.dense is None or factors.dense_support is None or not factors.dense_support.any():
        return _Way(reduce, None, gathered(u, writes), False)
    tiles = _chunked(_chunked(factors.dense_support, chunk_in).T, chunk_out).T
    support = np.kron(tiles, np.ones((chunk_out, chunk_in), bool))[: factors.out_features, : factors.in_features]
    both = torch.cat([u, torch.from_numpy(factors.dense)], 1)
    return _Way(reduce, None, gathered(both, np.concatenate([writes, support], 1)), True)
