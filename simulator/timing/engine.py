"""The fast engine: jumps from event to event and gives the exact cycle of each (machine.md, sections 3 to 6).

Every unit takes its instructions in order. A unit that is not a DMA engine can be advanced as soon as the completion
times of everything it waits for are known. Transfers share one channel, first come first served, so they are committed
in the order of their requests; the earliest known request cannot be overtaken, because whatever is still unknown
depends on a transfer not yet committed, and that completes later than this request.

An instruction costs one scan of its five dependences, and one more for each of them that is not known when the
instruction gets to the head of its queue: a blocked head remembers whom it waits for, and is not looked at before that
one is done. No state is kept for each instruction but its event times.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simulator.base.columns import kernel_input
from simulator.base.errors import DeadlockError
from simulator.base.kernels import kernel
from simulator.program.operations import After, Op, Unit
from simulator.timing.banked_transfers import BankedTransfers, serve_transfer
from simulator.timing.durations import UNIT_COUNT, Timing

_ARRAY, _VECTOR = int(Unit.ARRAY), int(Unit.VECTOR)  # the DMA engines stand below

# Why an instruction started no earlier; the array's causes are named in report.CAUSES.
STALL_NONE, STALL_WEIGHTS, STALL_INPUT, STALL_ARRAY, STALL_VECTOR, STALL_STORE, STALL_PRELOAD, STALL_CHANNEL = range(8)
STALL_NAMES = (
    "none",
    "wait_weights",
    "wait_input",
    "wait_array",
    "wait_vector",
    "wait_store",
    "weight_preload",
    "dram_channel",
)


@dataclass(frozen=True, eq=False)
class Events:
    """Event times of every instruction, (N,) int64; ``stall`` is int8.

    preload: first cycle of a tile's weight preload (-1 for others). start: first busy cycle of the unit. end: first
    cycle in which the unit is free. done: first cycle in which dependents may begin. stall: STALL_* that bounded
    ``start``.
    """

    preload: np.ndarray
    start: np.ndarray
    end: np.ndarray
    done: np.ndarray
    stall: np.ndarray


def run_engine(timing: Timing, banked: BankedTransfers | None = None) -> Events:
    """Event times of every instruction. Raises DeadlockError when some instruction can never start.

    banked: the memory that serves transfers by banks and rows (rules D5 to D12), which is changed; without it they take
    as long as ``timing`` says.
    """
    count = len(timing.unit)
    preload, start, end, done = (np.full(count, -1, dtype=np.int64) for _ in range(4))
    stall = np.full(count, -1, dtype=np.int8)
    committed = _advance(
        kernel_input(timing.unit, np.int8),
        kernel_input(timing.busy, np.int64),
        kernel_input(timing.tail, np.int32),
        kernel_input(timing.lead, np.int32),
        kernel_input(timing.after, np.int32),
        kernel_input(timing.preload, np.int64),
        preload,
        start,
        end,
        done,
        stall,
        banked,
    )
    if committed < count:
        raise DeadlockError(describe_deadlock(timing, done))
    return Events(preload, start, end, done, stall)


def describe_deadlock(timing: Timing, done: np.ndarray) -> str:
    """One clause for each unit whose head can never start: the instruction, what it waits for, and behind what that
    stands. ``done``: -1 for instructions that have not started.
    """
    clauses = []
    for unit in Unit:
        head = _first_waiting(timing, done, unit)
        if head < 0:
            continue
        blockers = [int(d) for d in timing.after[:, head] if d >= 0 and done[d] < 0]
        waits = " and ".join(_place_in_queue(timing, done, d) for d in blockers)
        clauses.append(f"{unit.name}: {_name(timing, head)} waits for {waits or 'nothing'}")
    return "no unit can proceed; " + "; ".join(clauses)


def _first_waiting(timing: Timing, done: np.ndarray, unit: int) -> int:
    waiting = np.flatnonzero((timing.unit == unit) & (done < 0))
    return int(waiting[0]) if len(waiting) else -1


def _name(timing: Timing, i: int) -> str:
    return f"instruction {i} ({Op(int(timing.op[i])).name} of layer {timing.layer[i]})"


def _place_in_queue(timing: Timing, done: np.ndarray, i: int) -> str:
    """An instruction that has not started, its unit, and the head of the queue if that is another."""
    unit = int(timing.unit[i])
    head = _first_waiting(timing, done, unit)
    behind = "" if head == i else f" behind instruction {head}"
    return f"{_name(timing, i)} on {Unit(unit).name}{behind}"


@kernel
def _advance(unit, busy, tail, lead, after, preload_cycles, preload, start, end, done, stall, banked):
    """Commit instructions until all are done or none can proceed; returns how many were committed."""
    queue, queue_ptr = _queues(unit)
    tile, tile_end, tile_blocker, array_free = queue_ptr[_ARRAY], queue_ptr[_ARRAY + 1], np.int64(-1), np.int64(0)
    drain, drain_end, drain_blocker, vector_free = queue_ptr[_VECTOR], queue_ptr[_VECTOR + 1], np.int64(-1), np.int64(0)
    head = queue_ptr[:_ARRAY].copy()
    blocker = np.full(_ARRAY, -1, dtype=np.int64)  # the producer that a queue's head waits for, while not known
    free = np.zeros(_ARRAY, dtype=np.int64)
    requests = np.full((_ARRAY, 3), -1, dtype=np.int64)
    loader_free = np.int64(0)
    shadow_free = np.int64(0)
    channel_free = np.int64(0)
    while True:
        before = -1
        while before != tile + drain:
            before = tile + drain
            while tile < tile_end and _known(tile_blocker, done):
                i = queue[tile]
                tile_blocker, ready, cause = _gate(after, done, lead[i], i)
                if tile_blocker < 0:
                    begin, late = _preload(after, done, max(loader_free, shadow_free), i)
                    preload[i] = begin
                    loader_free = begin + preload_cycles[i]
                    if loader_free > ready:
                        ready, cause = loader_free, late
                    shadow_free = _commit(i, array_free, ready, cause, busy, tail, start, end, done, stall)
                    array_free = shadow_free + busy[i]
                    tile += 1
            while drain < drain_end and _known(drain_blocker, done):
                i = queue[drain]
                drain_blocker, ready, cause = _gate(after, done, lead[i], i)
                if drain_blocker < 0:
                    vector_free = busy[i] + _commit(i, vector_free, ready, cause, busy, tail, start, end, done, stall)
                    drain += 1
        chosen = -1
        earliest = np.int64(0)
        for u in range(_ARRAY):
            if requests[u, 0] < 0 and head[u] < queue_ptr[u + 1] and _known(blocker[u], done):
                i = queue[head[u]]
                blocker[u], requests[u, 1], requests[u, 2] = _gate(after, done, lead[i], i)
                if blocker[u] < 0:
                    requests[u, 0] = max(requests[u, 1], free[u])
            asked = requests[u, 0]
            if asked >= 0 and (chosen < 0 or asked < earliest):
                chosen, earliest = u, asked
        if chosen < 0:
            return tile + drain - queue_ptr[_ARRAY] - queue_ptr[_VECTOR] + (head - queue_ptr[:_ARRAY]).sum()
        i = queue[head[chosen]]
        ready, cause = requests[chosen, 1], requests[chosen, 2]
        if channel_free > earliest:
            ready, cause = channel_free, STALL_CHANNEL
        if banked is None:
            channel_free = busy[i] + _commit(i, free[chosen], ready, cause, busy, tail, start, end, done, stall)
        else:
            start[i] = max(free[chosen], ready)
            stall[i] = cause if ready > free[chosen] else STALL_NONE
            channel_free, done[i] = serve_transfer(banked, i, start[i])
            end[i] = channel_free
        free[chosen] = channel_free
        requests[chosen, 0] = -1
        head[chosen] += 1


@kernel
def _queues(unit):
    """Instruction indices sorted by unit, in program order within each, and where each unit's queue begins."""
    queue_ptr = np.zeros(UNIT_COUNT + 1, dtype=np.int64)
    for i in range(unit.shape[0]):
        queue_ptr[unit[i] + 1] += 1
    for u in range(UNIT_COUNT):
        queue_ptr[u + 1] += queue_ptr[u]
    fill = queue_ptr[:-1].copy()
    queue = np.empty(unit.shape[0], dtype=np.int32)
    for i in range(unit.shape[0]):
        queue[fill[unit[i]]] = i
        fill[unit[i]] += 1
    return queue, queue_ptr


