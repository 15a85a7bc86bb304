"""The program as the hardware reads it: 64-byte instruction words in a stream for each sequencer, and the DRAM image
(machine.md, section 7).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from simulator.base.arithmetic import ceil_div
from simulator.base.errors import InputError
from simulator.machine.machine import Machine
from simulator.program.isa import OPERANDS
from simulator.program.layer_numbers import LayerNumbers
from simulator.program.operations import (
    COLUMN_OPS,
    GATHER_OPS,
    RANK_OPS,
    SCATTER_OPS,
    TRANSFER_OPS,
    After,
    Op,
    Place,
    Unit,
    is_any,
    listed,
    ops_where,
    reads,
    unit_of_op,
    writes,
)
from simulator.program.program import Program
from simulator.program.schedule import LANE_BYTES, PARAMETER_BYTES, RECORD_BYTES, SHIFT_BITS, LayerSchedule

# The 32-bit words of an instruction (rule E6). "control" packs op, accumulate, half, array_wait_is_reduce, row_cycles.
WORDS = (
    "control",
    "tokens",
    "src",
    "dst",
    "place",  # weight-buffer slot, low half; chunk, high half
    "block_tokens",
    "dram_bytes",
    "dram_bursts",
    "dram_address",
    "outputs",
    "wait_weights",
    "wait_input",
    "wait_array",
    "wait_vector",
    "wait_store",
    "held_slots",  # of rank memory, low half; the slot from which a tile's are counted, high half
)
ACCUMULATE_BIT, HALF_BIT, REDUCE_BIT, ROW_CYCLES_BIT, CHUNK_BIT, FIRST_SLOT_BIT = 4, 5, 6, 16, 16, 16
_NOT_ENCODED = ops_where(lambda entry: not entry.encoded)
# What each sequencer of the hardware runs: a unit's queue, and once more the tiles whose ranks the gather unit reads.
STREAMS = ("weight_dma", "input_dma", "output_dma", "array", "gather", "vector")


def _completion_classes() -> dict[str, tuple[Op, ...]]:
    """One class a queue, but two for the array: sums that stay in rank memory are there later than others (rule A5)."""
    encoded = {name: ops_where(lambda entry, queue=name: entry.encoded and entry.queue is queue) for name in After}  # type: ignore[misc]
    classes: dict[str, tuple[Op, ...]] = {}
    for queue, ops in encoded.items():
        if queue is After.ARRAY:
            classes["reduce"] = tuple(op for op in ops if op in SCATTER_OPS)
            classes["sum"] = tuple(op for op in ops if op not in SCATTER_OPS)
        else:
            classes[queue.name.lower()] = ops
    return classes


# Classes in which hardware counts completions; each completes in program order (rule Q4).
COMPLETION_CLASSES = _completion_classes()
NARROW_BYTE = 4  # of a tile's descriptor: bit 0 is set for a narrow tile
FIRST_BIT = 15  # in a lane's rank address: this lane overwrites the rank's sum (rule E4)
MAX_PLACES = 1 << FIRST_BIT


@dataclass(frozen=True, eq=False)
class EncodedProgram:
    """streams: name -> (count, 16) uint32 words. numbers: name -> (count,) each word's instruction in the program.

    dram: the image (uint8), with room for the outputs. outputs: each layer's output region, (chunks, tokens, Q) codes
    at that byte address.
    """

    streams: dict[str, np.ndarray]
    numbers: dict[str, np.ndarray]
    dram: np.ndarray
    outputs: tuple[tuple[int, tuple[int, int, int]], ...]

    def output_codes(self, layer: int, out_features: int) -> np.ndarray:
        """(tokens, out_features) activation codes of a layer, read from the image after a run."""
        address, shape = self.outputs[layer]
        region = self.dram[address : address + int(np.prod(shape))].view(np.int8).reshape(shape)
        return region.transpose(1, 0, 2).reshape(shape[1], -1)[:, :out_features].astype(np.int64)


def encode(program: Program, numbers: Sequence[LayerNumbers]) -> EncodedProgram:
    """Encode ``program`` with the integers of every layer for ``program.tokens`` rows (``execute.layer_numbers``).

    Raises InputError for a program of a network, or one that a field of the encoding cannot express.
    """
    require_plain_layers(program)
    _require_encoded(program)
    image = _Image()
    addresses = np.zeros(len(program.instructions), dtype=np.int64)
    outputs = []
    for index, (layer, known) in enumerate(zip(program.layers, numbers, strict=True)):
        outputs.append(_place_layer(program, index, layer, known, image, addresses))
    words = _words(program, addresses)
    streams, origins = {}, {}
    for name, members in _members(program).items():
        streams[name] = np.ascontiguousarray(words[members])
        origins[name] = members
    return EncodedProgram(streams, origins, image.bytes(), tuple(outputs))


def require_plain_layers(program: Program) -> None:
    """Raise InputError for the program of a whole network, which the encoding and the RTL do not cover (machine.md,
    section 13).
    """
    if program.network is None:
        return
    operators = program.network.operators
    beyond = [operator for operator in operators if operator.kind != "linear"]
    first = f", the first of them that no layer is '{beyond[0].name}' ({beyond[0].kind})" if beyond else ""
    raise InputError(
        "program",
        f"a network of {len(operators)} operators{first}",
        "encoding and RTL cover programs of plain layers: they have no VECTOR instruction, no tiles of activations and "
        "no operands in the scratchpad of another operator",
        "Lower the model's layers without their graph (a checkpoint, or `lower` of their weights): such programs can "
        "be verified on the RTL. This one runs in `simulate` and `execute`.",
    )


def _require_encoded(program: Program) -> None:
    """Raise InputError for the first instruction that the hardware does not have."""
    beyond = np.flatnonzero(is_any(program.instructions.op, _NOT_ENCODED))
    if len(beyond):
        name = Op(int(program.instructions.op[beyond[0]])).name
        raise InputError(
            f"program: instruction {beyond[0]}: field 'op'",
            name,
            f"the hardware has no {listed(_NOT_ENCODED, 'and no')} (machine.md, section 13)",
            "Run it in `simulate` and `execute`.",
        )
    for layer in program.layers:
        parts = np.flatnonzero(~layer.tiles.is_whole & ~is_any(layer.tiles.kind, RANK_OPS))
        if len(parts):
            raise InputError(
                f"layer '{layer.name}': tile {parts[0]}",
                "a tile without ranks that has a lane table",
                "the hardware's dense tiles are whole (machine.md, section 13)",
                "Run it in `simulate` and `execute`.",
            )


def _members(program: Program) -> dict[str, np.ndarray]:
    """Which instructions each sequencer reads: queues by unit, and once more the tiles that read ranks, for the gather
    unit.
    """
    ins = program.instructions
    unit = unit_of_op(program.machine.dma.engines)[ins.op]
    members = {
        unit_name: np.flatnonzero(unit == Unit[unit_name.upper()]) for unit_name in STREAMS if unit_name != "gather"
    }
    gathering = np.flatnonzero(is_any(ins.op, GATHER_OPS))
    return {name: members[name] if name != "gather" else gathering for name in STREAMS}


def _words(program: Program, addresses: np.ndarray) -> np.ndarray:
    ins, machine = program.instructions, program.machine
    stride = np.array([layer.block_tokens for layer in program.layers], dtype=np.int64)[ins.layer]
    outputs = np.array([layer.out_features for layer in program.layers], dtype=np.int64)[ins.layer]
    bursts = np.where(is_any(ins.op, TRANSFER_OPS), ceil_div(ins.dram_bytes, machine.dram.burst_bytes), 0)
    waits, on_reduce = completions_awaited(program)
    used = {name: np.maximum(getattr(ins, name), 0).astype(np.int64) for name in OPERANDS}
    columns = {
        "control": ins.op
        | used["accumulate"] << ACCUMULATE_BIT
        | (used["layer"] % 2) << HALF_BIT
        | on_reduce << REDUCE_BIT
        | used["row_cycles"] << ROW_CYCLES_BIT,
        "place": used["slot"] | used["chunk"] << CHUNK_BIT,
        "block_tokens": stride,
        "dram_bursts": bursts,
        "dram_address": addresses,
        "outputs": outputs,
        "held_slots": _held_slots(program),
        **{f"wait_{column.name.lower()}": waits[column] for column in After},
    }
    columns.update({name: used[name] for name in ("tokens", "src", "dst", "dram_bytes")})
    _check_fields(used["slot"], used["chunk"], columns)
    table = np.zeros((len(ins), len(WORDS)), dtype=np.uint32)
    for number, name in enumerate(WORDS):
        if name in columns:
            table[:, number] = columns[name]
    return table


def _held_slots(program: Program) -> np.ndarray:
    """Slots in rank memory, low half, and the one from which the tile's are counted, high half, of loads of tiles."""
    ins = program.instructions
    words = np.zeros(len(ins), dtype=np.int64)
    loads = writes(ins.op, Place.WEIGHT_BUFFER)
    for index, layer in enumerate(program.layers):
        mine = np.flatnonzero(loads & (ins.layer == index))
        words[mine] = layer.held_slots | layer.first_slot[ins.tile[mine]] << FIRST_SLOT_BIT
    return words


