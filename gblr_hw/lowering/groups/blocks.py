"""The blocks of rows that a group of operators works on, in order."""

from __future__ import annotations

import numpy as np

from simulator.base.arithmetic import ceil_div
from simulator.machine.machine import Machine
from simulator.network.network import Network
from simulator.network.network_layout import read_by_all


def per_sequence(network: Network, first: int, last: int) -> bool:
    """Whether some operator treats each sequence by itself, so that a block may not hold rows of two."""
    for operator in network.operators[first:last]:
        for operand in operator.operands:
            if operand.access in ("weights", "transposed") or (operand.tokens == 1 and operator.tokens > 1):
                return True
            if operand.tokens > 1 and read_by_all(network, operator, operand):
                return True
        if any(by_token(array) for array in operator.constants.values()):
            return True
    return False


def blocks_of(network: Network, first: int, last: int, block: int) -> np.ndarray:
    """(blocks, 2) first row and rows of each block of operators [first, last): of all rows, or sequence by sequence."""
    head = network.operators[first]
    rows = head.tokens if per_sequence(network, first, last) else head.rows
    begins = np.arange(0, rows, block)
    counts = np.minimum(block, rows - begins)
    sequences = np.arange(head.rows // rows)[:, None] * rows
    return np.stack([(sequences + begins).ravel(), np.tile(counts, head.rows // rows)], axis=1)


def pieces_of(rows: int, machine: Machine) -> int:
    """Runs of rows in which a block goes through the array: one needs half of the accumulator memory at most, so that
    sums of one are drained while the next is worked on. More runs share a tile that is loaded once.
    """
    return ceil_div(rows, machine.accumulator_rows // 2)


def by_token(constant: np.ndarray) -> bool:
    """Whether a constant of the vector unit has a row for each token."""
    return constant.ndim == 4 and constant.shape[1] > 1
