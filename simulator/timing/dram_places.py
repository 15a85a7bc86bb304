"""Where every transfer of a program lies in DRAM (machine.md, rule D7): the first burst of each, and how many.

Regions lie one behind the other, each from a burst's begin on: layer by layer the tile records (each from a burst's
begin on, too), parameters, inputs and outputs; in a network the tensors, then each operator's records and parameters.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simulator.base.arithmetic import ceil_div
from simulator.machine.machine import Machine
from simulator.network.image_rows import ImageRows
from simulator.network.network import Network, Operand, Operator
from simulator.network.network_layout import head_stride
from simulator.network.operand_views import operand_window
from simulator.program.operations import TRANSFER_OPS, Place, is_any, reads, writes
from simulator.program.program_record import ProgramRecord


def transfer_bursts(program: ProgramRecord, machine: Machine) -> tuple[np.ndarray, np.ndarray]:
    """First burst and bursts of every instruction, (N,) int64 each; 0 of those that move nothing."""
    ins, burst = program.instructions, machine.dram.burst_bytes
    moved = np.where(is_any(ins.op, TRANSFER_OPS), ins.dram_bytes, 0)
    places = _Regions(program, machine)
    layer, address = ins.layer, np.zeros(len(ins), dtype=np.int64)
    weights = np.flatnonzero(writes(ins.op, Place.WEIGHT_BUFFER))
    address[weights] = places.records[places.first_tile[layer[weights]] + ins.tile[weights]]
    parameters = np.flatnonzero(writes(ins.op, Place.PARAMETERS))
    address[parameters] = places.parameters[layer[parameters]]
    transfers = is_any(ins.op, TRANSFER_OPS)
    loads = np.flatnonzero(transfers & writes(ins.op, Place.SCRATCHPAD))
    stores = np.flatnonzero(transfers & reads(ins.op, Place.SCRATCHPAD))
    chunk, row = ins.chunk.astype(np.int64), ins.token0.astype(np.int64)
    if program.network is None:
        address[loads] = places.inputs[layer[loads]] + (chunk[loads] * program.tokens + row[loads]) * machine.rows
        address[stores] = places.outputs[layer[stores]] + (chunk[stores] * program.tokens + row[stores]) * machine.cols
    else:
        views = _Views(program.network, machine.cols, burst)
        read = views.first_operand[layer[loads]] + np.maximum(ins.tile[loads], 0)
        address[loads] = views.addresses(read, chunk[loads], row[loads], moved[loads])
        written = views.first_result + layer[stores]
        address[stores] = views.addresses(written, chunk[stores], row[stores], moved[stores])
        for index, operator in enumerate(program.network.operators):
            if operator.kind in ("scores", "mix"):
                mine = weights[layer[weights] == index]
                address[mine] = _activation_tiles(program, index, operator, views, mine, machine.cols)
    return address // burst, ceil_div(moved, burst)


def _activation_tiles(
    program: ProgramRecord, index: int, operator: Operator, views: _Views, mine: np.ndarray, side: int
) -> np.ndarray:
    """Addresses of the keys or values that tiles of scores or mix hold."""
    ins, tiles, network = program.instructions, program.layers[index].tiles, program.network
    assert network is not None, "operators are of a network"
    heads, weights = operator.operands
    keys = ceil_div(weights.tokens, side)
    packed, padded = tiles.source.astype(np.int64), tiles.target.astype(np.int64)
    if operator.kind == "mix":
        packed, padded = padded, packed
    query, key = np.divmod(padded, keys)
    own = query * weights.groups // heads.groups * weights.width
    channel = own + np.maximum(0, packed * side - query * head_stride(network, operator, side))
    tile = ins.tile[mine]
    rows = ins.token0[mine].astype(np.int64) // operator.tokens * weights.tokens + key[tile] * side
    view = np.full(len(mine), views.first_operand[index] + 1)
    return views.addresses(view, channel[tile] // side, rows, ins.dram_bytes[mine])


class _Regions:
    """Addresses: records (tiles of all layers,), parameters, inputs and outputs (layers,). first_tile: (layers,)."""

    def __init__(self, program: ProgramRecord, machine: Machine) -> None:
        burst, network = machine.dram.burst_bytes, program.network
        ins = program.instructions
        counts = [len(layer.tiles) for layer in program.layers]
        self.first_tile = np.cumsum([0, *counts])[:-1]
        self.records = np.zeros(sum(counts), dtype=np.int64)
        self.parameters, self.inputs, self.outputs = np.zeros((3, len(program.layers)), dtype=np.int64)
        loads = np.flatnonzero(writes(ins.op, Place.PARAMETERS))
        largest = np.zeros(len(program.layers), dtype=np.int64)
        np.maximum.at(largest, ins.layer[loads], ins.dram_bytes[loads])
        end = 0 if network is None else _Views(network, machine.cols, burst).end
        for index, layer in enumerate(program.layers):
            if layer.form not in ("activations", "vector"):
                sizes = ceil_div(layer.tile_bytes(machine), burst) * burst
                mine = slice(self.first_tile[index], self.first_tile[index] + counts[index])
                self.records[mine] = end + np.cumsum(sizes) - sizes
                end += int(sizes.sum())
            self.parameters[index] = end
            end += int(ceil_div(largest[index], burst)) * burst
            if network is None:
                for place, width, features in (
                    (self.inputs, machine.rows, layer.in_features),
                    (self.outputs, machine.cols, layer.out_features),
                ):
                    place[index] = end
                    end += ceil_div(ceil_div(features, width) * program.tokens * width, burst) * burst


@dataclass(frozen=True)
class _View:
    """Row r, chunk c of a view: token (r mod tokens) x up / down + token0 of sequence r // tokens mod batch, channel
    channel0 + c C, of a tensor of ``rows`` rows that begins at ``base`` and has ``size`` bytes.
    """

    base: int
    size: int
    rows: int
    sequence: int
    batch: int
    tokens: int
    up: int
    down: int
    token0: int
    channel0: int


class _Views:
    """The operands and results of a network's operators, one behind the other, as columns. first_operand: (operators,)
    which view an operator's first operand is; first_result: the first operator's result. end: behind all tensors.
    """

    def __init__(self, network: Network, side: int, burst: int) -> None:
        self._side, self.end = side, 0
        base: dict[str, int] = {}
        size: dict[str, int] = {}
        for name, tensor in network.tensors.items():
            if tensor.within is None:
                base[name], size[name] = self.end, ceil_div(tensor.channels(side), side) * side * tensor.rows
                self.end += ceil_div(size[name], burst) * burst
        views: list[_View] = []
        first = []
        for operator in network.operators:
            first.append(len(views))
            views += [self._view(network, operand, base, size) for operand in operator.operands]
        self.first_operand, self.first_result = np.array(first, dtype=np.int64), len(views)
        for operator in network.operators:
            whole = Operand(operator.output, operator.tokens, 1, 1)
            views.append(self._view(network, whole, base, size))
        self._columns = {
            name: np.array([getattr(view, name) for view in views], dtype=np.int64)
            for name in _View.__dataclass_fields__
        }

    def _view(self, network: Network, operand: Operand, base: dict[str, int], size: dict[str, int]) -> _View:
        tensor, token0, channel0 = network.tensors[operand.tensor], operand.token0, operand.channel0
        tokens, up, down = operand.tokens, 1, 1
        match operand.access:
            case "transposed":
                tokens, token0, channel0 = tensor.tokens, 0, 0
            case "image":
                image = ImageRows.of(operand)
                width = operand_window(operand).image[1]
                tokens, up = image.rows.size, width * image.rows.step
                token0 -= image.rows.padding * width
            case "window":
                up, down = int(np.prod(operand_window(operand).image)), operand.tokens
            case "rows" | "gather" | "strided" | "weights":
                pass
        name, sequence = operand.tensor, tensor.tokens
        while (within := network.tensors[name].within) is not None:
            name, token0, channel0 = within[0], token0 + within[1], channel0 + within[2]
            sequence = network.tensors[name].tokens
        rows = network.tensors[name].rows
        return _View(base[name], size[name], rows, sequence, tensor.batch, tokens, up, down, token0, channel0)

    def addresses(self, view: np.ndarray, chunk: np.ndarray, row: np.ndarray, moved: np.ndarray) -> np.ndarray:
        """The first byte of each transfer; one that would reach beyond its tensor begins sooner."""
        at = {name: column[view] for name, column in self._columns.items()}
        sequence, token = np.divmod(row, at["tokens"])
        token = np.maximum(0, token * at["up"] // at["down"] + at["token0"])
        place = (at["channel0"] // self._side + chunk) * at["rows"] + sequence % at["batch"] * at["sequence"] + token
        return at["base"] + np.maximum(0, np.minimum(place * self._side, at["size"] - moved))
