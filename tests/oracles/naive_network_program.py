"""A deliberately naive program of a small network: every operator alone, its operands loaded from DRAM, its output
stored, each instruction behind the one before it. Not how networks are lowered: a second way to write down what the
machine has to do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from simulator.machine.machine import Machine
from simulator.network.network import Network, Operand, Operator
from simulator.network.network_layout import head_stride, output_chunks, region_rows, view_chunks
from simulator.network.operand_views import channel_places
from simulator.program.isa import OPERANDS, Instructions
from simulator.program.operations import PRODUCERS, After, Op
from simulator.program.program import Program
from simulator.program.schedule import LayerSchedule, Payload, TileTable

# Read by hand from what each function means, not from the table of the product.
_WITHIN_A_GROUP = {
    "copy", "add", "subtract", "multiply", "divide", "maximum", "minimum", "negative", "absolute", "square", "power", "sqrt",
    "rsqrt", "exp", "log", "sine", "cosine", "tanh", "erf", "sigmoid", "relu", "clip", "gelu", "gelu_tanh", "silu", "permute",
    "concat", "softmax", "layer_norm", "rms_norm", "sum_width", "mean_width", "max_width",
}  # fmt: skip
_OVER_GROUPS = {"weighted_sum_groups", "sum_groups", "mean_groups", "max_groups"}


def _keeps_to_its_group(function: str) -> bool:
    assert function in _WITHIN_A_GROUP | _OVER_GROUPS, f"this oracle does not know the vector function '{function}'"
    return function in _WITHIN_A_GROUP


def naive_program(
    network: Network, machine: Machine, linears: Mapping[str, LayerSchedule], single_groups: bool = False
) -> Program:
    """linears: schedules by operator name. single_groups: a VECTOR for every group, where they begin at a chunk's edge."""
    layers = tuple(linears[o.name] if o.kind == "linear" else _schedule(network, o, machine) for o in network.operators)
    emitter = _Emitter(network, machine, layers, single_groups)
    for index, operator in enumerate(network.operators):
        emitter.emit(index, operator)
    return Program(machine, 1, layers, emitter.instructions(), {"made": "by hand"}, network)


def _schedule(network: Network, operator: Operator, machine: Machine) -> LayerSchedule:
    side, outputs = machine.cols, output_chunks(network, operator, machine.cols) * machine.cols
    rows = [] if operator.kind == "vector" else _activation_tiles(network, operator, side)
    counts = [len(lanes) for _, _, lanes, _ in rows]
    table = TileTable(
        kind=np.full(len(rows), Op.DENSE),
        source=np.array([source for source, *_ in rows], dtype=np.int64),
        target=np.array([target for _, target, *_ in rows], dtype=np.int64),
        row_cycles=np.ones(len(rows), dtype=np.int64),
        lane_ptr=np.cumsum([0, *counts]),
        lane=np.concatenate([np.zeros(0, np.int64), *(np.array(lanes) for _, _, lanes, _ in rows)]),
        first=np.zeros(sum(counts), dtype=np.int64),
        lo=np.repeat([columns[0] for *_, columns in rows], counts).astype(np.int64),
        hi=np.repeat([columns[-1] + 1 for *_, columns in rows], counts).astype(np.int64),
    )
    empty = np.zeros(0)
    payload = Payload(empty, empty, np.ones(outputs), empty, np.zeros(outputs), 0.0, 0.0)
    form = "vector" if operator.kind == "vector" else "activations"
    reads = view_chunks(network, operator.operands[0], side) * side
    return LayerSchedule(operator.name, form, reads, outputs, 0, 1, 0, table, empty, empty, payload)


