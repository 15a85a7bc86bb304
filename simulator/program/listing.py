"""The IR as short deterministic text; ``parse_listing`` reads it back."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

import numpy as np

from simulator.network.network import Network
from simulator.network.network_file import network_arrays, network_record
from simulator.program.isa import OPERANDS, Instructions
from simulator.program.operations import After, Op
from simulator.program.program_record import ProgramRecord
from simulator.program.schedule import LayerSchedule

SECTIONS = {"tensors": "tensor", "operators": "operator", "inputs": "input", "outputs": "output"}

OUTPUTS = "  outputs "  # which outputs of the layer those of the schedule are, if they are in another order
SOURCES = "  sources "  # what a layer reads of those before it
HELD = "  held slots "  # in rank memory, if others lie where these do
SHIFTS = "narrow="  # the shifts of a narrow tile's columns
MIXED_INTO = "=>"  # between the ranks that a tile reads and those that it writes

LAYER_KEYS = ("form", "in_features", "out_features", "ranks", "block_tokens", "multiplications")


def print_program(program: ProgramRecord) -> str:
    """The whole program as text: header, network, layers with ranks and tiles, then instructions. Neither weights nor
    a network's constants are in it.
    """
    return "\n".join(_program_lines(program)) + "\n"


def print_schedule(layer: LayerSchedule) -> str:
    """One layer's schedule as text."""
    return "\n".join(_layer_lines(layer)) + "\n"


def _program_lines(program: ProgramRecord) -> Iterator[str]:
    yield f"program tokens={program.tokens}"
    yield "machine " + program.machine.to_json()
    yield "provenance " + json.dumps(dict(program.provenance), sort_keys=True)
    if program.network is not None:
        yield from _network_lines(program.network)
    for layer in program.layers:
        yield from _layer_lines(layer)
    yield f"instructions {len(program.instructions)}"
    yield from _instruction_lines(program.instructions)


def _network_lines(network: Network) -> Iterator[str]:
    """A line of JSON for each part, and one for each array, by key, type and shape."""
    for section, entries in network_record(network).items():
        for entry in entries:
            yield f"{SECTIONS[section]} " + json.dumps(entry, sort_keys=True)
    for key, values in network_arrays(network).items():
        yield " ".join(["array", key, values.dtype.str, *map(str, values.shape)])


def _pairs(item: object, keys: Sequence[str]) -> str:
    return " ".join(f"{key}={getattr(item, key)}" for key in keys)


def _layer_lines(layer: LayerSchedule) -> Iterator[str]:
    yield f"layer {json.dumps(layer.name)} " + _pairs(layer, LAYER_KEYS)
    if layer.sources:
        yield SOURCES + json.dumps([list(run) for run in layer.sources])
    if layer.reorders:
        yield OUTPUTS + " ".join(map(str, layer.output_order.tolist()))
    if layer.ranks:
        places = zip(layer.rank_bank.tolist(), layer.rank_slot.tolist(), strict=True)
        if layer.shares_places:
            yield f"{HELD}{layer.held_slots}"
        yield "  banks " + " ".join(f"{bank}.{slot}" for bank, slot in places)
    tiles = layer.tiles
    lanes = [
        f"{lane}{'*' if first else ''}[{lo}:{hi}]"
        for lane, first, lo, hi in zip(
            tiles.lane.tolist(), tiles.first.tolist(), tiles.lo.tolist(), tiles.hi.tolist(), strict=True
        )
    ]
    ptr = tiles.lane_ptr.tolist()
    columns = zip(
        tiles.kind.tolist(), tiles.source.tolist(), tiles.target.tolist(), tiles.row_cycles.tolist(), strict=True
    )
    narrow = tiles.narrow.tolist()
    gathered = np.where(tiles.scattered > 0, tiles.gathered, 0).tolist()
    for index, (kind, source, target, cycles) in enumerate(columns):
        mine = lanes[ptr[index] : ptr[index + 1]]
        if gathered[index]:  # of a tile that reads and writes ranks
            mine.insert(gathered[index], MIXED_INTO)
        text = " ".join(mine)
        bits = f" {SHIFTS}{','.join(map(str, tiles.column_shifts(index).tolist()))}" if narrow[index] else ""
        yield f"  tile {Op(kind).name} {source}->{target} row_cycles={cycles}{bits} : {text}".rstrip()


def _instruction_lines(ins: Instructions) -> Iterator[str]:
    columns = [getattr(ins, name).tolist() for name in OPERANDS]
    after = ins.after.T.tolist()
    for index, op in enumerate(ins.op.tolist()):
        operands = " ".join(
            f"{name}={column[index]}" for name, column in zip(OPERANDS, columns, strict=True) if column[index] >= 0
        )
        waits = ",".join(
            f"{column.name.lower()}:{at}" for column, at in zip(After, after[index], strict=True) if at >= 0
        )
        yield f"{index} {Op(op).name} {operands}" + (f" after={waits}" if waits else "")