def _check_fields(slot: np.ndarray, chunk: np.ndarray, columns: dict[str, np.ndarray]) -> None:
    limits = [("slot", slot, 1 << CHUNK_BIT), ("chunk", chunk, 1 << CHUNK_BIT)]
    limits += [(name, column, 1 << 32) for name, column in columns.items()]
    for name, column, limit in limits:
        if len(column) and int(column.max()) >= limit:
            at = int(np.argmax(column))
            raise InputError(
                f"program: instruction {at}: '{name}'",
                str(int(column[at])),
                f"its field of the encoding holds values below {limit}",
                "Split the program or use a machine with larger tiles.",
            )


def completions_awaited(program: Program) -> tuple[np.ndarray, np.ndarray]:
    """Dependences as hardware counts them: (5, N) completions of the producer's class that must be seen, 0 for none,
    and (N,) whether the array class is that of REDUCE and MIX (else of DENSE and EXPAND). Each class completes in
    program order (rule Q4).
    """
    ins = program.instructions
    ordinal = np.zeros(len(ins), dtype=np.int64)
    for ops in COMPLETION_CLASSES.values():
        mine = is_any(ins.op, ops)
        ordinal[mine] = np.arange(1, int(mine.sum()) + 1)
    awaited = np.where(ins.after >= 0, ordinal[np.maximum(ins.after, 0)], 0)
    array = ins.after[After.ARRAY]
    return awaited, ((array >= 0) & is_any(ins.op[np.maximum(array, 0)], SCATTER_OPS)).astype(np.int64)


