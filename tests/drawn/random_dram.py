"""Random standards, traces and memories, small enough for one clock at a time."""

from __future__ import annotations

from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from simulator.dram.alike import serve_run
from simulator.dram.banks import Controller, new_controller
from simulator.dram.mapping import MAPPINGS, SCHEDULERS
from simulator.dram.standards import Parameter, Standard
from simulator.dram.traces import BurstTrace, TraceReport, run_trace
from tests.oracles.slow_dram import Burst, Transfer


class Drawn(NamedTuple):
    standard: Standard
    channels: int
    mapping: str
    scheduler: str
    queue: int
    transfers: tuple[Transfer, ...]

    def memory(self) -> Controller:
        return new_controller(self.standard, self.channels, self.mapping, self.scheduler, self.queue)


def random_standard(rng: np.random.Generator) -> Standard:
    """Distances of a few clocks in any proportion that a standard may have."""

    def some(low: int, high: int) -> int:
        return int(rng.integers(low, high))

    burst, near, active, takes, turn = some(1, 5), some(1, 4), some(4, 10), some(5, 30), some(1, 4)
    column = burst + some(0, 2)
    precharge = some(1, 6)
    clocks = {
        "tCL": some(1, 9), "tCWL": some(1, 7), "tBL": burst, "tRCD": some(1, active + 1), "tRCDW": some(1, 6),
        "tRP": precharge, "tRPab": precharge + some(0, 3), "tRAS": active, "tRC": active + some(0, 8),
        "tCCD_S": column, "tCCD_L": column + some(0, 4), "tRRD_S": near, "tRRD_L": near + some(0, 3),
        "tFAW": near + some(0, 16), "tWR": some(1, 6), "tWTR_S": turn, "tWTR_L": turn + some(0, 4),
        "tRTP": some(1, 6), "tRTW": some(1, 9), "tREFI": takes + some(20, 150), "tRFC": takes,
    }  # fmt: skip
    timing = {name: Parameter(value, "nCK", "drawn") for name, value in clocks.items()}
    sizes = {"bank_groups": 2 ** some(0, 3), "banks": 2 ** some(0, 3), "row_bursts": 2 ** some(0, 6)}
    return Standard("drawn", "drawn", 1000, 8, timing=MappingProxyType(timing), **sizes)


def random_transfers(rng: np.random.Generator, runs: bool) -> tuple[Transfer, ...]:
    """A few transfers: of bursts one after another, read or written (``runs``), or of any."""
    count = int(rng.integers(1, 6))
    asked = np.cumsum(rng.integers(0, 60, count) * rng.integers(0, 2, count))
    span, mixed = int(2 ** rng.integers(2, 12)), rng.integers(0, 3) == 0
    transfers = []
    for clock in asked.tolist():
        size = int(rng.integers(1, 60 if runs else 25))
        together = runs or rng.integers(0, 2) == 1
        numbers = int(rng.integers(0, span)) + np.arange(size) if together else rng.integers(0, span, size)
        writes = np.full(size, rng.integers(0, 3) == 0)
        if mixed and not runs:
            writes = rng.integers(0, 2, size) == 1
        bursts = zip(numbers.tolist(), writes.tolist(), strict=True)
        transfers.append(Transfer(clock, tuple(Burst(*one) for one in bursts)))
    return tuple(transfers)


def drawn_memory(rng: np.random.Generator, runs: bool) -> Drawn:
    """Mostly of the mapping in which bursts of a row may be taken together, for ``runs``."""
    mappings = list(MAPPINGS)[: 1 if runs and rng.integers(0, 4) else None]
    return Drawn(
        random_standard(rng),
        2 ** int(rng.integers(0, 3)),
        mappings[rng.integers(0, len(mappings))],
        SCHEDULERS[rng.integers(0, len(SCHEDULERS))],
        int(rng.integers(1, 9)),
        random_transfers(rng, runs),
    )


def run_lists(drawn: Drawn) -> TraceReport:
    """The kernel for any bursts."""
    bursts = [burst for transfer in drawn.transfers for burst in transfer.bursts]
    trace = BurstTrace(
        np.array([burst.number for burst in bursts]),
        np.array([burst.write for burst in bursts]),
        np.array([transfer.asked for transfer in drawn.transfers]),
        np.cumsum([0] + [len(transfer.bursts) for transfer in drawn.transfers]),
    )
    return run_trace(trace, drawn.memory(), drawn.standard.clocks()["tBL"])


def run_runs(drawn: Drawn) -> tuple[list[int], list[int], Controller]:
    """The kernel for bursts one after another, which the engine uses: ends of the transfers, when they
    were taken, and the memory."""
    memory, ends, takes = drawn.memory(), [], []
    scratch = np.empty((6, 128), dtype=np.int64)
    for asked, bursts in drawn.transfers:
        taken, end = serve_run(
            memory.rules, memory.lines, bursts[0].number, len(bursts), bursts[0].write, asked, scratch
        )
        ends.append(int(end))
        takes.append(int(taken))
    return ends, takes, memory
