"""Whether the rows of images that windows are read from lie in the scratchpad, and enough of them (machine.md, M2)."""

from __future__ import annotations

import numpy as np

from simulator.base.errors import NOT_OURS, InputError
from simulator.machine.machine import Machine
from simulator.network.image_rows import ImageRows
from simulator.network.network import Network
from simulator.program.isa import Instructions
from simulator.program.operations import INPUT_CHUNK_OPS, TILE_OPS, VECTOR_OPERATOR_OPS, Place, is_any, reads


def image_instructions(ins: Instructions, network: Network) -> np.ndarray:
    """Which instructions bring rows of an image or are tiles that read its windows. (N,)"""
    loaded = _operands(ins, network, np.maximum(ins.tile, 0))
    read = _operands(ins, network, np.zeros(len(ins), dtype=np.int64))
    tiles = is_any(ins.op, TILE_OPS) & reads(ins.op, Place.SCRATCHPAD)
    return (is_any(ins.op, INPUT_CHUNK_OPS) & loaded) | (tiles & read)


def _operands(ins: Instructions, network: Network, which: np.ndarray) -> np.ndarray:
    """Whether operand ``which`` of each instruction's operator is an image."""
    most = max((len(o.operands) for o in network.operators), default=1)
    table = np.zeros((len(network.operators), most), dtype=bool)
    for index, operator in enumerate(network.operators):
        for place, operand in enumerate(operator.operands):
            table[index, place] = operand.access == "image"
    return table[ins.layer, np.minimum(which, most - 1)]


def check_images(ins: Instructions, network: Network, machine: Machine) -> None:
    """Raise InputError naming the first operand that keeps fewer rows than an instruction reads at once, and the first
    instruction whose rows do not fit the scratchpad.
    """
    vectors = is_any(ins.op, VECTOR_OPERATOR_OPS)
    tiles = is_any(ins.op, TILE_OPS) & reads(ins.op, Place.SCRATCHPAD)
    loads = is_any(ins.op, INPUT_CHUNK_OPS)
    for index, operator in enumerate(network.operators):
        for place, operand in enumerate(operator.operands):
            if operand.access != "image":
                continue
            image, mine = ImageRows.of(operand), ins.layer == index
            last = machine.scratchpad.size_bytes - operand.kept * image.row_bytes
            brings = mine & loads & (np.maximum(ins.tile, 0) == place)
            takes = mine & (vectors | (tiles if place == 0 else False))
            address = np.where(loads, ins.dst, ins.src if place == 0 else ins.other)
            _refuse((brings | takes) & ((address < 0) | (address > last)), "src", address, f"{operand.kept} rows fit")
            _refuse(brings & (ins.tokens > operand.kept), "tokens", ins.tokens, f"the region keeps {operand.kept} rows")
            ends = image.first_row(ins.token0 + ins.tokens - 1) + image.rows.reach
            many = takes & (ends - image.first_row(ins.token0) > operand.kept)
            _refuse(many, "tokens", ins.tokens, f"their windows lie in the {operand.kept} rows that are kept")


def _refuse(bad: np.ndarray, field: str, values: np.ndarray, rule: str) -> None:
    if bad.any():
        at = int(np.argmax(bad))
        raise InputError(f"program: instruction {at}: field '{field}'", str(int(values[at])), rule, NOT_OURS)