class _Image:
    """DRAM contents under construction; regions start at multiples of 8 bytes."""

    def __init__(self) -> None:
        self.parts: list[np.ndarray] = []
        self.size = 0

    def add(self, data: np.ndarray) -> int:
        """Append bytes; returns their address."""
        address = self.size
        padded = np.zeros(ceil_div(len(data), 8) * 8, dtype=np.uint8)
        padded[: len(data)] = data
        self.parts.append(padded)
        self.size += len(padded)
        return address

    def bytes(self) -> np.ndarray:
        return np.concatenate(self.parts) if self.parts else np.zeros(0, np.uint8)


def _place_layer(
    program: Program, index: int, layer: LayerSchedule, known: LayerNumbers, image: _Image, addresses: np.ndarray
) -> tuple[int, tuple[int, int, int]]:
    """Append a layer's records, parameters and activations; fill in its transfers' addresses."""
    ins, machine, tokens = program.instructions, program.machine, program.tokens
    records = np.array([image.add(record) for record in tile_records(layer, machine)], dtype=np.int64)
    parameters = image.add(parameter_bytes(layer, known, machine))
    inputs = image.add(_chunked(known.input_codes, machine.rows, tokens))
    out_chunks = ceil_div(layer.out_features, machine.cols)
    outputs = image.add(np.zeros(out_chunks * tokens * machine.cols, np.uint8))
    mine = ins.layer == index
    loads = mine & writes(ins.op, Place.WEIGHT_BUFFER)
    addresses[loads] = records[ins.tile[loads]] if len(records) else 0
    addresses[mine & writes(ins.op, Place.PARAMETERS)] = parameters
    transfers = is_any(ins.op, TRANSFER_OPS)
    for uses, base, width in ((writes, inputs, machine.rows), (reads, outputs, machine.cols)):
        moves = mine & transfers & uses(ins.op, Place.SCRATCHPAD)
        addresses[moves] = base + (ins.chunk[moves].astype(np.int64) * tokens + ins.token0[moves]) * width
    return outputs, (out_chunks, tokens, machine.cols)


def _chunked(codes: np.ndarray, width: int, tokens: int) -> np.ndarray:
    """(tokens, n) codes as bytes, chunk after chunk, the last one padded (rule E1)."""
    chunks = ceil_div(codes.shape[1], width)
    padded = np.zeros((tokens, chunks * width), dtype=np.int8)
    padded[: len(codes), : codes.shape[1]] = codes
    return np.ascontiguousarray(padded.reshape(tokens, chunks, width).transpose(1, 0, 2)).view(np.uint8).ravel()


