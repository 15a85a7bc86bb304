"""What the instructions of a network touch: rows of tensors in DRAM, regions of the scratchpad (rules E1 and M2)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from simulator.isa import Op
from simulator.machine import Machine
from simulator.network import Network, Operand, Operator
from simulator.network_layout import group_chunks, output_chunks, output_group_chunks, region_rows, view_chunks
from simulator.program import Program


def read_cells(program: Program, i: int) -> Iterator[tuple[str, str, int]]:
    """("dram", tensor, row) that the load i reads: the rows of its block, or all rows of the tensor if its view is not
    made of rows. Parameters and records are nobody's results.
    """
    ins, network = program.instructions, program.network
    operator = network.operators[int(ins.layer[i])]
    if ins.op[i] == Op.LOAD_INPUT:
        operand = operator.operands[max(0, int(ins.tile[i]))]
        rows = range(int(ins.token0[i]), int(ins.token0[i] + ins.tokens[i]))
    elif operator.kind in ("scores", "mix"):
        operand, rows = operator.operands[1], range(0)
    else:
        return
    for batch, token in _tokens(network, operand, rows):
        yield from _cells(network, operand.tensor, batch, token)


def _tokens(network: Network, operand: Operand, rows: range) -> list[tuple[int, int]]:
    tensor = network.tensors[operand.tensor]
    if operand.access == "rows":
        return [(row // operand.tokens % tensor.batch, operand.token0 + row % operand.tokens) for row in rows]
    return [(batch, token) for batch in range(tensor.batch) for token in range(tensor.tokens)]


def _cells(network: Network, name: str, batch: int, token: int) -> Iterator[tuple[str, str, int]]:
    """The row as its writers know it: of the tensor, or of the parts that lie in it."""
    for part in network.parts(name):
        tensor = network.tensors[part]
        first = 0 if part == name or tensor.within is None else tensor.within[1]
        if first <= token < first + tensor.tokens:
            yield ("dram", part, batch * tensor.tokens + token - first)


def vector_regions(program: Program, machine: Machine, i: int) -> list[tuple[np.ndarray, int, int]]:
    """(address column, rows, chunks) of what the VECTOR i reads, then of what it writes."""
    ins, network, side = program.instructions, program.network, machine.cols
    operator: Operator = network.operators[int(ins.layer[i])]
    rows, whole = int(ins.tokens[i]), ins.tile[i] < 0
    regions = []
    for operand, column in zip(operator.operands, (ins.src, ins.other), strict=False):
        own = region_rows(network, operator, operand)
        if operand.access == "transposed":
            regions.append((column, network.tensors[operand.tensor].tokens, 1))
        else:
            chunks = view_chunks(network, operand, side) if whole else group_chunks(network, operand, side)
            regions.append((column, own or rows, chunks))
    written = output_chunks(network, operator, side) if whole else output_group_chunks(network, operator, side)
    return [*regions, (ins.dst, rows, written)]
