"""The counters of a report, counted once more with plain loops from the manual's rules C1, C2 and C4.

Cycles are looked at one by one and memory words one by one; nothing is taken from ``simulator.timing.simulate``,
``simulator.timing.durations`` or ``simulator.timing.accesses``, but what is compared with it.
"""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

from simulator.machine.machine import Machine
from simulator.program.operations import Op, Unit
from simulator.program.program import Program
from simulator.timing.accesses import count_events
from simulator.timing.engine import STALL_NAMES, Events
from simulator.timing.report import Report
from tests.oracles.slow_operator_accounts import count_operators

MACS = ("mac_active", "mac_narrow", "mac_gated", "mac_padding")

TILES = (Op.DENSE, Op.REDUCE, Op.EXPAND, Op.MIX)
TRANSFERS = (Op.LOAD_PARAMETERS, Op.LOAD_INPUT, Op.LOAD_WEIGHTS, Op.STORE)
ENGINES = {1: (0, 0, 0), 2: (0, 0, 2), 3: (0, 1, 2)}  # queue of weights, inputs, stores (rule D1)


def words(bits: int, word_bits: int) -> int:
    """Words touched by ``bits`` bits that begin at a word's edge."""
    count = 0
    while count * word_bits < bits:
        count += 1
    return count


def unit_of(op: int, engines: int) -> int:
    weights, inputs, stores = ENGINES[engines]
    if op in TILES:
        return Unit.ARRAY
    if op in (Op.DRAIN, Op.VECTOR):
        return Unit.VECTOR
    return {Op.LOAD_INPUT: inputs, Op.STORE: stores}.get(Op(op), weights)


def count_accesses(program: Program, machine: Machine) -> list[Counter[str]]:
    """Events of each layer: what every instruction does to every memory, one token row after another (rule C2)."""
    ins = program.instructions
    layers: list[Counter[str]] = [Counter() for _ in program.layers]
    for i in range(len(ins)):
        index = int(ins.layer[i])
        if ins.op[i] in TILES:
            _count_tile(layers[index], program, machine, i)
        elif ins.op[i] == Op.VECTOR:
            _count_vector(layers[index], program, machine, i)
        else:
            _count_other(layers[index], program, machine, i)
    return layers


def _stored(program: Program, i: int) -> tuple[list[int], list[int], int]:
    """Lanes of the instruction's tile, their ``first`` marks, and how many weights are stored for it."""
    ins = program.instructions
    tiles, tile = program.layers[int(ins.layer[i])].tiles, int(ins.tile[i])
    lanes = range(int(tiles.lane_ptr[tile]), int(tiles.lane_ptr[tile + 1]))
    weights = sum(int(tiles.hi[lane]) - int(tiles.lo[lane]) for lane in lanes)
    return [int(tiles.lane[lane]) for lane in lanes], [int(tiles.first[lane]) for lane in lanes], weights


def _zero_codes(program: Program, i: int) -> int:
    """Codes of the instruction's tile that are 0, one by one; codes stand tile by tile."""
    ins = program.instructions
    layer, tile = program.layers[int(ins.layer[i])], int(ins.tile[i])
    if layer.form == "activations":
        return 0
    per_tile = [
        sum(int(layer.tiles.hi[lane]) - int(layer.tiles.lo[lane]) for lane in range(int(begin), int(end)))
        for begin, end in pairwise(layer.tiles.lane_ptr)
    ]
    begin = sum(per_tile[:tile])
    return sum(int(code) == 0 for code in layer.payload.codes[begin : begin + per_tile[tile]])


def _count_tile(count: Counter[str], program: Program, machine: Machine, i: int) -> None:
    ins, types = program.instructions, machine.datatypes
    op, tokens = int(ins.op[i]), int(ins.tokens[i])
    lanes, firsts, weights = _stored(program, i)
    reading = {Op.REDUCE: 0, Op.MIX: int(program.layers[int(ins.layer[i])].tiles.gathered[int(ins.tile[i])])}.get(
        Op(op), len(lanes)
    )  # lanes that read ranks come first
    cells = machine.rows * machine.cols
    narrow = bool(program.layers[int(ins.layer[i])].tiles.narrow[int(ins.tile[i])])
    weight_bits = types.narrow_bits if narrow else types.weight_bits
    count["weight_buffer_read"] += words(weights * weight_bits, machine.weight_buffer.word_bits)
    for bits in ("register_bits", "wire_bits"):
        count[bits] += cells * weight_bits
    still = _zero_codes(program, i) if types.zero_gating else 0
    for _ in range(tokens):
        count["mac_narrow" if narrow else "mac_active"] += weights - still
        count["mac_gated"] += still
        count["mac_padding"] += cells - weights
        for bits in ("register_bits", "wire_bits"):
            count[bits] += cells * (types.activation_bits + types.accumulator_bits)
        if op in (Op.DENSE, Op.REDUCE):
            count["scratchpad_read"] += words(machine.rows * types.activation_bits, machine.scratchpad.word_bits)
        if op in (Op.DENSE, Op.EXPAND):
            row_words = words(machine.cols * types.accumulator_bits, machine.accumulator.word_bits)
            count["accumulator_write"] += row_words
            count["accumulator_read"] += row_words if ins.accumulate[i] else 0
        for at in range(len(lanes)) if op != Op.DENSE else []:
            count["requantise_ops"] += at < reading
            exact_sum = types.weight_bits + types.activation_bits + (machine.rows - 1).bit_length()
            if types.narrow_bits:  # a narrow tile's, shifted by up to 7
                exact_sum = max(exact_sum, exact_sum - types.weight_bits + types.narrow_bits + 7)
            passing = types.activation_bits if at < reading else exact_sum
            count["network_bits"] += passing if machine.scatter else 0
    for at, first in enumerate(firsts if op != Op.DENSE else []):  # a rank's sums of successive tokens share words
        rank_words = words(tokens * types.accumulator_bits, machine.rank_memory.word_bits)
        count["rank_memory_write"] += 0 if at < reading else rank_words
        count["rank_memory_read"] += rank_words if at < reading or not first else 0


