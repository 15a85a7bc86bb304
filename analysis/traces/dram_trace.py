"""A program's DRAM bursts as a trace for Ramulator 2, in the order in which its transfers get the channel.

".ldst": a line a burst for the frontend LoadStoreTrace, ``LD`` or ``ST`` and the byte address. ".rw": for
ReadWriteTrace, ``R`` or ``W`` and the address vector of the machine's mapping: channel, rank (of HBM2: channel, pseudo
channel), bank group, bank, row, column. Both replay as fast as the memory takes it: neither has times.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from simulator.base.errors import InputError
from simulator.base.files import replacing
from simulator.dram.mapping import resolve_mapping
from simulator.dram.traces import BurstTrace, run_trace
from simulator.machine.machine import Machine
from simulator.program.operations import TRANSFER_OPS, Place, is_any, reads
from simulator.program.program import Program
from simulator.timing.banked_transfers import new_memory
from simulator.timing.dram_places import transfer_bursts
from simulator.timing.report import Report

_LINES = 1 << 16  # made at a time
PSEUDO_CHANNELS = 2  # of an HBM2 channel


def burst_trace(program: Program, machine: Machine, report: Report) -> BurstTrace:
    """Every burst of ``program``, transfer by transfer in the order of ``report``, its simulation on ``machine``."""
    first, count = transfer_bursts(program, machine)
    transfers = np.flatnonzero(is_any(program.instructions.op, TRANSFER_OPS))
    order = transfers[np.argsort(report.trace.start[transfers], kind="stable")]
    counts = count[order]
    ptr = np.concatenate([[0], np.cumsum(counts)])
    numbers = np.repeat(first[order] - ptr[:-1], counts) + np.arange(ptr[-1])
    writes = np.repeat(reads(program.instructions.op, Place.SCRATCHPAD)[order], counts)
    return BurstTrace(numbers, writes, np.zeros(len(order), dtype=np.int64), ptr)


def replayed_clocks(trace: BurstTrace, machine: Machine) -> int:
    """Clocks of the DRAM that a trace takes when it is replayed as these frontends do, each burst as soon as there is a
    place for it, and any may pass another; of a machine with banks.
    """
    standard = machine.dram.standard
    assert standard is not None, "the machine has banks"
    report = run_trace(BurstTrace.of(trace.numbers, trace.writes), new_memory(machine), standard.clocks()["tBL"])
    return report.clocks


def save_dram_trace(trace: BurstTrace, machine: Machine, path: Path) -> None:
    """Write a trace in the format that the file's ending names. Raises InputError for address vectors of a machine
    without banks.
    """
    if path.suffix == ".rw" and machine.dram.standard is None:
        raise InputError(
            f"'{path}'",
            "a trace of banks and rows (.rw)",
            f"machine '{machine.name}' has the DRAM model '{machine.dram.model}', which has none",
            "Name a standard with --dram, or write addresses (.ldst).",
        )
    lines = _vectors(trace, machine) if path.suffix == ".rw" else _addresses(trace, machine)
    with replacing(path) as file:
        for text in lines:
            file.write(text.encode())


def _addresses(trace: BurstTrace, machine: Machine) -> Iterator[str]:
    burst = machine.dram.burst_bytes
    for at in range(0, len(trace.numbers), _LINES):
        numbers, writes = trace.numbers[at : at + _LINES].tolist(), trace.writes[at : at + _LINES].tolist()
        names = ("LD", "ST")
        yield "".join(f"{names[w]} {n * burst:#x}\n" for n, w in zip(numbers, writes, strict=True))


def _vectors(trace: BurstTrace, machine: Machine) -> Iterator[str]:
    standard = machine.dram.standard
    assert standard is not None, "checked above"
    where = resolve_mapping(machine.dram.mapping, standard, machine.dram.channels)
    inner = PSEUDO_CHANNELS if standard.name.startswith("hbm2") else 1
    for at in range(0, len(trace.numbers), _LINES):
        numbers, writes = trace.numbers[at : at + _LINES], trace.writes[at : at + _LINES].tolist()
        channel, *rest = (
            numbers >> getattr(where, f"{part}_shift") & getattr(where, f"{part}_mask")
            for part in ("channel", "group", "bank", "row", "column")
        )
        columns = [one.tolist() for one in (channel // inner, channel % inner, *rest)]
        rows = zip(writes, *columns, strict=True)
        yield "".join(f"{'RW'[w]} {','.join(map(str, vector))}\n" for w, *vector in rows)
