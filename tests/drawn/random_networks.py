"""Random small networks and programs of them that need no lowering: attention, a gather, a transpose, a window.

The instructions are any of the set in any order, as in ``random_programs``; only their places are right.
"""

from __future__ import annotations

import numpy as np

from simulator.machine.machine import Machine
from simulator.network.network import Network, Operand, Operator, Port, Tensor, Window
from simulator.network.network_layout import output_chunks, view_chunks, view_rows
from simulator.network.vector_steps import Step
from simulator.program.operations import TILE_OPS, Op
from simulator.program.program import Program
from simulator.program.schedule import LayerSchedule, Payload, TileTable
from tests.drawn.random_programs import (
    SHAPES,
    Row,
    assembled,
    built_layer,
    dependences,
    narrowed,
    small_machine,
    with_narrow,
)


def built_network(rng: np.random.Generator, shape: str | None = None, longest: int = 40) -> tuple[Machine, Program]:
    """A checked program of a network of nine operators on a square array; ``shape`` as in ``built_program``."""
    shape = str(rng.choice(SHAPES)) if shape is None else shape
    machine = small_machine(rng)
    machine = with_narrow(rng, machine.with_(array={"cols": machine.rows}))
    network = small_network(rng, machine.rows)
    layers = tuple(_layer(rng, machine, network, operator) for operator in network.operators)
    rows: list[Row] = []
    for op in _operations(rng, shape, int(rng.integers(1, longest))):
        able = [i for i, layer in enumerate(layers) if op not in (*TILE_OPS, Op.LOAD_WEIGHTS) or len(layer.tiles)]
        able = [i for i in able if op not in TILE_OPS or op in layers[i].tiles.kind]
        kinds = [network.operators[i].kind for i in able]
        able = [i for i, kind in zip(able, kinds, strict=True) if (op == Op.VECTOR) == (kind == "vector") or op not in (Op.VECTOR, Op.DRAIN)]  # fmt: skip
        if able:
            row = _operands(rng, machine, network, layers, int(rng.choice(able)), op)
            rows.append(row | dependences(rng, shape, op, [r["op"] for r in rows]))
    return machine, assembled(machine, layers, 1, rows, network)


