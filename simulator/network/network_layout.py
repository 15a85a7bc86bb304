"""Where the operands and results of a network's operators lie: chunks and rows of each, on an array of a given side
(machine.md, rules E1 and M2).

A chunk is ``side`` channels. Tensors are stored chunk by chunk, a padded one with each group at a chunk's edge; an
operand's view is cut into chunks in the same way.
"""

from __future__ import annotations

import numpy as np

from simulator.base.arithmetic import ceil_div
from simulator.network.image_rows import ImageRows, image_chunks
from simulator.network.network import Network, Operand, Operator

# Views whose rows are the operator's, whatever sequences the tensor has.
BY_OUTPUT = ("gather", "strided")


def view_chunks(network: Network, operand: Operand, side: int) -> int:
    """Chunks of the operand's view; of the tensor itself for "transposed", whose rows are read as they are stored."""
    tensor = network.tensors[operand.tensor]
    if operand.access == "transposed":
        return ceil_div(tensor.channels(side), side)
    return (
        operand.groups * ceil_div(operand.width, side)
        if keeps_padding(network, operand)
        else ceil_div(operand.groups * operand.width, side)
    )


def load_chunks(network: Network, operand: Operand, side: int) -> int:
    """Chunks in which the operand is loaded: its view's, or those of its image."""
    return image_chunks(operand, side) if operand.access == "image" else view_chunks(network, operand, side)


def keeps_padding(network: Network, operand: Operand) -> bool:
    """Whether the groups of the operand's view begin at chunks' edges, as in its tensor; a strided view is packed."""
    return network.tensors[operand.tensor].padded and operand.access != "strided"


def region_chunks(network: Network, operand: Operand, side: int) -> int:
    """Chunks of the operand's region in the scratchpad: its view's; one of a tensor that is turned."""
    return 1 if operand.access == "transposed" else view_chunks(network, operand, side)


def head_stride(network: Network, operator: Operator, side: int) -> int:
    """Channels from the first of one query head to the first of the next, where a scores operator reads or a mix
    writes them.
    """
    tensor = network.tensors[operator.operands[0].tensor if operator.kind == "scores" else operator.output]
    width = operator.operands[0].width if operator.kind == "scores" else tensor.width
    return ceil_div(width, side) * side if tensor.padded else width


def heads_per_tile(network: Network, operator: Operator, side: int) -> int:
    """Query heads that use each tile of scores or mix: those of one head of the weights, if heads are whole chunks or
    if they make up whole chunks.
    """
    reads, weights = operator.operands
    shared, stride = reads.groups // weights.groups, head_stride(network, operator, side)
    return shared if stride % side == 0 or (side % stride == 0 and shared % (side // stride) == 0) else 1


def heads_of_chunk(network: Network, operator: Operator, side: int) -> int:
    """Query heads of an output chunk of a mix that come from the same tile and have sums of their own: 1 if they share
    sums, each in its columns, or if a head takes whole chunks; 1 for scores, whose heads do.
    """
    stride = head_stride(network, operator, side)
    if operator.kind != "mix" or stride >= side or heads_per_tile(network, operator, side) == 1:
        return 1
    return side // stride


def head_steps(network: Network, operator: Operator, side: int) -> tuple[int, int]:
    """Channels from one query head to the next that uses the same tiles of scores or mix: read and written."""
    keys = ceil_div(operator.operands[1].tokens, side) * side
    stride = head_stride(network, operator, side)
    return (stride, keys) if operator.kind == "scores" else (keys, stride)


def head_offset(step: np.ndarray | int, head: np.ndarray, rows: np.ndarray | int, side: int) -> np.ndarray:
    """Bytes from the first query head's rows to those of ``head`` in a region of ``rows`` rows, ``step`` channels
    apart.
    """
    return head * step // side * rows * side + head * step % side


def view_rows(network: Network, operator: Operator, operand: Operand) -> int:
    """Rows of the operand's view over the whole batch; of the tensor for "transposed", of padded images for "image"."""
    tensor = network.tensors[operand.tensor]
    if operand.access == "transposed":
        return tensor.rows
    if operand.access == "image":
        return operator.batch * ImageRows.of(operand).rows.size
    batch = operator.batch if operand.access in BY_OUTPUT else tensor.batch
    return batch * operand.tokens


def region_rows(network: Network, operator: Operator, operand: Operand) -> int:
    """Rows of the operand's region in the scratchpad if the operator's rows do not say: 1 for an operand of which a
    sequence (or all of them) reads one row, all that a row of the view holds for "transposed", else 0.
    """
    if operand.access == "transposed":
        return operand.groups * operand.width
    if operand.access == "strided":
        return 0
    return 1 if operand.tokens == 1 and (operator.tokens > 1 or read_by_all(network, operator, operand)) else 0


def read_by_all(network: Network, operator: Operator, operand: Operand) -> bool:
    """Whether the operand is one sequence that all of the operator's sequences read."""
    return operand.access not in BY_OUTPUT and network.tensors[operand.tensor].batch == 1 < operator.batch


def output_chunks(network: Network, operator: Operator, side: int) -> int:
    """Stored chunks of the operator's output."""
    return ceil_div(network.tensors[operator.output].channels(side), side)
