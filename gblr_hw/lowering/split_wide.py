"""Linear operators and layers with more outputs than the parameter memory has room for (a language model's head) are
cut into several that write side by side.

Each part of a layer with ranks works out the sums of the ranks that it writes from. Where they multiply as often as the
layer's matrix then, the layer is that matrix.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch

from gblr_hw.weights.chains import CHAIN_KINDS, ChainWeights
from gblr_hw.weights.factors import Factors, evaluate
from gblr_hw.weights.stored import DenseWeights, LatticeWeights, LayerWeights
from simulator.base.arithmetic import ceil_div
from simulator.machine.machine import Machine
from simulator.network.network import Network, Operator, Tensor
from simulator.program.operations import Op
from simulator.program.schedule import PARAMETER_BYTES, RANK_PARAMETER_BYTES

_SPARE_SLOTS = 1.25  # banks do not fill evenly


def split_wide(
    network: Network, weights: Mapping[str, LayerWeights], machine: Machine, narrow: Collection[Op] = ()
) -> tuple[Network, dict[str, LayerWeights]]:
    """The same network with every linear operator narrow enough; parts are named ``name[first:last]``. narrow: kinds of
    tiles that are narrow.
    """
    tensors, operators, numbers = dict(network.tensors), [], dict(weights)
    for operator in network.operators:
        held = weights.get(operator.name)
        if held is None or operator.kind != "linear":
            operators.append(operator)
            continue
        whole, cuts = _in_room(held, machine, narrow)
        if len(cuts) < 2:
            operators.append(operator)
            numbers[operator.name] = whole
            continue
        del numbers[operator.name]
        for first, last in cuts:
            part, tensor = part_of(operator, tensors[operator.output], first, last)
            operators.append(part)
            tensors[tensor.name] = tensor
            numbers[part.name] = _rows(whole, first, last)
    if len(operators) == len(network.operators):
        return network, numbers
    return replace(network, tensors=tensors, operators=tuple(operators)), numbers


def narrow_parts(
    name: str, held: LayerWeights, machine: Machine, narrow: Collection[Op] = ()
) -> Iterator[tuple[str, LayerWeights]]:
    """A layer by itself, or its parts ``name[first:last]`` where it has more outputs than there is room for. narrow: as
    in ``split_wide``.
    """
    whole, cuts = _in_room(held, machine, narrow)
    if len(cuts) < 2:
        yield name, whole
        return
    for first, last in cuts:
        yield f"{name}[{first}:{last}]", _rows(whole, first, last)


def _in_room(
    held: LayerWeights, machine: Machine, narrow: Collection[Op]
) -> tuple[LayerWeights, list[tuple[int, int]]]:
    """The layer, or its matrix, and the ranges of outputs that it is computed in. What is multiplied out is rounded to
    the bits of dense tiles and lies on no grid, so that ranks of more bits, or on one, stay ranks.
    """
    cuts = _cuts(held, machine)
    if len(cuts) < 2 or isinstance(held, DenseWeights):
        return held, cuts
    if isinstance(held, CHAIN_KINDS):
        held = held.chain()  # once for all parts
    factors = evaluate(held)
    finer = Op.DENSE in narrow and not {Op.REDUCE, Op.EXPAND} <= set(narrow)
    kept = finer or factors.grid is not None or factors.rank_grid is not None
    if kept or factors.ranks == 0 or _multiplications(factors, cuts) < factors.out_features * factors.in_features:
        return held, cuts
    back = slice(None) if factors.output_order is None else np.argsort(factors.output_order)
    bias = None if factors.bias is None else torch.from_numpy(factors.bias[back].copy())
    matrix = DenseWeights(torch.from_numpy(factors.matrix().astype(np.float32)), bias)
    return matrix, _cuts(matrix, machine)


def _multiplications(factors: Factors, cuts: Sequence[tuple[int, int]]) -> int:
    """Multiplications of all parts per token, those of ranks that several need counted for each of them."""
    order = np.arange(factors.out_features) if factors.output_order is None else factors.output_order
    reads = factors.reads.sum(axis=1)
    count = int(factors.writes.sum()) + (0 if factors.dense_support is None else int(factors.dense_support.sum()))
    for first, last in cuts:
        needed = np.asarray(factors.writes[:, (order >= first) & (order < last)].any(axis=1), bool)
        before = -1
        while before != needed.sum():  # ranks that feed those needed
            before = int(needed.sum())
            needed[factors.mix_source[needed[factors.mix_target]]] = True
        count += int(reads[needed].sum()) + int(np.count_nonzero(needed[factors.mix_target]))
    return count


def _cuts(held: LayerWeights, machine: Machine) -> list[tuple[int, int]]:
    """Ranges of outputs that a layer is computed in: one, if all fit (or if no column of tiles does)."""
    most, outputs = _most_outputs(held, machine), held.out_features
    if outputs <= most or most == 0:
        return [(0, outputs)]
    size = ceil_div(outputs, ceil_div(outputs, most) * machine.cols) * machine.cols
    return [(first, min(outputs, first + size)) for first in range(0, outputs, size)]


def _most_outputs(held: LayerWeights, machine: Machine) -> int:
    """Outputs whose biases and multipliers fit half of the parameter memory beside the table of rank multipliers."""
    room = machine.parameter_half_bytes
    if not isinstance(held, DenseWeights) and 2 * PARAMETER_BYTES * held.out_features > room:
        banks = machine.rank_memory.banks if machine.scatter else machine.group_size
        slots = math.ceil(_SPARE_SLOTS * evaluate(held).ranks / banks)
        room = max(PARAMETER_BYTES * machine.cols, room - RANK_PARAMETER_BYTES * slots * machine.multiplier_row)
    return room // PARAMETER_BYTES // machine.cols * machine.cols


def _rows(held: LayerWeights, first: int, last: int) -> LayerWeights:
    """Outputs [first, last) of a layer, with the ranks that write any of them."""
    if isinstance(held, DenseWeights):
        return DenseWeights(
            held.weight[first:last],
            None if held.bias is None else held.bias[first:last],
            None if held.grid is None else held.grid.rows(slice(first, last)),
        )
    if isinstance(held, CHAIN_KINDS):
        return _rows_of_chain(held.chain(), first, last)
    factors = evaluate(held).in_natural_order()
    bias = None if factors.bias is None else torch.from_numpy(factors.bias[first:last].copy())
    alive = factors.writes[:, first:last].any(axis=1)
    shape = last - first, factors.in_features
    support = np.zeros(shape, bool) if factors.dense_support is None else factors.dense_support[first:last]
    dense = np.zeros(shape, np.float32) if factors.dense is None else factors.dense[first:last]
    return LatticeWeights(
        u=torch.from_numpy(np.ascontiguousarray(factors.u[first:last, alive])),
        v=torch.from_numpy(np.ascontiguousarray(factors.v[alive])),
        reads=torch.from_numpy(factors.reads[alive]),
        writes=torch.from_numpy(np.ascontiguousarray(factors.writes[alive, first:last])),
        tiles=torch.from_numpy(support.copy()),
        dense=torch.from_numpy(dense.copy()),
        bias=bias,
        chunk_in=1,
        chunk_out=1,
        grid=None if factors.grid is None else factors.grid.rows(slice(first, last)),
        rank_grid=None if factors.rank_grid is None else factors.rank_grid.rows(np.flatnonzero(alive)),
    )


def _rows_of_chain(held: ChainWeights, first: int, last: int) -> ChainWeights:
    """Outputs [first, last) with all ranks, of which lowering drops those that they do not need."""
    order = held.output_order
    return replace(
        held,
        u=held.u[first:last],
        writes=held.writes[first:last],
        bias=None if held.bias is None else held.bias[first:last],
        output_order=None if order is None else order[(order >= first) & (order < last)] - first,
    )


def part_of(operator: Operator, written: Tensor, first: int, last: int) -> tuple[Operator, Tensor]:
    """The operator for outputs [first, last) alone, and the tensor that it writes, within the whole one's."""
    root, token0, channel0 = written.within or (written.name, 0, 0)
    name = f"{operator.name}[{first}:{last}]"
    tensor = replace(
        written,
        name=f"{written.name}[{first}:{last}]",
        groups=1,
        width=last - first,
        within=(root, token0, channel0 + first),
    )
    return replace(operator, name=name, output=tensor.name), tensor
