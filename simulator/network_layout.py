"""Where the operands and results of a network's operators lie: chunks and rows of each, on an array of a given side
(machine.md, rules E1 and M2).

A chunk is ``side`` channels. Tensors are stored chunk by chunk, a padded one with each group at a chunk's edge; an
operand's view is cut into chunks in the same way.
"""

from __future__ import annotations

from simulator.network import Network, Operand, Operator


def view_chunks(network: Network, operand: Operand, side: int) -> int:
    """Chunks of the operand's view; of the tensor itself for "transposed", whose rows are read as they are stored."""
    tensor = network.tensors[operand.tensor]
    if operand.access == "transposed":
        return -(-tensor.channels(side) // side)
    return operand.groups * -(-operand.width // side) if tensor.padded else -(-operand.groups * operand.width // side)


def group_chunks(network: Network, operand: Operand, side: int) -> int:
    """Chunks of one group of the view; of all tokens that a row of it holds for "transposed"."""
    if operand.access == "transposed":
        return 1
    return -(-operand.width // side)


def view_rows(network: Network, operator: Operator, operand: Operand) -> int:
    """Rows of the operand's view over the whole batch; of the tensor for "transposed"."""
    tensor = network.tensors[operand.tensor]
    if operand.access == "transposed":
        return tensor.rows
    batch = operator.batch if operand.access == "gather" else tensor.batch
    return batch * operand.tokens


def region_rows(network: Network, operator: Operator, operand: Operand) -> int:
    """Rows of the operand's region in the scratchpad if the operator's rows do not say: 1 for an operand of which a
    sequence (or all of them) reads one row, all that a row of the view holds for "transposed", else 0.
    """
    if operand.access == "transposed":
        return operand.groups * operand.width
    alone = operand.access != "gather" and network.tensors[operand.tensor].batch == 1 < operator.batch
    return 1 if operand.tokens == 1 and (operator.tokens > 1 or alone) else 0


def output_chunks(network: Network, operator: Operator, side: int) -> int:
    """Stored chunks of the operator's output."""
    return -(-network.tensors[operator.output].channels(side) // side)


def output_group_chunks(network: Network, operator: Operator, side: int) -> int:
    """Stored chunks of one group of the operator's output."""
    return -(-network.tensors[operator.output].width // side)
