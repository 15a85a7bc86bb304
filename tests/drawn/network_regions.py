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
        if operand.access == "image":
            continue  # vector_images has them
        if operand.access == "transposed":
            regions.append((column, network.tensors[operand.tensor].tokens, 1))
        else:
            chunks = view_chunks(network, operand, side)
            apart = not whole and chunks == output_chunks(network, operator, side)
            regions.append((column, own or rows, int(ins.chunk[i]) if apart else chunks))
    written = output_chunks(network, operator, side) if whole else int(ins.chunk[i])
    return [*regions, (ins.dst, rows, written)]


def head_bytes(program: Program, machine: Machine, i: int) -> list[int]:
    """Scratchpad bytes that the tile i reads of the rows of several query heads: those of its lanes. Head by head: a
    query head's channels lie behind those of the head before it, its weights from a chunk's edge on.
    """
    ins, network, side = program.instructions, program.network, machine.cols
    operator, rows = network.operators[int(ins.layer[i])], int(ins.other[i])
    tiles, tile = program.layers[int(ins.layer[i])].tiles, int(ins.tile[i])
    lanes = tiles.lane[tiles.lane_ptr[tile] : tiles.lane_ptr[tile + 1]].tolist()
    keys = -(-operator.operands[1].tokens // side)
    if operator.kind == "scores":
        first, tensor, width = (
            int(ins.chunk[i]) // keys,
            network.tensors[operator.operands[0].tensor],
            operator.operands[0].width,
        )
        pitch = -(-width // side) * side if tensor.padded else width
    else:
        first, pitch = 0, keys * side
    places = [head * pitch for head in range(first, first + int(ins.tokens[i]) // rows)]
    starts = [place // side * rows * side + place % side for place in places]
    return [
        int(ins.src[i]) + s - starts[0] + row * side + lane for s in starts for row in range(rows) for lane in lanes
    ]


def drained_heads(program: Program, machine: Machine, i: int) -> int:
    """Query heads of the chunk that DRAIN i writes, each with sums of its own."""
    output = program.network.tensors[program.network.operators[int(program.instructions.layer[i])].output]
    return machine.cols // output.width


def image_operand(program: Program, i: int) -> tuple[Operand, int] | None:
    """The image whose rows instruction i brings or reads, and where its region begins; None if it does neither."""
    ins, network = program.instructions, program.network
    operands = network.operators[int(ins.layer[i])].operands if network is not None else ()
    if ins.op[i] == Op.LOAD_INPUT:
        which, base = max(0, int(ins.tile[i])), int(ins.dst[i])
    elif ins.op[i] in (Op.DENSE, Op.REDUCE):
        which, base = 0, int(ins.src[i])
    else:
        return None
    return (operands[which], base) if operands and operands[which].access == "image" else None


def vector_images(program: Program, i: int) -> list[tuple[Operand, int]]:
    """Images that the VECTOR i reads windows of, and where their regions begin."""
    ins = program.instructions
    operands = program.network.operators[int(ins.layer[i])].operands
    places = zip(operands, (int(ins.src[i]), int(ins.other[i])), strict=False)
    return [(operand, base) for operand, base in places if operand.access == "image"]


def image_bytes(program: Program, machine: Machine, i: int, operand: Operand, base: int) -> Iterator[int]:
    """Scratchpad bytes of an image that instruction i writes or reads, one after another: padded rows lie in turn in the
    ``kept`` places of the region, pixels by their columns; a side along which the kernel has one place is only as long
    as the output (rule M2).
    """
    ins, window, pixel, side = program.instructions, operand.window, operand.width, machine.rows
    (k1, k2), (s1, s2), (d1, d2), (o1, o2) = window.kernel, window.stride, window.dilation, window.output
    s1, s2 = (1 if k1 == 1 else s1), (1 if k2 == 1 else s2)
    high, wide = (o1 - 1) * s1 + (k1 - 1) * d1 + 1, (o2 - 1) * s2 + (k2 - 1) * d2 + 1
    rows = range(int(ins.token0[i]), int(ins.token0[i] + ins.tokens[i]))
    if ins.op[i] == Op.LOAD_INPUT:
        channels = range(int(ins.chunk[i]) * side, min(pixel, (int(ins.chunk[i]) + 1) * side))
        for row in rows:
            for column in range(wide):
                for channel in channels:
                    yield base + (row % operand.kept * wide + column) * pixel + channel
        return
    all_channels = range(k1 * k2 * pixel)
    if ins.op[i] != Op.VECTOR:
        source = int(program.layers[int(ins.layer[i])].tiles.source[ins.tile[i]])
        all_channels = range(source * side, min(len(all_channels), (source + 1) * side))
    for row in rows:
        image, place = divmod(row, o1 * o2)
        for channel in all_channels:
            down, across = divmod(channel // pixel, k2)
            y = image * high + place // o2 * s1 + down * d1
            x = place % o2 * s2 + across * d2
            yield base + (y % operand.kept * wide + x) * pixel + channel % pixel