def _count_other(count: Counter[str], program: Program, machine: Machine, i: int) -> None:
    ins, types = program.instructions, machine.datatypes
    op, tokens = int(ins.op[i]), int(ins.tokens[i])
    if op in TRANSFERS:
        way = "dram_write_bytes" if op == Op.STORE else "dram_read_bytes"
        count[way] += words(int(ins.dram_bytes[i]), machine.dram.burst_bytes) * machine.dram.burst_bytes
    if op == Op.LOAD_WEIGHTS:
        _, _, weights = _stored(program, i)
        narrow = program.layers[int(ins.layer[i])].tiles.narrow[int(ins.tile[i])]
        stored = weights * (types.narrow_bits if narrow else types.weight_bits)
        count["weight_buffer_write"] += words(stored, machine.weight_buffer.word_bits)
    if op in (Op.LOAD_PARAMETERS, Op.LOAD_WEIGHTS):
        return
    side = machine.rows if op == Op.LOAD_INPUT else machine.cols
    for _ in range(tokens):
        row_words = words(side * types.activation_bits, machine.scratchpad.word_bits)
        count["scratchpad_read" if op == Op.STORE else "scratchpad_write"] += row_words
        if op == Op.DRAIN:
            count["vector_ops"] += machine.cols
            sums = words(machine.cols * types.accumulator_bits, machine.accumulator.word_bits)
            count["accumulator_read"] += sums if ins.accumulate[i] else 0


def _chunks_of(groups: int, width: int, padded: bool, side: int) -> int:
    return groups * words(width, side) if padded else words(groups * width, side)


def _count_vector(count: Counter[str], program: Program, machine: Machine, i: int) -> None:
    """Every pass looks at every element; operands are read and the result is written once, chunk by chunk."""
    ins, side, network = program.instructions, machine.rows, program.network
    tokens, part = int(ins.tokens[i]), int(ins.tile[i]) >= 0  # a run of the result's chunks, or all of them
    operator = network.operators[int(ins.layer[i])]
    for _ in range(int(ins.row_cycles[i])):
        for _ in range(tokens):
            count["vector_ops"] += int(ins.chunk[i]) * side
    chunk_row = words(side * machine.datatypes.activation_bits, machine.scratchpad.word_bits)
    out = network.tensors[operator.output]
    whole = _chunks_of(out.groups, out.width, out.padded, side)
    for operand, address in zip(operator.operands, (int(ins.src[i]), int(ins.other[i])), strict=False):
        if address < 0:
            continue
        tensor = network.tensors[operand.tensor]
        chunks, rows = (
            _chunks_of(operand.groups, operand.width, tensor.padded and operand.access != "strided", side),
            tokens,
        )
        if operand.access == "transposed":  # one chunk of the tensor as it is stored, all its tokens
            chunks, rows = 1, operand.groups * operand.width
        if part and chunks == whole:
            chunks = int(ins.chunk[i])
        several = operator.tokens > 1 or (
            operator.batch > 1 and tensor.batch == 1 and operand.access not in ("gather", "strided")
        )
        if operand.access != "transposed" and operand.tokens == 1 and several:
            rows = 1
        for _ in range(rows):
            count["scratchpad_read"] += chunks * chunk_row
    for _ in range(tokens):
        count["scratchpad_write"] += (int(ins.chunk[i]) if part else whole) * chunk_row


def access_differences(program: Program, machine: Machine) -> list[str]:
    """Where ``count_events`` and this counter say different things, layer by layer."""
    found, counts = [], count_events(program, machine)
    for index, (layer, mine) in enumerate(zip(program.layers, count_accesses(program, machine), strict=True)):
        reported = {name: int(values[index]) for name, values in counts.items() if values[index]}
        counted = {name: value for name, value in mine.items() if value}
        if reported != counted:
            found.append(f"{layer.name}: accesses: report {reported}, counter {counted}")
    return found


