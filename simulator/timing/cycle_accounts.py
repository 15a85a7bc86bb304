"""Where the cycles went: the array's time line by layer, or operator of a network, and cause (machine.md, rules C1 and
C4).

Plain layers run one after another, each in a window of its own. Operators of a network overlap and have none: what the
array did not stream is charged to whoever was at work on the chain that ended the gap. A softmax that holds the array
up is charged with those cycles, not the product after it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simulator.base.errors import InputError
from simulator.base.kernels import kernel
from simulator.program.operations import After, Unit, by_op, complete
from simulator.program.program import Program
from simulator.timing.durations import UNIT_COUNT, Timing
from simulator.timing.engine import STALL_NAMES, Events
from simulator.timing.report import CAUSES

_ARRAY = int(Unit.ARRAY)
_COMPUTE, _CONFLICT, _TAIL = (CAUSES.index(name) for name in ("compute", "bank_conflict", "tail"))
_NO_CAUSE = len(CAUSES)  # a column for stalls that no tile has
_COLUMNS = len(After)

# The cause of a cycle in which an instruction of this queue is at work while the array waits. A store is half of the
# way that activations take through DRAM.
_CAUSE_OF_QUEUE = complete(
    {
        After.WEIGHTS: "wait_weights",
        After.INPUT: "wait_input",
        After.STORE: "wait_input",
        After.ARRAY: "wait_array",
        After.VECTOR: "wait_vector",
    },
    After,
    "simulator.timing.cycle_accounts._CAUSE_OF_QUEUE",
)


@dataclass(frozen=True, eq=False)
class CycleAccounts:
    """Cycles of the array's time line, (layers, causes) int64 with columns as in ``report.CAUSES``.

    line: up to the end of a layer's last tile (of the last tile of all, without windows). tail: from there to the end
    of its window (of all), by what was at work then if there are no windows. Together they sum to the latency.
    """

    line: np.ndarray
    tail: np.ndarray


def causes_by_layer(program: Program, timing: Timing, events: Events) -> list[tuple[dict[str, int], dict[str, int]]]:
    """Cycles of each layer by cause, keys of ``CAUSES``, twice: as rules C1 and C4 have them, and with a network's tail
    divided by what was at work in it, which tells what bounds the operator. InputError where plain layers overlap.
    """
    account = account_layers if program.network is None else account_operators
    accounts = account(program, timing, events)
    whole, tails = (accounts.line + accounts.tail).tolist(), accounts.tail.sum(axis=1).tolist()
    return [
        ({**dict(zip(CAUSES, line, strict=True)), "tail": tail}, dict(zip(CAUSES, both, strict=True)))
        for line, tail, both in zip(accounts.line.tolist(), tails, whole, strict=True)
    ]


def account_layers(program: Program, timing: Timing, events: Events) -> CycleAccounts:
    """Divide the time line by windows (rule C1): a layer's begins where that of the layer before it ends, at its last
    store. A gap before a tile is the tile's own. InputError where layers overlap.
    """
    layers = len(program.layers)
    ends = np.zeros(layers, dtype=np.int64)
    _end_of_layers(program.instructions.layer, events.done, ends)
    begins = np.append(0, ends[:-1])[:layers]
    found = _account_line(program, timing, events, begins, chained=False)
    first = np.where(found.tiles_begin >= 0, found.tiles_begin, ends)
    if (first < begins).any():
        at = int(np.argmax(first < begins))
        raise InputError(
            f"program: layer '{program.layers[at].name}'",
            f"work in cycle {first[at]}, while the layer before it runs until {begins[at]}",
            "layers run one after another (machine.md, rule E3)",
            "Let its inputs wait for the last store of the layer before it.",
        )
    tail = np.zeros_like(found.line)
    tail[:, _TAIL] = ends - np.where(found.tiles_end >= 0, found.tiles_end, begins)
    return CycleAccounts(found.line, tail)


def account_operators(program: Program, timing: Timing, events: Events) -> CycleAccounts:
    """Divide the time line among whoever was at work (rule C4)."""
    layers = len(program.layers)
    found = _account_line(program, timing, events, np.zeros(layers, dtype=np.int64), chained=True)
    tail = np.zeros_like(found.line)
    _charge_tail(
        program.instructions.op,
        program.instructions.layer,
        timing.after,
        events.end,
        events.done,
        found.previous,
        _cause_of_op(),
        int(found.tiles_end.max(initial=0)),
        tail,
    )
    return CycleAccounts(found.line, tail)


@dataclass(frozen=True, eq=False)
class _Line:
    """The time line up to the last tiles: cycles (L, causes); when each layer's first tile starts and its last has left
    the array (L,), -1 without tiles; the instruction before each one in its unit's queue (N,), if chains are charged.
    """

    line: np.ndarray
    tiles_begin: np.ndarray
    tiles_end: np.ndarray
    previous: np.ndarray


def _account_line(program: Program, timing: Timing, events: Events, begins: np.ndarray, chained: bool) -> _Line:
    """In one pass over the instructions. begins (L,): where each layer's window begins. chained: whether a gap is
    divided along the chain that ended it.
    """
    ins, layers = program.instructions, len(program.layers)
    line = np.zeros((layers, len(CAUSES) + 1), dtype=np.int64)
    tiles_begin, tiles_end = np.full((2, layers), -1, dtype=np.int64)
    previous = _previous_on_unit(timing.unit) if chained else np.zeros(0, dtype=np.int32)
    _account_tiles(
        ins.op,
        ins.layer,
        ins.tokens,
        ins.row_cycles,
        timing.unit,
        timing.after,
        events.start,
        events.end,
        events.done,
        events.stall,
        begins,
        chained,
        previous,
        _cause_of_op(),
        np.array([CAUSES.index(name) if name in CAUSES else _NO_CAUSE for name in STALL_NAMES]),
        tiles_begin,
        tiles_end,
        line,
    )
    assert not line[:, _NO_CAUSE].any(), "a tile waits for no store and for no channel"
    return _Line(np.ascontiguousarray(line[:, :_NO_CAUSE]), tiles_begin, tiles_end, previous)


def _cause_of_op() -> np.ndarray:
    return by_op(lambda entry: CAUSES.index(_CAUSE_OF_QUEUE[entry.queue]))


@kernel
def _end_of_layers(layer, done, layer_end):
    for i in range(layer.shape[0]):
        layer_end[layer[i]] = max(layer_end[layer[i]], done[i])


@kernel
def _account_tiles(
    op, layer, tokens, row_cycles, unit, after, start, end, done, stall, begins, chained, previous, op_cause,
    stall_cause, tiles_begin, tiles_end, line
):  # fmt: skip
    at = np.int64(0)
    for i in range(op.shape[0]):
        if unit[i] != _ARRAY:
            continue
        mine = layer[i]
        at = max(at, begins[mine])
        if start[i] > at:
            column, since = stall[i] - 1, at
            if chained and 0 <= column < _COLUMNS:
                # Of its own wait the tile has what came after its producer was done: a preload, or the lead.
                since = max(at, done[after[column, i]])
                _charge(np.int64(after[column, i]), since, at, op, layer, after, end, done, previous, op_cause, line)
            line[mine, stall_cause[stall[i]]] += start[i] - since
        line[mine, _COMPUTE] += tokens[i]
        line[mine, _CONFLICT] += tokens[i] * (row_cycles[i] - 1)
        at = end[i]
        if tiles_begin[mine] < 0:
            tiles_begin[mine] = start[i]
        tiles_end[mine] = at


@kernel
def _charge_tail(op, layer, after, end, done, previous, op_cause, floor, tail):
    """What is behind the last tile, back from the instruction that is done last."""
    last = np.int64(-1)
    for i in range(op.shape[0]):
        if last < 0 or done[i] > done[last]:
            last = np.int64(i)
    if last >= 0:
        _charge(last, done[last], floor, op, layer, after, end, done, previous, op_cause, tail)


@kernel
def _charge(i, upto, floor, op, layer, after, end, done, previous, op_cause, cycles):
    """Divide [floor, upto) among instruction i, what it started after, what that started after, and so on back."""
    while upto > floor:
        ready, before = np.int64(0), np.int64(-1)
        for d in range(after.shape[0]):
            producer = after[d, i]
            if producer >= 0 and done[producer] > ready:
                ready, before = done[producer], np.int64(producer)
        if previous[i] >= 0 and end[previous[i]] > ready:
            ready, before = end[previous[i]], np.int64(previous[i])
        begin = max(ready, floor)
        cycles[layer[i], op_cause[op[i]]] += upto - begin
        upto, i = begin, before


@kernel
def _previous_on_unit(unit):
    """Index of the instruction before each one in its unit's queue, -1 for none."""
    previous, latest = np.empty(unit.shape[0], dtype=np.int32), np.full(UNIT_COUNT, -1, dtype=np.int32)
    for i in range(unit.shape[0]):
        previous[i] = latest[unit[i]]
        latest[unit[i]] = i
    return previous
