"""A program's transfers as bursts of a memory with banks (machine.md, rules D5 to D12): what the engine asks when a
transfer gets the channel.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from simulator.base.kernels import ceil_div, kernel
from simulator.dram.alike import serve_run
from simulator.dram.banks import Controller, new_controller
from simulator.machine.machine import Machine
from simulator.program.operations import Place
from simulator.program.operations import reads as reads_from
from simulator.program.program_record import ProgramRecord
from simulator.timing.dram_places import transfer_bursts
from simulator.timing.durations import Timing

FEMTOSECONDS = 1_000_000  # of a nanosecond


class BankedTransfers(NamedTuple):
    """What a kernel needs. first, bursts, write: (N,) bursts of each instruction, and whether it writes them. cycle,
    clock: lengths of the machine's cycle and of the DRAM's clock, in one unit. latency: cycles behind the last data.
    latest: (1,) when the last transfer is done. scratch: see ``serve_run``.
    """

    rules: np.record
    lines: np.ndarray
    first: np.ndarray
    bursts: np.ndarray
    write: np.ndarray
    cycle: int
    clock: int
    latency: int
    latest: np.ndarray
    scratch: np.ndarray

    @property
    def memory(self) -> Controller:
        return Controller(self.rules, self.lines)


def banked_transfers(program: ProgramRecord, machine: Machine) -> BankedTransfers | None:
    """The memory of ``machine``, idle, and what ``program`` asks of it; None for the bandwidth model."""
    standard = machine.dram.standard
    if standard is None:
        return None
    memory = new_memory(machine)
    first, count = transfer_bursts(program, machine)
    cycle = round(FEMTOSECONDS / machine.clock_ghz)
    shared = math.gcd(cycle, standard.tck_fs)
    room = int(count.max(initial=1)) // machine.dram.channels + 1 + machine.dram.queue_entries + standard.bank_groups
    return BankedTransfers(
        memory.rules,
        memory.lines,
        first,
        count,
        reads_from(program.instructions.op, Place.SCRATCHPAD),
        cycle // shared,
        standard.tck_fs // shared,
        machine.dram_latency_cycles,
        np.zeros(1, dtype=np.int64),
        np.empty((6, room), dtype=np.int64),
    )


def new_memory(machine: Machine) -> Controller:
    """The idle memory of a machine whose DRAM is a standard's."""
    dram = machine.dram
    assert dram.standard is not None, "a machine of the bandwidth model has no banks"
    return new_controller(dram.standard, dram.channels, dram.mapping, dram.scheduler, dram.queue_entries)


def with_served(timing: Timing, start: np.ndarray, end: np.ndarray, done: np.ndarray) -> Timing:
    """Durations with those that transfers turned out to have."""
    busy, tail = timing.busy.astype(np.int64), timing.tail.astype(np.int32)
    _put_served(timing.is_transfer, start, end, done, busy, tail)
    return replace(timing, busy=busy, tail=tail)


@kernel
def _put_served(is_transfer, start, end, done, busy, tail):  # type: ignore[no-untyped-def]
    for i in range(busy.shape[0]):
        if is_transfer[i]:
            busy[i], tail[i] = end[i] - start[i], done[i] - end[i]


@kernel(inline="always")
def serve_transfer(banked, i, begin):  # type: ignore[no-untyped-def]
    """Serve instruction i from cycle ``begin`` on: when its last burst is taken, and when it is done."""
    cycle, clock = banked.cycle, banked.clock
    taken, data = serve_run(
        banked.rules,
        banked.lines,
        banked.first[i],
        banked.bursts[i],
        banked.write[i],
        ceil_div(begin * cycle, clock),
        banked.scratch,
    )
    end = max(begin + 1, ceil_div(taken * clock, cycle))
    done = max(end, ceil_div(data * clock, cycle) + banked.latency, banked.latest[0])
    banked.latest[0] = done
    return end, done
