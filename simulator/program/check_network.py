"""Whether the instructions of a whole network fit its operators: operands, rows, chunks, groups and regions
(machine.md, rules I2, E1 and M2).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from simulator.base.errors import NOT_OURS, InputError
from simulator.machine.machine import Machine
from simulator.network.network import Network, Operator
from simulator.network.network_layout import load_chunks, output_chunks, view_chunks, view_rows
from simulator.program.isa import Instructions
from simulator.program.operations import (
    INPUT_CHUNK_OPS,
    OUTPUT_CHUNK_OPS,
    RESULT_ROW_OPS,
    TILE_OPS,
    VECTOR_OPERATOR_OPS,
    Place,
    is_any,
    writes,
)
from simulator.program.schedule import LayerSchedule

_MATRIX_FORMS = {"linear": ("dense", "ranks", "mixed"), "scores": ("activations",), "mix": ("activations",)}


def check_operators(layers: Sequence[LayerSchedule], network: Network, machine: Machine) -> None:
    """Raise InputError if the machine's array is not square, or naming the first layer that is not its operator's."""
    if machine.rows != machine.cols:
        raise InputError(
            f"program: machine '{machine.name}'",
            f"{machine.rows} x {machine.cols} cells",
            "a whole network runs on square arrays, whose output chunks are input chunks again",
            "Choose a machine with as many rows as columns.",
        )
    for index in range(max(len(layers), len(network.operators))):
        _check_layer(index, layers, network, machine)


def check_network(instructions: Instructions, network: Network, machine: Machine) -> None:
    """Raise InputError naming the first instruction that does not fit its operator."""
    if network.operators:
        _check_loads(instructions, network, machine.rows)
        _check_results(instructions, network, machine)


def _check_layer(index: int, layers: Sequence[LayerSchedule], network: Network, machine: Machine) -> None:
    """Layer and operator ``index`` have one name and forms that belong together."""
    layer = layers[index].name if index < len(layers) else "no layer"
    operator = network.operators[index].name if index < len(network.operators) else "no operator"
    if layer != operator:
        raise InputError(
            f"program: layer {index}", f"'{layer}' for '{operator}'", "every operator has its layer, in order", NOT_OURS
        )
    kind, form = network.operators[index].kind, layers[index].form
    if layers[index].reorders:
        _check_order(layer, network, network.operators[index], machine.cols)
    if form not in _MATRIX_FORMS.get(kind, ("vector",)):
        raise InputError(f"layer '{layer}': 'form'", form, f"it is the form of an operator of kind {kind}", NOT_OURS)
    types = machine.datatypes
    if form == "activations" and types.weight_bits != types.activation_bits:
        raise InputError(
            f"layer '{layer}'",
            f"weights of {types.weight_bits} bits, activations of {types.activation_bits}",
            "tiles of activations need weights of as many bits as activations",
            "Choose another machine, or leave the operator out of the program.",
        )


def _check_order(layer: str, network: Network, operator: Operator, side: int) -> None:
    """Outputs that are in another order are read by no operator, and their chunks follow each other closely."""
    written = network.tensors[operator.output]
    close = written.channels(side) == written.groups * written.width
    if operator.kind == "linear" and close and network.unread(operator.output):
        return
    raise InputError(
        f"layer '{layer}': 'output_order'",
        "outputs in another order",
        "in a network they are in the order in which the next operator reads them",
        NOT_OURS,
    )


def _refuse(bad: np.ndarray, field: str, values: np.ndarray, limit: np.ndarray) -> None:
    if bad.any():
        at = int(np.argmax(bad))
        raise InputError(
            f"program: instruction {at}: field '{field}'",
            str(int(values[at])),
            f"it lies between 0 and {int(limit[at]) - 1}",
            NOT_OURS,
        )


def _check_loads(ins: Instructions, network: Network, side: int) -> None:
    """Every LOAD_INPUT against the view of the operand that it brings; LOAD_WEIGHTS of activations name a sequence."""
    loads = is_any(ins.op, INPUT_CHUNK_OPS)
    operands = np.array([len(operator.operands) for operator in network.operators])
    most = operands[ins.layer]
    _refuse(loads & ((ins.tile < -1) | (ins.tile >= most)), "tile", ins.tile, most)
    pairs = [(operator, operand) for operator in network.operators for operand in operator.operands]
    chunks = np.array([load_chunks(network, operand, side) for _, operand in pairs], dtype=np.int64)
    rows = np.array([view_rows(network, operator, operand) for operator, operand in pairs], dtype=np.int64)
    at = np.zeros(len(ins), dtype=np.int64)
    at[loads] = (np.cumsum(operands) - operands)[ins.layer[loads]] + np.maximum(ins.tile[loads], 0)
    if not len(pairs):
        return
    _refuse(loads & ((ins.chunk < 0) | (ins.chunk >= chunks[at])), "chunk", ins.chunk, chunks[at])
    ends = ins.token0 + ins.tokens
    _refuse(loads & (ends > rows[at]), "token0", ends - 1, rows[at])
    filled = np.array([operator.kind in ("scores", "mix") for operator in network.operators])[ins.layer]
    filled &= writes(ins.op, Place.WEIGHT_BUFFER)
    sequences = np.array([operator.rows for operator in network.operators])[ins.layer]
    _refuse(filled & ((ins.token0 < 0) | (ins.token0 >= sequences)), "token0", ins.token0, sequences)


def _check_results(ins: Instructions, network: Network, machine: Machine) -> None:
    """Rows, chunks and groups of what is computed, drained and stored; the regions and passes of VECTORs."""
    side, operators = machine.rows, network.operators

    def by_layer(values: Sequence[int]) -> np.ndarray:
        return np.array(values, dtype=np.int64)[ins.layer]

    rows = by_layer([operator.rows for operator in operators])
    chunks = by_layer([output_chunks(network, operator, side) for operator in operators])
    several = is_any(ins.op, TILE_OPS) & (ins.other > 0)
    ends = ins.token0 + np.where(several, ins.other, ins.tokens)
    _refuse(is_any(ins.op, RESULT_ROW_OPS) & (ends > rows), "token0", ends - 1, rows)
    bad = is_any(ins.op, OUTPUT_CHUNK_OPS) & ((ins.chunk < 0) | (ins.chunk >= chunks))
    _refuse(bad, "chunk", ins.chunk, chunks)
    steps = is_any(ins.op, VECTOR_OPERATOR_OPS)
    _refuse(steps & ((ins.tile < -1) | (ins.tile >= chunks)), "tile", ins.tile, chunks)
    part = steps & (ins.tile >= 0)
    _refuse(part & (ins.tile + ins.chunk > chunks), "chunk", ins.chunk, chunks - ins.tile + 1)
    passes = by_layer([operator.passes for operator in operators])
    unlike = steps & (ins.row_cycles != passes)
    if unlike.any():
        at = int(np.argmax(unlike))
        raise InputError(
            f"program: instruction {at}: field 'row_cycles'",
            str(int(ins.row_cycles[at])),
            f"the steps of '{operators[ins.layer[at]].name}' are {int(passes[at])} passes",
            NOT_OURS,
        )
    room = machine.scratchpad.size_bytes - side + 1
    written = np.where(ins.tile < 0, chunks, ins.chunk) * ins.tokens * side
    one_row = np.full(len(ins), room)
    _refuse(steps & ((ins.src < 0) | (ins.src >= room)), "src", ins.src, one_row)
    _refuse(steps & (ins.other >= room), "other", ins.other, one_row)
    last = machine.scratchpad.size_bytes + 1 - written
    _refuse(steps & ((ins.dst < 0) | (ins.dst >= last)), "dst", ins.dst, last)


def tile_chunks(network: Network, operator: Operator, side: int) -> tuple[int, int]:
    """Chunks that the tiles of a matrix operator may read and write."""
    return view_chunks(network, operator.operands[0], side), output_chunks(network, operator, side)
