"""Traces of bursts, run through a memory: what a standard makes of a pattern, without a machine around it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simulator.base.columns import kernel_input
from simulator.base.kernels import kernel
from simulator.dram.banks import Controller
from simulator.dram.controller import serve_list


@dataclass(frozen=True, eq=False)
class BurstTrace:
    """Bursts in order. numbers (N,): address / bytes of a burst. writes (N,): whether each is written. asked (T,): the
    clock in which each transfer is asked for, not falling. ptr (T+1,): its bursts; none passes one of an earlier
    transfer.
    """

    numbers: np.ndarray
    writes: np.ndarray
    asked: np.ndarray
    ptr: np.ndarray

    @staticmethod
    def of(numbers: np.ndarray, writes: np.ndarray | bool = False) -> BurstTrace:
        """One transfer of all bursts, asked for in clock 0."""
        count = len(numbers)
        return BurstTrace(numbers, np.full(count, writes), np.zeros(1, np.int64), np.array([0, count]))


@dataclass(frozen=True)
class TraceReport:
    """clocks: behind the last data. finished (T,): the same of each transfer. efficiency: clocks of data over clocks of
    all channels. counted: see ``Controller.counted``.
    """

    clocks: int
    finished: np.ndarray
    efficiency: float
    counted: dict[str, int]


def run_trace(trace: BurstTrace, memory: Controller, burst_clocks: int) -> TraceReport:
    """Run a trace through a memory that nothing else uses; ``memory`` is changed. burst_clocks: tBL."""
    finished = np.zeros(len(trace.asked), dtype=np.int64)
    _run(
        memory.rules,
        memory.lines,
        kernel_input(trace.numbers, np.int64),
        kernel_input(trace.writes, np.bool_),
        kernel_input(trace.asked, np.int64),
        kernel_input(trace.ptr, np.int64),
        finished,
    )
    clocks = int(finished.max(initial=0))
    used = len(trace.numbers) * burst_clocks / max(1, clocks * len(memory.lines))
    return TraceReport(clocks, finished, used, memory.counted())


@kernel
def _run(rules, lines, numbers, writes, asked, ptr, finished):
    room = numbers.shape[0]
    blocks, written = np.empty(room, np.int64), np.empty(room, np.int64)
    taken, done = np.empty(room, np.int64), np.empty(room, np.int64)
    for t in range(asked.shape[0]):
        for c in range(rules.channels):
            count = 0
            for i in range(ptr[t], ptr[t + 1]):
                if numbers[i] & rules.channel_mask == c:
                    blocks[count], written[count] = numbers[i], writes[i]
                    count += 1
            if count:
                _, end = serve_list(rules, lines[c], blocks, written, count, asked[t], taken, done, False)
                finished[t] = max(finished[t], end)