def parameter_bytes(layer: LayerSchedule, known: LayerNumbers, machine: Machine) -> np.ndarray:
    """Bias and multiplier of every output channel, then the table of rank multipliers (rule E5)."""
    outputs = np.stack([known.bias, packed_multiplier(*known.requantisation)], axis=1)
    row = machine.multiplier_row
    table = np.zeros((layer.parameter_bytes(row) - PARAMETER_BYTES * layer.out_features) // 4, dtype=np.int64)
    table[layer.rank_slot * row + layer.rank_bank] = packed_multiplier(*known.rank_requantisation)
    words = np.concatenate([outputs.ravel(), table]) & 0xFFFFFFFF
    return words.astype("<u4").view(np.uint8)


def packed_multiplier(multiplier: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Multiplier in the low 26 bits, shift in the high 6 (rule N4)."""
    return multiplier | shift << 26


def tile_records(layer: LayerSchedule, machine: Machine) -> list[np.ndarray]:
    """Every tile's record (rule E4), as bytes, in tile order."""
    tiles, row = layer.tiles, machine.multiplier_row
    bits = tiles.weight_bits(machine)
    places = layer.rank_slot * row + layer.rank_bank
    if len(places) and int(places.max()) >= MAX_PLACES:
        raise InputError(
            f"layer '{layer.name}': rank {int(np.argmax(places))}",
            f"place {int(places.max())} of rank memory",
            f"a tile record addresses places below {MAX_PLACES}",
            "Use a machine with more banks or shorter token blocks, or a layer of fewer ranks.",
        )
    weights = _in_loading_order(layer)
    pointer = tiles.weight_ptr
    records = []
    for tile in range(len(tiles)):
        lanes = slice(int(tiles.lane_ptr[tile]), int(tiles.lane_ptr[tile + 1]))
        count, kind = lanes.stop - lanes.start, int(tiles.kind[tile])
        written = int(tiles.scattered[tile])
        width = written if written and tiles.gathered[tile] else int(tiles.hi[lanes].max(initial=1))
        stored = weights[pointer[tile] : pointer[tile + 1]]
        head = np.array([kind, width - 1, count & 0xFF, count >> 8, 0, 0, 0, 0], dtype=np.uint8)
        head[NARROW_BYTE] = tiles.narrow[tile]
        table = np.zeros(0, np.uint8)
        if kind in RANK_OPS:
            address = places[tiles.lane[lanes]] | tiles.first[lanes] << FIRST_BIT
            empty = tiles.hi[lanes] == tiles.lo[lanes]  # such a run ends before it begins
            lows = np.where(empty, 1, tiles.lo[lanes]).astype(np.int64)
            lasts = np.where(empty, 0, tiles.hi[lanes] - 1).astype(np.int64)
            entry = address | lows << 16 | lasts << 24
            table = entry.astype("<u4").view(np.uint8)
        shifts = _packed_shifts(layer, tile, machine) if tiles.narrow[tile] else np.zeros(0, np.uint8)
        records.append(np.concatenate([head, table, shifts, packed_bits(stored, int(bits[tile]))]))
        assert len(head) == RECORD_BYTES and len(table) == LANE_BYTES * count * (kind in RANK_OPS)
    return records


def _packed_shifts(layer: LayerSchedule, tile: int, machine: Machine) -> np.ndarray:
    """The shift of each column of the array, those that a narrow tile does not write 0. A rank of a plain machine is
    written by the column of its bank (rule B3).
    """
    tiles, columns = layer.tiles, np.zeros(machine.cols, np.int64)
    shifts = tiles.column_shifts(tile)
    at = np.arange(len(shifts))
    if tiles.kind[tile] in SCATTER_OPS and not machine.scatter:
        at = layer.rank_bank[tiles.lane[tiles.lane_ptr[tile] : tiles.lane_ptr[tile + 1]]]
    columns[at] = shifts
    return packed_bits(columns, SHIFT_BITS)


def _in_loading_order(layer: LayerSchedule) -> np.ndarray:
    """Weight codes as the loader writes them into the array: row by row of each tile, in a row by column (rule E4)."""
    tiles = layer.tiles
    lengths = tiles.hi - tiles.lo
    lane = np.repeat(np.arange(len(lengths)), lengths)
    along = np.arange(len(lane)) - np.repeat(tiles.lane_weight_ptr[:-1] - tiles.lo, lengths)
    tile = np.repeat(np.arange(len(tiles)), tiles.lane_count)[lane]
    by_column = is_any(tiles.kind[tile], COLUMN_OPS)
    row = np.where(by_column, along, lane)
    column = np.where(by_column, lane, along)
    return layer.payload.codes[np.lexsort((column, row, tile))]


def packed_bits(codes: np.ndarray, bits: int) -> np.ndarray:
    """Two's complement codes of ``bits`` bits, the first in the lowest bits, as whole bytes."""
    spread = (codes.astype(np.int64)[:, None] >> np.arange(bits)) & 1
    return np.packbits(spread.astype(np.uint8).ravel(), bitorder="little")
