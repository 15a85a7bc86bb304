"""The slow engine: one plain loop that advances every unit by one cycle. The oracle for the fast one (machine.md, rules
Q, D, A, V).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from simulator.program.operations import After, Unit
from simulator.timing.durations import Timing
from simulator.timing.engine import (
    STALL_ARRAY,
    STALL_CHANNEL,
    STALL_INPUT,
    STALL_NONE,
    STALL_PRELOAD,
    STALL_STORE,
    STALL_VECTOR,
    STALL_WEIGHTS,
    DeadlockError,
    Events,
    describe_deadlock,
)

_CAUSE = {
    After.WEIGHTS: STALL_WEIGHTS,
    After.INPUT: STALL_INPUT,
    After.ARRAY: STALL_ARRAY,
    After.VECTOR: STALL_VECTOR,
    After.STORE: STALL_STORE,
}


@dataclass
class _UnitState:
    queue: list[int]
    busy_left: int = 0
    idle_cause: int = STALL_NONE  # why the head did not start in the cycle before
    idled: bool = False
    requested_at: int = -1


# Of a memory with banks: instruction and the cycle in which it gets the channel -> its end, and when it is done.
Serve = Callable[[int, int], tuple[int, int]]


@dataclass
class _Clock:
    timing: Timing
    serve: Serve | None = None
    cycle: int = 0
    limit: int = 0  # a program that is not through by then never is
    events: Events = field(init=False)

    def __post_init__(self) -> None:
        self.events = Events(*(np.full(len(self.timing.unit), -1, dtype=np.int64) for _ in range(5)))

    def unmet(self, i: int, columns: tuple[After, ...] = tuple(After), *, lead: int = 0) -> int:
        """The first cause in ``columns`` that still blocks instruction i in this cycle, or STALL_NONE. ``lead``: cycles
        that ranks and their lane table must be there ahead (rule A4).
        """
        for column in columns:
            producer = self.timing.after[column, i]
            if producer >= 0:
                ahead = lead if column in (After.ARRAY, After.WEIGHTS) else 0
                done = self.events.done[producer]
                if done < 0 or self.cycle < done + ahead:
                    return _CAUSE[column]
        return STALL_NONE

    def start(self, unit: _UnitState, i: int) -> None:
        """Take the head off its queue: the unit is busy from this cycle on (rules Q1, Q4)."""
        timing, events = self.timing, self.events
        unit.queue.pop(0)
        end = self.cycle + int(timing.busy[i])
        done = end + int(timing.tail[i])
        if self.serve is not None and timing.is_transfer[i]:
            end, done = self.serve(i, self.cycle)
            self.limit += done - self.cycle
        unit.busy_left = end - self.cycle
        events.start[i], events.end[i], events.done[i] = self.cycle, end, done
        events.stall[i] = unit.idle_cause if unit.idled else STALL_NONE
        unit.idled, unit.idle_cause = False, STALL_NONE


def run_reference(timing: Timing, serve: Serve | None = None) -> Events:
    """Event times of every instruction, found by counting cycles. Raises DeadlockError like the fast engine.

    serve: a memory with banks, which is asked for each transfer in the order in which they get the channel.
    """
    clock = _Clock(timing, serve)
    units = [_UnitState([int(i) for i in np.flatnonzero(timing.unit == u)]) for u in Unit]
    loader = _Loader(list(units[Unit.ARRAY].queue))
    longest = timing.busy + timing.tail + timing.lead + timing.preload + 1
    clock.limit = int(longest.sum()) + 1
    channel_left = 0
    while any(unit.queue for unit in units):
        if clock.cycle > clock.limit:
            raise DeadlockError(describe_deadlock(timing, clock.events.done))
        channel_left = _step_transfers(clock, units[: Unit.ARRAY], channel_left)
        _step_array(clock, units[Unit.ARRAY], loader)
        _step_vector(clock, units[Unit.VECTOR])
        for unit in units:
            unit.busy_left = max(0, unit.busy_left - 1)
        channel_left = max(0, channel_left - 1)
        loader.left = max(0, loader.left - 1)
        clock.cycle += 1
    return clock.events


@dataclass
class _Loader:
    """The weight loader: fills the shadow registers for one tile ahead of the tile that streams (rule A2)."""

    queue: list[int]
    loaded: int = -1
    left: int = 0
    shadow_full: bool = False
    late: bool = False  # the present preload began late because its weights were late
    blocked_by_weights: bool = False


def _step_transfers(clock: _Clock, units: list[_UnitState], channel_left: int) -> int:
    """Heads whose dependences are done ask for the channel; if it is free, it takes the earliest request (rules D3,
    D4).
    """
    waiting = []
    for number, unit in enumerate(units):
        if not unit.queue or unit.busy_left:
            continue
        cause = clock.unmet(unit.queue[0])
        if cause != STALL_NONE:
            unit.idled, unit.idle_cause = True, cause
            continue
        if unit.requested_at < 0:
            unit.requested_at = clock.cycle
        waiting.append((unit.requested_at, number))
    if channel_left == 0 and waiting:
        granted = units[min(waiting)[1]]
        i = granted.queue[0]
        clock.start(granted, i)
        granted.requested_at = -1
        waiting.remove(min(waiting))
        channel_left = int(clock.events.end[i]) - clock.cycle
    for _, number in waiting:
        units[number].idled, units[number].idle_cause = True, STALL_CHANNEL
    return channel_left


def _step_array(clock: _Clock, unit: _UnitState, loader: _Loader) -> None:
    """Start the next tile's stream if it can, then the next preload (rules A2, A3, A4, Q3)."""
    if unit.queue and not unit.busy_left:
        i = unit.queue[0]
        lead = int(clock.timing.lead[i])
        cause = clock.unmet(i, tuple(After)[0 if lead else 1 :], lead=lead)
        preloaded = loader.loaded == i and loader.left == 0
        if cause == STALL_NONE and not preloaded:
            late = loader.late if loader.loaded == i else loader.blocked_by_weights
            cause = STALL_WEIGHTS if late else STALL_PRELOAD
        if cause == STALL_NONE:
            clock.start(unit, i)
            loader.shadow_full = False
        else:
            unit.idled, unit.idle_cause = True, cause
    if loader.queue and loader.left == 0 and not loader.shadow_full:
        i = loader.queue[0]
        if clock.unmet(i, (After.WEIGHTS,)) == STALL_NONE:
            loader.queue.pop(0)
            loader.loaded, loader.left, loader.shadow_full = i, int(clock.timing.preload[i]), True
            loader.late, loader.blocked_by_weights = loader.blocked_by_weights, False
            clock.events.preload[i] = clock.cycle
        else:
            loader.blocked_by_weights = True


def _step_vector(clock: _Clock, unit: _UnitState) -> None:
    """Start the next drain if its sums and its buffer are there (rule V1)."""
    if not unit.queue or unit.busy_left:
        return
    cause = clock.unmet(unit.queue[0])
    if cause == STALL_NONE:
        clock.start(unit, unit.queue[0])
    else:
        unit.idled, unit.idle_cause = True, cause
