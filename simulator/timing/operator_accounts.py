"""Where the cycles of a whole network went: the array's time line by operator and cause (machine.md, rule C4).

Operators of a network overlap, so they have no windows. What the array did not stream is charged to whoever was at work
on the chain that ended the gap: a softmax that holds the array up is charged with those cycles, not the product after
it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba as nb
import numpy as np

from simulator.program.operations import After, Unit, by_op, complete
from simulator.program.program import Program
from simulator.timing.durations import UNIT_COUNT, Timing
from simulator.timing.engine import STALL_NAMES, Events
from simulator.timing.report import CAUSES

_ARRAY = int(Unit.ARRAY)
_COMPUTE, _CONFLICT = CAUSES.index("compute"), CAUSES.index("bank_conflict")
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
    "simulator.timing.operator_accounts._CAUSE_OF_QUEUE",
)


@dataclass(frozen=True, eq=False)
class OperatorAccounts:
    """Cycles of the array's time line, (operators, causes) int64 with columns as in ``report.CAUSES``.

    line: up to the end of the last tile. tail: from there to the end, by what was at work then. Together they sum to
    the latency.
    """

    line: np.ndarray
    tail: np.ndarray


def account_operators(program: Program, timing: Timing, events: Events) -> OperatorAccounts:
    """Divide the array's time line among operators and causes (rule C4), in one pass over the instructions."""
    ins, shape = program.instructions, (len(program.layers), len(CAUSES))
    accounts = OperatorAccounts(np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64))
    op_cause = by_op(lambda entry: CAUSES.index(_CAUSE_OF_QUEUE[entry.queue]))
    known = [name if name in CAUSES else "wait_input" for name in STALL_NAMES]
    _account(
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
        op_cause,
        np.array([CAUSES.index(name) for name in known]),
        accounts.line,
        accounts.tail,
    )
    return accounts


def causes_by_operator(program: Program, timing: Timing, events: Events) -> list[tuple[dict[str, int], dict[str, int]]]:
    """Cycles charged to each operator by cause, keys of ``CAUSES``, twice: as rule C4 has them, and with the tail
    divided by what was at work in it, which tells what bounds the operator.
    """
    accounts = account_operators(program, timing, events)
    whole, tails = (accounts.line + accounts.tail).tolist(), accounts.tail.sum(axis=1).tolist()
    return [
        ({**dict(zip(CAUSES, line, strict=True)), "tail": tail}, dict(zip(CAUSES, both, strict=True)))
        for line, tail, both in zip(accounts.line.tolist(), tails, whole, strict=True)
    ]


@nb.njit(cache=True, nogil=True)
def _account(
    op, layer, tokens, row_cycles, unit, after, start, end, done, stall, op_cause, stall_cause, line, tail
):  # fmt: skip
    previous, last = _previous_on_unit(unit), np.int64(-1)
    at = np.int64(0)
    for i in range(op.shape[0]):
        if last < 0 or done[i] > done[last]:
            last = np.int64(i)
        if unit[i] != _ARRAY:
            continue
        if start[i] > at:
            # Of its own wait the tile has what came after its producer was done: a preload, or the lead.
            column, mine = stall[i] - 1, at
            if 0 <= column < _COLUMNS:
                mine = max(at, done[after[column, i]])
                _charge(np.int64(after[column, i]), mine, at, op, layer, after, end, done, previous, op_cause, line)
            line[layer[i], stall_cause[stall[i]]] += start[i] - mine
        line[layer[i], _COMPUTE] += tokens[i]
        line[layer[i], _CONFLICT] += tokens[i] * (row_cycles[i] - 1)
        at = end[i]
    if last >= 0:
        _charge(last, done[last], at, op, layer, after, end, done, previous, op_cause, tail)


@nb.njit(cache=True, nogil=True)
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


@nb.njit(cache=True, nogil=True)
def _previous_on_unit(unit):
    """Index of the instruction before each one in its unit's queue, -1 for none."""
    previous, latest = np.empty(unit.shape[0], dtype=np.int32), np.full(UNIT_COUNT, -1, dtype=np.int32)
    for i in range(unit.shape[0]):
        previous[i] = latest[unit[i]]
        latest[unit[i]] = i
    return previous
