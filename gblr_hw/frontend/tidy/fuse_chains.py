"""Products with block-diagonal matrices, and what only moves, scales and sums channels between them, as one layer.

BLAST, Monarch and their kin are written as batched products with permutations and diagonals between. Such a chain is a
layer whose ranks feed ranks: nothing of it need go through memory.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.sparse import csr_matrix, identity

from gblr_hw.frontend.graph.draft import Draft, pruned
from gblr_hw.frontend.tidy.affine_links import Link, could_be_affine, link_of
from gblr_hw.frontend.tidy.recognise_blast import blast_of
from gblr_hw.frontend.tidy.regrouped_rows import with_rows
from gblr_hw.weights.chains import CHAIN_KINDS, BLASTWeights, ChainWeights, sorted_mixes
from gblr_hw.weights.factors import evaluate
from gblr_hw.weights.scaled_weights import scaled_outputs, shifted_outputs
from gblr_hw.weights.stored import DenseWeights, GroupedWeights, LayerWeights
from simulator.network.network import Operator

# Sums of more ranks leave rank memories fewer rows than an array needs to be busy.
_MOST_RANKS = 4096


@dataclass(frozen=True, eq=False)
class _Product:
    """A matrix (m, n) with the entries that it stores, and a bias (m,)."""

    matrix: csr_matrix
    bias: np.ndarray


@dataclass(frozen=True, eq=False)
class _Ranks:
    """The first links of a chain: ranks by inputs, edges between ranks (target by source), outputs by ranks."""

    reads: csr_matrix
    mixes: csr_matrix
    writes: csr_matrix
    bias: np.ndarray

    @property
    def entries(self) -> int:
        """Multiplications for each row."""
        return int(self.reads.nnz + self.mixes.nnz + self.writes.nnz)


def chains_fused(draft: Draft) -> Draft:
    """Chains of products with block-diagonal matrices, where they multiply less than their whole matrix, which they
    become where not; and what such a product's outputs alone go through, as far as it scales and shifts them. An order
    of the outputs stays with who reads them: ranks of a block write outputs that lie together.
    """
    made: dict[str, _Ranks] = {}
    for name in [operator.name for operator in draft.operators if operator.kind == "linear"]:
        fused = _with_the_one_before(draft, name, made)
        draft = draft if fused is None else fused
    for name in [operator.name for operator in draft.operators if operator.kind == "linear"]:
        if name in made or isinstance(draft.weights[name], GroupedWeights):
            while (absorbed := _with_the_one_behind(draft, name, made)) is not None:
                draft = absorbed
    return pruned(draft)


def _named(draft: Draft) -> dict[str, Operator]:
    return {operator.name: operator for operator in draft.operators}


def _sole_readers(draft: Draft) -> dict[str, int]:
    """Tensors that one operator alone reads, and nothing else needs, with its place."""
    fixed = draft.fixed()
    return {name: places[0] for name, places in draft.readers().items() if len(places) == 1 and name not in fixed}


def _with_the_one_before(draft: Draft, name: str, made: dict[str, _Ranks]) -> Draft | None:
    """A product together with the one whose outputs it alone reads, if they are a chain."""
    operator, held = _named(draft)[name], draft.weights[name]
    sole, writer = _sole_readers(draft), {one.output: one for one in draft.operators}
    path: list[Operator] = []
    before = operator.operands[0].tensor
    while before in sole and before in writer and could_be_affine(writer[before]):
        path.insert(0, writer[before])
        before = path[0].operands[0].tensor
    first = writer.get(before)
    if first is None or first.kind != "linear" or before not in sole or first.rows != operator.rows:
        return None
    start = draft.weights[first.name]
    # Of a dense product nothing but its sums would be saved, and they fill the rank memory: it stays by itself.
    if not isinstance(held, GroupedWeights) or not (first.name in made or isinstance(start, GroupedWeights)):
        return None
    link = link_of(draft, before, path, operator.operands[0])
    if link is None:
        return None
    begun = made.get(first.name) or _begun(_product(start))
    ranks = _joined(begun, link, _product(held))
    whole = ranks.writes.shape[0] * ranks.reads.shape[1]
    weights = _whole(ranks) if ranks.entries >= whole else _weights(ranks)
    if weights is None:
        return None
    chain = replace(operator, operands=first.operands, batch=first.batch, tokens=first.tokens)
    result = with_rows(_replaced(draft, operator, chain, weights), operator.output, first.batch, first.tokens)
    if result is not None:
        made[name] = ranks
    return result


def _with_the_one_behind(draft: Draft, name: str, made: Collection[str]) -> Draft | None:
    """A product together with the vector operator that alone reads it, if that is a scale or a shift of its outputs; or
    a copy of some of a chain's outputs, also into another order, which would move them one by one.
    """
    operator, held = _named(draft)[name], draft.weights[name]
    place = _sole_readers(draft).get(operator.output)
    behind = None if place is None else draft.operators[place]
    if behind is None or not could_be_affine(behind) or behind.rows != operator.rows:
        return None
    ordered = (*CHAIN_KINDS, DenseWeights) if name in made else CHAIN_KINDS
    copies = behind.operands[0].access == "strided" and isinstance(held, ordered)
    if not copies and (behind.batch, behind.tokens) != (operator.batch, operator.tokens):
        return None
    link = link_of(draft, operator.output, [behind], None)
    if link is None or link.order is None:
        return None
    if not np.array_equal(link.order, np.arange(held.out_features)):
        if not isinstance(held, ordered):
            return None
        held = _with_outputs(held, torch.from_numpy(link.order))
    scaled = scaled_outputs(held, torch.from_numpy(link.matrix.data.copy()))
    weights = shifted_outputs(scaled, torch.from_numpy(link.shift.copy()))
    result = _replaced(draft, behind, replace(operator, output=behind.output), weights)
    if (behind.batch, behind.tokens) == (operator.batch, operator.tokens):
        return result
    return with_rows(result, behind.output, operator.batch, operator.tokens)


def _with_outputs(held: LayerWeights, outputs: torch.Tensor) -> LayerWeights:
    """A chain or a whole matrix with those outputs, in that order."""
    if isinstance(held, DenseWeights):
        return DenseWeights(held.weight[outputs], None if held.bias is None else held.bias[outputs])
    assert isinstance(held, CHAIN_KINDS)
    return held.chain().with_outputs(outputs)


def _replaced(draft: Draft, old: Operator, new: Operator, weights: LayerWeights) -> Draft:
    """``new`` in the place of ``old``; of an operator that moves there, no longer in its own."""
    operators = tuple(new if one is old else one for one in draft.operators if one is old or one.name != new.name)
    return replace(draft, operators=operators, weights={**draft.weights, new.name: weights})


def _product(held: LayerWeights) -> _Product:
    if isinstance(held, GroupedWeights) and held.kernel.shape[2:] == (1, 1):
        return _grouped_product(held)
    factors = evaluate(held)
    assert factors.dense is not None and factors.dense_support is not None
    row, column = np.nonzero(factors.dense_support)
    matrix = csr_matrix((factors.dense[row, column].astype(np.float64), (row, column)), shape=factors.dense.shape)
    bias = np.zeros(factors.out_features) if factors.bias is None else factors.bias.astype(np.float64)
    return _Product(matrix, bias)


def _grouped_product(held: GroupedWeights) -> _Product:
    """One of many groups, whose whole matrix would be large."""
    kernel = held.kernel[:, :, 0, 0].detach().double().numpy()
    outputs, share = kernel.shape
    column = held.group_of_output.numpy()[:, None] * share + np.arange(share)
    shape = outputs, held.groups * share
    matrix = csr_matrix((kernel.ravel(), column.ravel(), np.arange(outputs + 1) * share), shape=shape)
    bias = np.zeros(outputs) if held.bias is None else held.bias.detach().double().numpy()
    return _Product(matrix, bias)


def _begun(product: _Product) -> _Ranks:
    """A product whose outputs are ranks."""
    count = product.matrix.shape[0]
    return _Ranks(product.matrix, csr_matrix((count, count)), csr_matrix(identity(count)), product.bias)


def _joined(ranks: _Ranks, link: Link, product: _Product) -> _Ranks:
    """A chain, a link and a product behind it: the product's inputs become ranks, or, where that multiplies no more,
    its outputs read the ranks that were outputs.
    """
    bias = product.matrix @ (link.matrix @ ranks.bias + link.shift) + product.bias
    between = csr_matrix(link.matrix @ ranks.writes)
    through = csr_matrix(product.matrix @ between)
    if through.nnz <= between.nnz + product.matrix.nnz:
        return _Ranks(ranks.reads, ranks.mixes, through, bias)
    old, new = ranks.reads.shape[0], between.shape[0]
    count = old + new
    mixes = ranks.mixes.copy()
    mixes.resize(count, count)
    edges = between.tocoo()
    fresh = csr_matrix((edges.data, (old + edges.row, edges.col)), shape=(count, count))
    reads = ranks.reads.copy()
    reads.resize(count, reads.shape[1])
    wide = product.matrix.tocoo()
    writes = csr_matrix((wide.data, (wide.row, old + wide.col)), shape=(wide.shape[0], count))
    return _Ranks(reads, csr_matrix(mixes + fresh), writes, bias)


def _whole(ranks: _Ranks) -> DenseWeights:
    """The matrix of a chain that multiplies as often as it, or more."""
    writes, matrix = ranks.writes, (ranks.writes @ ranks.reads).toarray()
    while (writes := csr_matrix(writes @ ranks.mixes)).nnz:
        matrix += (writes @ ranks.reads).toarray()
    return DenseWeights(torch.from_numpy(matrix.astype(np.float32)), _bias(ranks))


def _bias(ranks: _Ranks) -> torch.Tensor | None:
    return torch.from_numpy(ranks.bias.astype(np.float32)) if ranks.bias.any() else None


def _weights(ranks: _Ranks) -> BLASTWeights | ChainWeights | None:
    """What a chain holds, as a BLAST layer if it is one; None for other chains that are too large to lay out."""
    found = blast_of(ranks.reads, ranks.mixes, ranks.writes, ranks.bias)
    if found is not None or ranks.reads.shape[0] > _MOST_RANKS:
        return found
    edges = ranks.mixes.tocoo()
    source, target = (torch.from_numpy(one.astype(np.int64)) for one in (edges.col, edges.row))
    (u, writes), (v, reads) = _dense(ranks.writes), _dense(ranks.reads)
    value = torch.from_numpy(edges.data.astype(np.float32))
    mixes = sorted_mixes(source, target, value)
    return ChainWeights(u, v, reads, writes, **mixes, bias=_bias(ranks))  # type: ignore[arg-type]


def _dense(matrix: csr_matrix) -> tuple[torch.Tensor, torch.Tensor]:
    """A matrix and where it has entries, zeros among them too."""
    entries = matrix.tocoo()
    support = np.zeros(matrix.shape, np.bool_)
    support[entries.row, entries.col] = True
    return torch.from_numpy(matrix.toarray().astype(np.float32)), torch.from_numpy(support)
