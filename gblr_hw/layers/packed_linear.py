"""Layers of ranks and tiles packed for use on a CPU: products of what is there only, gathered row of blocks by row."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from gblr_hw.layers.lattice_linear import LatticeLinear
from gblr_hw.layers.linear import GBLRLinear
from gblr_hw.layers.replace import set_module
from gblr_hw.weights.factors import Factors, evaluate

# Channels of a chunk where a layer has none of its own: blocks on intervals.
_CHUNK = 32
# What gathered products take, of the dense product's time: for as many multiplications, and for a value moved, in
# multiplications. benchmarks/speed/packed_layers.py.
_GATHERED, _MOVED = 1.15, 24.0


class PackedLinear(nn.Module):
    """``y = (u v + dense) x + bias`` of a layer as it is in evaluation mode, for use: it holds no parameters.

    Inputs are kept channels first while the products run. v adds each chunk of inputs to the ranks that read it, or
    gathers inputs for ranks that read the same chunks, whichever has fewer products; each run of outputs is one product
    with the gathered chunks and ranks that reach it. Where all of this would take longer than the dense product, the
    layer is that. Gradients go to the inputs.

    factors: as `evaluate` gives them, without mixes. chunk_in, chunk_out: channels that are kept or left together.
    """

    bias: Tensor | None
    matrix: Tensor | None

    def __init__(self, factors: Factors, chunk_in: int, chunk_out: int) -> None:
        super().__init__()
        self.in_features, self.out_features = factors.in_features, factors.out_features
        self.multiplications = factors.multiplications
        self.register_buffer("bias", None if factors.bias is None else torch.from_numpy(factors.bias.copy()))
        living = np.flatnonzero(factors.reads.any(1) & factors.writes.any(1))
        u, v = torch.from_numpy(factors.u[:, living]), torch.from_numpy(factors.v[living])
        dense = None if factors.dense is None else torch.from_numpy(factors.dense)
        reads = _chunked(factors.reads[living], chunk_in)
        writes = np.repeat(_chunked(factors.writes[living], chunk_out), chunk_out, 1)[:, : self.out_features]
        self.reduce = _reduce(v, reads, chunk_in)
        support = np.zeros((self.out_features, self.in_features), bool)
        if factors.dense_support is not None:
            tiles = _chunked(_chunked(factors.dense_support, chunk_in).T, chunk_out).T
            support = np.kron(tiles, np.ones((chunk_out, chunk_in), bool))[: self.out_features, : self.in_features]
        self._with_inputs = dense is not None and bool(support.any())
        if self._with_inputs:
            assert dense is not None
            self.expand = _gathered(torch.cat([u, dense], 1), np.concatenate([writes.T, support], 1))
        else:
            self.expand = _gathered(u, writes.T)
        moved = self.reduce.moved + self.expand.moved + (len(v) + self.in_features if self._with_inputs else 0)
        work = _GATHERED * (self.reduce.work + self.expand.work) + _MOVED * moved
        is_dense = work >= self.in_features * self.out_features
        self.register_buffer("matrix", (u @ v if dense is None else u @ v + dense) if is_dense else None)
        if is_dense:
            self.reduce = self.expand = _Products(0, [], False)

    def forward(self, x: Tensor) -> Tensor:
        """x (..., n) -> (..., m)."""
        if self.matrix is not None:
            return functional.linear(x, self.matrix, self.bias)
        turned = x.reshape(-1, self.in_features).t()
        turned = turned.contiguous() if self.reduce.gathers or self._with_inputs else turned
        ranks = self.reduce(turned)
        seen = ranks if not self._with_inputs else torch.cat([ranks, turned]) if len(ranks) else turned
        y = self.expand(seen).t()
        if self.bias is not None:
            y = y + self.bias
        return y.reshape(*x.shape[:-1], self.out_features)

    def extra_repr(self) -> str:
        way = "dense" if self.matrix is not None else "gathered"
        return f"in_features={self.in_features}, out_features={self.out_features}, {way}"


class _Products(nn.Module):
    """A sparse matrix (rows, cols) as products of its dense parts.

    parts: (rows, columns or None for all, weights). adds: parts share rows, and are summed; else each row is in one.
    """

    back: Tensor

    def __init__(self, rows: int, parts: list[tuple[Tensor, Tensor | None, Tensor]], adds: bool) -> None:
        super().__init__()
        self.rows, self.adds, self.count = rows, adds, len(parts)
        self.work = sum(weights.numel() for _, _, weights in parts)
        runs = [None if columns is None else _run_of(columns) for _, columns, _ in parts]
        self._runs: list[tuple[int, int] | None] = runs
        self.gathers = any(columns is not None for _, columns, _ in parts)
        # Values a token that are copied: gathered, or added to what is there.
        self.moved = sum(
            (0 if columns is None or run is not None else len(columns)) + (2 * len(into) if adds else 0)
            for (into, columns, _), run in zip(parts, runs, strict=True)
        )
        self._order_needed = False
        for index, (into, columns, weights) in enumerate(parts):
            self.register_buffer(f"into{index}", into)
            self.register_buffer(f"columns{index}", columns)
            self.register_buffer(f"weights{index}", weights.contiguous())
        if parts and not adds:
            order = torch.cat([into for into, _, _ in parts])
            self._order_needed = not torch.equal(order, torch.arange(rows))
            self.moved += rows if self._order_needed else 0
            self.register_buffer("back", torch.argsort(order))

    def forward(self, x: Tensor) -> Tensor:
        """x (cols, tokens) -> (rows, tokens)."""
        if self.adds:
            y = x.new_zeros(self.rows, x.shape[1])
            for index in range(self.count):
                y = self._add(y, index, self._product(x, index))
            return y
        made = [self._product(x, index) for index in range(self.count)]
        y = made[0] if len(made) == 1 else torch.cat(made) if made else x.new_zeros(self.rows, x.shape[1])
        return y.index_select(0, self.back) if self._order_needed else y

    def _product(self, x: Tensor, index: int) -> Tensor:
        columns, weights = getattr(self, f"columns{index}"), getattr(self, f"weights{index}")
        if columns is None:
            return weights @ x
        run = self._runs[index]
        there = x.index_select(0, columns) if run is None else x[run[0] : run[1]]
        product: Tensor = weights @ there
        return product

    def _add(self, y: Tensor, index: int, product: Tensor) -> Tensor:
        into = getattr(self, f"into{index}")
        return y.index_add(0, into, product) if torch.is_grad_enabled() else y.index_add_(0, into, product)


def _run_of(columns: Tensor) -> tuple[int, int] | None:
    """(first, one past the last) of columns that follow one another; None for others."""
    first, last = (int(columns[0]), int(columns[-1]) + 1) if len(columns) else (0, 0)
    return (first, last) if last - first == len(columns) else None


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


def _reduce(v: Tensor, reads: np.ndarray, chunk: int) -> _Products:
    """v (K, n) by the chunks (K, C) that its ranks read."""
    if not len(v):
        return _Products(0, [], False)
    whole = np.repeat(reads, chunk, 1)[:, : v.shape[1]]
    if len(np.unique(reads, axis=0)) <= reads.shape[1]:
        return _gathered(v, whole)
    parts: list[tuple[Tensor, Tensor | None, Tensor]] = []
    for one in range(reads.shape[1]):
        ranks = torch.from_numpy(np.flatnonzero(reads[:, one]))
        columns = torch.arange(one * chunk, min((one + 1) * chunk, v.shape[1]))
        if len(ranks):
            parts.append((ranks, columns, v.index_select(0, ranks)[:, columns]))
    return _Products(len(v), parts, True)


def _gathered(matrix: Tensor, support: np.ndarray) -> _Products:
    """A matrix (m, k) as products of rows that have the same support (m, k)."""
    groups: dict[bytes, list[int]] = {}
    for row in range(len(matrix)):
        groups.setdefault(support[row].tobytes(), []).append(row)
    parts: list[tuple[Tensor, Tensor | None, Tensor]] = []
    for rows in groups.values():
        columns = np.flatnonzero(support[rows[0]])
        into, taken = torch.tensor(rows), torch.from_numpy(columns)
        weights = matrix.index_select(0, into).index_select(1, taken)
        parts.append((into, None if len(columns) == support.shape[1] else taken, weights))
    return _Products(len(matrix), parts, False)
