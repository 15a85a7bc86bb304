"""Listings read back: ``parse_program(print_program(p))`` prints the same text again."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import numpy as np

from simulator.base.errors import InputError
from simulator.machine.machine import Machine
from simulator.network.network import Network
from simulator.network.network_file import network_of
from simulator.program.isa import OPERANDS, Instructions
from simulator.program.listing import HELD, LAYER_KEYS, MIXED_INTO, OUTPUTS, SECTIONS, SHIFTS, SOURCES
from simulator.program.operations import GATHER_OPS, After, Op
from simulator.program.program import Program
from simulator.program.schedule import LayerSchedule, Payload, Slice, TileTable, stored_weights

T = TypeVar("T")


def parse_program(
    text: str, payloads: Sequence[Payload] | None = None, arrays: Mapping[str, np.ndarray] | None = None
) -> Program:
    """Read a listing back. ``payloads`` supplies the layers' numbers, ``arrays`` the network's
    (``network_file.network_arrays``), which a listing does not carry; without them they are 0.

    Raises InputError naming the line that does not parse.
    """
    reader = _Reader(text)
    tokens = reader.take(lambda line: int(_read_pairs(line, "program ")["tokens"]))
    machine = reader.take(lambda line: Machine.from_dict(json.loads(_after_word(line, "machine ")), "listing"))
    provenance = reader.take(lambda line: json.loads(_after_word(line, "provenance ")))
    network = _read_network(reader, arrays) if reader.peek().startswith("tensor ") else None
    layers: list[LayerSchedule] = []
    while reader.peek().startswith("layer "):
        layers.append(_read_layer(reader, None if payloads is None else payloads[len(layers)]))
    count = reader.take(lambda line: int(_after_word(line, "instructions ")))
    rows = [reader.take(_read_instruction) for _ in range(count)]
    columns = {name: np.array([row[1].get(name, -1) for row in rows], dtype=np.int64) for name in OPERANDS}
    after = np.full((len(After), count), -1, dtype=np.int64)
    for index, row in enumerate(rows):
        for column, at in row[2]:
            after[column, index] = at
    instructions = Instructions(op=np.array([row[0] for row in rows], dtype=np.int64), after=after, **columns)
    return Program(
        machine=machine,
        tokens=tokens,
        layers=tuple(layers),
        instructions=instructions,
        provenance=provenance,
        network=network,
    )


class _Reader:
    def __init__(self, text: str) -> None:
        self.lines = text.splitlines()
        self.at = 0

    def peek(self) -> str:
        return self.lines[self.at] if self.at < len(self.lines) else ""

    def take(self, read: Callable[[str], T]) -> T:
        value = self.whole(lambda: read(self.peek()))
        self.at += 1
        return value

    def whole(self, read: Callable[[], T]) -> T:
        """What ``read`` makes of the lines so far; InputError names the line that stands next if they do not parse."""
        try:
            return read()
        except (ValueError, KeyError, IndexError, TypeError, RecursionError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(
                f"listing, line {self.at + 1}",
                repr(self.peek()[:80]),
                f"it does not parse ({error})",
                "Print the program again.",
            ) from error


def _after_word(line: str, word: str) -> str:
    if not line.startswith(word):
        raise ValueError(f"expected '{word.strip()}'")
    return line.removeprefix(word)


def _read_pairs(line: str, word: str) -> dict[str, str]:
    return dict(part.split("=", 1) for part in _after_word(line, word).split())


def _read_network(reader: _Reader, arrays: Mapping[str, np.ndarray] | None) -> Network:
    record: dict[str, list[dict[str, Any]]] = {}
    for section, word in SECTIONS.items():
        record[section] = []
        while reader.peek().startswith(f"{word} "):
            record[section].append(reader.take(partial(_read_json, word)))
    zeros = {}
    while reader.peek().startswith("array "):
        zeros.update(reader.take(_read_array))
    return reader.whole(lambda: network_of(record, zeros if arrays is None else arrays))


def _read_json(word: str, line: str) -> Any:
    return json.loads(_after_word(line, f"{word} "))


def _read_array(line: str) -> dict[str, np.ndarray]:
    key, kind, *shape = _after_word(line, "array ").split()
    return {key: np.zeros(tuple(map(int, shape)), dtype=np.dtype(kind))}


def _read_layer(reader: _Reader, payload: Payload | None) -> LayerSchedule:
    def header(line: str) -> tuple[str, str, dict[str, int]]:
        name, end = json.JSONDecoder().raw_decode(_after_word(line, "layer "))
        pairs = _read_pairs(line[len("layer ") + end :].strip(), "")
        return name, pairs["form"], {key: int(pairs[key]) for key in LAYER_KEYS if key != "form"}

    name, form, sizes = reader.take(header)
    sources: tuple[Slice, ...] = ()
    if reader.peek().startswith(SOURCES):
        sources = tuple(Slice(*run) for run in reader.take(partial(_read_json, SOURCES.rstrip())))
    order = None
    if reader.peek().startswith(OUTPUTS):
        order = reader.take(lambda line: _column(map(int, _after_word(line, OUTPUTS).split())))
    held = 0
    if reader.peek().startswith(HELD):
        held = reader.take(lambda line: int(_after_word(line, HELD)))
    places: list[tuple[int, int]] = []
    if reader.peek().startswith("  banks "):
        places = reader.take(lambda line: [_two(part, ".") for part in _after_word(line, "  banks ").split()])
    tiles = []
    while reader.peek().startswith("  tile "):
        tiles.append(reader.take(_read_tile))
    lanes = [lane for tile in tiles for lane in tile[4]]
    table = TileTable(
        kind=_column(t[0] for t in tiles),
        source=_column(t[1] for t in tiles),
        target=_column(t[2] for t in tiles),
        row_cycles=_column(t[3] for t in tiles),
        lane_ptr=np.concatenate([[0], np.cumsum([len(t[4]) for t in tiles], dtype=np.int64)]),
        lane=_column(x[0] for x in lanes),
        first=_column(x[1] for x in lanes),
        lo=_column(x[2] for x in lanes),
        hi=_column(x[3] for x in lanes),
        gathered=_column(t[5] for t in tiles),
        narrow=_column(t[6] is not None for t in tiles),
        shift=_column(shift for t in tiles for shift in t[6] or ()),
    )
    if payload is None:
        payload = _zero_payload(stored_weights(form, table), sizes["out_features"], sizes["ranks"])
    return LayerSchedule(
        name=name,
        form=form,
        tiles=table,
        rank_bank=_column(p[0] for p in places),
        rank_slot=_column(p[1] for p in places),
        payload=payload,
        output_order=order,  # type: ignore[arg-type]
        held_slots=held,
        sources=sources,
        **sizes,
    )


def _column(values: Iterable[int]) -> np.ndarray:
    return np.array(list(values), dtype=np.int64)


def _two(text: str, separator: str) -> tuple[int, int]:
    left, right = text.split(separator)
    return int(left), int(right)


def _read_tile(line: str) -> tuple[int, int, int, int, list[tuple[int, int, int, int]], int, list[int] | None]:
    """Kind, source, target, cycles of a row, lanes, how many of these read ranks, and a narrow tile's shifts."""
    head, _, tail = _after_word(line, "  tile ").partition(" :")
    kind, path, cycles, *narrow = head.split()
    shifts = [int(shift) for shift in _after_word(narrow[0], SHIFTS).split(",") if shift] if narrow else None
    source, target = _two(path, "->")
    lanes, parts, op = [], tail.split(), Op[kind]
    gathered = len(parts) if op in GATHER_OPS else 0
    if MIXED_INTO in parts:
        gathered = parts.index(MIXED_INTO)
        parts.remove(MIXED_INTO)
    for part in parts:
        rank, _, run = part.rstrip("]").partition("[")
        lanes.append((int(rank.rstrip("*")), int(rank.endswith("*")), *_two(run, ":")))
    return int(op), source, target, int(_after_word(cycles, "row_cycles=")), lanes, gathered, shifts


def _read_instruction(line: str) -> tuple[int, dict[str, int], list[tuple[int, int]]]:
    _, op, *pairs = line.split()
    operands, waits = {}, []
    for pair in pairs:
        name, value = pair.split("=", 1)
        if name == "after":
            waits = [(int(After[column.upper()]), int(at)) for column, at in (w.split(":") for w in value.split(","))]
        elif name in OPERANDS:
            operands[name] = int(value)
        else:
            raise ValueError(f"unknown operand '{name}'")
    return int(Op[op]), operands, waits


def _zero_payload(weights: int, outputs: int, ranks: int) -> Payload:
    return Payload(
        codes=np.zeros(weights, np.int8),
        values=np.zeros(weights, np.float32),
        row_step=np.ones(outputs),
        rank_divisor=np.ones(ranks),
        bias=np.zeros(outputs, np.float32),
        input_step=0.0,
        output_step=0.0,
    )