@kernel
def _gate(after, done, lead, i):
    """A producer of instruction i whose completion is not known yet, or -1; then the latest completion that gates its
    start, and which column that came from (rules Q2, A4).
    """
    ready = np.int64(0)
    cause = STALL_NONE
    for d in range(after.shape[0]):
        producer = after[d, i]
        if producer >= 0:
            if done[producer] < 0:
                return np.int64(producer), ready, cause
            when = done[producer] + (lead if d == After.ARRAY or d == After.WEIGHTS else 0)
            if when > ready:
                ready, cause = when, d + 1
    return np.int64(-1), ready, cause


@kernel
def _known(producer, done):
    return producer < 0 or done[producer] >= 0


@kernel
def _preload(after, done, registers_free, i):
    """First cycle of a tile's weight preload and what bounded it: loader and registers, or its weights (rule A2)."""
    weights = after[After.WEIGHTS, i]
    if weights >= 0 and done[weights] > registers_free:
        return done[weights], STALL_WEIGHTS
    return registers_free, STALL_PRELOAD


@kernel
def _commit(i, free, ready, cause, busy, tail, start, end, done, stall):
    """Start instruction i when its unit is free and it is ready; returns that cycle."""
    begin = max(free, ready)
    start[i] = begin
    end[i] = begin + busy[i]
    done[i] = begin + busy[i] + tail[i]
    stall[i] = cause if ready > free else STALL_NONE
    return begin
