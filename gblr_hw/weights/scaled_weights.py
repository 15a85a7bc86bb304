"""Weights with their inputs and outputs multiplied channel by channel. Factors are scaled, not masks, so that
structures stay; powers of two change no digit. Dense weights on a grid stay on one.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from gblr_hw.weights.bits.grid import Rounded
from gblr_hw.weights.bits.scaled import columns_scaled, rows_scaled
from gblr_hw.weights.chains import CHAIN_KINDS, BLASTWeights
from gblr_hw.weights.stored import ConvWeights, DenseWeights, GBLRWeights, GroupedWeights, LatticeWeights, LayerWeights


def scaled_weights(weights: LayerWeights, columns: np.ndarray | None, rows: np.ndarray | None) -> LayerWeights:
    """The layer with column j of its matrix multiplied by columns[j] (n,), and row i and its bias by rows[i] (m,);
    None for nothing. A convolution's columns are (k1, k2, channels).
    """
    if columns is not None:
        weights = _scaled_inputs(weights, torch.from_numpy(np.array(columns, dtype=np.float64)))
    if rows is not None:
        weights = scaled_outputs(weights, torch.from_numpy(np.array(rows, dtype=np.float64)))
    return weights


def _scaled_inputs(weights: LayerWeights, scale: Tensor) -> LayerWeights:
    if isinstance(weights, DenseWeights):
        if weights.grid is not None:
            return _regridded(weights, columns_scaled(_numbers(weights.weight), weights.grid, scale.numpy()))
        return replace(weights, weight=_times(weights.weight, scale))
    if isinstance(weights, GBLRWeights):
        return _scaled_part(weights, scale)
    if isinstance(weights, ConvWeights):
        scales = scale.reshape(len(weights.parts), -1)
        parts = (_scaled_part(part, own) for part, own in zip(weights.parts, scales, strict=True))
        return replace(weights, parts=tuple(parts))
    if isinstance(weights, BLASTWeights):
        return replace(weights, C=_times(weights.C, scale.reshape(len(weights.C), 1, -1)))
    if isinstance(weights, CHAIN_KINDS):
        chain = weights.chain()
        return replace(chain, v=_times(chain.v, scale))
    if isinstance(weights, GroupedWeights):
        share, k1, k2 = weights.kernel.shape[1:]
        own = scale.reshape(k1, k2, weights.groups, share).permute(2, 3, 0, 1)[weights.group_of_output]
        return replace(weights, kernel=_times(weights.kernel, own))
    if weights.rank_grid is not None:
        rounded = columns_scaled(_numbers(weights.v), weights.rank_grid, scale.numpy())
        v = torch.from_numpy(rounded.matrix().astype(np.float32))
        weights = replace(weights, v=v, rank_grid=rounded.grid)
    else:
        weights = replace(weights, v=_times(weights.v, scale))
    if weights.grid is not None:
        return _regridded(weights, columns_scaled(_numbers(weights.dense), weights.grid, scale.numpy()))
    return replace(weights, dense=_times(weights.dense, scale))


def _numbers(matrix: Tensor) -> np.ndarray:
    return matrix.detach().cpu().double().numpy()


def _regridded(weights: DenseWeights | LatticeWeights, rounded: Rounded) -> DenseWeights | LatticeWeights:
    matrix = torch.from_numpy(rounded.matrix().astype(np.float32))
    if isinstance(weights, DenseWeights):
        return replace(weights, weight=matrix, grid=rounded.grid)
    return replace(weights, dense=matrix, grid=rounded.grid)


def _scaled_part(weights: GBLRWeights, scale: Tensor) -> GBLRWeights:
    return replace(weights, lr_weight1=_times(weights.lr_weight1, scale))


def _times(matrix: Tensor, scale: Tensor) -> Tensor:
    return (matrix.double() * scale).to(matrix.dtype)


def _like(values: Tensor, other: Tensor) -> Tensor:
    return values.to(other.dtype)


def scaled_outputs(weights: LayerWeights, scale: Tensor) -> LayerWeights:
    """The layer with output i multiplied by scale[i]. Factors are scaled, not masks, so that structures stay."""
    bias = None if weights.bias is None else _like(weights.bias.double() * scale, weights.bias)
    if isinstance(weights, DenseWeights):
        if weights.grid is not None:
            rounded = rows_scaled(_numbers(weights.weight), weights.grid, scale.double().numpy())
            return replace(_regridded(weights, rounded), bias=bias)
        return DenseWeights(_like(weights.weight.double() * scale[:, None], weights.weight), bias)
    if isinstance(weights, GBLRWeights):
        factor = _like(weights.lr_weight2.double() * scale[None, :, None], weights.lr_weight2)
        return replace(weights, lr_weight2=factor, bias=bias)
    if isinstance(weights, ConvWeights):
        parts = tuple(scaled_outputs(part, scale) for part in weights.parts)
        return replace(weights, parts=parts, bias=bias)  # type: ignore[arg-type]
    if isinstance(weights, GroupedWeights):
        kernel = _like(weights.kernel.double() * scale[:, None, None, None], weights.kernel)
        return replace(weights, kernel=kernel, bias=bias)
    if isinstance(weights, BLASTWeights):
        outer = _like(weights.B.double() * scale.reshape(len(weights.B), -1, 1), weights.B)
        return replace(weights, B=outer, bias=bias)
    if isinstance(weights, CHAIN_KINDS):
        chain = weights.chain()
        return replace(chain, u=_like(chain.u.double() * scale[:, None], chain.u), bias=bias)
    weights = replace(weights, u=_like(weights.u.double() * scale[:, None], weights.u), bias=bias)
    if weights.grid is not None:
        return _regridded(weights, rows_scaled(_numbers(weights.dense), weights.grid, scale.double().numpy()))
    return replace(weights, dense=_like(weights.dense.double() * scale[:, None], weights.dense))


def shifted_outputs(weights: LayerWeights, shift: Tensor) -> LayerWeights:
    """The layer with shift[i] added to output i."""
    bias = shift if weights.bias is None else weights.bias.double() + shift
    return replace(weights, bias=bias.to(_dtype(weights)))


def _dtype(weights: LayerWeights) -> torch.dtype:
    if isinstance(weights, ConvWeights):
        weights = weights.parts[0]
    if isinstance(weights, BLASTWeights):
        return weights.B.dtype
    if isinstance(weights, CHAIN_KINDS):
        return weights.chain().u.dtype
    if isinstance(weights, DenseWeights):
        return weights.weight.dtype
    if isinstance(weights, GroupedWeights):
        return weights.kernel.dtype
    return weights.lr_weight2.dtype if isinstance(weights, GBLRWeights) else weights.u.dtype
