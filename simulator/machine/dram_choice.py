"""A machine with another DRAM: a standard's banks in place of a latency and a bandwidth."""

from __future__ import annotations

import math

from simulator.base.errors import InputError
from simulator.dram.standards import STANDARDS
from simulator.machine.machine import BANDWIDTH, Machine


def with_dram_model(machine: Machine, model: str) -> Machine:
    """``machine`` with ``dram.model`` a standard's name: as many channels, a power of two, as come nearest to its
    bandwidth, by ratio, the standard's bursts, and its kind's energy. What is left of its latency is the way to the
    DRAM, so that a read of a closed row alone takes as long as before, if the DRAM's own time is not longer.
    "bandwidth" gives the machine with the bandwidth model, its bandwidth, latency, bursts and kind as they are.

    Raises InputError for another name.
    """
    if model == BANDWIDTH:
        fields = type(machine.dram).model_fields
        later = {name: fields[name].default for name in ("model", "mapping", "scheduler", "queue_entries")}
        return machine.with_(dram=later)
    if model not in STANDARDS:
        known = ", ".join((BANDWIDTH, *STANDARDS))
        raise InputError("DRAM model", f"'{model}'", f"it is one of {known}", "Check the spelling.")
    standard = STANDARDS[model]
    channels = 2 ** max(0, round(math.log2(machine.dram.gb_per_s / standard.gb_per_s)))
    own = 0.0 if machine.dram.standard is None else machine.dram.standard.closed_row_ns
    change = {
        "model": model,
        "kind": standard.kind,
        "gb_per_s": round(channels * standard.gb_per_s, 3),
        "burst_bytes": standard.burst_bytes,
        "latency_ns": round(max(0.0, machine.dram.latency_ns + own - standard.closed_row_ns), 6),
    }
    return machine.with_(dram=change)
