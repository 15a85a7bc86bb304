"""Schedules of operators without stored weights: products of activations, as DENSE tiles that are loaded from stored
activations, and operators of the vector unit, which have no tiles.
"""

from __future__ import annotations

import numpy as np

from simulator.base.arithmetic import ceil_div
from simulator.network.network import Network, Operator
from simulator.network.network_layout import head_stride, heads_per_tile
from simulator.program.operations import Op
from simulator.program.schedule import LayerSchedule, Payload, TileTable


def activation_schedule(network: Network, operator: Operator, side: int) -> LayerSchedule:
    """The tiles of a "scores" or "mix" operator for one batch element on an array of ``side`` rows and columns.

    Query head q reads its channels, head q' = q * (weights' groups) // groups of the weights. Where a head is a whole
    number of chunks, all query heads of one weights head share its tiles, which stand for the first of them; else a
    tile holds a head's channels in the lanes (or columns) that they have in their chunk, and every query head has its
    own.
    """
    reads, weights = operator.operands
    written = network.tensors[operator.output]
    scores = operator.kind == "scores"
    stride = head_stride(network, operator, side)
    keys = weights.tokens
    key_chunks = ceil_div(keys, side)
    shared = heads_per_tile(network, operator, side)
    kind_source, kind_target, lanes, low, high = [], [], [], [], []
    for query in range(0, reads.groups, shared):
        first, last = query * stride, query * stride + weights.width
        for key in range(key_chunks):
            held = min(side, keys - key * side)
            for chunk in range(first // side, ceil_div(last, side)):
                begin, end = max(first - chunk * side, 0), min(last - chunk * side, side)
                padded = query * key_chunks + key
                kind_source.append(chunk if scores else padded)
                kind_target.append(padded if scores else chunk)
                lanes.append(np.arange(begin, end) if scores else np.arange(held))
                low.append(0 if scores else begin)
                high.append(held if scores else end)
    order = _by_target(np.array(kind_target))
    counts = np.array([len(lanes[at]) for at in order])
    tiles = TileTable(
        kind=np.full(len(order), int(Op.DENSE)),
        source=np.array(kind_source)[order],
        target=np.array(kind_target)[order],
        row_cycles=np.ones(len(order), np.int64),
        lane_ptr=np.concatenate([[0], np.cumsum(counts)]),
        lane=np.concatenate([lanes[at] for at in order]),
        first=np.zeros(int(counts.sum()), np.int64),
        lo=np.repeat(np.array(low)[order], counts),
        hi=np.repeat(np.array(high)[order], counts),
    )
    multiplications = reads.groups * reads.width * (keys if scores else weights.width)
    inputs = _stored(network, reads.tensor, reads.groups, reads.width, side)
    return _schedule(operator, "activations", inputs, written.channels(side), multiplications, tiles)


def vector_schedule(network: Network, operator: Operator, side: int) -> LayerSchedule:
    """The schedule of an operator that only the vector unit works on: sizes, and no tiles."""
    nothing = np.zeros(0, np.int64)
    tiles = TileTable(nothing, nothing, nothing, nothing, np.zeros(1, np.int64), nothing, nothing, nothing, nothing)
    first = operator.operands[0]
    inputs = _stored(network, first.tensor, first.groups, first.width, side)
    return _schedule(operator, "vector", inputs, network.tensors[operator.output].channels(side), 0, tiles)


def _stored(network: Network, tensor: str, groups: int, width: int, side: int) -> int:
    """Channels of a view with ``groups`` of ``width``, with the padding of its tensor."""
    return groups * (ceil_div(width, side) * side if network.tensors[tensor].padded else width)


def _by_target(target: np.ndarray) -> np.ndarray:
    """Tiles of one output chunk in a row, chunks in order of their first tile."""
    _, first, inverse = np.unique(target, return_index=True, return_inverse=True)
    return np.argsort(first[inverse], kind="stable")


def _schedule(
    operator: Operator, form: str, inputs: int, outputs: int, multiplications: int, tiles: TileTable
) -> LayerSchedule:
    nothing = np.zeros(0)
    payload = Payload(nothing, nothing, np.ones(outputs), nothing, np.zeros(outputs), 0.0, 0.0)
    return LayerSchedule(
        name=operator.name,
        form=form,
        in_features=inputs,
        out_features=outputs,
        ranks=0,
        block_tokens=operator.rows,
        multiplications=multiplications,
        tiles=tiles,
        rank_bank=nothing,
        rank_slot=nothing,
        payload=payload,
    )
