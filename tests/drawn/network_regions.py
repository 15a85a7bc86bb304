"""What the instructions of a network touch: rows of tensors in DRAM, regions of the scratchpad (rules E1 and M2)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from simulator.machine.machine import Machine
from simulator.network.network import Network, Operand, Operator
from simulator.network.network_layout import output_chunks, region_rows, view_chunks
from simulator.program.operations import After, Op
from simulator.program.program import Program


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


def parameter_half(program: Program, i: int) -> int | None:
    """Which half of the parameter memory instruction i loads or uses: that of the load it waits for, that of its layer's
    next DRAIN if it reads ranks. None if it has no parameters (rule M4).
    """
    ins = program.instructions
    if ins.op[i] not in (Op.LOAD_PARAMETERS, Op.DRAIN, Op.VECTOR, Op.EXPAND, Op.MIX):
        return None
    if ins.op[i] in (Op.EXPAND, Op.MIX):
        i += int(np.argmax((ins.op[i:] == Op.DRAIN) & (ins.layer[i:] == ins.layer[i])))
    load = i if ins.op[i] == Op.LOAD_PARAMETERS else int(ins.after[After.WEIGHTS, i])
    return None if load < 0 else int(np.count_nonzero(ins.op[:load] == Op.LOAD_PARAMETERS)) % 2


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
            chunks = view_chunks(network, operand, side)
            apart = not whole and chunks == output_chunks(network, operator, side)
            regions.append((column, own or rows, int(ins.chunk[i]) if apart else chunks))
    written = output_chunks(network, operator, side) if whole else int(ins.chunk[i])
    return [*regions, (ins.dst, rows, written)]
