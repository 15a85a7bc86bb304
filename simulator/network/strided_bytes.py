"""What reading a tensor into other axes moves through the DRAM's channel (machine.md, E1)."""

from __future__ import annotations

import numpy as np

from simulator.base.arithmetic import ceil_div
from simulator.network.network import Network, Operand
from simulator.network.operand_views import channel_places, strided_places


def strided_bytes(network: Network, operand: Operand, chunk: int, rows: np.ndarray, side: int, burst_bytes: int) -> int:
    """Bytes that loading ``rows`` of one chunk of a strided view moves on an array of ``side``: each run of elements
    that lie one after another in DRAM, in the order in which the scratchpad takes them, in whole bursts.
    """
    count = operand.groups * operand.width
    channels = np.arange(chunk * side, min(count, (chunk + 1) * side))
    batch, token, channel = strided_places(operand, rows, channels)
    tensor, token0, channel0 = network.tensors[operand.tensor], 0, 0
    places = channel_places(tensor.groups, tensor.width, tensor.padded, side)
    while tensor.within is not None:
        parent, inside_token, inside_channel = tensor.within
        token0, channel0, tensor = token0 + inside_token, channel0 + inside_channel, network.tensors[parent]
    place = places[channel] + channel0
    row = batch * tensor.tokens + token0 + token
    address = ((place // side) * tensor.rows + row) * side + place % side
    edges = np.flatnonzero(np.diff(address.reshape(-1)) != 1) + 1
    lengths = np.diff(np.concatenate([[0], edges, [address.size]]))
    return int(ceil_div(lengths, burst_bytes).sum()) * burst_bytes
