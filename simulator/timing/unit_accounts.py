"""What every unit did: busy and stalled cycles, by what it stalled for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simulator.base.kernels import kernel
from simulator.program.operations import Unit
from simulator.timing.durations import UNIT_COUNT, Timing
from simulator.timing.engine import STALL_CHANNEL, STALL_NAMES, Events

_ARRAY = int(Unit.ARRAY)


@dataclass(frozen=True, eq=False)
class UnitAccounts:
    """Sums by unit, int64: end (U,), first cycle after its last instruction; busy (U,); count (U,) of instructions;
    stall (U, stalls).
    """

    end: np.ndarray
    busy: np.ndarray
    count: np.ndarray
    stall: np.ndarray


def account_units(timing: Timing, events: Events) -> UnitAccounts:
    """Busy and stalled cycles of every unit, in one pass over the instructions."""
    shapes = (UNIT_COUNT, UNIT_COUNT, UNIT_COUNT, (UNIT_COUNT, len(STALL_NAMES)))
    accounts = UnitAccounts(*(np.zeros(shape, dtype=np.int64) for shape in shapes))
    _account_units(
        timing.unit,
        timing.after,
        events.start,
        events.end,
        events.done,
        events.stall,
        accounts.end,
        accounts.busy,
        accounts.count,
        accounts.stall,
    )
    return accounts


@kernel
def _account_units(unit, after, start, end, done, stall, unit_end, unit_busy, unit_count, unit_stall):
    for i in range(unit.shape[0]):
        mine = unit[i]
        free = unit_end[mine]
        if mine == _ARRAY:
            unit_stall[mine, stall[i]] += start[i] - free
        else:
            # A transfer's wait is split between its dependences and the channel.
            ready, column = np.int64(0), 0
            for d in range(after.shape[0]):
                if after[d, i] >= 0 and done[after[d, i]] > ready:
                    ready, column = done[after[d, i]], d
            if ready > free:
                unit_stall[mine, column + 1] += ready - free
            unit_stall[mine, STALL_CHANNEL] += start[i] - max(ready, free)
        unit_busy[mine] += end[i] - start[i]
        unit_count[mine] += 1
        unit_end[mine] = end[i]
