"""Where the cycles went: the array's time line by layer and cause, every unit's by stall (machine.md, rule C1)."""

from __future__ import annotations

from dataclasses import dataclass

import numba as nb
import numpy as np

from simulator.base.errors import InputError
from simulator.program.operations import Unit
from simulator.program.program import Program
from simulator.timing.durations import UNIT_COUNT, Timing
from simulator.timing.engine import STALL_CHANNEL, STALL_NAMES, Events
from simulator.timing.report import CAUSES

_ARRAY = int(Unit.ARRAY)


@dataclass(frozen=True, eq=False)
class LayerAccounts:
    """Sums by layer, int64: layer_end (L,), first cycle after its last store; gap (L, stalls), cycles before its tiles
    by STALL_* of the tile; compute (L,) and conflict (L,), cycles of its tiles; tiles_begin (L,) and tiles_end (L,),
    when the first starts and the last has left the array, -1 without tiles.
    """

    layer_end: np.ndarray
    gap: np.ndarray
    compute: np.ndarray
    conflict: np.ndarray
    tiles_begin: np.ndarray
    tiles_end: np.ndarray


@dataclass(frozen=True, eq=False)
class UnitAccounts:
    """Sums by unit, int64: end (U,), first cycle after its last instruction; busy (U,); count (U,) of instructions;
    stall (U, stalls).
    """

    end: np.ndarray
    busy: np.ndarray
    count: np.ndarray
    stall: np.ndarray


def account_layers(program: Program, timing: Timing, events: Events) -> LayerAccounts:
    """One pass over the instructions in program order. A layer's window begins where the one before it ends."""
    ins, layers, stalls = program.instructions, len(program.layers), len(STALL_NAMES)
    shapes = (layers, (layers, stalls), layers, layers, layers, layers)
    accounts = LayerAccounts(*(np.zeros(shape, dtype=np.int64) for shape in shapes))
    accounts.tiles_begin[:] = accounts.tiles_end[:] = -1
    _end_of_layers(ins.layer, events.done, accounts.layer_end)
    _account_layers(
        ins.layer,
        ins.tokens,
        ins.row_cycles,
        timing.unit,
        events.start,
        events.end,
        events.stall,
        accounts.layer_end,
        accounts.gap,
        accounts.compute,
        accounts.conflict,
        accounts.tiles_begin,
        accounts.tiles_end,
    )
    return accounts


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


def causes_by_layer(program: Program, timing: Timing, events: Events) -> list[dict[str, int]]:
    """Cycles of each layer's window by cause, keys of ``CAUSES`` (rule C1). InputError where layers overlap."""
    accounts = account_layers(program, timing, events)
    ends = [0, *accounts.layer_end.tolist()]
    return [
        _causes_of_layer(accounts, layer.name, index, ends[index], ends[index + 1])
        for index, layer in enumerate(program.layers)
    ]


def _causes_of_layer(accounts: LayerAccounts, name: str, index: int, begin: int, end: int) -> dict[str, int]:
    """Divide the window [begin, end) of the array's time line by cause; the parts sum to end - begin."""
    started = int(accounts.tiles_begin[index])
    first = started if started >= 0 else end
    if first < begin:
        raise InputError(
            f"program: layer '{name}'",
            f"work in cycle {first}, while the layer before it runs until {begin}",
            "layers run one after another (machine.md, rule E3)",
            "Let its inputs wait for the last store of the layer before it.",
        )
    causes = dict.fromkeys(CAUSES, 0)
    for cause, cycles in zip(STALL_NAMES, accounts.gap[index].tolist(), strict=True):
        if cycles:
            causes[cause] += cycles
    causes["compute"] = int(accounts.compute[index])
    causes["bank_conflict"] = int(accounts.conflict[index])
    last = int(accounts.tiles_end[index])
    causes["tail"] = end - (last if last >= 0 else begin)
    return causes


@nb.njit(cache=True, nogil=True)
def _end_of_layers(layer, done, layer_end):
    for i in range(layer.shape[0]):
        layer_end[layer[i]] = max(layer_end[layer[i]], done[i])


@nb.njit(cache=True, nogil=True)
def _account_layers(
    layer, tokens, row_cycles, unit, start, end, stall, layer_end, gap, compute, conflict, tiles_begin, tiles_end
):
    for i in range(layer.shape[0]):
        if unit[i] != _ARRAY:
            continue
        mine = layer[i]
        before = tiles_end[mine]
        if before < 0:
            before = layer_end[mine - 1] if mine > 0 else 0
            tiles_begin[mine] = start[i]
        gap[mine, stall[i]] += start[i] - before
        compute[mine] += tokens[i]
        conflict[mine] += tokens[i] * (row_cycles[i] - 1)
        tiles_end[mine] = end[i]


@nb.njit(cache=True, nogil=True)
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
