"""Zeros behind the inputs of a product are not read: the product has no columns for them."""

from __future__ import annotations

from dataclasses import replace

from gblr_hw.frontend.graph.draft import Draft, pruned
from gblr_hw.weights.chains import ChainWeights
from gblr_hw.weights.stored import DenseWeights, LayerWeights
from simulator.network.network import Operand, Tensor


def padding_cut(draft: Draft) -> Draft:
    """Dense products and chains that read a value with zeros joined behind its channels read the value alone. The zeros
    would take a tile of their own where they cross its edge, and a store.
    """
    operators, weights = [], dict(draft.weights)
    for operator in draft.operators:
        own = _own_part(draft, operator.operands[0]) if operator.kind == "linear" else None
        held = None if own is None else _narrower(weights[operator.name], own.groups * own.width)
        if own is None or held is None:
            operators.append(operator)
            continue
        weights[operator.name] = held
        read = replace(operator.operands[0], tensor=own.name, groups=1, width=own.groups * own.width)
        operators.append(replace(operator, operands=(read, *operator.operands[1:])))
    return pruned(replace(draft, operators=tuple(operators), weights=weights))


def _own_part(draft: Draft, read: Operand) -> Tensor | None:
    """The part at the start of what an operand reads as a whole, if all behind it is one part of zeros."""
    whole = draft.tensors[read.tensor]
    channels = whole.groups * whole.width
    at_start = (read.token0, read.channel0) == (0, 0) and read.tokens == whole.tokens
    if read.access != "rows" or not at_start or read.groups * read.width != channels or whole.padded:
        return None
    parts = [tensor for tensor in draft.tensors.values() if tensor.within and tensor.within[0] == whole.name]
    if len(parts) != 2 or any(part.padded or part.rows != whole.rows for part in parts):
        return None
    own, zeros = sorted(parts, key=lambda part: part.within[2] if part.within else 0)
    width = own.groups * own.width
    places = (own.within, zeros.within) == ((whole.name, 0, 0), (whole.name, 0, width))
    if not places or width + zeros.groups * zeros.width != channels or zeros.kind != "constant":
        return None
    return own if not draft.values[zeros.name].any() and own.tokens == whole.tokens else None


def _narrower(held: LayerWeights, inputs: int) -> LayerWeights | None:
    """The first columns of a layer; None for kinds whose blocks of inputs are all alike, and weights on a grid."""
    if isinstance(held, DenseWeights) and held.grid is None:
        return replace(held, weight=held.weight[:, :inputs])
    if isinstance(held, ChainWeights):
        return replace(held, v=held.v[:, :inputs], reads=held.reads[:, :inputs])
    return None