def small_network(rng: np.random.Generator, side: int) -> Network:
    """Attention with one key tensor for keys and values, an addition, a transpose and a pooling window."""
    batch, tokens, groups, padded = (
        int(rng.integers(1, 3)),
        int(rng.integers(1, 7)),
        int(rng.integers(1, 4)),
        bool(rng.random() < 0.5),
    )
    inputs, width = int(rng.integers(1, 3 * side + 1)), int(rng.integers(1, 2 * side + 1))
    shape = {"hidden": (tokens, 1, inputs), "q": (tokens, groups, width), "k": (tokens, groups, width)}
    shape |= {"scores": (tokens, groups, tokens), "shares": (tokens, groups, tokens), "mixed": (tokens, groups, width)}
    shape |= {"sum": (tokens, groups, width), "turned": (groups * width, 1, tokens), "pooled": (tokens + 1, 1, inputs)}
    tensors = {
        name: Tensor(name, batch, *sizes, padded=name in ("scores", "shares") or (padded and name != "hidden"))
        for name, sizes in shape.items()
    }
    tensors["table"] = Tensor("table", 1, 5, 1, inputs, "constant")
    tensors["scale"] = Tensor("scale", 1, 1, groups, width, "constant", step=0.1)
    tensors["rows"] = Tensor("rows", batch, tokens, 1, 1, "input")

    def read(name: str) -> Operand:
        return Operand(name, tensors[name].tokens, tensors[name].groups, tensors[name].width)

    def keys() -> Operand:
        return Operand("k", tokens, groups, width, access="weights")

    window = Window((1, tokens), (1, 2), (1, 1), (0, 1), fill=-float("inf"))
    pieces = [
        ("embed", "vector", (Operand("table", tokens, 1, inputs, access="gather", indices="rows"),), "hidden", (Step("copy", (0,)),)),
        ("query", "linear", (read("hidden"),), "q", ()),
        ("key", "linear", (read("hidden"),), "k", ()),
        ("score", "scores", (read("q"), keys()), "scores", ()),
        ("softmax", "vector", (read("scores"),), "shares", (Step("multiply", (0,), "mask"), Step("softmax", (1,)))),
        ("mix", "mix", (read("shares"), keys()), "mixed", ()),
        ("add", "vector", (read("mixed"), read("scale")), "sum", (Step("add", (0, 1)),)),
        ("turn", "vector", (Operand("sum", groups * width, 1, tokens, access="transposed"),), "turned", (Step("copy", (0,)),)),
        ("pool", "vector", (Operand("hidden", tokens + 1, 2, inputs, access="window", window=window),), "pooled", (Step("max_groups", (0,)),)),
    ]  # fmt: skip
    constants = {"softmax": {"mask": rng.normal(size=(1, tokens, 1, tokens)).astype(np.float32)}}
    operators = tuple(
        Operator(name, kind, operands, output, batch, tensors[output].tokens, steps, constants.get(name, {}), f"model.py:{at}")
        for at, (name, kind, operands, output, steps) in enumerate(pieces)
    )  # fmt: skip
    values = {"table": rng.normal(size=(1, 5, 1, inputs)), "scale": rng.normal(size=(1, 1, groups, width))}
    ports = (
        Port("ids", "rows", (batch, tokens), (batch, tokens, 1, 1), (0, 1, 2, 3), "index"),
        Port("out", "turned", (batch, groups * width, tokens), (batch, groups * width, 1, tokens), (0, 1, 2, 3)),
    )
    return Network(tensors, operators, ports[:1], ports[1:], values)


def _layer(rng: np.random.Generator, machine: Machine, network: Network, operator: Operator) -> LayerSchedule:
    out = network.tensors[operator.output]
    outputs = out.groups * out.width
    inputs = operator.operands[0].groups * operator.operands[0].width
    if operator.kind == "linear":
        return narrowed(rng, built_layer(rng, machine, operator.name, (inputs, outputs)), machine)
    count = int(rng.integers(1, 5)) if operator.kind in ("scores", "mix") else 0
    lanes, side = rng.integers(1, machine.rows + 1, count), machine.rows
    lane = np.concatenate([np.zeros(0, np.int64), *map(np.arange, lanes)])
    held = np.repeat(rng.integers(1, side + 1, count), lanes)
    sources = rng.integers(view_chunks(network, operator.operands[0], side), size=count)
    table = TileTable(
        kind=np.full(count, Op.DENSE), source=sources, target=rng.integers(output_chunks(network, operator, side), size=count),
        row_cycles=np.ones(count), lane_ptr=np.cumsum([0, *lanes]), lane=lane, first=np.zeros(len(lane)),
        lo=np.zeros(len(lane)), hi=held,
    )  # fmt: skip
    none = np.zeros(0)
    return LayerSchedule(
        name=operator.name, form="activations" if count else "vector", in_features=inputs, out_features=outputs, ranks=0,
        block_tokens=int(rng.integers(1, 8)), multiplications=0, tiles=table, rank_bank=none, rank_slot=none,
        payload=Payload(none, none, np.ones(outputs), none, np.zeros(outputs), 0.0, 0.0),
    )  # fmt: skip


def _operations(rng: np.random.Generator, shape: str, count: int) -> list[int]:
    loads = [Op.LOAD_PARAMETERS, Op.LOAD_INPUT, Op.LOAD_WEIGHTS]
    ops = rng.choice([*loads, *TILE_OPS, Op.DENSE, Op.DRAIN, Op.VECTOR, Op.VECTOR, Op.STORE], count)
    if shape == "phases":
        phase = np.select([np.isin(ops, loads), np.isin(ops, TILE_OPS), ops != Op.STORE], [0, 1, 2], 3)
        ops = ops[np.argsort(phase, kind="stable")]
    return [int(op) for op in ops]


