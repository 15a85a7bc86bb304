"""Published matrices that are products of more than two factors, as files hold them: BLAST, Monarch, Kronecker, tensor
train of two cores; and the form that all of them take, ranks that read, ranks that other ranks feed, and writes.

Each has ``chain()``, the same layer in that form, from which it is evaluated (``gblr_hw.weights.factors``).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from gblr_hw.weights.checks import check_bias, check_dims, check_finite, check_positive, check_shape
from gblr_hw.weights.mixes import Mixes, carried, check_mixes
from simulator.base.errors import InputError
from simulator.base.shown import Shown

MonarchArrangement = Literal["strided", "grid"]


class _Chained(Shown):
    """What every kind has by its chain."""

    def chain(self) -> ChainWeights:
        raise NotImplementedError

    def matrix(self) -> Tensor:
        """The matrix (m, n) that the layer multiplies by, in float64."""
        chain = self.chain()
        rows = chain.v.detach().double().cpu().numpy()
        if len(chain.mix_value):
            values = chain.mix_value.detach().double().numpy()
            rows = carried(rows, Mixes(chain.mix_source.numpy(), chain.mix_target.numpy(), values))
        return chain.u.detach().double().cpu() @ torch.from_numpy(rows)


@dataclass(frozen=True, eq=False, repr=False)
class ChainWeights(_Chained):
    """A layer as ranks that read inputs, ranks that other ranks feed, and outputs that read ranks.

    v (K, n) and u (m, K), zero outside reads (K, n) and writes (m, K), both bool. Rank ``mix_target[e]`` has
    ``mix_value[e]`` times the value of rank ``mix_source[e]`` added (`gblr_hw.weights.mixes`); mix_source and
    mix_target (E,) int64, mix_value (E,). output_order (m,) int64: the order in which outputs are best stored together,
    None for their own; u's rows and the bias stay in their own. No file holds it so. Raises InputError on shapes that
    disagree, entries outside the supports, edges that are not sorted or go round, and numbers that are not finite.
    """

    u: Tensor
    v: Tensor
    reads: Tensor
    writes: Tensor
    mix_source: Tensor
    mix_target: Tensor
    mix_value: Tensor
    bias: Tensor | None = None
    output_order: Tensor | None = None
    family: str = "chain"

    def __post_init__(self) -> None:
        ranks = self.u.shape[-1]
        check_shape("v", self.v, (ranks, self.in_features), f"u has {ranks} ranks")
        for name, like in (("u", self.writes), ("v", self.reads)):
            tensor = getattr(self, name)
            check_finite(name, tensor)
            support = "writes" if name == "u" else "reads"
            check_shape(support, like, tuple(tensor.shape), f"it says where {name} may differ from zero")
            if bool(((tensor != 0) & ~like).any()):
                raise InputError(f"tensor '{name}'", "entries outside its support", f"{support} has them", "Add them.")
        check_bias(self.bias, self.out_features)
        check_mixes(ranks, self.mix_source.numpy(), self.mix_target.numpy(), self.mix_value.numpy())
        if self.output_order is not None:
            check_order(self.output_order, self.out_features)

    @property
    def in_features(self) -> int:
        return self.v.shape[1]

    @property
    def out_features(self) -> int:
        return self.u.shape[0]

    def chain(self) -> ChainWeights:
        """The layer itself."""
        return self

    def with_outputs(self, outputs: Tensor) -> ChainWeights:
        """The outputs (m',) int64 of the layer, in that order, as a layer; best stored so that those which the same
        ranks write lie together.
        """
        bias, writes = None if self.bias is None else self.bias[outputs], self.writes[outputs]
        return replace(self, u=self.u[outputs], writes=writes, bias=bias, output_order=_alike_together(writes))


def _alike_together(writes: Tensor) -> Tensor | None:
    """Outputs (m,) int64 with equal rows of (m, K) bool one behind another, in order of the first; None if they are."""
    _, first, kind = np.unique(writes.cpu().numpy(), axis=0, return_index=True, return_inverse=True)
    order = torch.from_numpy(np.argsort(first[kind.reshape(-1)], kind="stable").astype(np.int64))
    return None if torch.equal(order, torch.arange(len(writes))) else order


def _check_blocks(name: str, tensor: Tensor, layout: str) -> None:
    """Raise InputError unless `tensor` has the dimensions of `layout`, none of them empty, and finite numbers."""
    check_dims(name, tensor, layout.count(",") + 1, layout)
    if 0 in tensor.shape:
        rule = f"it has the shape {layout}, and each of them is at least 1"
        raise InputError(f"tensor '{name}'", f"shape {tuple(tensor.shape)}", rule, "Check the layer's tensors.")
    check_finite(name, tensor)


def check_order(order: Tensor, outputs: int) -> None:
    """Raise InputError unless `order` names each of so many outputs once."""
    if order.dtype != torch.int64 or not torch.equal(order.sort().values, torch.arange(outputs)):
        rule = f"it names each of {outputs} outputs once"
        raise InputError("output_order", f"{order.dtype} of shape {tuple(order.shape)}", rule, "Give a permutation.")


def no_mixes() -> dict[str, Tensor]:
    """The mixes of a chain in which no rank feeds another."""
    none = torch.zeros(0, dtype=torch.int64)
    return {"mix_source": none, "mix_target": none, "mix_value": torch.zeros(0)}


def sorted_mixes(source: Tensor, target: Tensor, value: Tensor) -> dict[str, Tensor]:
    """Edges in the order that chains keep them in."""
    order = torch.from_numpy(np.lexsort((source.numpy(), target.numpy())))
    return {"mix_source": source[order], "mix_target": target[order], "mix_value": value[order]}


@dataclass(frozen=True, eq=False, repr=False)
class BLASTWeights(_Chained):
    """``y_i = B_i sum_j D_ij * (C_j x_j)`` (Lee et al., NeurIPS 2024): a basis for each block of outputs and of inputs,
    and for each pair of blocks a diagonal.

    B (b_out, m / b_out, r), C (b_in, r, n / b_in), D (b_out, b_in, r), bias (m,) or None. Raises InputError on shapes
    that disagree and numbers that are not finite.
    """

    B: Tensor
    C: Tensor
    D: Tensor
    bias: Tensor | None = None

    def __post_init__(self) -> None:
        _check_blocks("B", self.B, "(output blocks, outputs of a block, rank)")
        _check_blocks("C", self.C, "(input blocks, rank, inputs of a block)")
        check_shape(
            "C", self.C, (len(self.C), self.rank, self.C.shape[2]), f"B has bases of {self.rank} columns, its rank"
        )
        check_shape(
            "D",
            self.D,
            (len(self.B), len(self.C), self.rank),
            f"B has {len(self.B)} output blocks of rank {self.rank} and C {len(self.C)} input blocks",
        )
        check_finite("D", self.D)
        check_bias(self.bias, self.out_features)

    @property
    def rank(self) -> int:
        """Rank r of every block."""
        return self.B.shape[2]

    @property
    def in_features(self) -> int:
        return self.C.shape[0] * self.C.shape[2]

    @property
    def out_features(self) -> int:
        return self.B.shape[0] * self.B.shape[1]

    @property
    def family(self) -> str:
        return "blast"

    def chain(self) -> ChainWeights:
        """Ranks (j, k) that read input block j, and ranks (i, k) behind them that output block i reads, fed by them.
        With one block on a side its diagonals are part of that side's factor, and one rank is enough for both.
        """
        (b_out, _, rank), b_in = self.B.shape, len(self.C)
        if b_in == 1:
            outer = (self.B * self.D[:, 0, None, :]).reshape(self.out_features, rank)
            return _two_factors(outer, self.C[0], self.bias, self.family)
        if b_out == 1:
            inner = (self.C * self.D[0, :, :, None]).permute(1, 0, 2).reshape(rank, self.in_features)
            return _two_factors(self.B[0], inner, self.bias, self.family)
        first, second = b_in * rank, b_out * rank
        v, reads = _stacked(self.C)
        u, writes = _stacked(self.B)
        out, into, k = torch.meshgrid(torch.arange(b_out), torch.arange(b_in), torch.arange(rank), indexing="ij")
        mixes = sorted_mixes(
            (into * rank + k).reshape(-1), (first + out * rank + k).reshape(-1), self.D.detach().reshape(-1).cpu()
        )
        return ChainWeights(
            u=torch.cat([u.new_zeros(len(u), first), u], dim=1),
            v=torch.cat([v, v.new_zeros(second, v.shape[1])]),
            reads=torch.cat([reads, reads.new_zeros(second, v.shape[1])]),
            writes=torch.cat([writes.new_zeros(len(u), first), writes], dim=1),
            bias=self.bias,
            family=self.family,
            **mixes,
        )


@dataclass(frozen=True, eq=False, repr=False)
class MonarchWeights(_Chained):
    """The product of two block-diagonal factors with a permutation between (Dao et al., ICML 2022).

    blkdiag1 (k, q, p), blkdiag2 (l, s, r) with k q = l r, bias (m,) or None. Inputs are padded to k p, outputs cut off
    from l s to m. Block a of the first factor gives values (a, row).
    arrangement "strided", as published: value number t = a' l + c goes to place a' of block c of the second factor,
        and output s' of block c is channel s' l + c.
    arrangement "grid": l by k blocks of rank q / l of a grid: of the values of block a, run c goes to block c, in the
        order of a; output s' of block c is channel c s + s'.
    Raises InputError on shapes that disagree, sizes that do not fit and numbers that are not finite.
    """

    blkdiag1: Tensor
    blkdiag2: Tensor
    in_features: int
    out_features: int
    bias: Tensor | None = None
    arrangement: MonarchArrangement = "strided"

    def __post_init__(self) -> None:
        _check_blocks("blkdiag1", self.blkdiag1, "(blocks, values of a block, inputs of a block)")
        _check_blocks("blkdiag2", self.blkdiag2, "(blocks, outputs of a block, values of a block)")
        (k, q, p), (l, s, r) = self.blkdiag1.shape, self.blkdiag2.shape  # noqa: E741 - the paper's symbol
        if k * q != l * r:
            raise InputError(
                "tensors 'blkdiag1' and 'blkdiag2'",
                f"shapes {(k, q, p)} and {(l, s, r)}",
                f"the first gives k q = {k * q} values and the second reads l r = {l * r}, which must agree",
                "Check the layer's tensors.",
            )
        for name, size, most in (("in_features", self.in_features, k * p), ("out_features", self.out_features, l * s)):
            check_positive(name, size)
            if size > most:
                factor = "blkdiag1" if name == "in_features" else "blkdiag2"
                rule = f"'{factor}' of shape {(k, q, p) if factor == 'blkdiag1' else (l, s, r)} has {most} at most"
                raise InputError(name, str(size), rule, "Give the sizes of the layer that the factors belong to.")
        if self.arrangement not in ("strided", "grid"):
            raise InputError("arrangement", repr(self.arrangement), "it is 'strided' or 'grid'", "Choose one of them.")
        if self.arrangement == "grid" and q % l:
            rule = f"each of {k} input blocks has as many values for each of {l} output blocks"
            raise InputError("tensor 'blkdiag1'", f"{q} values of a block", rule, "Use the strided arrangement.")
        check_bias(self.bias, self.out_features)

    @property
    def family(self) -> str:
        return "monarch"

    def places(self) -> Tensor:
        """(l, r) int64: the value, of all k q, that each place of each block of the second factor reads."""
        (k, q, _), (l, _, r) = self.blkdiag1.shape, self.blkdiag2.shape  # noqa: E741
        values = torch.arange(k * q)
        if self.arrangement == "strided":
            return values.reshape(r, l).T
        return values.reshape(k, l, q // l).permute(1, 0, 2).reshape(l, r)

    def channels(self) -> Tensor:
        """(l, s) int64: the channel of each output of each block, before what is over is cut off."""
        l, s, _ = self.blkdiag2.shape  # noqa: E741
        outputs = torch.arange(l * s)
        return outputs.reshape(s, l).T if self.arrangement == "strided" else outputs.reshape(l, s)

    def chain(self) -> ChainWeights:
        """The values are ranks; which of them a block of the second factor reads is all that the permutation says."""
        (k, q, _), (l, s, r) = self.blkdiag1.shape, self.blkdiag2.shape  # noqa: E741
        v, reads = _stacked(self.blkdiag1)
        places, channels = self.places(), self.channels()
        u, writes = self.blkdiag2.new_zeros(l * s, k * q), torch.zeros(l * s, k * q, dtype=torch.bool)
        rows, columns = channels[:, :, None].expand(l, s, r), places[:, None, :].expand(l, s, r)
        u[rows, columns], writes[rows, columns] = self.blkdiag2, True
        m, n = self.out_features, self.in_features
        order = channels.reshape(-1)
        order = order[order < m]
        return ChainWeights(
            u[:m].contiguous(), v[:, :n].contiguous(), reads[:, :n], writes[:m], **no_mixes(), bias=self.bias,
            output_order=None if torch.equal(order, torch.arange(m)) else order, family=self.family,
        )  # fmt: skip


@dataclass(frozen=True, eq=False, repr=False)
class TensorTrainWeights(_Chained):
    """A matrix as a tensor train: ``W[(i1, i2), (j1, j2)] = sum_r core1[0, i1, j1, r] core2[r, i2, j2, 0]``.

    Two cores: core1 (1, m1, n1, r), core2 (r, m2, n2, 1) (Novikov et al., NeurIPS 2015, rows before columns); bias
    (m1 m2,) or None. Raises InputError on shapes that disagree and numbers that are not finite.
    """

    core1: Tensor
    core2: Tensor
    bias: Tensor | None = None

    def __post_init__(self) -> None:
        _check_blocks("core1", self.core1, "(1, outputs, inputs, rank)")
        _check_blocks("core2", self.core2, "(rank, outputs, inputs, 1)")
        rank = self.core1.shape[3]
        check_shape("core1", self.core1, (1, *self.core1.shape[1:]), "it is the first of two cores")
        check_shape(
            "core2", self.core2, (rank, *self.core2.shape[1:3], 1), f"core1 has rank {rank} and this core is the last"
        )
        check_bias(self.bias, self.out_features)

    @property
    def rank(self) -> int:
        """Rank r between the cores."""
        return self.core1.shape[3]

    @property
    def in_features(self) -> int:
        return self.core1.shape[2] * self.core2.shape[2]

    @property
    def out_features(self) -> int:
        return self.core1.shape[1] * self.core2.shape[1]

    @property
    def family(self) -> str:
        return "tensor_train"

    def chain(self) -> ChainWeights:
        """Ranks (j1, i2, r) read the inputs (j1, .) by the second core; outputs (., i2) read ranks (., i2, .) by the
        first one, and lie together.
        """
        core1, core2 = self.core1[0], self.core2[..., 0]
        (m1, n1, rank), (_, m2, n2) = core1.shape, core2.shape
        inner = core2.permute(1, 0, 2).reshape(1, m2 * rank, n2).expand(n1, -1, -1)
        v, reads = _stacked(inner)
        eye = torch.eye(m2, dtype=torch.bool)
        # (i1, i2, j1, i2', r): only i2 = i2' meets.
        shape = (m1, m2, n1, m2, rank)
        writes = eye[None, :, None, :, None].expand(shape).reshape(m1 * m2, n1 * m2 * rank)
        u = (core1[:, None, :, None, :] * eye[None, :, None, :, None]).reshape(m1 * m2, n1 * m2 * rank)
        order = torch.arange(m1 * m2).reshape(m1, m2).T.reshape(-1)
        return ChainWeights(
            u, v, reads, writes, **no_mixes(), bias=self.bias, family=self.family,
            output_order=None if torch.equal(order, torch.arange(m1 * m2)) else order,
        )  # fmt: skip


@dataclass(frozen=True, eq=False, repr=False)
class KroneckerWeights(_Chained):
    """``W = sum_t left[t] (x) right[t]``: left (t, m1, n1), right (t, m2, n2), bias (m1 m2,) or None.

    Raises InputError on shapes that disagree and numbers that are not finite.
    """

    left: Tensor
    right: Tensor
    bias: Tensor | None = None

    def __post_init__(self) -> None:
        _check_blocks("left", self.left, "(terms, outputs, inputs)")
        _check_blocks("right", self.right, "(terms, outputs, inputs)")
        terms = len(self.left)
        check_shape("right", self.right, (terms, *self.right.shape[1:]), f"left has {terms} terms")
        check_bias(self.bias, self.out_features)

    @property
    def in_features(self) -> int:
        return self.left.shape[2] * self.right.shape[2]

    @property
    def out_features(self) -> int:
        return self.left.shape[1] * self.right.shape[1]

    @property
    def family(self) -> str:
        return "kronecker"

    def chain(self) -> ChainWeights:
        """As a tensor train whose rank are the terms."""
        train = TensorTrainWeights(self.left.permute(1, 2, 0)[None], self.right[..., None], self.bias)
        return replace(train.chain(), family=self.family)


def _stacked(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """Blocks (b, rows, columns) down a diagonal, (b rows, b columns), and where they stand."""
    count, rows, columns = blocks.shape
    whole = blocks.new_zeros(count, rows, count, columns)
    support = torch.zeros(count, rows, count, columns, dtype=torch.bool)
    index = torch.arange(count)
    whole[index, :, index], support[index, :, index] = blocks, True
    return whole.reshape(count * rows, count * columns), support.reshape(count * rows, count * columns)


def _two_factors(u: Tensor, v: Tensor, bias: Tensor | None, family: str) -> ChainWeights:
    """Every rank reads all inputs and every output all ranks."""
    reads, writes = torch.ones_like(v, dtype=torch.bool), torch.ones_like(u, dtype=torch.bool)
    return ChainWeights(u, v, reads, writes, **no_mixes(), bias=bias, family=family)


CHAIN_KINDS = (BLASTWeights, MonarchWeights, KroneckerWeights, TensorTrainWeights, ChainWeights)
