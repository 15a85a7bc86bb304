"""Products with parameters that differ by head, expert or block: one product with a block-diagonal matrix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod

import torch

from gblr_hw.frontend.graph.builder import Builder, single
from gblr_hw.frontend.graph.layout import REPEAT, LayoutError, View, insert, permute, reshape, simplified
from gblr_hw.frontend.operators.matrix_ops import MAX_GROUPED_ENTRIES, linear
from gblr_hw.weights.chains import ChainWeights
from gblr_hw.weights.stored import DenseWeights, GroupedWeights, LayerWeights


def chain_product(builder: Builder, view: View, weights: ChainWeights, name: str) -> View:
    """A chain of ranks times the last dimension of ``view``. Where its outputs are best stored in another order that a
    layout can say, they are, and whoever reads them finds them there.
    """
    order = weights.output_order
    step = 0 if order is None or len(order) < 2 else int(order[1] - order[0])
    if order is None or step < 1 or len(order) % step or not torch.equal(order, _by_columns(len(order), step)):
        return linear(builder, view, weights, name)
    stored = replace(
        weights, u=weights.u[order], writes=weights.writes[order],
        bias=None if weights.bias is None else weights.bias[order], output_order=None,
    )  # fmt: skip
    flat = linear(builder, view, stored, name)
    cut = reshape(flat, [*flat.shape[:-1], step, len(order) // step])
    *rows, outer, inner = cut.dims
    return replace(cut, dims=(*rows, simplified((*inner, *outer))))


def _by_columns(count: int, step: int) -> torch.Tensor:
    """0 .. count - 1 written in rows of ``step``, and read by columns."""
    return torch.arange(count).reshape(-1, step).T.reshape(-1)


def is_groupable(view: View, weight: torch.Tensor) -> bool:
    """Whether a matrix for each group is one product: its block-diagonal matrix is one that lowering lays out."""
    groups, shared = _kinds(view, weight)
    count = prod(weight.shape[dim - _lead(view, weight) - 2] for dim in groups)
    return weight.numel() * count <= MAX_GROUPED_ENTRIES and bool(groups or shared)


def grouped_product(builder: Builder, view: View, weight: torch.Tensor, name: str) -> View:
    """(..., M, K) times a constant (..., K, N) that differs along leading dimensions, these broadcast: (..., M, N).

    Dimensions along which both differ are groups: blocks of the diagonal. Along those that the value repeats, the
    constant's matrices stand over each other, as outputs of the same inputs. All others are rows.
    """
    lead = max(len(view.dims), weight.dim()) - 2
    while len(view.dims) < lead + 2:
        view = insert(view, 0)
    weight = weight.reshape((1,) * (lead + 2 - weight.dim()) + tuple(weight.shape))
    groups, shared = _kinds(view, weight)
    rows = [dim for dim in range(lead) if dim not in (*groups, *shared)]
    weights = _weights(weight, groups, shared, rows)
    channels = tuple(atom for dim in (*groups, lead + 1) for atom in view.dims[dim])
    merged = replace(view, dims=(*(view.dims[dim] for dim in rows), view.dims[lead], simplified(channels)))
    flat = linear(builder, merged, weights, name)
    sizes = [weight.shape[dim] for dim in (*groups, *shared)]
    whole = reshape(flat, [*flat.shape[:-1], *sizes, weight.shape[-1]])
    order = [*rows, lead, *groups, *shared, lead + 1]
    return permute(whole, [order.index(dim) for dim in range(lead + 2)])


def _kinds(view: View, weight: torch.Tensor) -> tuple[list[int], list[int]]:
    """Leading dimensions, of the broadcast product, that are groups, and those whose matrices share their inputs."""
    lead = _lead(view, weight)
    groups, shared = [], []
    for dim in range(lead):
        own = dim - lead - 2 + weight.dim()
        if own < 0 or weight.shape[own] == 1 or _repeats(weight, own):
            continue
        mine = dim - lead - 2 + len(view.dims)
        atoms = () if mine < 0 else view.dims[mine]
        if all(atom.axis == REPEAT for atom in atoms):
            shared.append(dim)
        elif any(atom.axis == REPEAT for atom in atoms):
            raise LayoutError("a value repeats in part along its groups")
        else:
            groups.append(dim)
    return groups, shared


def _lead(view: View, weight: torch.Tensor) -> int:
    return max(len(view.dims), weight.dim()) - 2


def _repeats(weight: torch.Tensor, dim: int) -> bool:
    return bool((weight == weight.narrow(dim, 0, 1)).all())


def _weights(weight: torch.Tensor, groups: Sequence[int], shared: Sequence[int], rows: Sequence[int]) -> LayerWeights:
    """Outputs (groups, shared, N) by inputs (groups, K)."""
    for dim in rows:
        weight = weight.narrow(dim, 0, 1)
    inputs = weight.shape[-2]
    count = prod(weight.shape[dim] for dim in groups)
    last = weight.dim() - 1
    kernel = weight.permute(*groups, *shared, last, *rows, last - 1).reshape(-1, inputs)
    if count == 1:
        return DenseWeights(single(kernel))
    return GroupedWeights(single(kernel)[:, :, None, None], count)
