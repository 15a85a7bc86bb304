"""Where every transfer of a program lies in DRAM (machine.md, rule D7): the first burst of each, and how many.

Regions lie one behind the other, each from a burst's begin on: layer by layer the tile records (each from a burst's
begin on, too), parameters, inputs and outputs; in a network the tensors, then each operator's records and parameters.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simulator.base.kernels import ceil_div, kernel
from simulator.machine.machine import Machine
from simulator.network.image_rows import ImageRows
from simulator.network.network import Network, Operand, Operator
from simulator.network.network_layout import head_stride
from simulator.network.operand_views import operand_window
from simulator.program.operations import TRANSFER_OPS, Op, Place, is_any, reads, writes
from simulator.program.program_record import ProgramRecord
from simulator.program.schedule import records_of

# What a transfer moves, by its operation: nothing, a tile's record, parameters, rows of an input or of an output.
_RECORD, _PARAMETERS, _INPUT, _OUTPUT = range(1, 5)


def _moved_by_op() -> np.ndarray:
    ops, moved = np.arange(len(Op)), np.zeros(len(Op), dtype=np.int64)
    transfers = is_any(ops, TRANSFER_OPS)
    moved[transfers & writes(ops, Place.WEIGHT_BUFFER)] = _RECORD
    moved[transfers & writes(ops, Place.PARAMETERS)] = _PARAMETERS
    moved[transfers & writes(ops, Place.SCRATCHPAD)] = _INPUT
    moved[transfers & reads(ops, Place.SCRATCHPAD)] = _OUTPUT
    return moved


_MOVED = _moved_by_op()


def transfer_bursts(program: ProgramRecord, machine: Machine) -> tuple[np.ndarray, np.ndarray]:
    """First burst and bursts of every instruction, (N,) int64 each; 0 of those that move nothing."""
    ins, burst = program.instructions, machine.dram.burst_bytes
    places = _Regions(program, machine)
    first, count = np.empty((2, len(ins)), dtype=np.int64)
    sizes = (program.tokens if program.network is None else 0, machine.rows, machine.cols, burst)
    columns = (ins.op, ins.layer, ins.tile, ins.chunk, ins.token0, ins.dram_bytes)
    _plain_bursts(_MOVED, columns, places.columns, sizes, first, count)
    if program.network is not None:
        _view_bursts(program, program.network, machine, first)
    return first, count


@kernel
def _plain_bursts(moved_by_op, columns, regions, sizes, first, count):  # type: ignore[no-untyped-def]
    """What ``transfer_bursts`` returns; sizes: rows of the program (0: views say where they lie), P, Q, bytes of a
    burst.
    """
    op, layer, tile, chunk, token0, dram_bytes = columns
    first_tile, records, parameters, inputs, outputs = regions
    tokens, lanes_in, lanes_out, burst = sizes
    for i in range(op.shape[0]):
        moved, address = moved_by_op[op[i]], np.int64(0)
        if moved == _RECORD:
            address = records[first_tile[layer[i]] + tile[i]]
        elif moved == _PARAMETERS:
            address = parameters[layer[i]]
        elif moved == _INPUT and tokens:
            address = inputs[layer[i]] + (np.int64(chunk[i]) * tokens + token0[i]) * lanes_in
        elif moved == _OUTPUT and tokens:
            address = outputs[layer[i]] + (np.int64(chunk[i]) * tokens + token0[i]) * lanes_out
        first[i] = address // burst
        count[i] = ceil_div(dram_bytes[i], burst) if moved else 0


def _view_bursts(program: ProgramRecord, network: Network, machine: Machine, first: np.ndarray) -> None:
    """Puts in where transfers of a network's tensors begin."""
    ins, burst, moved = program.instructions, machine.dram.burst_bytes, _MOVED[program.instructions.op]
    layer, chunk, row, size = ins.layer, ins.chunk.astype(np.int64), ins.token0.astype(np.int64), ins.dram_bytes
    views = _Views(network, machine.cols, burst)
    loads, stores, weights = (np.flatnonzero(moved == kind) for kind in (_INPUT, _OUTPUT, _RECORD))
    read = views.first_operand[layer[loads]] + np.maximum(ins.tile[loads], 0)
    first[loads] = views.addresses(read, chunk[loads], row[loads], size[loads]) // burst
    written = views.first_result + layer[stores]
    first[stores] = views.addresses(written, chunk[stores], row[stores], size[stores]) // burst
    for index, operator in enumerate(network.operators):
        if operator.kind in ("scores", "mix"):
            mine = weights[layer[weights] == index]
            first[mine] = _activation_tiles(program, index, operator, views, mine, machine.cols) // burst


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
        burst, network, layers = machine.dram.burst_bytes, program.network, program.layers
        tiles = np.array([len(layer.tiles) for layer in layers], dtype=np.int64)
        last_tile = np.cumsum(tiles)
        self.first_tile = last_tile - tiles
        held = [layer.form not in ("activations", "vector") for layer in layers]  # the others' tiles are tensors' codes
        sizes = ceil_div(records_of([layer.tiles for layer in layers], machine), burst) * burst
        behind = np.concatenate([[0], np.cumsum(np.where(np.repeat(held, tiles), sizes, 0))])
        # The regions of each layer: records, parameters, inputs and outputs, (4, layers).
        regions = np.zeros((4, len(layers)), dtype=np.int64)
        regions[0] = behind[last_tile] - behind[self.first_tile]
        loads = np.flatnonzero(writes(program.instructions.op, Place.PARAMETERS))
        np.maximum.at(regions[1], program.instructions.layer[loads], program.instructions.dram_bytes[loads])
        if network is None:
            for region, width, features in (
                (regions[2], machine.rows, [layer.in_features for layer in layers]),
                (regions[3], machine.cols, [layer.out_features for layer in layers]),
            ):
                region[:] = ceil_div(np.array(features, dtype=np.int64), width) * program.tokens * width
        regions[1:] = ceil_div(regions[1:], burst) * burst
        tensors = 0 if network is None else _Views(network, machine.cols, burst).end
        ends = tensors + np.cumsum(regions.T).reshape(-1, 4).T
        begin, self.parameters, self.inputs, self.outputs = ends - regions
        self.records = behind[:-1] + np.repeat(begin - behind[self.first_tile], tiles)

    @property
    def columns(self) -> tuple[np.ndarray, ...]:
        """As ``_plain_bursts`` takes them."""
        return self.first_tile, self.records, self.parameters, self.inputs, self.outputs


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
