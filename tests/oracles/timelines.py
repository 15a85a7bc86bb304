"""The manual's worked time lines: small programs, and their cycle tables as the engine gives them.

``python -m tests.oracles.timelines`` prints every table's figures; ``tests/simulator/program/test_manual.py`` compares them with docs/machine.md.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from simulator.machine.machine import Machine
from simulator.network.network import Network, Operand, Operator, Port, Tensor
from simulator.network.vector_steps import Step
from simulator.program.operations import TILE_OPS, Op
from simulator.program.program import Program
from simulator.program.schedule import LayerSchedule, Payload, TileTable
from simulator.timing.durations import resolve_timing
from simulator.timing.engine import Events, run_engine
from tests.drawn.random_programs import Row, assembled

MANUAL = Path(__file__).parents[2] / "docs" / "machine.md"
Tile = tuple[
    Op, int, int, Sequence[int]
]  # kind, input chunk, output chunk, ranks (none for DENSE, MIX: read, then written)
Line = tuple[str, str, int, int, int]  # instruction, preload, start, end, done


def plain_layer(
    machine: Machine,
    inputs: int,
    outputs: int,
    tokens: int,
    tiles: Sequence[Tile],
    bank: Sequence[int] = (),
    slot: Sequence[int] = (),
) -> LayerSchedule:
    """A layer of full tiles: every lane stores its whole run."""
    numbers = [np.array(ranks) if op != Op.DENSE else np.arange(machine.rows) for op, _, _, ranks in tiles]
    counts = np.array([len(mine) for mine in numbers], dtype=np.int64)
    lanes = np.concatenate([np.zeros(0, np.int64), *numbers])
    kind = np.array([op for op, _, _, _ in tiles], dtype=np.int64)
    lane_kind = np.repeat(kind, counts)
    gathered = np.select([kind == Op.EXPAND, kind == Op.MIX], [counts, counts // 2], 0)
    reads = np.arange(len(lanes)) - np.repeat(np.cumsum(counts) - counts, counts) < np.repeat(gathered, counts)
    writes = ((lane_kind == Op.REDUCE) | (lane_kind == Op.MIX)) & ~reads
    _, seen = np.unique(np.where(writes, lanes, -1), return_index=True)
    first = np.isin(np.arange(len(lanes)), seen) & writes
    width = np.where(lane_kind == Op.REDUCE, machine.rows, np.where((lane_kind == Op.MIX) & writes, 0, machine.cols))
    cycles = [
        1 if op in (Op.DENSE, Op.MIX) else int(np.bincount(np.array(bank)[list(ranks)]).max())
        for op, _, _, ranks in tiles
    ]
    weights = int(width.sum())
    table = TileTable(
        kind=kind, source=np.array([s for _, s, _, _ in tiles]), target=np.array([t for _, _, t, _ in tiles]),
        row_cycles=np.array(cycles), lane_ptr=np.cumsum([0, *counts]), lane=lanes, first=first, lo=np.zeros(len(lanes)), hi=width,
        gathered=gathered,
    )  # fmt: skip
    return LayerSchedule(
        name="layer", form="ranks" if len(bank) else "dense", in_features=inputs, out_features=outputs, ranks=len(bank),
        block_tokens=tokens, multiplications=weights, tiles=table, rank_bank=np.array(bank), rank_slot=np.array(slot),
        payload=Payload(np.ones(weights), np.ones(weights), np.ones(outputs), np.ones(len(bank)), np.zeros(outputs), 0.0, 0.0),
    )  # fmt: skip


def build(machine: Machine, layer: LayerSchedule, rows: Sequence[Row]) -> Program:
    """The program of ``rows``: op, its tile or chunk, its dependences; everything else follows from the layer."""
    sizes, tokens = layer.tiles.record_bytes(machine), layer.block_tokens
    full = []
    for given in rows:
        row = {"token0": 0, "tokens": tokens, "chunk": 0, "src": 0, "dst": 0, "accumulate": 1, **given}
        op = row["op"]
        if op == Op.LOAD_PARAMETERS:
            row["dram_bytes"] = layer.parameter_bytes(machine.multiplier_row)
        elif op in (Op.LOAD_INPUT, Op.STORE):
            row["dram_bytes"] = tokens * (machine.rows if op == Op.LOAD_INPUT else machine.cols)
        elif op != Op.DRAIN:
            row["slot"] = row["tile"] % machine.weight_slots
            row |= {"dram_bytes": int(sizes[row["tile"]])} if op == Op.LOAD_WEIGHTS else {}
            row |= {"row_cycles": int(layer.tiles.row_cycles[row["tile"]])} if op in TILE_OPS else {}
        full.append(row)
    return assembled(machine, (layer,), tokens, full)


def dense() -> Program:
    """One dense layer, 64 inputs, 32 outputs, 40 tokens, on mid-32."""
    machine = Machine.load("mid-32")
    layer = plain_layer(machine, 64, 32, 40, [(Op.DENSE, 0, 0, ()), (Op.DENSE, 1, 0, ())])
    return build(
        machine,
        layer,
        [
            {"op": Op.LOAD_PARAMETERS},
            {"op": Op.LOAD_INPUT, "chunk": 0},
            {"op": Op.LOAD_WEIGHTS, "tile": 0},
            {"op": Op.LOAD_INPUT, "chunk": 1},
            {"op": Op.LOAD_WEIGHTS, "tile": 1},
            {"op": Op.DENSE, "tile": 0, "weights": 2, "input": 1, "accumulate": 0},
            {"op": Op.DENSE, "tile": 1, "weights": 4, "input": 3},
            {"op": Op.DRAIN, "weights": 0, "array": 6},
            {"op": Op.STORE, "vector": 7},
        ],
    )


def _ranked(machine: Machine, tokens: int, bank: Sequence[int], slot: Sequence[int]) -> Program:
    """32 inputs, 32 ranks, 64 outputs: a REDUCE tile, an EXPAND tile for each output chunk, two drains."""
    ranks = range(32)
    tiles: list[Tile] = [(Op.REDUCE, 0, -1, ranks), (Op.EXPAND, -1, 0, ranks), (Op.EXPAND, -1, 1, ranks)]
    return build(
        machine,
        plain_layer(machine, 32, 64, tokens, tiles, bank, slot),
        [
            {"op": Op.LOAD_PARAMETERS},
            {"op": Op.LOAD_INPUT},
            {"op": Op.LOAD_WEIGHTS, "tile": 0},
            {"op": Op.LOAD_WEIGHTS, "tile": 1},
            {"op": Op.LOAD_WEIGHTS, "tile": 2},
            {"op": Op.REDUCE, "tile": 0, "weights": 2, "input": 1},
            {"op": Op.EXPAND, "tile": 1, "weights": 3, "array": 5, "accumulate": 0},
            {"op": Op.EXPAND, "tile": 2, "weights": 4, "array": 5, "accumulate": 0, "dst": tokens},
            {"op": Op.DRAIN, "chunk": 0, "weights": 0, "array": 6},
            {"op": Op.STORE, "chunk": 0, "vector": 8},
            {"op": Op.DRAIN, "chunk": 1, "weights": 0, "array": 7, "src": tokens},
            {"op": Op.STORE, "chunk": 1, "vector": 10},
        ],
    )


def ranks() -> Program:
    """32 ranks in 32 banks, 16 tokens, on mid-32."""
    return _ranked(Machine.load("mid-32"), 16, range(32), [0] * 32)


def conflict() -> Program:
    """The same with ranks 0 and 1 in one bank, 20 tokens, on mid-32 with one DMA engine and an eighth of its bandwidth."""
    machine = Machine.load("mid-32").with_(name="starved", dma={"engines": 1}, dram={"gb_per_s": 3.2})
    return _ranked(machine, 20, [0, *range(31)], [0, 1, *[0] * 30])


def chain() -> Program:
    """32 inputs, 32 ranks that are mixed into 32 others, 32 outputs, 16 tokens, on mid-32."""
    machine, tokens = Machine.load("mid-32"), 16
    tiles: list[Tile] = [(Op.REDUCE, 0, -1, range(32)), (Op.MIX, -1, -1, range(64)), (Op.EXPAND, -1, 0, range(32, 64))]
    return build(
        machine,
        plain_layer(machine, 32, 32, tokens, tiles, [*range(32), *range(32)], [0] * 32 + [1] * 32),
        [
            {"op": Op.LOAD_PARAMETERS},
            {"op": Op.LOAD_INPUT},
            {"op": Op.LOAD_WEIGHTS, "tile": 0},
            {"op": Op.LOAD_WEIGHTS, "tile": 1},
            {"op": Op.LOAD_WEIGHTS, "tile": 2},
            {"op": Op.REDUCE, "tile": 0, "weights": 2, "input": 1},
            {"op": Op.MIX, "tile": 1, "weights": 3, "array": 5},
            {"op": Op.EXPAND, "tile": 2, "weights": 4, "array": 6, "accumulate": 0},
            {"op": Op.DRAIN, "weights": 0, "array": 7},
            {"op": Op.STORE, "vector": 8},
        ],
    )


def narrow() -> Program:
    """A wide, two narrow and a wide tile of 8 tokens on mid-32 with narrow tiles and a memory that is no bound."""
    machine = Machine.load("mid-32").with_(
        name="both", datatypes={"narrow_bits": 4}, dram={"gb_per_s": 1100.0, "latency_ns": 0.0}
    )
    layer = plain_layer(machine, 128, 32, 8, [(Op.DENSE, chunk, 0, ()) for chunk in range(4)])
    tiles = replace(layer.tiles, narrow=np.array([0, 1, 1, 0]), shift=np.zeros(64))
    return build(
        machine,
        replace(layer, tiles=tiles),
        [
            {"op": Op.LOAD_PARAMETERS},
            *({"op": Op.LOAD_INPUT, "chunk": chunk} for chunk in range(4)),
            *({"op": Op.LOAD_WEIGHTS, "tile": tile} for tile in range(4)),
            *(
                {"op": Op.DENSE, "tile": t, "weights": 5 + t, "input": 1 + t, "accumulate": int(t > 0)}
                for t in range(4)
            ),
            {"op": Op.DRAIN, "weights": 0, "array": 12},
            {"op": Op.STORE, "vector": 13},
        ],
    )


def network() -> Program:
    """Two dense layers of 32 x 32 with a softmax between them, 40 tokens, on mid-32: nothing in between leaves the
    scratchpad.
    """
    machine, tokens = Machine.load("mid-32"), 40
    names = ("x", "hidden", "shares", "y")
    tensors = {name: Tensor(name, 1, tokens, 1, 32, "input" if name == "x" else "result") for name in names}
    reads = [(Operand(name, tokens, 1, 32),) for name in names]
    operators = (
        Operator("fc1", "linear", reads[0], "hidden", 1, tokens),
        Operator("softmax", "vector", reads[1], "shares", 1, tokens, steps=(Step("softmax", (0,)),)),
        Operator("fc2", "linear", reads[2], "y", 1, tokens),
    )
    port = ((1, tokens, 32), (1, tokens, 1, 32), (0, 1, 2, 3))
    graph = Network(tensors, operators, (Port("x", "x", *port),), (Port("y", "y", *port),), {})
    linear = plain_layer(machine, 32, 32, tokens, [(Op.DENSE, 0, 0, ())])
    vector = replace(plain_layer(machine, 32, 32, tokens, []), form="vector", multiplications=0)
    layers = (replace(linear, name="fc1"), replace(vector, name="softmax"), replace(linear, name="fc2"))
    sizes = {"token0": 0, "tokens": tokens, "chunk": 0}
    moved = {"dram_bytes": tokens * 32}
    parameters, record = linear.parameter_bytes(machine.multiplier_row), int(linear.tile_bytes(machine)[0])
    tile = sizes | {"tile": 0, "row_cycles": 1}
    places = np.arange(4) * tokens * 32
    rows = [
        {"op": Op.LOAD_PARAMETERS, "layer": 0, "dram_bytes": parameters},
        {"op": Op.LOAD_INPUT, "layer": 0, "tile": 0, "dst": places[0], **sizes, **moved},
        {"op": Op.LOAD_WEIGHTS, "layer": 0, "tile": 0, "slot": 0, "dram_bytes": record},
        {"op": Op.LOAD_PARAMETERS, "layer": 2, "dram_bytes": parameters},
        {"op": Op.LOAD_WEIGHTS, "layer": 2, "tile": 0, "slot": 1, "dram_bytes": record},
        {"op": Op.DENSE, "layer": 0, **tile, "slot": 0, "src": places[0], "dst": 0, "weights": 2, "input": 1},
        {"op": Op.DRAIN, "layer": 0, **sizes, "src": 0, "dst": places[1], "accumulate": 1, "weights": 0, "array": 5},
        {"op": Op.VECTOR, "layer": 1, **sizes, "tile": -1, "chunk": 1, "row_cycles": 3, "src": places[1], "dst": places[2], "vector": 6},
        {"op": Op.DENSE, "layer": 2, **tile, "slot": 1, "src": places[2], "dst": tokens, "weights": 4, "vector": 7},
        {"op": Op.DRAIN, "layer": 2, **sizes, "src": tokens, "dst": places[3], "accumulate": 1, "weights": 3, "array": 8},
        {"op": Op.STORE, "layer": 2, **sizes, **moved, "src": places[3], "vector": 9},
    ]  # fmt: skip
    return assembled(machine, layers, tokens, rows, graph)


def anomaly(latency_cycles: int) -> Program:
    """A store that, on the faster memory, is just in time to be in the way of urgent weights."""
    machine = Machine.load("mid-32").with_(
        name="small",
        array={"rows": 4, "cols": 4},
        dma={"engines": 2},
        dram={"gb_per_s": 1.0, "latency_ns": float(latency_cycles), "burst_bytes": 1},
        vector={"lanes": 64, "latency_cycles": 4},
    )
    layer = plain_layer(machine, 4, 4, 48, [(Op.DENSE, 0, 0, ()), (Op.DENSE, 0, 0, ())])
    return build(
        machine,
        layer,
        [
            {"op": Op.LOAD_PARAMETERS},
            {"op": Op.DENSE, "tile": 0, "accumulate": 0},
            {"op": Op.DRAIN, "weights": 0, "accumulate": 0, "src": 48},
            {"op": Op.STORE, "vector": 2},
            {"op": Op.LOAD_WEIGHTS, "tile": 1, "array": 1},
            {"op": Op.DENSE, "tile": 1, "weights": 4},
        ],
    )


# Programs by the heading that their table stands under in the manual.
TIMELINES = {
    "A dense layer": dense(),
    "Ranks: reduce, gather, expand": ranks(),
    "A bank conflict and a starved channel": conflict(),
    "A chain: ranks mixed into ranks": chain(),
    "Narrow tiles between wide ones": narrow(),
    "A network: a vector operator between two layers": network(),
    "A memory with a latency of 21 cycles": anomaly(21),
    "A memory with a latency of 19 cycles": anomaly(19),
}


def lines(program: Program) -> list[Line]:
    """The table's figures, by start; an instruction is its operation and the number of its tile or chunk."""
    ins = program.instructions
    events: Events = run_engine(resolve_timing(program, program.machine))
    order = np.lexsort((np.arange(len(ins)), events.start))
    table = []
    for i in order.tolist():
        op = Op(int(ins.op[i]))
        number = {Op.LOAD_PARAMETERS: "", Op.VECTOR: ""}.get(
            op, f" {ins.tile[i]}" if op in (*TILE_OPS, Op.LOAD_WEIGHTS) else f" {ins.chunk[i]}"
        )
        if program.network is not None:
            number = f" {program.layers[ins.layer[i]].name}"
        preload = "" if op not in TILE_OPS else str(events.preload[i])
        table.append((op.name + number, preload, int(events.start[i]), int(events.end[i]), int(events.done[i])))
    return table


def read_tables(text: str) -> dict[str, list[Line]]:
    """The cycle tables of a manual by the heading above them, without their last column."""
    tables: dict[str, list[Line]] = {}
    heading, inside = "", False
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if line.startswith("#"):
            heading, inside = line.lstrip("#").strip(), False
        elif cells[:5] == ["instruction", "preload", "start", "end", "done"]:
            inside, tables[heading] = True, []
        elif inside and line.startswith("|") and not re.fullmatch(r"[|\s-]+", line):
            tables[heading].append((cells[0], cells[1], int(cells[2]), int(cells[3]), int(cells[4])))
        elif not line.startswith("|"):
            inside = False
    return tables


if __name__ == "__main__":
    for name, made in TIMELINES.items():
        print(f"\n### {name}\n")
        for row in lines(made):
            print("| " + " | ".join(map(str, row)) + " | |")
