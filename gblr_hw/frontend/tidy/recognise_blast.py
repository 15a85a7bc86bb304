"""Chains of ranks that are BLAST layers, whoever wrote them: bases of blocks of inputs and outputs, and diagonals."""

from __future__ import annotations

import numpy as np
import torch
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components

from gblr_hw.weights.chains import BLASTWeights


def blast_of(reads: csr_matrix, mixes: csr_matrix, writes: csr_matrix, bias: np.ndarray) -> BLASTWeights | None:
    """The BLAST layer that a chain is: reads (K, n), mixes (K, K) target by source, writes (m, K), bias (m,). None for
    one that is none: whose first ranks do not each read one of equal blocks of inputs, whose others do not each write
    one of equal blocks of outputs, or which are not mixed one of each block into one of each block.
    """
    edges = mixes.tocoo()
    first, second = np.unique(edges.col), np.unique(edges.row)
    ranks = reads.shape[0]
    if len(first) == 0 or len(first) + len(second) != ranks or len(np.intersect1d(first, second)):
        return None
    inner, outer = csr_matrix(reads)[first], csr_matrix(csr_matrix(writes).T)[second]
    if inner.nnz != reads.nnz or outer.nnz != writes.nnz:
        return None
    into, out = _blocks(inner), _blocks(outer)
    if into is None or out is None:
        return None
    (b_in, block_in), (b_out, block_out) = into, out
    part = connected_components(mixes, directed=False)[1]
    _, number = np.unique(part, return_inverse=True)
    count = int(number.max()) + 1
    if len(first) != b_in * count or len(second) != b_out * count or len(edges.data) != b_in * b_out * count:
        return None
    of_first, of_second = np.full((2, ranks), -1, dtype=np.int64)
    of_first[first], of_second[second] = block_in, block_out
    places = block_in * count + number[first], block_out * count + number[second]
    if any(len(np.unique(place)) != len(place) for place in places):
        return None
    C = np.zeros((b_in, count, reads.shape[1] // b_in))
    C[block_in, number[first]] = inner.data.reshape(len(first), -1)
    B = np.zeros((b_out, writes.shape[0] // b_out, count))
    B[block_out, :, number[second]] = outer.data.reshape(len(second), -1)
    D = np.zeros((b_out, b_in, count))
    D[of_second[edges.row], of_first[edges.col], number[edges.row]] = edges.data
    outer_bases, inner_bases, diagonals = (torch.from_numpy(one.astype(np.float32)) for one in (B, C, D))
    return BLASTWeights(
        outer_bases, inner_bases, diagonals, bias=torch.from_numpy(bias.astype(np.float32)) if bias.any() else None
    )


def _blocks(matrix: csr_matrix) -> tuple[int, np.ndarray] | None:
    """How many equal blocks of columns the rows of a matrix have entries in, each in all of one, and which. Entries are
    put in the order of their columns.
    """
    matrix.sort_indices()
    sizes = np.diff(matrix.indptr)
    size = int(sizes[0])
    if size == 0 or (sizes != size).any() or matrix.shape[1] % size:
        return None
    columns = matrix.indices.reshape(-1, size)
    if (columns[:, 0] % size).any() or (columns != columns[:, :1] + np.arange(size)).any():
        return None
    return matrix.shape[1] // size, columns[:, 0] // size