def count_causes(program: Program, events: Events, index: int, begin: int, end: int) -> Counter[str]:
    """The cause of every cycle of the window [begin, end) of a layer (rule C1)."""
    ins = program.instructions
    tiles = [i for i in range(len(ins)) if ins.op[i] in TILES and ins.layer[i] == index]
    causes: Counter[str] = Counter()
    at = 0
    for cycle in range(begin, end):
        while at < len(tiles) and cycle >= events.end[tiles[at]]:
            at += 1
        if at == len(tiles):
            causes["tail"] += 1
        elif cycle < events.start[tiles[at]]:
            causes[STALL_NAMES[events.stall[tiles[at]]]] += 1
        else:  # the first cycle of a row streams it, the others are repeats of a bank
            row_cycle = (cycle - int(events.start[tiles[at]])) % int(ins.row_cycles[tiles[at]])
            causes["bank_conflict" if row_cycle else "compute"] += 1
    return causes


def count_unit(program: Program, machine: Machine, events: Events, unit: int, total: int) -> Counter[str]:
    """What a unit does in every cycle: "busy", a stall cause, or "after" its last instruction."""
    ins = program.instructions
    mine = [i for i in range(len(ins)) if unit_of(int(ins.op[i]), machine.dma.engines) == unit]
    doing: Counter[str] = Counter()
    at = 0
    for cycle in range(total):
        while at < len(mine) and cycle >= events.end[mine[at]]:
            at += 1
        if at == len(mine):
            doing["after"] += 1
        elif cycle >= events.start[mine[at]]:
            doing["busy"] += 1
        elif unit == Unit.ARRAY:
            doing[STALL_NAMES[events.stall[mine[at]]]] += 1
        else:
            doing[_waits_for(program, events, mine[at], cycle)] += 1
    return doing


def _waits_for(program: Program, events: Events, i: int, cycle: int) -> str:
    """The dependence that is done last, as long as it is not; from then on the channel."""
    last, when = "", -1
    for column, name in enumerate(("wait_weights", "wait_input", "wait_array", "wait_vector", "wait_store")):
        producer = int(program.instructions.after[column, i])
        if producer >= 0 and events.done[producer] > when:
            last, when = name, int(events.done[producer])
    return last if cycle < when else "dram_channel"


def _charged(program: Program, machine: Machine, events: Events) -> list[Counter[str]]:
    """Cycles charged to each operator of a network, by cause (rule C4)."""
    charged: list[Counter[str]] = [Counter() for _ in program.layers]
    if program.network is not None:
        unit = [unit_of(int(op), machine.dma.engines) for op in program.instructions.op]
        line, tail = count_operators(program, unit, events)
        for (operator, cause), cycles in line.items():
            charged[operator][cause] += cycles
        for (operator, _), cycles in tail.items():
            charged[operator]["tail"] += cycles
    return charged


def differences(report: Report, program: Program, machine: Machine, events: Events) -> list[str]:
    """Where the report and this counter, fed with the reference's events, say different things."""
    found = []

    def same(what: str, reported: object, counted: object) -> None:
        if reported != counted:
            found.append(f"{what}: report {reported}, counter {counted}")

    ins = program.instructions
    total = max((int(x) for x in events.done), default=0)
    same("latency", report.latency_cycles, total)
    layers = count_accesses(program, machine)
    sums: Counter[str] = sum(layers, Counter())
    same("accesses", {k: v for k, v in report.accesses.items() if v}, {k: v for k, v in sums.items() if v})
    same("macs", report.macs, sum(sums[name] for name in MACS))
    same("DRAM", report.dram_bytes, sums["dram_read_bytes"] + sums["dram_write_bytes"])
    begin, charged = 0, _charged(program, machine, events)
    for index, layer in enumerate(report.layers):
        causes = charged[index]
        if program.network is None:
            end = max((int(events.done[i]) for i in range(len(ins)) if ins.layer[i] == index), default=0)
            causes = count_causes(program, events, index, begin, end)
            same(f"{layer.name}: window", layer.latency_cycles, end - begin)
            begin = end
        same(f"{layer.name}: causes", {k: v for k, v in layer.cycles_by_cause.items() if v}, dict(causes))
        same(f"{layer.name}: latency", layer.latency_cycles, sum(causes.values()))
        macs = sum(layers[index][name] for name in MACS)
        same(f"{layer.name}: macs", layer.macs, macs)
        moved = layers[index]["dram_read_bytes"] + layers[index]["dram_write_bytes"]
        same(f"{layer.name}: DRAM", layer.dram_bytes, moved)
        for what, ops in (("vector_cycles", (Op.DRAIN, Op.VECTOR)), ("dram_cycles", TRANSFERS)):
            mine = [i for i in range(len(ins)) if ins.layer[i] == index and ins.op[i] in ops]
            same(f"{layer.name}: {what}", getattr(layer, what), sum(int(events.end[i] - events.start[i]) for i in mine))
    for unit in Unit:
        doing = count_unit(program, machine, events, unit, total)
        reported = report.units[unit]
        told = Counter(
            {"busy": reported.busy_cycles, "after": reported.idle_after_last_cycles}, **reported.stall_cycles
        )
        same(f"{unit.name}", {k: v for k, v in told.items() if v}, dict(doing))
    return found
