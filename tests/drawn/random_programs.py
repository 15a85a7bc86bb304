"""Random small machines and programs that need no lowering: columns of any kind, and programs built by hand's shapes.

Nothing here imports torch or ``gblr_hw``: a program is made from the simulator's own records.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
from hypothesis import strategies as st

from simulator.base.arithmetic import ceil_div
from simulator.machine.machine import MAX_COLUMN_SHIFT, Machine
from simulator.network.network import Network
from simulator.program.isa import OPERANDS, Instructions
from simulator.program.operations import GATHER_OPS, PRODUCERS, TILE_OPS, TRANSFER_OPS, After, Op, unit_of_op
from simulator.program.program import Program
from simulator.program.schedule import LayerSchedule, Payload, TileTable
from simulator.timing.durations import Timing

ENERGY_TABLE = Path(__file__).parents[1] / "data" / "any-size.toml"
SHAPES = ("soup", "chain", "phases")

seeds = st.integers(0, 2**32 - 1)

Row = dict[str, int]


def generator(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def sampled(function: Callable[[np.random.Generator], object]) -> st.SearchStrategy:
    """A hypothesis strategy from a function of a numpy generator."""
    return seeds.map(lambda seed: function(generator(seed)))


def small_machine(rng: np.random.Generator, **changes: dict[str, object]) -> Machine:
    """A machine of 2..16 x 2..16 cells with memories from tight to roomy; ``changes`` are whole or partial sections. It
    has no narrow tiles: ``with_narrow`` gives it some.
    """
    rows, cols = (int(x) for x in rng.integers(2, 17, 2))
    lanes = max(rows, cols)
    sections: dict[str, dict[str, object]] = {
        "array": {"rows": rows, "cols": cols, "clock_ghz": float(rng.choice([0.5, 1.0, 1.3])), "scatter": bool(rng.random() < 0.7)},
        "datatypes": {"weight_bits": 8, "activation_bits": 8, "accumulator_bits": 32},
        "scratchpad": {"kib": int(rng.integers(1, 6)), "banks": 1, "word_bits": 32},
        "accumulator": {"kib": int(rng.integers(1, 3)), "banks": 2, "word_bits": 64},
        "rank_memory": {
            "kib": int(rng.integers(1, 9)), "banks": int(rng.choice([lanes, lanes + 1, 2 * lanes])), "word_bits": 32,
            "network_cycles": int(rng.integers(0, 5)), "requantise_cycles": int(rng.integers(0, 4)),
        },
        "weight_buffer": {"kib": 1, "banks": 1, "word_bits": 64},
        "dma": {"engines": int(rng.integers(1, 4))},
        "dram": {
            "gb_per_s": float(rng.choice([0.3, 2.0, 25.0, 4000.0])), "latency_ns": float(rng.choice([0.0, 3.5, 100.0])),
            "burst_bytes": int(rng.choice([1, 24, 64])), "kind": "test",
        },
        "vector": {"lanes": int(rng.choice([1, 3, 16, 64])), "latency_cycles": int(rng.integers(0, 9)), "parameter_kib": 8},
        "energy": {"table": str(ENERGY_TABLE)},
    }  # fmt: skip
    for key, change in changes.items():
        sections[key] = {**sections[key], **change}
    return Machine.model_validate({"schema": 1, "name": "random", **sections})


def with_narrow(rng: np.random.Generator, machine: Machine) -> Machine:
    """A machine without narrow tiles with such, of any width that divides that of its weights; half of the time as it
    is.
    """
    wide = machine.datatypes.weight_bits
    if machine.datatypes.narrow_bits:
        return machine
    rng = rng.spawn(1)[0]  # whatever else is drawn stays as it was
    widths = [bits for bits in range(2, 5) if bits < wide and wide % bits == 0]
    return (
        machine.with_(datatypes={"narrow_bits": int(rng.choice(widths))}) if widths and rng.random() < 0.5 else machine
    )


def narrowed(rng: np.random.Generator, layer: LayerSchedule, machine: Machine) -> LayerSchedule:
    """The layer with some or all of its tiles narrow, of random codes and shifts, if the machine has narrow tiles."""
    bits, tiles = machine.datatypes.narrow_bits, layer.tiles
    if not bits or layer.form == "activations":
        return layer
    rng = rng.spawn(1)[0]
    narrow = (rng.random(len(tiles)) < rng.choice([0.2, 0.7, 1.0])).astype(np.int32)
    # How many shifts there are follows from the table without any.
    wide = {f.name: getattr(tiles, f.name) for f in fields(TileTable) if f.name not in ("narrow", "shift")}
    count = _columns_written(tiles)[narrow == 1].sum()
    table = TileTable(**wide, narrow=narrow, shift=rng.integers(0, MAX_COLUMN_SHIFT + 1, count))
    codes = layer.payload.codes.copy()
    mine = np.repeat(narrow == 1, tiles.weight_count)
    codes[mine] = rng.integers(-(1 << bits - 1), 1 << bits - 1, int(mine.sum()))
    return replace(layer, tiles=table, payload=replace(layer.payload, codes=codes))


def _columns_written(tiles: TileTable) -> np.ndarray:
    """Columns that each tile writes: its ranks, or outputs up to the last with a weight."""
    ends = [tiles.hi[a:b].max(initial=0) for a, b in zip(tiles.lane_ptr[:-1], tiles.lane_ptr[1:], strict=True)]
    return np.where(np.isin(tiles.kind, (Op.REDUCE, Op.MIX)), tiles.scattered, np.array(ends, dtype=np.int64))


# ---- columns without a program


def random_timing(rng: np.random.Generator, longest: int = 40) -> Timing:
    """Any mix of instructions on any number of DMA engines, each waiting for random earlier producers."""
    count = int(rng.integers(1, longest))
    engines = int(rng.integers(1, 4))
    op = rng.integers(0, len(Op), count)
    is_tile, is_transfer = np.isin(op, TILE_OPS), np.isin(op, TRANSFER_OPS)
    most = int(rng.choice([1, 4, 30]))
    after = np.full((5, count), -1, dtype=np.int64)
    for column in range(5):
        for i in range(1, count):
            if rng.random() < 0.35:
                after[column, i] = rng.integers(max(0, i - int(rng.choice([1, 3, 30]))), i)
    after.setflags(write=False)  # as in a program
    return Timing(
        op=op,
        layer=np.zeros(count, dtype=np.int64),
        unit=unit_of_op(engines)[op],
        busy=rng.integers(1, most + 1, count),
        tail=rng.integers(0, most + 1, count),
        lead=np.where(np.isin(op, GATHER_OPS), int(rng.integers(0, 6)), 0),
        is_tile=is_tile,
        is_transfer=is_transfer,
        after=after,
        preload=np.where(is_tile, rng.integers(1, 12, count), 0),
    )


# ---- programs


def built_program(
    rng: np.random.Generator, shape: str | None = None, machine: Machine | None = None, longest: int = 30
) -> tuple[Machine, Program]:
    """A checked program of one layer. ``shape``: "soup" (any operation, any earlier producer), "chain" (each
    instruction waits for the latest producers of every kind) or "phases" (all loads, all tiles, all drains, all stores).
    """
    shape = str(rng.choice(SHAPES)) if shape is None else shape
    if machine is None:
        network = int(rng.choice([0, 2, 4, 20]))  # 20: a lead longer than any preload
        machine = small_machine(rng)
        machine = with_narrow(rng, machine.with_(rank_memory={"network_cycles": network}))
    layer = narrowed(rng, built_layer(rng, machine), machine)
    tokens = layer.block_tokens * int(rng.integers(1, 4))
    ops = _operations(rng, shape, layer, int(rng.integers(1, longest)))
    rows = []
    for op in ops:
        row = _operands(rng, machine, layer, tokens, op)
        rows.append(row | dependences(rng, shape, op, [r["op"] for r in rows]))
    return machine, assembled(machine, (layer,), tokens, rows)


def assembled(
    machine: Machine, layers: tuple[LayerSchedule, ...], tokens: int, rows: list[Row], network: Network | None = None
) -> Program:
    """The program of instructions given as dictionaries; operands left out are -1 (``accumulate``: 0), dependences
    are keys "weights", "input", "array", "vector" and "store".
    """
    return Program(machine, tokens, layers, assembled_columns(rows), {"made": "by hand"}, network)


def assembled_columns(rows: list[Row]) -> Instructions:
    """The columns of ``assembled``."""
    missing = {name: -1 for name in OPERANDS} | {"accumulate": 0, "layer": 0}
    columns = {
        name: np.array([row.get(name, missing.get(name, -1)) for row in rows], dtype=np.int64)
        for name in ("op", *OPERANDS)
    }
    after = np.array([[row.get(c.name.lower(), -1) for row in rows] for c in After], dtype=np.int64)
    return Instructions(after=after.reshape(len(After), len(rows)), **columns)


def built_layer(
    rng: np.random.Generator, machine: Machine, name: str = "layer", features: tuple[int, int] | None = None
) -> LayerSchedule:
    """Random tiles of every kind on ranks at random places; now and then as many tokens as any memory holds.
    ``features``: inputs and outputs, random if not given.
    """
    sides = (machine.rows, machine.cols)
    inputs, outputs = (int(rng.integers(1, 3 * side + 1)) for side in sides) if features is None else features
    chunks = ceil_div(inputs, machine.rows)
    most = min(
        machine.accumulator_rows // 2,
        machine.rank_rows_per_bank,
        machine.scratchpad.size_bytes // (machine.rows * chunks + 2 * machine.cols),
    )
    block_tokens = most if rng.random() < 0.1 else min(most, int(rng.choice([1, 1, 2, 7, 20])))
    bank, slot = _rank_places(rng, machine, block_tokens)
    table = _tiles(rng, machine, inputs, outputs, bank, slot)
    weights = int(table.weight_ptr[-1])
    codes = rng.integers(-127, 128, weights)
    return LayerSchedule(
        name=name, form="mixed", in_features=inputs, out_features=outputs, ranks=len(bank), block_tokens=block_tokens,
        multiplications=int(rng.integers(0, weights + 1)), tiles=table, rank_bank=bank, rank_slot=slot,
        payload=Payload(codes, codes / 127, np.ones(outputs), np.ones(len(bank)), np.zeros(outputs), 0.0, 0.0),
    )  # fmt: skip


def _rank_places(rng: np.random.Generator, machine: Machine, block_tokens: int) -> tuple[np.ndarray, np.ndarray]:
    slots = max(1, min(3, machine.rank_rows_per_bank // block_tokens))
    if not machine.scatter:  # whole groups, lane j in bank j (rule B3)
        count = slots * machine.group_size
        return np.arange(count) % machine.group_size, np.arange(count) // machine.group_size
    banks = int(rng.choice([1, 2, machine.rank_memory.banks]))  # few banks: conflicts
    count = int(rng.integers(1, banks * slots + 1))
    place = rng.choice(banks * slots, count, replace=False)
    return place // slots, place % slots


def _tiles(
    rng: np.random.Generator, machine: Machine, inputs: int, outputs: int, bank: np.ndarray, slot: np.ndarray
) -> TileTable:
    kinds, sources, targets, cycles, lanes, widths, written = [], [], [], [], [], [], set()
    first: list[int] = []
    gathered = []
    for _ in range(int(rng.integers(1, 9))):
        kind = int(rng.choice(TILE_OPS if machine.scatter else [Op.DENSE, Op.REDUCE, Op.EXPAND]))
        source = int(rng.integers(ceil_div(inputs, machine.rows))) if kind in (Op.DENSE, Op.REDUCE) else -1
        target = int(rng.integers(ceil_div(outputs, machine.cols))) if kind in (Op.DENSE, Op.EXPAND) else -1
        inner = min(machine.rows, inputs - source * machine.rows)
        outer = min(machine.cols, outputs - target * machine.cols)
        reads = _lanes(rng, machine, machine.rows, slot) if kind in (Op.EXPAND, Op.MIX) else np.arange(0)
        writes = _lanes(rng, machine, machine.cols, slot) if kind in (Op.REDUCE, Op.MIX) else np.arange(0)
        lane = np.arange(inner) if kind == Op.DENSE else np.concatenate([reads, writes])
        kinds, sources, targets = [*kinds, kind], [*sources, source], [*targets, target]
        cycles.append(1 + sum(int(np.bincount(bank[side]).max()) - 1 for side in (reads, writes) if len(side)))
        lanes.append(lane)
        gathered.append(len(reads))
        mixed = np.repeat([len(writes), 0], [len(reads), len(writes)])
        widths.append(mixed if kind == Op.MIX else np.full(len(lane), inner if kind == Op.REDUCE else outer))
        first += [0] * (len(lane) - len(writes)) + [int(int(k) not in written) for k in writes]
        written |= set(writes.tolist())
    width = np.concatenate(widths)
    low = rng.integers(0, width + 1)
    return TileTable(
        kind=np.array(kinds), source=np.array(sources), target=np.array(targets), row_cycles=np.array(cycles),
        lane_ptr=np.cumsum([0, *map(len, lanes)]), lane=np.concatenate(lanes), first=np.array(first),
        lo=low, hi=rng.integers(low, width + 1), gathered=np.array(gathered),
    )  # fmt: skip


def _lanes(rng: np.random.Generator, machine: Machine, most: int, slot: np.ndarray) -> np.ndarray:
    if not machine.scatter:
        return np.flatnonzero(slot == rng.integers(slot.max() + 1))
    return rng.permutation(len(slot))[: int(rng.integers(1, most + 1))]


def _operations(rng: np.random.Generator, shape: str, layer: LayerSchedule, count: int) -> list[int]:
    tiles = sorted(set(layer.tiles.kind.tolist()))
    loads = [Op.LOAD_PARAMETERS, Op.LOAD_INPUT, Op.LOAD_WEIGHTS]
    ops = rng.choice([*loads, *tiles, *tiles, Op.DRAIN, Op.STORE], count)
    if shape == "phases":
        phase = np.select([np.isin(ops, loads), np.isin(ops, TILE_OPS), ops == Op.DRAIN], [0, 1, 2], 3)
        ops = ops[np.argsort(phase, kind="stable")]
    return [int(op) for op in ops]


def _operands(rng: np.random.Generator, machine: Machine, layer: LayerSchedule, tokens: int, op: int) -> Row:
    row: Row = {"op": op}
    token0 = layer.block_tokens * int(rng.integers(tokens // layer.block_tokens))
    block = {"token0": token0, "tokens": layer.block_tokens if rng.random() < 0.8 else 1}

    def address(room: int, width: int) -> int:
        last = room - block["tokens"] * width  # the memory's last place every third time
        return last if rng.random() < 0.33 else int(rng.integers(last + 1))

    pad, sums = machine.scratchpad.size_bytes, machine.accumulator_rows
    if op == Op.LOAD_PARAMETERS:
        return row | {"dram_bytes": layer.parameter_bytes(machine.multiplier_row)}
    if op in (Op.LOAD_INPUT, Op.DRAIN, Op.STORE):
        sides = layer.in_features, machine.rows
        if op != Op.LOAD_INPUT:
            sides = layer.out_features, machine.cols
        row |= block | {"chunk": int(rng.integers(ceil_div(sides[0], sides[1])))}
        row |= {"src" if op == Op.STORE else "dst": address(pad, sides[1])}
        if op == Op.DRAIN:
            return row | {"src": address(sums, 1), "accumulate": int(rng.random() < 0.7)}
        return row | {"dram_bytes": block["tokens"] * sides[1]}
    slot = {"slot": int(rng.integers(machine.weight_slots))}
    if op == Op.LOAD_WEIGHTS:
        tile = int(rng.integers(len(layer.tiles)))
        sizes = layer.tiles.record_bytes(machine)
        return row | slot | {"tile": tile, "dram_bytes": int(sizes[tile])}
    tile = int(rng.choice(np.flatnonzero(layer.tiles.kind == op)))
    row |= block | slot | {"tile": tile, "row_cycles": int(layer.tiles.row_cycles[tile])}
    row |= {"chunk": int(layer.tiles.source[tile] if op == Op.REDUCE else layer.tiles.target[tile])}
    row |= {} if op in (Op.EXPAND, Op.MIX) else {"src": address(pad, machine.rows)}
    ranks_only = op in (Op.REDUCE, Op.MIX)
    return row | ({} if ranks_only else {"dst": address(sums, 1), "accumulate": int(rng.random() < 0.5)})


def dependences(rng: np.random.Generator, shape: str, op: int, earlier: list[int]) -> Row:
    """Random earlier producers, as ``shape`` has them, for an instruction behind the operations ``earlier``."""
    named = {}
    for column, producers in PRODUCERS.items():
        if column == After.STORE and op in TILE_OPS:
            continue  # refused (rule Q2)
        able = np.flatnonzero(np.isin(np.array(earlier, dtype=np.int64), producers))
        if not len(able) or rng.random() > {"soup": 0.35, "chain": 0.9, "phases": 0.2}[shape]:
            continue
        named[column.name.lower()] = int(able[-1] if shape == "chain" else rng.choice(able[-6:]))
    return named