def _activation_tiles(network: Network, operator: Operator, side: int) -> list[tuple[int, int, range, range]]:
    """(input chunk, output chunk, lanes, columns) of every tile of every query head, where its channels and keys lie.

    Heads of whole chunks share the tiles of the first query head that reads their head of the weights.
    """
    x, weights = operator.operands
    scores = operator.kind == "scores"
    stride = head_stride(network, operator, side)
    key_chunks = -(-weights.tokens // side)
    step = x.groups // weights.groups if stride % side == 0 else 1
    tiles = []
    for query in range(0, x.groups, step):
        for key in range(key_chunks):
            keys = range(min(side, weights.tokens - key * side))
            for chunk in range(query * stride // side, -(-(query * stride + weights.width) // side)):
                begin = query * stride - chunk * side
                channels = range(max(0, begin), min(side, begin + weights.width))
                padded = query * key_chunks + key
                tiles.append((chunk, padded, channels, keys) if scores else (padded, chunk, keys, channels))
    return tiles


@dataclass
class _Emitter:
    network: Network
    machine: Machine
    layers: tuple[LayerSchedule, ...]
    single_groups: bool
    rows: list[dict[str, int]] = field(default_factory=list)
    free: int = 0

    @property
    def side(self) -> int:
        return self.machine.cols

    def add(self, op: Op, **operands: int) -> None:
        self.rows.append({"op": op, **operands})

    def place(self, chunks: int, rows: int) -> int:
        """A region of its own in the scratchpad."""
        address, self.free = self.free, self.free + chunks * rows * self.side
        return address

    def instructions(self) -> Instructions:
        count = len(self.rows)
        columns = {
            name: np.array([row.get(name, 0 if name == "accumulate" else -1) for row in self.rows], dtype=np.int64)
            for name in ("op", *OPERANDS)
        }
        after = np.full((len(After), count), -1, dtype=np.int64)
        for i in range(1, count):
            column = next(c for c, ops in PRODUCERS.items() if self.rows[i - 1]["op"] in ops)
            after[column, i] = i - 1
        return Instructions(after=after, **columns)

    def emit(self, index: int, operator: Operator) -> None:
        kinds = {"linear": self.linear, "vector": self.vector, "scores": self.attend, "mix": self.attend}
        kinds[operator.kind](index, operator)

    def load(self, index: int, which: int, sequence: int, token0: int, tokens: int, chunks: range | None = None) -> int:
        """Bring chunks of rows of one sequence's view; where they lie."""
        operator = self.network.operators[index]
        operand = operator.operands[which]
        tensor = self.network.tensors[operand.tensor]
        count = operand.tokens
        if operand.access == "transposed":
            token0, tokens, count = 0, tensor.tokens, tensor.tokens
        elif region_rows(self.network, operator, operand) == 1:
            token0, tokens = 0, 1
        if operand.access not in ("gather", "strided"):
            sequence %= tensor.batch
        chunks = range(view_chunks(self.network, operand, self.side)) if chunks is None else chunks
        address = self.place(len(chunks), tokens)
        for i, chunk in enumerate(chunks):
            self.add(
                Op.LOAD_INPUT, layer=index, tile=which, chunk=chunk, token0=sequence * count + token0, tokens=tokens,
                dst=address + i * tokens * self.side, dram_bytes=tokens * self.side,
            )  # fmt: skip
        return address

    def store(self, index: int, chunk: int, token0: int, tokens: int, src: int) -> None:
        self.add(
            Op.STORE, layer=index, chunk=chunk, token0=token0, tokens=tokens, src=src, dram_bytes=tokens * self.side
        )

    def drain(self, index: int, chunk: int, token0: int, tokens: int, src: int, accumulate: bool) -> None:
        address = self.place(1, tokens)
        where = {"layer": index, "chunk": chunk, "token0": token0, "tokens": tokens}
        self.add(Op.DRAIN, src=src, dst=address, accumulate=int(accumulate), **where)
        self.store(index, chunk, token0, tokens, address)

    def linear(self, index: int, operator: Operator) -> None:
        layer, tiles = self.layers[index], self.layers[index].tiles
        self.add(Op.LOAD_PARAMETERS, layer=index, dram_bytes=layer.parameter_bytes(self.machine.multiplier_row))
        chunks = -(-layer.out_features // self.side)
        most = min(layer.block_tokens, self.machine.accumulator_rows // chunks)
        for sequence, token0, tokens in self._blocks(operator, most):
            self.free = 0
            row = sequence * operator.tokens + token0
            src = self.load(index, 0, sequence, token0, tokens)
            begun: set[int] = set()
            for tile in range(len(tiles)):
                kind, source, target = int(tiles.kind[tile]), int(tiles.source[tile]), int(tiles.target[tile])
                self._run_tile(
                    index, tile, kind, row, tokens,
                    src=-1 if kind in (Op.EXPAND, Op.MIX) else src + source * tokens * self.side,
                    dst=-1 if kind in (Op.REDUCE, Op.MIX) else target * tokens,
                    accumulate=int(target in begun),
                )  # fmt: skip
                begun |= {target} - {-1}
            for chunk in range(chunks):
                self.drain(index, chunk, row, tokens, chunk * tokens, chunk in begun)

    def _run_tile(self, index: int, tile: int, kind: int, row: int, tokens: int, **operands: int) -> None:
        table = self.layers[index].tiles
        slot = len(self.rows) % self.machine.weight_slots
        held = max(1, int(self.layers[index].tile_bytes(self.machine)[tile]))
        self.add(Op.LOAD_WEIGHTS, layer=index, tile=tile, slot=slot, token0=row, dram_bytes=held)
        operands["chunk"] = int(table.source[tile] if kind == Op.REDUCE else table.target[tile])
        operands["accumulate"] = 0 if kind in (Op.REDUCE, Op.MIX) else operands["accumulate"]
        self.add(
            Op(kind), layer=index, tile=tile, slot=slot, token0=row, tokens=tokens,
            row_cycles=int(table.row_cycles[tile]), **operands,
        )  # fmt: skip

    def attend(self, index: int, operator: Operator) -> None:
        """All outputs at once; a tile that several query heads share is loaded for each of them."""
        tiles, (x, weights) = self.layers[index].tiles, operator.operands
        scores, chunks = operator.kind == "scores", output_chunks(self.network, operator, self.side)
        stride = head_stride(self.network, operator, self.side)
        keys = -(-weights.tokens // self.side)
        shared = x.groups // weights.groups if stride % self.side == 0 else 1
        shifts = (stride // self.side, keys) if scores else (keys, stride // self.side)
        for sequence, token0, tokens in self._blocks(operator, self.machine.accumulator_rows // chunks):
            self.free = 0
            row = sequence * operator.tokens + token0
            src = self.load(index, 0, sequence, token0, tokens)
            begun: set[int] = set()
            for tile, query in ((tile, query) for tile in range(len(tiles)) for query in range(shared)):
                source = int(tiles.source[tile]) + query * shifts[0]
                target = int(tiles.target[tile]) + query * shifts[1]
                self._run_tile(
                    index, tile, Op.DENSE, row, tokens, src=src + source * tokens * self.side, dst=target * tokens,
                    accumulate=int(target in begun),
                )  # fmt: skip
                begun.add(target)
            for chunk in range(chunks):
                self.drain(index, chunk, row, tokens, chunk * tokens, True)

    def vector(self, index: int, operator: Operator) -> None:
        output = self.network.tensors[operator.output]
        groups = range(output.groups) if self._splits(operator) else [-1]
        for sequence, token0, tokens in self._blocks(operator, operator.tokens):
            for group in groups:
                self.free = 0
                self._vector(index, operator, group, sequence, token0, tokens)

    def _vector(self, index: int, operator: Operator, group: int, sequence: int, token0: int, tokens: int) -> None:
        output = self.network.tensors[operator.output]
        chunks = output_chunks(self.network, operator, self.side) if group < 0 else -(-output.width // self.side)
        addresses, work = [], chunks
        for which, operand in enumerate(operator.operands):
            mine = self._operand_chunks(operator, operand, group, range(token0, token0 + tokens))
            addresses.append(self.load(index, which, sequence, token0, tokens, mine))
            work = max(work, len(mine))
        dst, row = self.place(chunks, tokens), sequence * operator.tokens + token0
        self.add(
            Op.VECTOR, layer=index, tile=-1 if group < 0 else group * chunks, chunk=work if group < 0 else chunks,
            token0=row, tokens=tokens, src=addresses[0],
            other=addresses[1] if len(addresses) > 1 else -1, dst=dst, row_cycles=operator.passes,
        )  # fmt: skip
        for chunk in range(chunks):
            self.store(index, max(group, 0) * chunks + chunk, row, tokens, dst + chunk * tokens * self.side)

    def _operand_chunks(self, operator: Operator, operand: Operand, group: int, rows: range) -> range:
        if operand.access == "transposed":
            return range(rows[0] // self.side, rows[-1] // self.side + 1)
        if group < 0:
            return range(view_chunks(self.network, operand, self.side))
        per_group = -(-operand.width // self.side)
        mine = group * operand.groups // self.network.tensors[operator.output].groups
        return range(mine * per_group, (mine + 1) * per_group)

    def _splits(self, operator: Operator) -> bool:
        output = self.network.tensors[operator.output]
        views = [(o.groups, o.width, self.network.tensors[o.tensor].padded) for o in operator.operands]
        views.append((output.groups, output.width, output.padded))
        aligned = all(g == 1 or padded or width % self.side == 0 for g, width, padded in views)
        alike = all(g in (1, output.groups) for g, *_ in views)
        by_group = all(_keeps_to_its_group(step.function) for step in operator.steps)
        plain = not any(o.access in ("transposed", "window") for o in operator.operands)
        return self.single_groups and output.groups > 1 and aligned and alike and by_group and plain

    def _blocks(self, operator: Operator, most: int) -> list[tuple[int, int, int]]:
        """(sequence, first token, tokens) of every block; a few at a time when reading a transpose, so that blocks begin
        within chunks and end in the next one.
        """
        if any(operand.access == "transposed" for operand in operator.operands):
            most = self.side // 2 + 1
        return [
            (sequence, token0, min(most, operator.tokens - token0))
            for sequence in range(operator.batch)
            for token0 in range(0, operator.tokens, most)
        ]


def dense_schedule(
    network: Network, operator: Operator, matrix: np.ndarray, bias: np.ndarray, machine: Machine
) -> LayerSchedule:
    """DENSE tiles of y = matrix x + bias, spread to where channels of padded tensors are stored."""
    side, operand, output = machine.cols, operator.operands[0], network.tensors[operator.output]
    reads = channel_places(operand.groups, operand.width, network.tensors[operand.tensor].padded, side)
    writes = channel_places(output.groups, output.width, output.padded, side)
    inputs, outputs = (
        chunks * side for chunks in (view_chunks(network, operand, side), output_chunks(network, operator, side))
    )
    stored, stored_bias = np.zeros((outputs, inputs)), np.zeros(outputs)
    stored[np.ix_(writes, reads)], stored_bias[writes] = matrix, bias
    places = [(i, o) for o in range(outputs // side) for i in range(inputs // side)]
    blocks = [stored[o * side : (o + 1) * side, i * side : (i + 1) * side].T for i, o in places]
    count = len(places)
    table = TileTable(
        kind=np.full(count, Op.DENSE), source=np.array(places)[:, 0], target=np.array(places)[:, 1],
        row_cycles=np.ones(count, np.int64), lane_ptr=np.arange(count + 1) * side, lane=np.tile(np.arange(side), count),
        first=np.zeros(count * side, np.int64), lo=np.zeros(count * side, np.int64), hi=np.full(count * side, side),
    )  # fmt: skip
    values = np.concatenate([block.reshape(-1) for block in blocks])
    largest = np.abs(stored).max(axis=1)
    row_step = np.where(largest > 0, largest / 127, 1.0)
    row_steps = np.concatenate([np.tile(row_step[o * side : (o + 1) * side], side) for _, o in places])
    payload = Payload(np.rint(values / row_steps), values, row_step, np.zeros(0), stored_bias, 0.0, 0.0)
    return LayerSchedule(
        operator.name, "dense", inputs, outputs, 0, machine.accumulator_rows, stored.size, table, np.zeros(0), np.zeros(0), payload
    )  # fmt: skip