def _operands(
    rng: np.random.Generator, machine: Machine, network: Network, layers: tuple[LayerSchedule, ...], index: int, op: int
) -> Row:
    operator, layer, side = network.operators[index], layers[index], machine.rows
    row: Row = {"op": op, "layer": index}
    pad, sums = machine.scratchpad.size_bytes, machine.accumulator_rows

    def block(rows: int, most: int) -> Row:
        token0 = int(rng.integers(rows))
        return {"token0": token0, "tokens": int(rng.integers(1, max(1, min(rows - token0, most)) + 1))}

    def address(room: int, size: int) -> int:
        last = room - size  # the memory's last place every third time
        return last if rng.random() < 0.33 else int(rng.integers(last + 1))

    if op == Op.LOAD_PARAMETERS:
        return row | {"dram_bytes": layer.parameter_bytes(machine.multiplier_row)}
    if op == Op.LOAD_INPUT:
        number = int(rng.choice([i for i, o in enumerate(operator.operands) if o.access != "weights"]))
        operand = operator.operands[number]
        row |= block(view_rows(network, operator, operand), 20) | {"tile": number}
        row |= {"chunk": int(rng.integers(view_chunks(network, operand, side))), "dram_bytes": row["tokens"] * side}
        return row | {"dst": address(pad, row["tokens"] * side)}
    if op == Op.LOAD_WEIGHTS:
        tile = int(rng.integers(len(layer.tiles)))
        row |= {"tile": tile, "slot": int(rng.integers(machine.weight_slots))}
        row |= {"dram_bytes": int(layer.tile_bytes(machine)[tile])}
        first = int(rng.integers(operator.batch)) * operator.tokens
        return row | ({"token0": first} if layer.form == "activations" else {})
    if op == Op.VECTOR:
        return row | _vector(rng, machine, network, operator, block, address)
    row |= block(operator.rows, min(layer.block_tokens, sums))
    if op in (Op.DRAIN, Op.STORE):
        row |= {"chunk": int(rng.integers(output_chunks(network, operator, side)))}
        row |= {"src" if op == Op.STORE else "dst": address(pad, row["tokens"] * side)}
        if op == Op.STORE:
            return row | {"dram_bytes": row["tokens"] * side}
        return row | {"src": address(sums, row["tokens"]), "accumulate": int(rng.random() < 0.7)}
    tile = int(rng.choice(np.flatnonzero(layer.tiles.kind == op)))
    row |= {
        "tile": tile,
        "row_cycles": int(layer.tiles.row_cycles[tile]),
        "slot": int(rng.integers(machine.weight_slots)),
    }
    row |= {} if op in (Op.EXPAND, Op.MIX) else {"src": address(pad, row["tokens"] * side)}
    if op in (Op.REDUCE, Op.MIX):
        return row
    return row | {"dst": address(sums, row["tokens"]), "accumulate": int(rng.random() < 0.5)}


def _vector(rng, machine, network, operator, block, address) -> Row:  # type: ignore[no-untyped-def]
    """All chunks or a run of them; the result's region at times ends with the scratchpad."""
    side, pad, chunks = machine.rows, machine.scratchpad.size_bytes, output_chunks(network, operator, machine.rows)
    first = int(rng.integers(chunks)) if rng.random() < 0.4 else -1
    written = chunks if first < 0 else int(rng.integers(1, chunks - first + 1))
    row: Row = block(operator.rows, pad // (written * side)) | {"tile": first, "row_cycles": operator.passes}
    row |= {
        "chunk": written + (int(rng.integers(3)) if first < 0 else 0),
        "dst": address(pad, written * row["tokens"] * side),
    }
    row |= {"src": address(pad, side)}
    return row | ({"other": address(pad, side)} if len(operator.operands) > 1 else {})
