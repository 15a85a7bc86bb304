"""The fast engine: jumps from event to event and gives the exact cycle of each (machine.md, sections 3 to 6).

Every unit takes its instructions in order. A unit that is not a DMA engine can be advanced as soon as the completion
times of everything it waits for are known. Transfers share one channel, first come first served, so they are committed
in the order of their requests; the earliest known request cannot be overtaken, because whatever is still unknown
depends on a transfer not yet committed, and that completes later than this request.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba as nb
import numpy as np

from simulator.isa import After, Op, Unit
from simulator.timing import UNIT_COUNT, Timing

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
    """Event times of every instruction, (N,) int64.

    preload: first cycle of a tile's weight preload (-1 for others). start: first busy cycle of the unit. end: first
    cycle in which the unit is free. done: first cycle in which dependents may begin. stall: STALL_* that bounded
    ``start``.
    """

    preload: np.ndarray
    start: np.ndarray
    end: np.ndarray
    done: np.ndarray
    stall: np.ndarray


class DeadlockError(RuntimeError):
    """A program that cannot proceed; the message names the instruction that waits and what it waits for."""


def run_engine(timing: Timing) -> Events:
    """Event times of every instruction. Raises DeadlockError when some instruction can never start."""
    count = len(timing.unit)
    preload, start, end, done, stall = (np.full(count, -1, dtype=np.int64) for _ in range(5))
    committed = _advance(
        timing.unit,
        timing.busy,
        timing.tail,
        timing.lead,
        timing.is_tile,
        timing.is_transfer,
        timing.after,
        timing.preload_cycles,
        preload,
        start,
        end,
        done,
        stall,
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


@nb.njit(cache=True, nogil=True)
def _advance(unit, busy, tail, lead, is_tile, is_transfer, after, preload_cycles, preload, start, end, done, stall):
    """Commit instructions until all are done or none can proceed; returns how many were committed."""
    queue, queue_ptr = _queues(unit)
    head = queue_ptr[:-1].copy()
    unit_free = np.zeros(UNIT_COUNT, dtype=np.int64)
    loader_free = np.int64(0)
    shadow_free = np.int64(0)
    channel_free = np.int64(0)
    committed = 0
    while True:
        progressed = True
        while progressed:
            progressed = False
            for u in range(Unit.ARRAY, UNIT_COUNT):
                while head[u] < queue_ptr[u + 1] and _resolved(after, done, queue[head[u]]):
                    i = queue[head[u]]
                    ready, cause = _data_ready(after, done, lead, i)
                    if is_tile[i]:
                        begin, why = _preload_start(after, done, loader_free, shadow_free, i)
                        preload[i] = begin
                        loader_free = begin + preload_cycles
                        if loader_free > ready:
                            ready, cause = loader_free, why
                    _commit(i, unit_free[u], ready, cause, busy, tail, start, end, done, stall)
                    unit_free[u] = end[i]
                    if is_tile[i]:
                        shadow_free = start[i]
                    head[u] += 1
                    committed += 1
                    progressed = True
        chosen = -1
        earliest = np.int64(0)
        for u in range(Unit.ARRAY):
            if head[u] < queue_ptr[u + 1] and _resolved(after, done, queue[head[u]]):
                ready, _ = _data_ready(after, done, lead, queue[head[u]])
                request = max(ready, unit_free[u])
                if chosen < 0 or request < earliest:
                    chosen, earliest = u, request
        if chosen < 0:
            return committed
        i = queue[head[chosen]]
        ready, cause = _data_ready(after, done, lead, i)
        if channel_free > max(ready, unit_free[chosen]):
            ready, cause = channel_free, STALL_CHANNEL
        _commit(i, unit_free[chosen], ready, cause, busy, tail, start, end, done, stall)
        unit_free[chosen] = end[i]
        channel_free = end[i]
        head[chosen] += 1
        committed += 1


@nb.njit(cache=True, nogil=True)
def _queues(unit):
    """Instruction indices sorted by unit, in program order within each, and where each unit's queue begins."""
    queue_ptr = np.zeros(UNIT_COUNT + 1, dtype=np.int64)
    for i in range(unit.shape[0]):
        queue_ptr[unit[i] + 1] += 1
    for u in range(UNIT_COUNT):
        queue_ptr[u + 1] += queue_ptr[u]
    fill = queue_ptr[:-1].copy()
    queue = np.empty(unit.shape[0], dtype=np.int64)
    for i in range(unit.shape[0]):
        queue[fill[unit[i]]] = i
        fill[unit[i]] += 1
    return queue, queue_ptr


@nb.njit(cache=True, nogil=True)
def _resolved(after, done, i):
    """Whether the completion times of everything that instruction i waits for are known."""
    for d in range(after.shape[0]):  # noqa: SIM110 - compiled code has no generators
        if after[d, i] >= 0 and done[after[d, i]] < 0:
            return False
    return True


@nb.njit(cache=True, nogil=True)
def _data_ready(after, done, lead, i):
    """Latest completion that gates instruction i's start, and which column it came from (rules Q2, A4)."""
    ready = np.int64(0)
    cause = STALL_NONE
    for d in range(after.shape[0]):
        if after[d, i] >= 0:
            when = done[after[d, i]] + (lead[i] if d == After.ARRAY or d == After.WEIGHTS else 0)
            if when > ready:
                ready, cause = when, d + 1
    return ready, cause


@nb.njit(cache=True, nogil=True)
def _preload_start(after, done, loader_free, shadow_free, i):
    """First cycle of a tile's weight preload: shadow registers swapped out, loader free, weights in the buffer (rule
    A2).
    """
    begin = max(loader_free, shadow_free)
    cause = STALL_PRELOAD
    weights = after[After.WEIGHTS, i]
    if weights >= 0 and done[weights] > begin:
        begin, cause = done[weights], STALL_WEIGHTS
    return begin, cause


@nb.njit(cache=True, nogil=True)
def _commit(i, free, ready, cause, busy, tail, start, end, done, stall):
    if ready > free:
        start[i], stall[i] = ready, cause
    else:
        start[i], stall[i] = free, STALL_NONE
    end[i] = start[i] + busy[i]
    done[i] = end[i] + tail[i]
